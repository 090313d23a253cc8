package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/postgres"
	"pgwicket/internal/pgconf"
	"pgwicket/internal/phrase"
	"pgwicket/internal/printable"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// tcpBackend is a server that the gate reaches over TCP.
type tcpBackend struct {
	host         *proxy.Host
	gate, server netip.Addr           // the ends of the connection as PostgreSQL sees them; not valid: not known
	tls          *tls.ConnectionState // nil: in clear
	failed       string               // why there is no connection, unless PostgreSQL has refused it
	now          time.Time
}

// tcpHosts returns the hosts on TCP, each once.
func tcpHosts(hosts []*proxy.Host) (all []*proxy.Host) {
	for _, h := range hosts {
		if h.Network != "unix" && !slices.ContainsFunc(all, func(o *proxy.Host) bool { return o.Address == h.Address }) {
			all = append(all, h)
		}
	}
	return all
}

// examineBackend asks a server as the gate does, with its TLS, and then looks at its files
// and sockets if they are on this machine.
func (t target) examineBackend(ctx context.Context, h *proxy.Host, gate gateState) *server {
	s := &server{name: printable.Text(h.Address), gate: gate, unknown: make(map[string]string), backend: &tcpBackend{host: h, now: t.now}}
	connect := func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return s.backend.connect(ctx, t, database, s.parameters)
	}
	here := false
	s.connect(ctx, connect, func(ctx context.Context, conn *pgconn.PgConn) bool {
		here = s.backend.ends(ctx, conn)
		return here
	}, t.now)
	if here {
		s.readSockets(nil)
	}
	return s
}

// connect connects as the gate does, with the role and password that libpq would take. What is
// found out about the connection is that of the first one, which names no database: several may follow
// at the same time.
func (b *tcpBackend) connect(ctx context.Context, t target, database string, parameters map[string]string) (*pgconn.PgConn, error) {
	cfg, err := b.config(t, database)
	if err != nil {
		return nil, err
	}
	maps.Copy(cfg.RuntimeParams, parameters)
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	var refusal *pgconn.PgError
	if err != nil && database == "" && !errors.As(err, &refusal) {
		b.failed = postgres.Reason(err)
	}
	return conn, err
}

func (b *tcpBackend) config(t target, database string) (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(b.host.Address)
	if err != nil {
		return nil, err
	}
	first := database == ""
	if first {
		database = t.database
	}
	// TLS is the gate's. The files of this account, which pgconn would read in every mode, are for its own servers.
	cfg, err := pgconn.ParseConfig(conninfo(map[string]string{"host": host, "port": port, "user": t.user, "dbname": database, "sslmode": "disable"}) + " sslrootcert='' sslcert='' sslkey=''")
	if err != nil {
		return nil, err
	}
	bound(cfg)
	cfg.Fallbacks = nil
	if b.host.TLS == nil {
		return cfg, nil
	}
	cfg.TLSConfig = b.host.TLS.Clone()
	verify := cfg.TLSConfig.VerifyConnection
	cfg.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
		if first {
			b.tls = &state
		}
		if verify != nil {
			return verify(state)
		}
		return nil
	}
	if b.host.Direct {
		cfg.SSLNegotiation = "direct"
	}
	if b.host.Clear {
		cfg.Fallbacks = []*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port}}
	}
	return cfg, nil
}

// ends records the addresses of a connection, and reports whether the server is on this
// machine: both ends have one address, and its process is here and serves this connection. An
// address alone may be that of a tunnel.
func (b *tcpBackend) ends(ctx context.Context, conn *pgconn.PgConn) (here bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := postgres.Query(ctx, conn, "select host(inet_client_addr()), host(inet_server_addr()), pg_backend_pid()")
	if err != nil || len(rows) != 1 || len(rows[0]) != 3 {
		return false
	}
	b.gate, _ = netip.ParseAddr(rows[0][0])
	b.server, _ = netip.ParseAddr(rows[0][1])
	local, err := netip.ParseAddrPort(conn.Conn().LocalAddr().String())
	remote, err2 := netip.ParseAddrPort(conn.Conn().RemoteAddr().String())
	pid, err3 := strconv.ParseUint(rows[0][2], 10, 32) // the server says it
	if errors.Join(err, err2, err3) != nil || local.Addr() != remote.Addr() {
		return false
	}
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(title), "postgres") && strings.Contains(string(title), fmt.Sprintf("(%d)", local.Port()))
}

