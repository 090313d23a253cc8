package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/tlsconfig"
)

// Admin has the settings of the admin address and the admin socket.
type Admin struct {
	Address string // on TCP; empty means none
	Line    int    // of the address, or 1 if it is not set; 0 if the environment sets it
	// TLS is for the address; nil means plain HTTP. Its Verify checks each request.
	TLS         *tlsconfig.Server
	Socket      string   // path of a Unix socket; empty means none
	Hosts       []string // further names that requests without TLS may have in Host
	ShowClients bool     // show the addresses, users and certificates of clients
}

// AdminOf returns the admin address and socket of the configuration at path, and
// whether the address uses TLS. It loads no other file and ignores errors in other
// keys: health checks must work while the file is being edited.
func AdminOf(path string) (a Admin, overTLS bool, problems []Problem) {
	read, problems := readSettings(path, os.Environ())
	if len(read.lines) == 0 {
		return a, false, problems
	}
	f := read.file
	overTLS = has(read.lines, "admin.tls")
	return Admin{Address: f.Admin.Address, Socket: absolute(filepath.Dir(path), f.Admin.Socket)}, overTLS, nil
}

func (l *loader) admin(f admin, dir string, gate *tlsconfig.Server) Admin {
	a := Admin{Socket: l.adminSocket(dir, f.Socket), ShowClients: f.ShowClients}
	overTLS := has(l.lines, "admin.tls")
	if f.Address == "" {
		if overTLS {
			l.warnf("admin.tls", "has no effect without admin.address")
		}
		return a
	}
	a.Address, a.Line = l.address("admin.address", f.Address), l.line("admin.address")
	a.Hosts = l.adminHosts(f.Hosts)
	if overTLS {
		a.TLS = l.server("admin.tls", f.TLS, l.current.Admin.TLS)
		if a.TLS != nil && gate != nil && len(f.TLS.Ciphers) > 0 && !slices.Equal(a.TLS.TLS13, gate.TLS13) {
			l.errorf("admin.tls.ciphers", "has different TLS 1.3 suites than tls.ciphers, but a process has only one list of them; write the same suites in the same order")
		}
	}
	l.checkExposure(a.Address, f, overTLS)
	return a
}

// adminHosts checks the names of admin.hosts.
func (l *loader) adminHosts(hosts []string) []string {
	for i, h := range hosts {
		if h == "" || strings.ContainsAny(h, " /@:*") {
			l.errorf(fmt.Sprintf("admin.hosts[%d]", i), "%q is not a host name; write the name without scheme and port, like gate1.example.com", h)
		}
	}
	return hosts
}

// checkExposure refuses an address that other hosts can reach without a client
// certificate, unless unprotected is set.
func (l *loader) checkExposure(address string, f admin, overTLS bool) {
	ap, err := netip.ParseAddrPort(address)
	require := f.TLS.ClientCert == "" || f.TLS.ClientCert == tlsconfig.ClientCertRequire
	switch {
	case err != nil, ap.Addr().IsLoopback(), overTLS && require:
	case f.Unprotected:
		l.warnf("admin.address", "%s is not a loopback address, so every host that reaches it can read the metrics and the status page; protect it with a firewall", address)
	default:
		l.errorf("admin.address", "%s is not a loopback address, so every host that reaches it could read the metrics and the status page; "+
			"require client certificates in admin.tls (client_cert: require), or write \"unprotected: true\" and protect it with a firewall", address)
	}
}

// tempSocketLen is the length of the temporary name of a socket in its directory,
// which is renamed to the final name.
const tempSocketLen = len("/.pgwicket-4194304")

func (l *loader) adminSocket(dir, socket string) string {
	path := absolute(dir, socket)
	switch {
	case strings.HasPrefix(socket, "@"):
		l.errorf("admin.socket", "%q is an abstract socket, which has no file mode to restrict access; write the path of a file", socket)
	case path != "" && max(len(path), len(filepath.Dir(path))+tempSocketLen) > maxSocket:
		l.errorf("admin.socket", "%s is too long for the path of a Unix socket (%d bytes, and %d for its directory)", path, maxSocket, maxSocket-tempSocketLen)
	}
	return path
}

// absolute returns path relative to dir. An empty path and an abstract name stay as
// they are.
func absolute(dir, path string) string {
	if path == "" || path[0] == '@' || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
