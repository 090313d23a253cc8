package main

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

	"pgwicket/config"
	"pgwicket/internal/pgwire"
	"pgwicket/tlsconfig"
)

// knockTimeout bounds each connection to a listener or to PostgreSQL.
const knockTimeout = 10 * time.Second

// listenerFacts are what a listener has answered to real handshakes.
type listenerFacts struct {
	address  string
	silent   string // why it has answered nothing; empty: it has
	stranger string // what shows that it is no gate; empty: nothing
	accepted []handshake
	served   [][]byte // the certificates that it has shown
	expected [][]byte // those of the configuration
}

type handshake struct{ version, suite uint16 }

// listenerFactsOf tries every listener, in the way of a client that knows old versions
// and weak suites, too.
func listenerFactsOf(ctx context.Context, cfg *config.Config) (all []listenerFacts) {
	var expected [][]byte
	for _, c := range cfg.TLS.Certificates {
		expected = append(expected, c.Chain[0].Raw)
	}
	for _, address := range cfg.Listen {
		l := listenerFacts{address: address, expected: expected}
		l.knock(ctx)
		all = append(all, l)
	}
	return all
}

// knock offers each version alone, with all suites that there are and then without
// those that were taken, until nothing is. Of TLS 1.3 a client cannot choose the
// suites.
func (l *listenerFacts) knock(ctx context.Context) {
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

// dial connects and asks for TLS, up to the answer. What goes wrong it notes.
func (l *listenerFacts) dial(ctx context.Context) (net.Conn, error) {
	target := l.address
	if ap, err := netip.ParseAddrPort(l.address); err == nil && ap.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if ap.Addr().Is4() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		target = netip.AddrPortFrom(loopback, ap.Port()).String()
	}
	dialer := net.Dialer{Timeout: knockTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		l.silent = fmt.Sprintf("nobody can be reached there (%v)", errors.Unwrap(err))
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(knockTimeout))
	answer := make([]byte, 1)
	if _, err = conn.Write(pgwire.RequestTLS()); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	switch {
	case err != nil:
		l.silent = "it closes the connection before TLS: this machine is not in acl.allow, or it is a load balancer that must send a PROXY header"
	case answer[0] != 'S':
		l.stranger = fmt.Sprintf("it answers %q to an SSLRequest, where a gate says 'S'", answer)
		err = errors.New(l.stranger)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (l *listenerFacts) handshake(ctx context.Context, version uint16, offer []uint16) (state tls.ConnectionState, err error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return state, err
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		MinVersion: version, MaxVersion: version, CipherSuites: offer,
		NextProtos:         []string{"postgresql"},
		InsecureSkipVerify: true, // whose certificate it is, is compared with the file
	})
	err = client.HandshakeContext(ctx)
	return client.ConnectionState(), err
}

func listenerChecks() []inspection[listenerFacts] {
	return []inspection[listenerFacts]{
		{"weakest_handshake", listenerFacts.checkWeakest},
		{"served_certificate", listenerFacts.checkServed},
	}
}

func (l listenerFacts) unknown() []finding {
	switch {
	case l.silent != "":
		return []finding{{Status: skip, Reason: l.silent, Fix: "start the gate, and run this from an address that acl.allow has"}}
	case l.stranger != "":
		return []finding{found(fail, "listen", l.stranger, "find out what listens there")}
	case len(l.accepted) == 0:
		return []finding{found(fail, "tls.min_protocol_version", "it accepts no handshake from TLSv1 to TLSv1.3", "look for «tls_handshake» in the gate's log")}
	}
	return nil
}

func (l listenerFacts) checkWeakest() []finding {
	if out := l.unknown(); out != nil {
		return out
	}
	var out []finding
	for _, h := range l.accepted {
		name, weakness := tlsconfig.DescribeHandshake(h.version, h.suite)
		switch {
		case weakness == "":
		case h.version < tls.VersionTLS12:
			out = append(out, found(fail, "tls.min_protocol_version", "accepts "+name+": "+weakness, "write TLSv1.2 or TLSv1.3"))
		default:
			out = append(out, found(warn, "tls.ciphers", "accepts "+name+": "+weakness, "leave it out of the list, or the list out altogether"))
		}
	}
	weakest, _ := tlsconfig.DescribeHandshake(l.accepted[0].version, l.accepted[0].suite)
	return allPassed(out, "accepts %s at the oldest, and nothing weak of %s tried", weakest, plural(len(l.accepted), "handshake"))
}

func (l listenerFacts) checkServed() []finding {
	if l.unknown() != nil {
		return nil // once is enough
	}
	for _, c := range l.served {
		if !slices.ContainsFunc(l.expected, func(e []byte) bool { return bytes.Equal(c, e) }) {
			return []finding{found(fail, "tls.cert_file", "it serves another certificate than the file has", "look for «reload failed» in the gate's log, or find out what listens there")}
		}
	}
	return []finding{well("it serves the certificate of the file")}
}
