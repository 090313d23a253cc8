//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// Short names for a table of many.
const (
	codeSSL     = wire.SSLRequest
	codeGSS     = wire.GSSENCRequest
	protocol30  = wire.Protocol30
	protocol32  = wire.Protocol32
	protocolNew = 3<<16 | 9999
)

// rawRow is what the bytes of one script were answered with.
type rawRow struct {
	title             string
	straight, through string
	byDesign          string
}

// rawScript is what no library sends.
type rawScript struct {
	title    string
	byDesign string
	run      func(w *rawClient) (string, error)
	far      bool // by the gate that reaches the server by TLS
}

func rawScripts() []rawScript {
	all := []rawScript{
		// teleport#6284, electric#630, encore#637: GSSENCRequest first.
		{title: "GSSENCRequest, then SSLRequest", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// traefik#12866, haproxy#3148, golang/go#80573: a large ClientHello in pieces.
		{title: "SSLRequest, a ClientHello byte by byte", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.inPieces, w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// envoy#27808, envoy#31762, pgbouncer#1303, pgbouncer#1584: TLS on both legs, to the
		// second of two hosts; the S of one leg is not seen on the other.
		{title: "a backend by TLS, verify-full, the second of two hosts", far: true, run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		{title: "a session with a backend by TLS, CancelRequest in clear", far: true, run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocol30, "user", clearUser, "database", "postgres"), w.cancelled(false))
		}},
		// materialize#38442, cockroach#169908: the gate's own word, from a client.
		{title: "a startup packet with pgwicket.client_addr", byDesign: "only pgwicket may send these settings", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser, "PgWicket.Client_Addr", "192.0.2.1"))
		}},
		// pgbouncer#392, #140, #833, #786: a flood of cancels takes no session's place.
		{title: "300 CancelRequests with an unknown key, then a session", run: func(w *rawClient) (string, error) {
			return w.steps(w.flood(300), w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
	}
	all = append(all, startups()...)
	all = append(all, cancellations()...)
	return append(all, replications()...)
}

// startups are what may come before and in a startup packet.
func startups() []rawScript {
	return []rawScript{
		// A server that is built with GSSAPI says G, and waits for its handshake.
		{title: "GSSENCRequest twice", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeGSS))
		}},
		{title: "GSSENCRequest, SSLRequest, GSSENCRequest inside TLS", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeSSL), w.handshake("postgresql"), w.request(codeGSS))
		}},
		{title: "SSLRequest, TLS, SSLRequest", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.request(codeSSL))
		}},
		// caddy-l4#256, databasus#722.
		{title: "SSLRequest, TLS without ALPN", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		{title: "SSLRequest, TLS with ALPN postgresql", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// neon#12783, lib/pq#1354. Before 17 the server has no direct TLS.
		{title: "direct TLS with ALPN postgresql", run: func(w *rawClient) (string, error) {
			return w.steps(w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		{title: "direct TLS without ALPN", run: func(w *rawClient) (string, error) {
			return w.steps(w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		// neon#12783: PostgreSQL says N to it.
		{title: "direct TLS with ALPN postgresql, SSLRequest", run: func(w *rawClient) (string, error) {
			return w.steps(w.handshake("postgresql"), w.request(codeSSL), w.startup(protocol30, "user", clearUser))
		}},
		{title: "protocol 3.0", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// teleport#68711, pgx#2489: the keys of 3.2.
		{title: "protocol 3.2", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol32, "user", clearUser))
		}},
		// pgwire#455, pgagroal#971.
		{title: "protocol 3.9999 with _pq_.one and _pq_.two", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocolNew, "user", clearUser, "_pq_.one", "1", "_pq_.two", "2"))
		}},
		// cockroach#93425: a CancelRequest inside of TLS. It is never answered.
		{title: "SSLRequest, TLS, CancelRequest with an unknown key", run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.cancelUnknown)
		}},
	}
}

