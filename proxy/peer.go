package proxy

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"pgwicket/acl"
	"pgwicket/internal/pgwire"
	"pgwicket/metrics"
)

// peer is who a connection comes from and what it asks for. The goroutine that
// serves the connection fills it in; once the connection has been judged it does
// not change any more, and any goroutine may read it.
type peer struct {
	id          uint64
	accepted    time.Time
	source      netip.AddrPort // the client's, or what a trusted load balancer says it is
	proxy       netip.AddrPort // the load balancer's; invalid: none
	tls         tls.ConnectionState
	request     acl.Request
	application string
	version     uint32 // of the protocol that the client speaks; 0: not known yet
}

func newPeer(id uint64, conn net.Conn, listener string) *peer {
	source := addrPort(conn.RemoteAddr())
	return &peer{
		id:       id,
		accepted: time.Now(),
		source:   source,
		request:  acl.Request{Listener: listener, Source: source.Addr().WithZone("")},
	}
}

// proxied records the address for which a load balancer speaks.
func (p *peer) proxied(source netip.AddrPort) {
	p.proxy, p.source = p.source, source
	p.request.Source = source.Addr()
}

// recordTLS keeps what a judgement and the log need of a handshake, and no more.
func (p *peer) recordTLS(s tls.ConnectionState) {
	p.tls = tls.ConnectionState{
		Version:            s.Version,
		HandshakeComplete:  s.HandshakeComplete,
		CipherSuite:        s.CipherSuite,
		CurveID:            s.CurveID,
		NegotiatedProtocol: s.NegotiatedProtocol,
		ServerName:         s.ServerName,
		PeerCertificates:   s.PeerCertificates,
	}
	p.request.SNI = s.ServerName
	if len(s.PeerCertificates) > 0 {
		id := acl.IdentityOf(s.PeerCertificates[0])
		p.request.Certificate = &id
	}
}

// recordStartup keeps what a startup packet asks for.
func (p *peer) recordStartup(m pgwire.StartupMessage) {
	p.version = m.Version
	if len(m.Parameters) == 0 {
		return
	}
	p.request.User, p.request.Database = m.User(), m.Database()
	p.application = m.Get("application_name")
	switch walsender, database := m.Replication(); {
	case database:
		p.request.Replication = acl.LogicalReplication
	case walsender:
		p.request.Replication = acl.PhysicalReplication
	}
}

// speaksV2 reports whether the client would not understand a message of protocol 3.
func (p *peer) speaksV2() bool { return p.version>>16 == 1 || p.version>>16 == 2 }

// logAttrs are what an auditor asks of a connection, as far as it is known.
// Nothing of a certificate that was refused is left out: whose it claims to be is
// what matters then.
func (p *peer) logAttrs() (attrs []slog.Attr) {
	if p.tls.Version != 0 {
		attrs = append(attrs,
			slog.String("tls_version", tls.VersionName(p.tls.Version)),
			slog.String("tls_cipher", tls.CipherSuiteName(p.tls.CipherSuite)),
			slog.String("tls_group", metrics.GroupName(p.tls.CurveID)),
			slog.String("sni", printable(p.tls.ServerName)),
			slog.String("alpn", p.tls.NegotiatedProtocol))
		if id := p.request.Certificate; id != nil {
			attrs = append(attrs, certificateAttrs(id)...)
		}
	}
	if p.version != 0 {
		attrs = append(attrs,
			slog.String("user", printable(p.request.User)),
			slog.String("database", printable(p.request.Database)),
			slog.String("application_name", printable(p.application)))
	}
	if p.request.Replication != acl.NoReplication {
		attrs = append(attrs, slog.String("replication", p.request.Replication.String()))
	}
	return attrs
}

func certificateAttrs(id *acl.Identity) []slog.Attr {
	return []slog.Attr{
		slog.String("cert_subject", id.DN),
		slog.String("cert_issuer", id.Issuer),
		slog.String("cert_serial", id.Serial),
		slog.String("cert_sha256", id.SHA256),
		slog.Any("cert_san_dns", allPrintable(id.DNS)),
		slog.Any("cert_san_email", allPrintable(id.Email)),
		slog.Any("cert_san_uri", allPrintable(id.URI)),
		slog.Any("cert_san_ip", id.IP),
	}
}

// printable escapes what a terminal or a log reader could take for more than
// text. slog escapes what its format requires, which leaves DEL and the C1
// controls. A backslash is escaped, too, or one that was sent could not be told
// from one of ours.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == '\\' || r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func allPrintable(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = printable(s)
	}
	return out
}
