package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/clientcert"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/printable"
	"pgwicket/internal/socket"
	"pgwicket/metrics"
)

// peer is who a connection comes from and what it asks for. The goroutine that
// serves the connection fills it in; once the connection has been judged it does
// not change any more, and any goroutine may read it.
type peer struct {
	accepted    time.Time
	source      netip.AddrPort // the client's, or what a trusted load balancer says it is
	proxy       netip.AddrPort // the load balancer's; invalid: none
	tls         tlsFacts
	request     acl.Request
	application string
	version     uint32 // of the protocol that the client speaks; 0: not known yet
	verified    bool   // its certificate has been verified
	rejectsName bool   // it has closed, as the gate's certificate lacks the name that it asked for
}

func newPeer(id string, conn net.Conn, listener string) *peer {
	source := socket.AddrPort(conn.RemoteAddr())
	return &peer{
		accepted: time.Now(),
		source:   source,
		request:  acl.Request{Session: id, Listener: listener, Source: source.Addr().WithZone("")},
	}
}

// proxied records the address for which a load balancer speaks.
func (p *peer) proxied(source netip.AddrPort) {
	p.proxy, p.source = p.source, source
	p.request.Source = source.Addr()
}

// recordTLS keeps what a judgement and the log need of a handshake, and no more.
func (p *peer) recordTLS(s tls.ConnectionState) {
	p.tls = tlsFacts{version: s.Version, suite: s.CipherSuite, group: s.CurveID, complete: s.HandshakeComplete, protocol: s.NegotiatedProtocol}
	p.request.SNI = kept(s.ServerName)
}

// tlsFacts is what is kept of a handshake. A tls.ConnectionState would take five times as much.
type tlsFacts struct {
	version, suite uint16
	group          tls.CurveID
	complete       bool
	protocol       string   // by ALPN
	certificates   [][]byte // of the verified chain, in DER: see policy.Policy.Verify
}

// state returns the facts as policy.Policy.Verify has them.
func (f *tlsFacts) state(serverName string) tls.ConnectionState {
	return tls.ConnectionState{
		Version: f.version, HandshakeComplete: f.complete, CipherSuite: f.suite, CurveID: f.group, NegotiatedProtocol: f.protocol, ServerName: serverName,
	}
}

// recordCertificate keeps what a verified chain, or a leaf that was refused, says of
// the client. Of one that was refused, only the log needs anything, and it cuts it.
func (p *peer) recordCertificate(leaf *x509.Certificate, verified [][]byte, known clientcert.Identities) {
	p.tls.certificates = verified
	if p.verified = len(verified) > 0; p.verified {
		p.request.Certificate, verified[0], _ = known.Of(leaf, verified[0]) // it fails without a leaf only
	} else {
		id := clientcert.Refused(leaf)
		p.request.Certificate = &id
	}
}

// maxText bounds a client's own texts in a line of the log, as printed.
const maxText = 256

// cut returns a text of a client's as it may be printed: escaped, and clipped.
func cut(s string) string { return printable.Short(s, maxText) }

// kept returns what a session keeps of a text that may be very long: what cut shows, and that there is more.
func kept(s string) string { return strings.Clone(s[:min(len(s), maxText+1)]) }

// maxReason is how long a reason in the log may be, which may quote the client.
const maxReason = 1024

// recordStartup keeps what a startup packet asks for.
func (p *peer) recordStartup(m pgwire.StartupMessage) {
	p.version = m.Version
	if len(m.Parameters) == 0 {
		return
	}
	p.request.User, p.request.Database = m.User(), m.Database()
	p.application = kept(m.Get("application_name"))
	switch walsender, database := m.Replication(); {
	case database:
		p.request.Replication = acl.LogicalReplication
	case walsender:
		p.request.Replication = acl.PhysicalReplication
	}
}

// speaksV2 reports whether the client would not understand a message of protocol 3.
func (p *peer) speaksV2() bool { return p.version>>16 == 1 || p.version>>16 == 2 }

// lineAttrs is how many attributes a line about a session has, so that they are put into one piece of memory.
const lineAttrs = 32

// idAttrs say which connection a line is about; more goes before the load balancer.
func (p *peer) idAttrs(more ...slog.Attr) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, lineAttrs),
		slog.String("session", p.request.Session),
		slog.String("client", p.source.String()),
		slog.String("listener", p.request.Listener))
	attrs = append(attrs, more...)
	if p.proxy.IsValid() {
		attrs = append(attrs, slog.String("proxy", p.proxy.String()))
	}
	return attrs
}

// appendLogAttrs appends what an auditor asks of a connection, as far as it is known.
// Nothing of a certificate that was refused is left out: whose it claims to be is
// what matters then.
func (p *peer) appendLogAttrs(attrs []slog.Attr) []slog.Attr {
	if p.tls.version != 0 {
		attrs = append(attrs,
			slog.String("tls_version", tls.VersionName(p.tls.version)),
			slog.String("tls_cipher", metrics.SuiteName(p.tls.suite)),
			slog.String("tls_group", metrics.GroupName(p.tls.group)),
			slog.String("sni", cut(p.request.SNI)),
			slog.String("alpn", p.tls.protocol))
		if id := p.request.Certificate; id != nil {
			attrs = append(attrs, clientcert.Attrs(id)...)
		}
	}
	if p.version != 0 {
		attrs = append(attrs,
			slog.String("user", cut(p.request.User)),
			slog.String("database", cut(p.request.Database)),
			slog.String("application_name", cut(p.application)))
	}
	if p.request.Replication != acl.NoReplication {
		attrs = append(attrs, slog.String("replication", p.request.Replication.String()))
	}
	return attrs
}
