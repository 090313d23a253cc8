package postgres

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"pgwicket/internal/doctor/report"
)

// settingsChecks are those of parameters that fit no other heading.
func settingsChecks() []check {
	setting := func(name, cis, want, why string, status report.Status, wrong func(*server, string) string) settingCheck {
		return settingCheck{about: about{name, report.Settings, cis, why}, name: name, status: status, wrong: wrong, want: want}
	}
	namespace := setting("db_user_namespace", "", "off", "It needs the method md5, and a role in pg_hba.conf is then not what it seems.", report.Warn, is("on", "roles are looked up by database"))
	namespace.before = 17
	return []check{
		setting("lo_compat_privileges", "6.5", "off", "Every role reads and writes every large object.", report.Fail, is("on", "privileges on large objects are not checked")),
		setting("row_security", "4.7", "on", "Queries of tables with policies fail, and somebody will give them bypassrls.", report.Note, is("off", "queries that policies would filter fail")),
		setting("standard_conforming_strings", "6.6", "on", "Quoting that expects the standard lets a backslash end the string: SQL injection.", report.Warn, is("off", "a backslash in a plain string is an escape")),
		setting("backslash_quote", "6.6", "safe_encoding", "In some encodings a client's escaped quote ends the string: SQL injection (CVE-2006-2314).", report.Warn, is("on", `\' is a quote in every encoding`)),
		setting("allow_system_table_mods", "6.5", "off", "A superuser's mistake can break the catalogs for good.", report.Warn, is("on", "the system catalogs can be altered")),
		namespace,
		setting("idle_in_transaction_session_timeout", "6.6", "'10min'", "A client that stops inside a transaction keeps its locks, and vacuum waits for it.", report.Note, func(_ *server, v string) string {
			if v == "0" {
				return "is 0: a session may stay inside a transaction forever"
			}
			return ""
		}),
		funcCheck{about{"developer_options", report.Settings, "6.2", "These are for the repair of a broken cluster; otherwise they hide damage, or attach debuggers."}, checkDeveloper},
		funcCheck{about{"wal_archiving", report.Settings, "7.4", "After a fault or an attack only the archive leads back to the minute before."}, checkArchiving},
		funcCheck{about{"primary_conninfo", report.Settings, "7.5", "Anybody between a standby and its primary can read everything, or feed it something else."}, checkPrimary},
		funcCheck{about{"pending_restart", report.Settings, "6.3", "The file says what is not in force."}, checkPending},
		funcCheck{about{"settings_files", report.Settings, "6.4", "PostgreSQL ignores a file with a mistake at a reload, and refuses to start with it."}, checkFileSettings},
	}
}

func checkDeveloper(_ context.Context, s *server) (out []report.Finding) {
	for _, p := range []struct{ name, right string }{
		{"ignore_checksum_failure", "off"},
		{"zero_damaged_pages", "off"},
		{"ignore_system_indexes", "off"},
		{"ignore_invalid_pages", "off"},
		{"jit_debugging_support", "off"},
		{"jit_profiling_support", "off"},
		{"allow_in_place_tablespaces", "off"},
		{"pre_auth_delay", "0"},
		{"post_auth_delay", "0"},
	} {
		if v, ok := s.value(p.name); ok && v != p.right {
			out = append(out, report.New(report.Warn, p.name, p.name+" is "+display(v), s.set(p.name, p.right)))
		}
	}
	if out == nil {
		out = append(out, report.Passed("no option for developers is set"))
	}
	return out
}

func checkArchiving(_ context.Context, s *server) []report.Finding {
	mode, _ := s.value("archive_mode")
	command, known := s.value("archive_command")
	library, _ := s.value("archive_library")
	trivial := strings.Trim(command, " \t") == "" || regexp.MustCompile(`^\s*(/usr)?(/bin/)?(true|:|exit 0)\s*$`).MatchString(command)
	switch {
	case mode == "off":
		return []report.Finding{report.New(report.Note, "archive_mode", "archive_mode is off: no WAL is archived", "-- set archive_command first, as your backup program says: without one that works, WAL fills the disk\n"+s.set("archive_mode", "on"))}
	case known && trivial && library == "":
		return []report.Finding{report.New(report.Warn, "archive_command", fmt.Sprintf("archive_command is %s: it archives nothing", display(command)), "-- set archive_command, as your backup program says")}
	}
	return []report.Finding{report.Passed("WAL is archived")}
}

var sslmode = regexp.MustCompile(`\bsslmode\s*=\s*'?([a-z-]+)'?`)

func checkPrimary(_ context.Context, s *server) []report.Finding {
	v, known := s.value("primary_conninfo")
	m := sslmode.FindStringSubmatch(v)
	socket := regexp.MustCompile(`\bhost\s*=\s*'?[/@]`).MatchString(v)
	switch {
	case !known:
		return []report.Finding{report.New(report.Skip, "primary_conninfo", "this role may not read it", "connect as a superuser")}
	case v == "" || socket || m != nil && m[1] == "verify-full":
		return []report.Finding{report.Passed("this server has no primary, or verifies it")}
	}
	right := sslmode.ReplaceAllString(v, "sslmode=verify-full")
	if m == nil {
		right += " sslmode=verify-full"
	}
	fix := safeStatements(s.set("primary_conninfo", "'"+strings.ReplaceAll(right, "'", "''")+"'"))
	if mayHavePassword.MatchString(v) {
		fix = "write sslmode=verify-full into primary_conninfo, and passfile instead of its password\nselect pg_reload_conf();"
	}
	return []report.Finding{report.New(report.Warn, "primary_conninfo", "the primary is not verified: sslmode is not verify-full", fix)}
}

// mayHavePassword finds a connection string that no report may have: with a password, or a URI.
var mayHavePassword = regexp.MustCompile(`password|://`)

func checkPending(_ context.Context, s *server) []report.Finding {
	var list []report.Object
	for name, v := range s.settings {
		if v.pending {
			list = append(list, report.Object{Name: name})
		}
	}
	if list == nil {
		return []report.Finding{report.Passed("every parameter in the files is in force")}
	}
	sortObjects(list)
	return []report.Finding{report.NewList(report.Note, report.List{Reason: "parameters that wait for a restart: {}", Objects: list, After: "-- restart PostgreSQL"})}
}

func checkFileSettings(_ context.Context, s *server) []report.Finding {
	if s.files.settingsErr != "" {
		return []report.Finding{report.New(report.Skip, "pg_file_settings", s.files.settingsErr, "connect as a superuser")}
	}
	var out []report.Finding
	for _, row := range s.files.mistakes {
		out = append(out, report.New(report.Warn, safe(row[0]), safe(row[1])+": "+safe(row[2]), "correct the line, and reload PostgreSQL"))
	}
	if out == nil {
		out = append(out, report.Passed("the configuration files have no mistake"))
	}
	return out
}
