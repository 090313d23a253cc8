package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// maxSocket is the length of sun_path on Linux without its NUL.
const maxSocket = 107

// backends reads the backend section, and the list of those that rules name.
func (l *loading) backends(f file) (one *proxy.Backend, others map[string]*proxy.Backend) {
	if has(l.lines, "backend") || len(f.Backends) == 0 {
		one = l.backend("backend", f.Backend, f.Limits)
	}
	if len(f.Backends) > 0 {
		others = make(map[string]*proxy.Backend)
	}
	for i, b := range f.Backends {
		key := fmt.Sprintf("backends[%d]", i)
		switch {
		case b.Name == "":
			l.errorf(key, "has no name; give it one, and the rules that lead to it backend: with that name")
		case others[b.Name] != nil:
			l.errorf(key+".name", "%q is the name of another backend already", b.Name)
		}
		one := l.backend(key, completed(l.lines, key, b.backend), f.Limits)
		if b.Name != "" {
			others[b.Name] = one
		}
	}
	return one, others
}

// completed gives an entry of a list the defaults that a section has.
func completed(lines map[string]int, key string, b backend) backend {
	standard := defaults().Backend
	for _, d := range []struct {
		key string
		set func()
	}{
		{"host", func() { b.Host = standard.Host }},
		{"port", func() { b.Port = standard.Port }},
		{"connect_timeout", func() { b.ConnectTimeout = standard.ConnectTimeout }},
	} {
		if _, there := lines[key+"."+d.key]; !there {
			d.set()
		}
	}
	return b
}

// backend reads one, in libpq's words: host may be the directory of a Unix socket,
// an abstract name that begins with @, or a name or address on TCP, or several of
// them, and port one for all or as many.
func (l *loading) backend(key string, b backend, limits limits) *proxy.Backend {
	out := &proxy.Backend{ConnectTimeout: time.Duration(b.ConnectTimeout), ClientInfo: b.ClientInfo}
	if b.ConnectTimeout == 0 {
		l.errorf(key+".connect_timeout", "must not be 0: clients would wait for ever while the database is down")
	}
	hosts, ports := b.hosts(), b.Port.list()
	if len(ports) > 1 && len(ports) != len(hosts) {
		l.errorf(key+".port", "has %d ports for %d hosts; write one for all, or one for each", len(ports), len(hosts))
		return out
	}
	for _, port := range ports {
		if port < 1 || port > 65535 {
			l.errorf(key+".port", "%d is not a port; PostgreSQL's is 5432 unless its configuration says otherwise", port)
		}
	}
	var client *tlsconfig.Client
	remote := slices.ContainsFunc(hosts, func(h string) bool { return !isSocket(h) })
	if slices.Contains(hosts, "") {
		l.errorf(key+".host", "names no host; write the directory of a Unix socket (the first of PostgreSQL's unix_socket_directories, like /run/postgresql), or names with commas between them")
		return out
	}
	for _, host := range hosts {
		if !isSocket(host) && !l.checkHost(key, host, b) {
			return out
		}
	}
	if remote {
		client = l.clientTLS(key, b)
	} else {
		for name, set := range map[string]bool{
			"sslmode": b.SSLMode != "", "sslnegotiation": b.SSLNegotiation != "",
			"sslrootcert": b.SSLRootCert != "", "sslcrl": b.SSLCRL != "", "sslcrldir": b.SSLCRLDir != "", "sslcert": b.SSLCert != "", "sslkey": b.SSLKey != "",
		} {
			if set {
				l.warnf(key+"."+name, "has no effect on a Unix socket, which needs no TLS")
			}
		}
	}
	for i, host := range hosts {
		port := ports[min(i, len(ports)-1)]
		if isSocket(host) {
			out.Hosts = append(out.Hosts, l.socket(key, host, port))
			continue
		}
		h := proxy.Host{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port)), UserTimeout: time.Duration(limits.TCPUserTimeout)}
		if client != nil {
			h.TLS, h.SSLMode = client.For(host), string(client.Mode)
			h.Clear = b.SSLMode == string(tlsconfig.SSLPrefer)
			h.Direct = b.SSLNegotiation == "direct"
		}
		out.Hosts = append(out.Hosts, h)
	}
	return out
}

