package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"pgwicket/internal/doctor/report"
)

// logAbout is a check of the log.
func logAbout(id, cis, why string) about { return about{id, report.Log, cis, why} }

func collects(s *server) bool {
	v, _ := s.value("logging_collector")
	return v == "on"
}

func toSyslog(s *server) bool {
	v, _ := s.value("log_destination")
	return strings.Contains(v, "syslog")
}

// logChecks are those of the heading "Log".
func logChecks() []check {
	note := func(id, cis, want, why string, wrong func(*server, string) string) check {
		return settingCheck{about: logAbout(id, cis, why), name: id, status: report.Note, wrong: wrong, want: want}
	}
	const debug = "Queries and their values get into the log, where more people read them than in the table."
	return []check{
		settingCheck{about: logAbout("log_disconnections", "3.1.21", "Without the end of a session nobody knows how long it lasted."), name: "log_disconnections", status: report.Note, wrong: is("off", "the log has the start of a session, not its end"), want: "on"},
		funcCheck{logAbout("log_line_prefix", "3.1.24", "A line must say when, who, from where and in which database."), checkLinePrefix},
		note("log_statement", "3.1.25", "'ddl'", "Nothing else records who has altered a table or a role.", func(s *server, v string) string {
			if v == "none" && !s.preloads("pgaudit") {
				return "is none: changes of tables, roles and privileges are not logged"
			}
			return ""
		}),
		note("log_min_messages", "3.1.14", "'warning'", "What PostgreSQL warns of is lost.", oneOf("warnings and errors of the server are not logged", "error", "log", "fatal", "panic")),
		note("log_min_error_statement", "3.1.15", "'error'", "The statement behind an error is what shows an attack.", oneOf("statements that fail are not logged", "fatal", "panic", "log")),
		note("log_error_verbosity", "3.1.22", "'default'", "DETAIL, HINT and CONTEXT say what the error was about.", is("terse", "errors are logged without their details")),
		note("log_hostname", "3.1.23", "off", "Anybody who owns an address decides on its name, and every connection waits for DNS.", is("on", "connections are logged by the name that DNS has for an address")),
		note("log_timezone", "3.1.26", "'UTC'", "Lines of several machines can only be put in order if their clocks agree.", func(_ *server, v string) string {
			switch v {
			case "UTC", "GMT", "Etc/UTC", "Etc/GMT", "Etc/UCT", "UCT", "Etc/Zulu", "Zulu", "Universal", "Etc/Universal", "GMT0", "Etc/Greenwich", "Greenwich":
				return ""
			}
			return "is " + display(v) + ", and not UTC"
		}),
		note("log_parameter_max_length_on_error", "", "0", debug, func(_ *server, v string) string {
			if v != "0" {
				return "is " + display(v) + ": the values of a statement that fails get into the log"
			}
			return ""
		}),
		note("log_replication_commands", "7.2", "on", "Anybody who starts to replicate copies the whole cluster.", onlyIf(func(s *server) bool { return s.replicates }, is("off", "the start of replication is not logged"))),
		note("debug_print_parse", "3.1.16", "off", debug, is("on", "parse trees get into the log")),
		note("debug_print_rewritten", "3.1.17", "off", debug, is("on", "rewritten queries get into the log")),
		note("debug_print_plan", "3.1.18", "off", debug, is("on", "plans get into the log")),
		settingCheck{about: logAbout("log_file_mode", "3.1.6", "The log has names, addresses, statements, and passwords that were typed as a user name."), name: "log_file_mode", status: report.Warn, want: "0600", wrong: onlyIf(collects, func(_ *server, v string) string {
			if mode, err := strconv.ParseUint(v, 8, 32); err == nil && mode&0o027 != 0 {
				return "is " + v + ": other accounts of this machine can read or change the log"
			}
			return ""
		})},
		note("log_truncate_on_rotation", "3.1.7", "on", "A file name that comes again would grow without bound.", onlyIf(reusesNames, is("off", "log_filename comes again, and its old lines stay"))),
		funcCheck{logAbout("log_rotation", "3.1.8, 3.1.9", "One file grows until the disk is full."), checkRotation},
		settingCheck{
			about: logAbout("log_directory", "3.1.4", "A base backup copies the log, and a full disk of the log stops the database."), name: "log_directory", status: report.Note,
			want: "'/var/log/postgresql'", first: "-- make the directory for the account of PostgreSQL first, which does not start without it: install -d -m 0700 -o postgres /var/log/postgresql\n",
			wrong: onlyIf(collects, func(s *server, v string) string {
				data, _ := s.value("data_directory")
				if !strings.HasPrefix(v, "/") || data != "" && strings.HasPrefix(v+"/", data+"/") {
					return "is " + display(v) + ", inside the data directory"
				}
				return ""
			}),
		},
		note("syslog_sequence_numbers", "3.1.11", "on", "syslog drops a line that is equal to the one before.", onlyIf(toSyslog, is("off", "repeated lines are lost"))),
		note("syslog_split_messages", "3.1.12", "on", "syslog cuts a line that is too long.", onlyIf(toSyslog, is("off", "long lines are cut"))),
		funcCheck{logAbout("pgaudit", "3.2", "log_statement records a text; an audit records the objects that a statement has touched."), checkAudit},
	}
}

