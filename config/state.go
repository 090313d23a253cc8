package config

import (
	"os"
	"path/filepath"
	"strings"

	"pgwicket/internal/policy"
)

// stateDir checks the directory of what the gate keeps over a restart.
func (l *loader) stateDir(dir, name string) string {
	path := absolute(dir, name)
	if path == "" {
		return ""
	}
	switch st, err := os.Stat(path); {
	case path[0] == '@':
		l.errorf("state_dir", "%q is not the path of a directory", name)
	case err != nil:
		l.errorf("state_dir", "%v; make the directory, and give it to the account of the gate", err)
	case !st.IsDir():
		l.errorf("state_dir", "%s is not a directory", path)
	case st.Mode().Perm()&0o022 != 0:
		l.warnf("state_dir", "%s can be written by other accounts (mode %04o), which could remove locks; run chmod 0700", path, st.Mode().Perm())
	case st.Mode().Perm()&0o005 != 0:
		l.warnf("state_dir", "%s can be read by every account (mode %04o); run chmod 0700", path, st.Mode().Perm())
	}
	return path
}

// auditFile checks the file of the audit trail, which need not be there.
func (l *loader) auditFile(dir string, a auditing) string {
	path := absolute(dir, a.File)
	if path == "" {
		if a.Required {
			l.errorf("audit.required", "has no effect without audit.file; name the file of the audit trail")
		}
		return ""
	}
	above, err := os.Stat(filepath.Dir(path))
	st, missing := os.Lstat(path)
	switch {
	case path[0] == '@' || strings.HasSuffix(a.File, "/"):
		l.errorf("audit.file", "%q is not the path of a file", a.File)
	case err != nil:
		l.errorf("audit.file", "%v; make the directory, and give it to the account of the gate", err)
	case !above.IsDir():
		l.errorf("audit.file", "%s is not a directory", filepath.Dir(path))
	case missing == nil && !st.Mode().IsRegular():
		l.errorf("audit.file", "%s is not a regular file", path)
	case missing == nil && st.Mode().Perm()&0o022 != 0:
		l.warnf("audit.file", "%s can be written by other accounts (mode %04o); run chmod 0600", path, st.Mode().Perm())
	}
	return path
}

// recording returns what is recorded of connections.
func (l *loader) recording(f file) policy.Recording {
	return policy.Recording{
		RefusalLogRate: float64(f.Log.RefusalRate),
		LogEndsOnly:    l.oneOf("log.sessions", f.Log.Sessions, "both", "end") == "end",
		AuditRequired:  f.Audit.Required,
	}
}
