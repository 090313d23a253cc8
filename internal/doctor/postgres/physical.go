package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
)

// fileState is what PostgreSQL says of its files.
type fileState struct {
	files       []string   // of its configuration
	mistakes    [][]string // of pg_file_settings: place, name, error
	settingsErr string
	data        []string // the names in the data directory
	dataErr     string
	libraries   string                // the directory of its libraries
	extensions  string                // and of its extensions
	pem         map[string]remoteFile // by the parameter that names it
}

// remoteFile is a file that the server has read.
type remoteFile struct {
	text []byte
	err  error
}

func (s *server) loadFiles(ctx context.Context, conn *pgconn.PgConn) {
	rows, err := Query(ctx, conn, `select distinct sourcefile from pg_file_settings where sourcefile is not null order by 1`)
	if err == nil {
		for _, r := range rows {
			s.files.files = append(s.files.files, r[0])
		}
		s.files.mistakes, err = Query(ctx, conn, `select coalesce(sourcefile || ':' || sourceline, 'pg_file_settings'), coalesce(name, 'mistake'), error from pg_file_settings
			where error is not null and error <> 'setting could not be applied' limit 10`)
	}
	if err != nil {
		s.files.settingsErr = Reason(err)
	}
	if rows, err = Query(ctx, conn, `select pg_ls_dir('.') order by 1 limit 1000`); err != nil {
		s.files.dataErr = Reason(err)
	}
	for _, r := range rows {
		s.files.data = append(s.files.data, r[0])
	}
	if !s.Local {
		s.loadPEM(ctx, conn)
	}
	rows, _ = Query(ctx, conn, `select name, setting from pg_config where name in ('PKGLIBDIR', 'SHAREDIR')`)
	for _, r := range rows {
		if r[0] == "PKGLIBDIR" {
			s.files.libraries = r[1]
		} else {
			s.files.extensions = filepath.Join(r[1], "extension")
		}
	}
}

// physicalChecks are those of the disk, and of the files of PostgreSQL.
func physicalChecks() []check {
	return []check{
		funcCheck{about{"data_checksums", report.Physical, "1.4", "A page that was changed on the disk is served as if it were right."}, checkChecksums},
		funcCheck{about{"data_directory_files", report.Physical, "", "Every base backup and standby gets a copy of them."}, checkDataDirectory},
		listCheck{
			about:  about{"tablespace_in_data_directory", report.Physical, "8.1", "Backups that copy the data directory copy it twice, or not at all."},
			status: report.Note,
			sql: `select quote_ident(spcname), format('drop tablespace %I;', spcname) from pg_tablespace
				where oid >= 16384 and starts_with(pg_tablespace_location(oid) || '/', current_setting('data_directory') || '/') order by 1`,
			after:  "-- it must be empty: alter table all in tablespace ... set tablespace ... in each database",
			reason: "tablespaces inside the data directory: {}",
			passed: "no tablespace is inside the data directory",
		},
		funcCheck{about{"config_files", report.Physical, "", "Anybody who writes to them decides who may log in, and which programs PostgreSQL runs."}, checkConfigFiles},
		funcCheck{about{"library_files", report.Physical, "2.2", "Anybody who writes to them runs code as the account of PostgreSQL."}, checkLibraries},
	}
}

func checkChecksums(_ context.Context, s *server) []report.Finding {
	if v, _ := s.value("data_checksums"); v == "on" {
		return []report.Finding{report.Passed("data_checksums is on")}
	}
	dir, known := s.value("data_directory")
	if !known {
		dir = "DIR"
	}
	return []report.Finding{report.New(report.Warn, "data_checksums", "data_checksums is off: PostgreSQL does not notice pages that were changed on the disk",
		"pg_checksums --enable --pgdata="+shellQuoted(dir)+"   # while PostgreSQL is stopped")}
}

