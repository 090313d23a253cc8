package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pgwicket/proxy"
)

// maxSocket is the length of sun_path on Linux without its NUL.
const maxSocket = 107

// backend reads libpq's convention for a Unix socket: host is its directory,
// or an abstract name that begins with @, and port is part of the file's name.
func (l *loading) backend(b backend) proxy.Backend {
	if b.Port < 1 || b.Port > 65535 {
		l.errorf("backend.port", "%d is not a port; PostgreSQL's is 5432 unless its configuration says otherwise", b.Port)
	}
	socket := fmt.Sprintf("%s/.s.PGSQL.%d", strings.TrimSuffix(b.Host, "/"), b.Port)
	switch {
	case len(socket) > maxSocket:
		l.errorf("backend.host", "%s is too long for the path of a Unix socket (%d bytes)", socket, maxSocket)
	case strings.HasPrefix(b.Host, "@"):
	case !strings.HasPrefix(b.Host, "/"):
		l.errorf("backend.host", "%q is not the directory of a Unix socket; write the first of PostgreSQL's unix_socket_directories, like /run/postgresql", b.Host)
	default:
		l.checkSocket(socket)
	}
	return proxy.Backend{Socket: socket, ConnectTimeout: l.positiveConnect(b.ConnectTimeout)}
}

func (l *loading) positiveConnect(d duration) time.Duration {
	if d == 0 {
		l.errorf("backend.connect_timeout", "must not be 0: clients would wait for ever while the database is down")
	}
	return time.Duration(d)
}

// checkSocket looks at the backend's socket. All it finds are warnings, for the
// database may be started after the gate.
func (l *loading) checkSocket(socket string) {
	dir := filepath.Dir(socket)
	directory, err := os.Stat(dir)
	if err != nil || !directory.IsDir() {
		l.warnf("backend.host", "there is no directory %s; is PostgreSQL installed, and is this one of its unix_socket_directories?", dir)
		return
	}
	st, err := os.Stat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.warnf("backend.host", "there is no socket %s; is PostgreSQL running, with this directory and port?", socket)
	case err != nil:
		l.warnf("backend.host", "the socket %s cannot be looked at (%v); pgwicket's account must be allowed into its directory", socket, errors.Unwrap(err))
	case st.Mode().Type() != fs.ModeSocket:
		l.warnf("backend.host", "%s is not a socket", socket)
	case st.Mode().Perm()&0o002 != 0 && directory.Mode().Perm()&0o001 != 0:
		l.warnf("backend.host", "every account of this machine can reach %s past the gate; give pgwicket and PostgreSQL a directory of mode 0750 of their own (unix_socket_directories), or set unix_socket_permissions", socket)
	}
}
