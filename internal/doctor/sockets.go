package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// socketState is a socket of PostgreSQL and the directory that it is in.
type socketState struct {
	path         string // of the socket
	problem      string // why they cannot be examined
	owner        string // of the directory
	group        string
	dir, socket  fs.FileMode
	ownedByOther bool // the directory belongs neither to the owner of the socket nor to root
}

// readSockets examines the sockets at paths and those of unix_socket_directories.
func (s *server) readSockets(paths []string) {
	for _, dir := range list(s.settings["unix_socket_directories"]) {
		port := "5432"
		if set := s.settings["port"]; set != "" {
			port = set
		}
		path := filepath.Join(dir, ".s.PGSQL."+port)
		if strings.HasPrefix(dir, "@") {
			path = dir + "/.s.PGSQL." + port
		}
		paths = append(paths, path)
	}
	var seen []string
	for _, path := range paths {
		where := path
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			where = filepath.Join(real, filepath.Base(path))
		}
		if !slices.Contains(seen, where) {
			seen = append(seen, where)
			s.sockets = append(s.sockets, statSocket(where, s.settings["unix_socket_permissions"]))
		}
	}
}

// statSocket examines a socket. permissions are those that one which does not exist
// yet will have.
func statSocket(path, permissions string) socketState {
	f := socketState{path: path}
	if strings.HasPrefix(path, "@") {
		return f
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		f.problem = err.Error()
		return f
	}
	f.dir = dir.Mode()
	owner, group := ownerOf(dir)
	f.owner, f.group = accountName(owner), groupName(group)
	socket, err := os.Stat(path)
	mode, octal := strconv.ParseUint(permissions, 8, 12)
	switch {
	case err == nil:
		f.socket = socket.Mode().Perm()
		by, _ := ownerOf(socket)
		f.ownedByOther = owner != 0 && owner != by
	case errors.Is(err, fs.ErrNotExist) && octal == nil:
		f.socket = fs.FileMode(mode).Perm()
	default:
		f.problem = err.Error()
	}
	return f
}

func accountName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// checkSockets finds the accounts that can bypass the gate: those that may enter the
// directory of a socket and write to the socket.
func (s *server) checkSockets() (out []Finding) {
	if s.backend != nil && len(s.sockets) == 0 {
		return []Finding{{Status: Skip, Where: "unix_socket_directories", Reason: "its sockets are on its own machine", Fix: "run pgwicket doctor --postgres there"}}
	}
	for _, f := range s.sockets {
		out = append(out, f.check(s.alone)...)
	}
	if s.alone {
		return orPass(out, "no other account can replace a socket of PostgreSQL")
	}
	for i, f := range s.sockets {
		same := slices.IndexFunc(s.sockets[:i], func(e socketState) bool {
			return e.problem == "" && e.dir != 0 && e.group == f.group && f.problem == ""
		})
		if same >= 0 && f.dir != 0 && f.dir.Perm()&0o007 == 0 && f.dir.Perm()&0o010 != 0 {
			out = append(out, socketFinding(Warn, fmt.Sprintf("%s and %s are open to the same group (%s), so they do not separate applications", s.sockets[same].path, f.path, f.group),
				"give the directory of each application its own group"))
		}
	}
	return orPass(out, "only %s access to the socket of PostgreSQL", s.reachableBy())
}

func (f socketState) check(alone bool) (out []Finding) {
	dir, _, _ := strings.Cut(f.path, "/.s.PGSQL.")
	// systemd-tmpfiles gives /run/postgresql of Debian and Fedora its owner and mode again at each boot.
	closed := "create a directory of mode 0750 that belongs to the account of PostgreSQL and the group of pgwicket (in /run by a file in /etc/tmpfiles.d, or it is gone after a boot), " +
		"and name it in unix_socket_directories and backend.host"
	if alone {
		closed = "create a directory that only the account of PostgreSQL can write (in /run by a file in /etc/tmpfiles.d, or it is gone after a boot), and name it in unix_socket_directories"
	}
	switch {
	case strings.HasPrefix(f.path, "@") && alone:
		return append(out, socketFinding(Warn, f.path+" is an abstract socket, which has no permissions: every account can take its name while PostgreSQL is stopped", closed))
	case strings.HasPrefix(f.path, "@"):
		return append(out, socketFinding(Fail, f.path+" is an abstract socket, which has no permissions: every account of this machine can connect", closed))
	case f.problem != "":
		return append(out, socketFinding(Skip, f.problem, "start PostgreSQL, and run doctor as an account that may enter the directory"))
	}
	mode := fmt.Sprintf("%s (%s:%s, mode %04o)", dir, f.owner, f.group, f.dir.Perm())
	switch {
	case f.dir.Perm()&0o002 != 0:
		out = append(out, socketFinding(Fail, mode+" is writable for every account, each of which can replace the socket", closed))
	case f.dir.Perm()&0o020 != 0:
		out = append(out, socketFinding(Warn, mode+" is writable for its group, which can replace the socket", ownDir(dir, "chmod g-w "+dir, closed)))
	}
	if !alone && f.dir.Perm()&0o001 != 0 && f.socket&0o002 != 0 {
		out = append(out, socketFinding(Fail, fmt.Sprintf("every account of this machine can connect to %s (mode %04o) and bypass the gate", f.path, f.socket),
			closed+"; or set unix_socket_permissions = 0770 and unix_socket_group"))
	}
	if f.ownedByOther {
		out = append(out, socketFinding(Warn, mode+" does not belong to the account of PostgreSQL, so another account decides who may enter", ownDir(dir, "chown it to the account of PostgreSQL", closed)))
	}
	return out
}

// ownDir returns the fix for a directory: in /run a change would be undone at the next
// boot.
func ownDir(dir, fix, another string) string {
	if strings.HasPrefix(dir, "/run/") || strings.HasPrefix(dir, "/var/run/") {
		return another
	}
	return fix
}

func socketFinding(status Status, reason, fix string) Finding {
	return finding(status, "unix_socket_directories", reason, fix).WithKey("backend.host")
}

func (s *server) reachableBy() string {
	var accounts []string
	for _, f := range s.sockets {
		one := f.owner
		if f.dir.Perm()&0o010 != 0 && f.socket&0o022 != 0 || f.dir.Perm()&0o001 != 0 {
			one += " and the group " + f.group
		}
		if !slices.Contains(accounts, one) {
			accounts = append(accounts, one)
		}
	}
	if len(accounts) == 0 {
		return "root has"
	}
	return strings.Join(accounts, ", ") + " and root have"
}

// owner returns the account of PostgreSQL, by the directories of its sockets.
func (s *server) owner() string {
	for _, f := range s.sockets {
		if f.owner != "" && f.owner != "root" {
			return f.owner
		}
	}
	return "postgres"
}
