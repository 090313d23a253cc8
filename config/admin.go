package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/tlsconfig"
)

// Admin says where the gate can be asked how it is, and by whom.
type Admin struct {
	Address string // of TCP; empty: none
	// TLS is for the address; nil: in clear. Its Verify judges each request.
	TLS         *tlsconfig.Server
	Socket      string // path of a Unix socket; empty: none
	ShowClients bool   // addresses, users and names in certificates may be shown
}

// AdminOf reads where the gate of a configuration can be asked, and whether by
// TLS. It loads none of the files and forgives mistakes elsewhere: a gate goes on
// serving while its file is being edited, and so must who asks for its health.
func AdminOf(path string) (a Admin, overTLS bool, problems []Problem) {
	read, problems := readSettings(path, os.Environ())
	if len(read.lines) == 0 {
		return a, false, problems
	}
	f := read.file
	overTLS = has(read.lines, "admin.tls")
	return Admin{Address: f.Admin.Address, Socket: beside(filepath.Dir(path), f.Admin.Socket)}, overTLS, nil
}

func (l *loading) admin(f admin, dir string, gate *tlsconfig.Server) Admin {
	a := Admin{Socket: l.adminSocket(dir, f.Socket), ShowClients: f.ShowClients}
	overTLS := has(l.lines, "admin.tls")
	if f.Address == "" {
		if overTLS {
			l.warnf("admin.tls", "has no effect without admin.address")
		}
		return a
	}
	a.Address = l.address("admin.address", f.Address)
	if overTLS {
		a.TLS = l.server("admin.tls", f.TLS, l.inForce.Admin.TLS)
		if a.TLS != nil && gate != nil && len(f.TLS.Ciphers) > 0 && !slices.Equal(a.TLS.TLS13, gate.TLS13) {
			l.errorf("admin.tls.ciphers", "has other suites of TLS 1.3 than tls.ciphers, and a process has only one list of them; write the same ones in the same order")
		}
	}
	l.protected(a.Address, f, overTLS)
	return a
}

// protected refuses an address that strangers can reach without proving
// themselves, unless somebody has said that this is meant.
func (l *loading) protected(address string, f admin, overTLS bool) {
	ap, err := netip.ParseAddrPort(address)
	require := f.TLS.ClientCert == "" || f.TLS.ClientCert == tlsconfig.ClientCertRequire
	switch {
	case err != nil, ap.Addr().IsLoopback(), overTLS && require:
	case f.Unprotected:
		l.warnf("admin.address", "%s is not a loopback address, and whoever reaches it can read the metrics and the status page; keep it behind a firewall", address)
	default:
		l.errorf("admin.address", "%s is not a loopback address, and whoever reaches it could read the metrics and the status page; "+
			"ask for client certificates in admin.tls (client_cert: require), or write «unprotected: true» and keep it behind a firewall", address)
	}
}

// spareSocket is what the name under which a socket is made, before it is moved
// into place, needs behind its directory.
const spareSocket = len("/.pgwicket-4194304")

func (l *loading) adminSocket(dir, socket string) string {
	path := beside(dir, socket)
	switch {
	case strings.HasPrefix(socket, "@"):
		l.errorf("admin.socket", "%q has no file whose mode could keep others out; write the path of a file", socket)
	case path != "" && max(len(path), len(filepath.Dir(path))+spareSocket) > maxSocket:
		l.errorf("admin.socket", "%s is too long for the path of a Unix socket (%d bytes, and %d for its directory)", path, maxSocket, maxSocket-spareSocket)
	}
	return path
}

// beside returns a path that is relative to a directory; none stays none, and an
// abstract name what it is.
func beside(dir, path string) string {
	if path == "" || path[0] == '@' || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