// shellQuoted quotes a word for sh. Characters that are not printable are shown, not
// passed on.
func shellQuoted(word string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_./-]+$`).MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(safe(word), "'", `'\''`) + "'"
}

// copies are the names of files that somebody has put beside the data.
var copies = regexp.MustCompile(`(?i)(\.(sql|dump|dmp|bak|backup|old|orig|tar|gz|tgz|zip|zst|csv|key|pem|p12)|~)$|^core(\.\d+)?$`)

func checkDataDirectory(_ context.Context, s *server) []report.Finding {
	if s.files.dataErr != "" {
		return []report.Finding{report.New(report.Skip, "data_directory", s.files.dataErr, "connect as a superuser")}
	}
	data, _ := s.value("data_directory")
	key, _ := s.value("ssl_key_file")
	known := []string{filepath.Base(key), "server.key", "postgresql.auto.conf", "tablespace_map.old", "backup_label.old"}
	var objects []report.Object
	for _, name := range s.files.data {
		if copies.MatchString(name) && !slices.Contains(known, name) {
			objects = append(objects, report.Object{Name: quoted(name), Fix: "mv " + shellQuoted(filepath.Join(data, name)) + " ELSEWHERE"})
		}
	}
	if objects == nil {
		return []report.Finding{report.Passed("the data directory has no dumps, copies, keys or core files")}
	}
	return []report.Finding{report.NewList(report.Note, report.List{Reason: "files in the data directory that are not PostgreSQL's: {}", Objects: objects})}
}

func checkConfigFiles(_ context.Context, s *server) (out []report.Finding) {
	if !s.Local {
		return []report.Finding{report.New(report.Skip, "config_file", "the files of the server are not on this machine", "run doctor on the machine of PostgreSQL")}
	}
	files := slices.Clone(s.files.files)
	for _, name := range []string{"config_file", "hba_file", "ident_file"} {
		if v, ok := s.value(name); ok && v != "" && !slices.Contains(files, v) {
			files = append(files, v)
		}
	}
	for _, dir := range directories(files) {
		if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&0o022 != 0 {
			status, who := report.Fail, "every account of this machine"
			if st.Mode().Perm()&0o002 == 0 {
				status, who = report.Warn, "its group"
			}
			out = append(out, report.New(status, safe(dir), fmt.Sprintf("mode %04o: %s can put other files in the place of those of PostgreSQL", st.Mode().Perm(), who), "chmod go-w "+shellQuoted(dir)))
		}
	}
	for _, file := range files {
		st, err := os.Stat(file)
		switch {
		case err != nil:
			out = append(out, report.New(report.Skip, safe(file), safe(err.Error()), "run doctor as root or as the account of PostgreSQL"))
		case st.Mode().Perm()&0o002 != 0:
			out = append(out, report.New(report.Fail, safe(file), fmt.Sprintf("mode %04o: every account of this machine can write to it", st.Mode().Perm()), "chmod o-w "+shellQuoted(file)))
		case st.Mode().Perm()&0o020 != 0:
			out = append(out, report.New(report.Warn, safe(file), fmt.Sprintf("mode %04o: its group can write to it", st.Mode().Perm()), "chmod g-w "+shellQuoted(file)))
		case st.Mode().Perm()&0o004 != 0 && filepath.Base(file) != "postgresql.conf" && reaches(file):
			out = append(out, report.New(report.Note, safe(file), fmt.Sprintf("mode %04o: every account of this machine can read it", st.Mode().Perm()), "chmod o= "+shellQuoted(file)))
		}
	}
	if out == nil {
		out = append(out, report.Passed("only their owners can write to the configuration files"))
	}
	return out
}

// directories returns the directories of files, each once.
func directories(files []string) (dirs []string) {
	for _, f := range files {
		if dir := filepath.Dir(f); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// programs returns the programs and scripts that the server runs, with their directories.
func (s *server) programs() (paths []string) {
	for _, name := range []string{"archive_command", "archive_cleanup_command", "recovery_end_command", "restore_command", "ssl_passphrase_command"} {
		command, _ := s.value(name)
		for word := range strings.FieldsSeq(command) {
			word = strings.Trim(word, `"'`)
			if st, err := os.Stat(word); filepath.IsAbs(word) && err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
				paths = append(paths, word, filepath.Dir(word))
			}
		}
	}
	return paths
}

// reaches reports whether every account may enter all directories of a file.
func reaches(file string) bool {
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// checkLibraries looks at the directories of libraries and extensions, at those in
// dynamic_library_path, at the libraries that are loaded, and at the programs that the server runs.
func checkLibraries(_ context.Context, s *server) (out []report.Finding) {
	switch {
	case !s.Local:
		return []report.Finding{report.New(report.Skip, "dynamic_library_path", "the files of the server are not on this machine", "run doctor on the machine of PostgreSQL")}
	case s.files.libraries == "":
		return []report.Finding{report.New(report.Skip, "pg_config", "this role may not read where the libraries are", "connect as a superuser")}
	}
	paths := []string{s.files.libraries, s.files.extensions}
	path, _ := s.value("dynamic_library_path")
	for dir := range strings.SplitSeq(path, ":") {
		if filepath.IsAbs(dir) {
			paths = append(paths, dir)
		}
	}
	for _, name := range []string{"shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"} {
		for _, w := range s.words(name) {
			if w = strings.ReplaceAll(w, "$libdir", s.files.libraries); !filepath.IsAbs(w) {
				w = filepath.Join(s.files.libraries, w)
			}
			paths = append(paths, strings.TrimSuffix(w, ".so")+".so")
		}
	}
	paths = append(paths, s.programs()...)
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		st, err := os.Stat(p)
		if err == nil && st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
			out = append(out, report.New(report.Fail, safe(p), fmt.Sprintf("mode %04o: other accounts than its owner can write to it", st.Mode().Perm()), "chmod go-w "+shellQuoted(p)))
		}
	}
	if out == nil {
		out = append(out, report.Passed("only their owners can write to the libraries, extensions and programs"))
	}
	return out
}
