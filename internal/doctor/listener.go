package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/phrase"
	"pgwicket/tlsconfig"
)

// timeout bounds each connection to a listener or to PostgreSQL.
const timeout = 10 * time.Second

// listenerScan is the result of handshakes with a listener.
type listenerScan struct {
	address     string
	nothing     bool   // nothing listens there
	wanted      bool   // a session through it was asked for
	unreachable string // why there is no answer; empty: there is
	notGate     string // what shows that this is not a gate; empty: nothing
	accepted    []handshake
	served      [][]byte      // the certificates that it sends
	expected    [][]byte      // those of the configuration
	session     *sessionTrial // nil: none was tried
}

type handshake struct{ version, suite uint16 }

// scanListeners scans every listener as a client that also offers old versions and
// weak suites.
func scanListeners(ctx context.Context, o Options) (all []listenerScan) {
	cfg := o.Config
	var expected [][]byte
	for _, c := range cfg.TLS.Certificates {
		expected = append(expected, c.Chain[0].Raw)
	}
	for _, address := range cfg.Listen {
		l := listenerScan{address: address, expected: expected, wanted: o.Session != SessionOptions{}}
		l.scan(ctx)
		if l.unknown() == nil {
			l.trySession(ctx, o)
		}
		all = append(all, l)
	}
	return all
}

func listenerChecks() []check[listenerScan] {
	return []check[listenerScan]{
		{"weakest_handshake", listenerScan.checkWeakest},
		{"served_certificate", listenerScan.checkServed},
		{"session", listenerScan.checkSession},
	}
}

// scan offers each version alone, first with all suites and then without those that
// were accepted, until the handshake fails. crypto/tls cannot choose the suites of
// TLS 1.3.
func (l *listenerScan) scan(ctx context.Context) {
	if conn, err := l.dial(ctx); err != nil {
		return
	} else {
		_ = conn.Close()
	}
	for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
		for offer := suitesOf(version); len(offer) > 0; {
			state, err := l.handshake(ctx, version, offer)
			if err != nil {
				break
			}
			l.accepted = append(l.accepted, handshake{version, state.CipherSuite})
			if leaf := state.PeerCertificates[0].Raw; !slices.ContainsFunc(l.served, func(c []byte) bool { return bytes.Equal(c, leaf) }) {
				l.served = append(l.served, leaf)
			}
			offer = slices.DeleteFunc(offer, func(id uint16) bool { return id == state.CipherSuite || version == tls.VersionTLS13 })
		}
	}
}

func suitesOf(version uint16) (ids []uint16) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.Contains(s.SupportedVersions, version) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// target is the address to connect to: one of this machine, if the listener has all.
func (l *listenerScan) target() string {
	ap, err := netip.ParseAddrPort(l.address)
	if err != nil || !ap.Addr().IsUnspecified() {
		return l.address
	}
	loopback := netip.IPv6Loopback()
	if ap.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(loopback, ap.Port()).String()
}

// dial connects, sends an SSLRequest and reads the answer. It records a failure in l.
func (l *listenerScan) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", l.target())
	if err != nil {
		l.nothing = true
		l.unreachable = fmt.Sprintf("nothing listens there (%v)", errors.Unwrap(err))
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(timeout))
	answer := make([]byte, 1)
	if _, err = conn.Write(pgwire.RequestTLS()); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	switch {
	case err != nil:
		l.unreachable = "it closes the connection before TLS: acl.allow does not have this machine, or proxy_protocol_from does and requires a PROXY header"
	case answer[0] != 'S':
		l.notGate = fmt.Sprintf("it answers an SSLRequest with %q, and a gate answers 'S'", answer)
		err = errors.New(l.notGate)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (l *listenerScan) handshake(ctx context.Context, version uint16, offer []uint16) (state tls.ConnectionState, err error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return state, err
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		MinVersion: version, MaxVersion: version, CipherSuites: offer,
		NextProtos:         []string{"postgresql"},
		InsecureSkipVerify: true, // the certificate is compared with the file
	})
	err = client.HandshakeContext(ctx)
	return client.ConnectionState(), err
}

func (l listenerScan) unknown() []Finding {
	switch {
	case l.nothing && l.wanted:
		return []Finding{{Status: Fail, Where: "listen", Reason: l.unreachable + ", so no session can start", Fix: "start the gate"}}
	case l.nothing:
		return []Finding{{Status: Warn, Where: "listen", Reason: l.unreachable, Fix: "start the gate"}}
	case l.unreachable != "":
		return []Finding{{Status: Skip, Reason: l.unreachable, Fix: "start the gate, and run doctor from an address that acl.allow has"}}
	case l.notGate != "":
		return []Finding{finding(Fail, "listen", l.notGate, "find out which program listens there")}
	case len(l.accepted) == 0:
		return []Finding{finding(Fail, "tls.min_protocol_version", "it accepts no handshake from TLSv1 to TLSv1.3", `look for "tls_handshake" in the log of the gate`)}
	}
	return nil
}

func (l listenerScan) checkWeakest() []Finding {
	if out := l.unknown(); out != nil {
		return out
	}
	var out []Finding
	for _, h := range l.accepted {
		name, weakness := tlsconfig.DescribeHandshake(h.version, h.suite)
		switch {
		case weakness == "":
		case h.version < tls.VersionTLS12:
			out = append(out, finding(Fail, "tls.min_protocol_version", "accepts "+name+": "+weakness, "set TLSv1.2 or TLSv1.3"))
		default:
			out = append(out, finding(Warn, "tls.ciphers", "accepts "+name+": "+weakness, "remove it from the list, or the list"))
		}
	}
	weakest, _ := tlsconfig.DescribeHandshake(l.accepted[0].version, l.accepted[0].suite)
	return orPass(out, "the oldest that it accepts is %s, and none of %s is weak", weakest, phrase.Count(len(l.accepted), "handshake"))
}

func (l listenerScan) checkServed() []Finding {
	if l.unknown() != nil {
		return nil // checkWeakest has reported it
	}
	for _, c := range l.served {
		if !slices.ContainsFunc(l.expected, func(e []byte) bool { return bytes.Equal(c, e) }) {
			return []Finding{finding(Fail, "tls.cert_file", "it sends another certificate than the file has", `look for "reload failed" in the log of the gate, or find out which program listens there`)}
		}
	}
	return []Finding{pass("it sends the certificate of the file")}
}