// hosts splits the list of them.
func (b *backend) hosts() []string {
	hosts := strings.Split(b.Host, ",")
	for i, h := range hosts {
		hosts[i] = strings.TrimSpace(h)
	}
	return hosts
}

func isSocket(host string) bool { return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") }

// clientTLS reads how a backend on TCP is to be asked for TLS. Other than in libpq
// nobody has to ask for the safe way.
func (l *loading) clientTLS(key string, b backend) *tlsconfig.Client {
	mode := tlsconfig.SSLMode(b.SSLMode)
	if mode == "" {
		mode = tlsconfig.SSLVerifyFull
	}
	l.oneOf(key+".sslnegotiation", b.SSLNegotiation, "", "postgres", "direct")
	if b.SSLNegotiation == "direct" && (mode == tlsconfig.SSLDisable || mode == tlsconfig.SSLPrefer) {
		l.errorf(key+".sslnegotiation", "direct begins with TLS, which sslmode %s does not insist on; write require or more", mode)
	}
	client, problems := l.client(tlsconfig.ClientOptions{
		Mode: mode, RootCert: b.SSLRootCert, CRL: b.SSLCRL, CRLDir: b.SSLCRLDir, Cert: b.SSLCert, Key: b.SSLKey,
	})
	for _, p := range problems {
		where := key + "." + p.Key
		if p.Key == "passphrase_command" {
			where = "tls." + p.Key
		}
		l.add(p.Warning, where, "%s", p.Text)
	}
	return client
}

// checkHost looks at a host on TCP, and reports whether it can be one.
func (l *loading) checkHost(key, host string, b backend) bool {
	switch ap, err := netip.ParseAddrPort(host); {
	case err == nil:
		l.errorf(key+".host", "%q has a port; write host: %v and port: %d", host, ap.Addr(), ap.Port())
		return false
	case strings.ContainsAny(host, " /@:[]") && !isIP(host):
		l.errorf(key+".host", "%q is neither a name nor an address, nor the directory of a Unix socket (which begins with /)", host)
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() || host == "localhost" {
		return true
	}
	if b.SSLMode != "" && b.SSLMode != string(tlsconfig.SSLVerifyFull) {
		l.warnf(key+".sslmode", "is %s, so whoever is on the way to %s can pretend to be it, and read passwords and data; write verify-full", b.SSLMode, host)
	}
	return true
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// socket reads libpq's convention for a Unix socket: the port is part of the
// file's name.
func (l *loading) socket(key, host string, port int) proxy.Host {
	path := fmt.Sprintf("%s/.s.PGSQL.%d", strings.TrimSuffix(host, "/"), port)
	switch {
	case len(path) > maxSocket:
		l.errorf(key+".host", "%s is too long for the path of a Unix socket (%d bytes)", path, maxSocket)
	case strings.HasPrefix(host, "/"):
		l.checkSocket(key, path)
	}
	return proxy.Host{Network: "unix", Address: path}
}

// checkSocket looks at the backend's socket. All it finds are warnings, for the
// database may be started after the gate.
func (l *loading) checkSocket(key, socket string) {
	dir := filepath.Dir(socket)
	directory, err := os.Stat(dir)
	if err != nil || !directory.IsDir() {
		l.warnf(key+".host", "there is no directory %s; is PostgreSQL installed, and is this one of its unix_socket_directories?", dir)
		return
	}
	st, err := os.Stat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.warnf(key+".host", "there is no socket %s; is PostgreSQL running, with this directory and port?", socket)
	case err != nil:
		l.warnf(key+".host", "the socket %s cannot be looked at (%v); pgwicket's account must be allowed into its directory", socket, errors.Unwrap(err))
	case st.Mode().Type() != fs.ModeSocket:
		l.warnf(key+".host", "%s is not a socket", socket)
	case st.Mode().Perm()&0o002 != 0 && directory.Mode().Perm()&0o001 != 0:
		l.warnf(key+".host", "every account of this machine can reach %s past the gate; give pgwicket and PostgreSQL a directory of mode 0750 of their own (unix_socket_directories), or set unix_socket_permissions", socket)
	}
}
