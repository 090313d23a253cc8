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

// backends checks the backend section and the list of backends that rules name.
func (l *loader) backends(f file) (one *proxy.Backend, others map[string]*proxy.Backend) {
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
			l.errorf(key, "has no name; add one, and write backend: with that name in the rules that use it")
		case others[b.Name] != nil:
			l.errorf(key+".name", "%q is already the name of another backend", b.Name)
		}
		one := l.backend(key, withDefaults(l.lines, key, b.backend), f.Limits)
		if b.Name != "" {
			others[b.Name] = one
		}
	}
	return one, others
}

// withDefaults sets the defaults of the backend section in an entry of backends.
func withDefaults(lines map[string]int, key string, b backend) backend {
	standard := defaults().Backend
	for _, d := range []struct {
		key string
		set func()
	}{
		{"host", func() { b.Host = standard.Host }},
		{"port", func() { b.Port = standard.Port }},
		{"connect_timeout", func() { b.ConnectTimeout = standard.ConnectTimeout }},
		{"groups.database", func() { b.Groups.Database = standard.Groups.Database }},
		{"groups.refresh", func() { b.Groups.Refresh = standard.Groups.Refresh }},
		{"groups.max_age", func() { b.Groups.MaxAge = standard.Groups.MaxAge }},
	} {
		if _, there := lines[key+"."+d.key]; !there {
			d.set()
		}
	}
	return b
}

// backend checks one backend. As in libpq, host is the directory of a Unix socket, an
// abstract name that begins with @, a name or an address, or several of them, and
// port is one for all or one for each.
func (l *loader) backend(key string, b backend, limits limits) *proxy.Backend {
	out := &proxy.Backend{ConnectTimeout: time.Duration(b.ConnectTimeout), ClientInfo: b.ClientInfo}
	if b.ConnectTimeout == 0 {
		l.errorf(key+".connect_timeout", "must not be 0: clients would wait forever while the database is down")
	}
	hosts, ports := b.hosts(), b.Port.list()
	if len(ports) > 1 && len(ports) != len(hosts) {
		l.errorf(key+".port", "has %d ports for %d hosts; write one for all, or one for each", len(ports), len(hosts))
		return out
	}
	for _, port := range ports {
		if port < 1 || port > 65535 {
			l.errorf(key+".port", "%d is not a port; the default of PostgreSQL is 5432", port)
		}
	}
	var client *tlsconfig.Client
	remote := slices.ContainsFunc(hosts, func(h string) bool { return !isSocket(h) })
	if slices.Contains(hosts, "") {
		l.errorf(key+".host", "is empty; write the directory of a Unix socket (the first of PostgreSQL's unix_socket_directories, like /run/postgresql), or host names separated with commas")
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

// hosts returns the hosts of the list.
func (b *backend) hosts() []string {
	hosts := strings.Split(b.Host, ",")
	for i, h := range hosts {
		hosts[i] = strings.TrimSpace(h)
	}
	return hosts
}

func isSocket(host string) bool { return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") }

// clientTLS checks the TLS settings of a backend on TCP. The default is verify-full,
// unlike in libpq.
func (l *loader) clientTLS(key string, b backend) *tlsconfig.Client {
	mode := tlsconfig.SSLMode(b.SSLMode)
	if mode == "" {
		mode = tlsconfig.SSLVerifyFull
	}
	l.oneOf(key+".sslnegotiation", b.SSLNegotiation, "", "postgres", "direct")
	if b.SSLNegotiation == "direct" && (mode == tlsconfig.SSLDisable || mode == tlsconfig.SSLPrefer) {
		l.errorf(key+".sslnegotiation", "direct requires TLS, but sslmode %s does not; write require or stricter", mode)
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

// checkHost checks a host on TCP, and reports whether it is valid.
func (l *loader) checkHost(key, host string, b backend) bool {
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
		l.warnf(key+".sslmode", "is %s, so an attacker on the network can impersonate %s and read passwords and data; write verify-full", b.SSLMode, host)
	}
	return true
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// socket returns the path of a Unix socket in the convention of libpq: the port is
// part of the name.
func (l *loader) socket(key, host string, port int) proxy.Host {
	path := fmt.Sprintf("%s/.s.PGSQL.%d", strings.TrimSuffix(host, "/"), port)
	switch {
	case len(path) > maxSocket:
		l.errorf(key+".host", "%s is too long for the path of a Unix socket (%d bytes)", path, maxSocket)
	case strings.HasPrefix(host, "/"):
		l.checkSocket(key, path)
	}
	return proxy.Host{Network: "unix", Address: path}
}

// checkSocket checks the socket of the backend. It only warns, because the database
// may start after the gate.
func (l *loader) checkSocket(key, socket string) {
	dir := filepath.Dir(socket)
	directory, err := os.Stat(dir)
	if err == nil && (directory.Mode().Type() == fs.ModeSocket || strings.HasPrefix(filepath.Base(dir), ".s.PGSQL.")) {
		l.warnf(key+".host", "%s is the socket; write its directory, %s", dir, filepath.Dir(dir))
		return
	}
	if errors.Is(err, fs.ErrPermission) {
		l.warnf(key+".host", "the directory %s is not accessible (%v); the account of the gate needs permission for it and for each one above", dir, errors.Unwrap(err))
		return
	}
	if err != nil || !directory.IsDir() {
		l.warnf(key+".host", "there is no directory %s; is PostgreSQL installed, and is this one of its unix_socket_directories?", dir)
		return
	}
	st, err := os.Stat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.warnf(key+".host", "there is no socket %s; is PostgreSQL running, with this directory and port?", socket)
	case err != nil:
		l.warnf(key+".host", "the socket %s is not accessible (%v); pgwicket's account needs permission for its directory", socket, errors.Unwrap(err))
	case st.Mode().Type() != fs.ModeSocket:
		l.warnf(key+".host", "%s is not a socket", socket)
	case st.Mode().Perm()&0o002 != 0 && directory.Mode().Perm()&0o001 != 0:
		l.warnf(key+".host", "every account on this machine can connect to %s without the gate; put the socket into a directory of mode 0750 for pgwicket and PostgreSQL (unix_socket_directories), or set unix_socket_permissions", socket)
	}
}
