package config

import "os"

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
	case st.Mode().Perm()&0o002 != 0:
		l.warnf("state_dir", "%s can be written by every account (mode %04o), which could remove locks; run chmod 0700", path, st.Mode().Perm())
	}
	return path
}
