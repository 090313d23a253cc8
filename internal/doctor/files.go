package doctor

import (
	"context"
	"net"
	"net/netip"

	"pgwicket/internal/pgconf"
)

// readServer examines the configuration files of a server. If the gate connects over TCP only, they are
// those of its first host. paths are the sockets that the gate connects to.
func (t target) readServer(ctx context.Context, gate gateState, paths []string) *server {
	s := &server{name: t.confDir, gate: gate, unknown: make(map[string]string)}
	s.read(t.confDir)
	hosts := tcpHosts(gate.hosts)
	if len(paths) > 0 || len(hosts) == 0 || !s.byFiles {
		s.readSockets(paths)
		return s
	}
	s.backend = &tcpBackend{host: hosts[0], now: t.now}
	if s.backend.route(ctx) {
		s.readSockets(nil)
	}
	return s
}

// route finds the addresses that a connection from here to the server would have, without making one,
// and reports whether the server is on this machine. If it is, but not on loopback, the files may have
// been read beside the server and far from the gate: its address is then not known.
func (b *tcpBackend) route(ctx context.Context) (here bool) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "udp", b.host.Address)
	if err != nil {
		return false
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	remote, err2 := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || err2 != nil {
		return false
	}
	b.server = remote.Addr().Unmap()
	here = local.Addr() == remote.Addr()
	if !here || b.server.IsLoopback() {
		b.gate = local.Addr().Unmap()
	}
	return here
}

// read examines the configuration files.
func (s *server) read(dir string) {
	c, err := pgconf.Read(dir)
	if err != nil {
		s.unexamined = err.Error()
		return
	}
	s.byFiles = true
	s.examined = "by its files, which do not have the settings of its command line"
	s.settings, s.rules, s.mappings = c.Settings, c.Rules, c.Mappings
	for _, standard := range standardSettings() {
		if _, ok := s.settings[standard[0]]; !ok {
			s.settings[standard[0]] = standard[1]
		}
	}
	for _, what := range []string{roleList, verifierList} {
		s.unknown[what] = "its files do not have the roles"
	}
}

// standardSettings are the defaults of releases 14 to 18
// (src/backend/utils/misc/guc_tables.c).
func standardSettings() [][2]string {
	return [][2]string{
		{"listen_addresses", "localhost"},
		{"unix_socket_permissions", "0777"},
		{"password_encryption", "scram-sha-256"},
		{"ssl", "off"},
		{"ssl_min_protocol_version", "TLSv1.2"},
		{"ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL"},
		{"log_connections", "off"},
	}
}