// loopback reports whether the gate reaches the server on the loopback interface, as it
// does a socket: there is no network between them.
func (b *tcpBackend) loopback() bool {
	if b.gate.IsValid() {
		return b.gate.IsLoopback()
	}
	return loopbackWarns(b.host.Address) == Warn
}

// covers reports whether a line of pg_hba.conf applies to the gate.
func (b *tcpBackend) covers(r *pgconf.Rule) bool {
	if r.Type == "local" {
		return false
	}
	p, err := netip.ParsePrefix(r.Address)
	if err != nil { // all, samenet, samehost or a name
		return r.Address != "samehost" || b.loopback()
	}
	return !b.gate.IsValid() || p.Contains(b.gate)
}

// isOnly reports whether a line applies to the gate alone; where its address is not known, to one
// address.
func (b *tcpBackend) isOnly(r *pgconf.Rule) bool {
	p, err := netip.ParsePrefix(r.Address)
	return err == nil && p.IsSingleIP() && (p.Addr() == b.gate || !b.gate.IsValid())
}

// checkBackendTLS checks the connection of the gate to the server: whether there is one,
// its TLS, and the dates of the certificates of both ends.
func (s *server) checkBackendTLS() (out []Finding) {
	b := s.backend
	switch {
	case b == nil:
		return nil
	case s.byFiles:
		return []Finding{finding(Skip, "backend.host", "with --pg-conf the connection of the gate to PostgreSQL is not tried", "run doctor on the machine of the gate, without --pg-conf")}
	case b.failed != "":
		return []Finding{finding(Fail, "backend.host", "no session can start: "+b.failed, "start PostgreSQL, or correct backend.host, backend.port and the backend.ssl keys")}
	case b.host.TLS == nil:
		return nil // checkBackend has reported it
	case b.tls == nil:
		return []Finding{finding(loopbackWarns(b.host.Address), "backend.sslmode", "the connection to the server is in clear, because the server has no TLS", s.sslFix()+"\nand write verify-full")}
	}
	for _, c := range b.tls.PeerCertificates {
		out = append(out, b.dates(c, "the certificate of PostgreSQL", "ssl_cert_file", "write a new pair over ssl_cert_file and ssl_key_file\nselect pg_reload_conf();")...)
	}
	for _, pair := range b.host.TLS.Certificates {
		if c, err := x509.ParseCertificate(pair.Certificate[0]); err == nil {
			out = append(out, b.dates(c, "the certificate that the gate shows PostgreSQL", "backend.sslcert", "have it issued again, and write it over backend.sslcert")...)
		}
	}
	name, weakness := tlsconfig.DescribeHandshake(b.tls.Version, b.tls.CipherSuite)
	if weakness != "" {
		out = append(out, finding(Warn, "ssl_ciphers", "the connection to the server uses "+name+": "+weakness, s.setting("ssl_ciphers", "'HIGH:!aNULL:!3DES'")))
	}
	return orPass(out, "the gate's connection uses %s (sslmode %s), and PostgreSQL's certificate ends on %s", name, b.host.SSLMode, phrase.Until(b.tls.PeerCertificates[0].NotAfter, b.now))
}

// dates judges the end of a certificate of the connection.
func (b *tcpBackend) dates(c *x509.Certificate, what, where, fix string) []Finding {
	left := c.NotAfter.Sub(b.now)
	switch {
	case left < daysFail*24*time.Hour:
		return []Finding{finding(Fail, where, what+" ends on "+phrase.Until(c.NotAfter, b.now), fix)}
	case left < daysWarn*24*time.Hour:
		return []Finding{finding(Warn, where, what+" ends on "+phrase.Until(c.NotAfter, b.now), fix)}
	}
	return nil
}

// checkBackendFirewall says what cannot be seen from the gate.
func (s *server) checkBackendFirewall() []Finding {
	b := s.backend
	switch {
	case b == nil:
		return nil
	case b.loopback():
		return []Finding{pass("not needed for the gate: it connects on the loopback interface")}
	}
	_, port, _ := net.SplitHostPort(b.host.Address)
	source := "ADDRESS_OF_THE_GATE"
	if b.gate.IsValid() {
		source = b.gate.String()
	}
	return []Finding{{
		Status: Skip, Where: "firewall", Reason: fmt.Sprintf("the firewall of %s cannot be seen from the gate", b.serverName()),
		Fix: fmt.Sprintf("see on its machine that only the gate reaches the port: tcp dport %s ip saddr %s accept, and tcp dport %s drop (docs/hardening.md, \"Firewall\")", port, source, port),
	}}
}