// cancellations are a query that is cancelled in clear and inside of TLS, by a key of
// 4 bytes and by 3.2's longer one: cockroach#93631, pgx#2340, teleport#68711,
// pgx#2489.
func cancellations() (all []rawScript) {
	for _, version := range []uint32{protocol30, protocol32} {
		for _, inTLS := range []bool{false, true} {
			title := fmt.Sprintf("a session of 3.%d, CancelRequest in clear", version&0xffff)
			if inTLS {
				title = fmt.Sprintf("a session of 3.%d, CancelRequest inside of TLS", version&0xffff)
			}
			all = append(all, rawScript{title: title, run: func(w *rawClient) (string, error) {
				return w.steps(w.request(codeSSL), w.handshake("postgresql"),
					w.startup(version, "user", clearUser, "database", "postgres"), w.cancelled(inTLS))
			}})
		}
	}
	return all
}

// replications are how one asks for replication: pgbouncer#382, #1164, #1196.
func replications() (all []rawScript) {
	for _, value := range []string{"true", "on", "yes", "1", "t", "TRUE", "database", "false", "off", "0", "perhaps"} {
		all = append(all, rawScript{title: "replication=" + value, run: func(w *rawClient) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocol30, "user", replicatorUser, "database", "postgres", "replication", value))
		}})
	}
	return all
}

// rawTable runs every script on both ways.
func (m *matrix) rawTable(ctx context.Context, s *server, near, far *gate.Gate) (rows []rawRow, err error) {
	for _, script := range rawScripts() {
		row := rawRow{title: script.title, byDesign: script.byDesign}
		if row.straight, err = m.rawRun(ctx, s.Port, script); err != nil {
			return nil, err
		}
		g := near
		if script.far {
			g = far
		}
		if row.through, err = m.rawRun(ctx, g.Port, script); err != nil {
			return nil, err
		}
		if strings.HasPrefix(script.title, "direct TLS") && s.major < "17" {
			row.byDesign = "pgwicket has direct TLS in front of every release"
		}
		if strings.HasPrefix(row.straight, "G") { // a server that was built with GSSAPI
			row.byDesign = "pgwicket does TLS, and no encryption by GSSAPI"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// rawRun returns what was answered, the end of the connection included. An error
// is one of ours.
func (m *matrix) rawRun(ctx context.Context, port int, script rawScript) (string, error) {
	dial := func() (*wire.Conn, error) {
		return wire.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), gate.Timeout)
	}
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.CloseTCP()
	roots := x509.NewCertPool()
	roots.AddCert(m.ca.Cert)
	return script.run(&rawClient{Conn: c, ctx: ctx, roots: roots, again: dial})
}

// rawClient is a connection that a script speaks on.
type rawClient struct {
	*wire.Conn
	ctx   context.Context // of the script
	roots *x509.CertPool
	again func() (*wire.Conn, error) // another one to the same place
	key   []byte                     // BackendKeyData: the process and its key
}

// move does something and says what was answered; an error is the end of the
// script, and of what it says.
type move func() (string, error)

// errEnough ends a script whose peer will not answer any more.
var errEnough = errors.New("enough")

// steps takes them one after the other.
func (w *rawClient) steps(all ...move) (string, error) {
	var said []string
	for _, s := range all {
		answer, err := s()
		if answer != "" {
			said = append(said, answer)
		}
		var timeout net.Error
		switch {
		case err == nil:
		case errors.Is(err, errEnough):
			return strings.Join(said, ", "), nil
		case errors.As(err, &timeout) && timeout.Timeout():
			return strings.Join(append(said, "no answer"), ", "), nil
		default:
			return strings.Join(append(said, "closed"), ", "), nil
		}
	}
	return strings.Join(said, ", "), nil
}

// request asks for encryption, and returns the byte that is the answer, or the
// refusal.
func (w *rawClient) request(code uint32) move {
	return func() (string, error) {
		answer, err := w.Request(code)
		switch {
		case err != nil:
			return "", err
		case answer == 'E':
			body, err := w.ReadBody()
			return "error " + sqlstate(body), errors.Join(err, errEnough)
		case answer == 'G':
			return "G", errEnough
		}
		return string([]byte{answer}), nil
	}
}

// handshake goes over to TLS.
func (w *rawClient) handshake(alpn ...string) move {
	return func() (string, error) {
		if err := w.Handshake(w.ctx, w.tlsConfig(alpn...)); err != nil {
			return "no TLS", err
		}
		return "TLS", nil // an older server knows no ALPN, and pgwicket asks for none
	}
}

func (w *rawClient) tlsConfig(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: w.roots, ServerName: "localhost", NextProtos: alpn, MinVersion: tls.VersionTLS12}
}