func reusesNames(s *server) bool {
	name, _ := s.value("log_filename")
	return collects(s) && !strings.Contains(name, "%Y") && !strings.Contains(name, "%y") && !strings.Contains(name, "%s")
}

func checkLinePrefix(_ context.Context, s *server) []report.Finding {
	v, _ := s.value("log_line_prefix")
	var missing []string
	for _, one := range [][2]string{{"mtn", "the time"}, {"p", "the process"}, {"u", "the role"}, {"d", "the database"}} {
		if !hasEscape(v, one[0]) {
			missing = append(missing, one[1]+" (%"+one[0][:1]+")")
		}
	}
	if !s.BehindGate && !hasEscape(v, "rh") {
		missing = append(missing, "the address (%r)")
	}
	if missing == nil {
		return []report.Finding{report.Passed("log_line_prefix has the time, the process, the role and the database")}
	}
	return []report.Finding{report.New(report.Note, "log_line_prefix", "log_line_prefix lacks "+strings.Join(missing, ", "), s.set("log_line_prefix", "'%m [%p] %q%u@%d %r %a '"))}
}

// hasEscape reports whether a prefix has one of the escapes, with or without padding.
func hasEscape(prefix, letters string) bool {
	for rest := prefix; ; {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			return false
		}
		after = strings.TrimLeft(after, "-0123456789")
		if after != "" && strings.IndexByte(letters, after[0]) >= 0 {
			return true
		}
		if after == "" {
			return false
		}
		rest = after[1:]
	}
}

func checkRotation(_ context.Context, s *server) []report.Finding {
	age, _ := s.value("log_rotation_age")
	size, _ := s.value("log_rotation_size")
	if collects(s) && age == "0" && size == "0" {
		return []report.Finding{report.New(report.Note, "log_rotation_age", "log_rotation_age and log_rotation_size are 0: the log is never rotated", s.set("log_rotation_age", "'1d'"))}
	}
	return []report.Finding{report.Passed("the log is rotated, or PostgreSQL does not write it")}
}

func checkAudit(_ context.Context, s *server) []report.Finding {
	v, known := s.value("shared_preload_libraries")
	switch {
	case !known:
		return []report.Finding{report.New(report.Skip, "shared_preload_libraries", "this role may not read it", "grant pg_read_all_settings, or connect as a superuser")}
	case s.preloads("pgaudit"):
		return []report.Finding{report.Passed("pgaudit is loaded")}
	}
	return []report.Finding{report.New(report.Note, "shared_preload_libraries", fmt.Sprintf("pgaudit is not loaded (shared_preload_libraries is %s)", display(v)), s.preload("pgaudit"))}
}