// inPieces sends what comes next a byte at a time.
func (w *rawClient) inPieces() (string, error) {
	w.Conn.Conn = pieces{w.Conn.Conn}
	return "", nil
}

// pieces writes a byte at a time.
type pieces struct{ net.Conn }

func (p pieces) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := p.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// flood sends requests to cancel what there is not, and does not wait for their end.
func (w *rawClient) flood(n int) move {
	return func() (string, error) {
		for range n {
			c, err := w.again()
			if err != nil {
				return "", err
			}
			defer c.CloseTCP()
			if err := c.Send(wire.Cancel(unknownKey)); err != nil {
				return "", err
			}
		}
		return "", nil
	}
}

// unknownKey is that of no process.
var unknownKey = []byte{0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4}

// cancelUnknown sends a CancelRequest for no query.
func (w *rawClient) cancelUnknown() (string, error) { return "", askToCancel(w.Conn, unknownKey) }

// askToCancel sends a CancelRequest, and returns when the other side has closed.
func askToCancel(c *wire.Conn, key []byte) error {
	if err := c.Send(wire.Cancel(key)); err != nil {
		return err
	}
	var b [1]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

// cancelled starts a query and has it cancelled by its key. A request that comes
// before the query cancels nothing, so it is sent until there is an answer.
func (w *rawClient) cancelled(inTLS bool) move {
	return func() (string, error) {
		if err := w.Send(wire.Query("select pg_sleep(60)")); err != nil {
			return "", err
		}
		answered := make(chan string, 1)
		go func() {
			var refused *wire.Error
			_, err := w.Await('Z')
			switch {
			case errors.As(err, &refused):
				answered <- "error " + refused.Code
			case err != nil:
				answered <- err.Error()
			default:
				answered <- "not cancelled"
			}
		}()
		for {
			if err := w.cancelOnce(inTLS); err != nil {
				return "", err
			}
			select {
			case said := <-answered:
				return said, nil
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

func (w *rawClient) cancelOnce(inTLS bool) error {
	c, err := w.again()
	if err != nil {
		return err
	}
	defer c.CloseTCP()
	if inTLS {
		if err := c.RequestTLS(); err != nil {
			return err
		}
		if err := c.Handshake(w.ctx, w.tlsConfig("postgresql")); err != nil {
			return err
		}
	}
	if err := askToCancel(c, w.key); !errors.Is(err, io.EOF) {
		return fmt.Errorf("a CancelRequest ended with %w", err)
	}
	return nil
}

// startup starts a session, gives the password where it is asked for in clear, and
// returns the kinds of messages up to the first query, with the sizes of keys and
// the words of refusals. SCRAM ends the script.
func (w *rawClient) startup(version uint32, parameters ...string) move {
	return func() (string, error) {
		if err := w.Send(wire.Startup(version, parameters...)); err != nil {
			return "", err
		}
		var said []string
		for {
			kind, message, err := w.ReadMessage()
			if err != nil {
				return strings.Join(said, ", "), err
			}
			switch kind {
			case 'R':
				method := binary.BigEndian.Uint32(message)
				said = append(said, fmt.Sprintf("authentication %d", method))
				switch method {
				case 0:
				case 3:
					if err := w.Send(wire.Message('p', password+"\x00")); err != nil {
						return strings.Join(said, ", "), err
					}
				default:
					return strings.Join(said, ", "), nil
				}
			case 'v':
				said = append(said, fmt.Sprintf("NegotiateProtocolVersion %d %q", binary.BigEndian.Uint32(message), bytes.Split(bytes.Trim(message[8:], "\x00"), []byte{0})))
			case 'K':
				w.key = message
				said = append(said, fmt.Sprintf("a key of %d bytes", len(message)-4))
			case 'E':
				return strings.Join(append(said, "error "+sqlstate(message)), ", "), nil
			case 'Z':
				return strings.Join(append(said, "ready"), ", "), nil
			}
		}
	}
}

// sqlstate finds it among the fields of an error.
func sqlstate(message []byte) string {
	return cmp.Or(wire.Field(message, 'C'), "without SQLSTATE")
}
