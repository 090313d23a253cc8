//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The codes that begin a connection.
const (
	codeCancel  = 80877102
	codeSSL     = 80877103
	codeGSS     = 80877104
	protocol30  = 3 << 16
	protocol32  = 3<<16 | 2
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
	run      func(w *wire) (string, error)
	far      bool // by the gate that reaches the server by TLS
}

func rawScripts() []rawScript {
	all := []rawScript{
		// teleport#6284, electric#630, encore#637: GSSENCRequest first.
		{title: "GSSENCRequest, then SSLRequest", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// traefik#12866, haproxy#3148, golang/go#80573: a large ClientHello in pieces.
		{title: "SSLRequest, a ClientHello byte by byte", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.inPieces, w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// envoy#27808, envoy#31762, pgbouncer#1303, pgbouncer#1584: TLS on both legs, to the
		// second of two hosts; the S of one leg is not seen on the other.
		{title: "a backend by TLS, verify-full, the second of two hosts", far: true, run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		{title: "a session with a backend by TLS, CancelRequest in clear", far: true, run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocol30, "user", clearUser, "database", "postgres"), w.cancelled(false))
		}},
		// materialize#38442, cockroach#169908: the gate's own word, from a client.
		{title: "a startup packet with pgwicket.client_addr", byDesign: "these settings are its own to send", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser, "PgWicket.Client_Addr", "192.0.2.1"))
		}},
		// pgbouncer#392, #140, #833, #786: a flood of cancels takes no session's place.
		{title: "300 CancelRequests of nobody, then a session", run: func(w *wire) (string, error) {
			return w.steps(w.flood(300), w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// A server that is built with GSSAPI says G, and waits for its handshake.
		{title: "GSSENCRequest twice", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeGSS))
		}},
		{title: "GSSENCRequest, SSLRequest, GSSENCRequest inside TLS", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeSSL), w.handshake("postgresql"), w.request(codeGSS))
		}},
		{title: "SSLRequest, TLS, SSLRequest", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.request(codeSSL))
		}},
		// caddy-l4#256, databasus#722.
		{title: "SSLRequest, TLS without ALPN", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		{title: "SSLRequest, TLS with ALPN postgresql", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// neon#12783, lib/pq#1354. Before 17 the server has no direct TLS.
		{title: "direct TLS with ALPN postgresql", run: func(w *wire) (string, error) {
			return w.steps(w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		{title: "direct TLS without ALPN", run: func(w *wire) (string, error) {
			return w.steps(w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		// neon#12783: PostgreSQL says N to it.
		{title: "direct TLS with ALPN postgresql, SSLRequest", run: func(w *wire) (string, error) {
			return w.steps(w.handshake("postgresql"), w.request(codeSSL), w.startup(protocol30, "user", clearUser))
		}},
		{title: "protocol 3.0", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// teleport#68711, pgx#2489: the keys of 3.2.
		{title: "protocol 3.2", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol32, "user", clearUser))
		}},
		// pgwire#455, pgagroal#971.
		{title: "protocol 3.9999 with _pq_.one and _pq_.two", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocolNew, "user", clearUser, "_pq_.one", "1", "_pq_.two", "2"))
		}},
		// cockroach#93425: a CancelRequest inside of TLS. It is never answered.
		{title: "SSLRequest, TLS, CancelRequest of nobody", run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.cancelNobody)
		}},
	}
	// cockroach#93631, pgx#2340, teleport#68711, pgx#2489: a query is cancelled in
	// clear and inside of TLS, by a key of 4 bytes and by 3.2's longer one.
	for _, version := range []uint32{protocol30, protocol32} {
		for _, inTLS := range []bool{false, true} {
			title := fmt.Sprintf("a session of 3.%d, CancelRequest in clear", version&0xffff)
			if inTLS {
				title = fmt.Sprintf("a session of 3.%d, CancelRequest inside of TLS", version&0xffff)
			}
			all = append(all, rawScript{title: title, run: func(w *wire) (string, error) {
				return w.steps(w.request(codeSSL), w.handshake("postgresql"),
					w.startup(version, "user", clearUser, "database", "postgres"), w.cancelled(inTLS))
			}})
		}
	}
	// pgbouncer#382, #1164, #1196: how one asks for replication.
	for _, value := range []string{"true", "on", "yes", "1", "t", "TRUE", "database", "false", "off", "0", "perhaps"} {
		all = append(all, rawScript{title: "replication=" + value, run: func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocol30, "user", replicatorUser, "database", "postgres", "replication", value))
		}})
	}
	return all
}

// rawTable runs every script on both ways.
func (m *matrix) rawTable(ctx context.Context, s *server, near, far *gate) (rows []rawRow, err error) {
	for _, script := range rawScripts() {
		row := rawRow{title: script.title, byDesign: script.byDesign}
		if row.straight, err = m.rawRun(ctx, s.Port, script); err != nil {
			return nil, err
		}
		g := near
		if script.far {
			g = far
		}
		if row.through, err = m.rawRun(ctx, g.port, script); err != nil {
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
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	c, err := dialRaw(ctx, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	pem, err := os.ReadFile(m.caFile)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return script.run(&wire{Conn: c, roots: roots, again: func() (net.Conn, error) { return dialRaw(ctx, address) }})
}

// dialRaw opens a connection that does not outlast a script.
func dialRaw(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// wire is a connection that a script speaks on.
type wire struct {
	net.Conn
	roots *x509.CertPool
	again func() (net.Conn, error) // another one to the same place
	key   []byte                   // BackendKeyData: the process and its key
}

// move does something and says what was answered; an error is the end of the
// script, and of what it says.
type move func() (string, error)

// errEnough is the end of a script that has nobody to talk to any more.
var errEnough = errors.New("enough")

// steps takes them one after the other.
func (w *wire) steps(all ...move) (string, error) {
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
func (w *wire) request(code uint32) move {
	return func() (string, error) {
		if _, err := w.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)); err != nil {
			return "", err
		}
		var b [1]byte
		if _, err := io.ReadFull(w, b[:]); err != nil {
			return "", err
		}
		switch b[0] {
		case 'E':
			message, err := w.body()
			return "error " + sqlstate(message), errors.Join(err, errEnough)
		case 'G':
			return "G", errEnough
		}
		return string(b[:]), nil
	}
}

// handshake goes over to TLS.
func (w *wire) handshake(alpn ...string) move {
	return func() (string, error) {
		c := tls.Client(w.Conn, &tls.Config{RootCAs: w.roots, ServerName: "localhost", NextProtos: alpn, MinVersion: tls.VersionTLS12})
		if err := c.Handshake(); err != nil {
			return "no TLS", err
		}
		w.Conn = c
		return "TLS", nil // an older server knows no ALPN, and pgwicket asks for none
	}
}

// inPieces sends what comes next a byte at a time.
func (w *wire) inPieces() (string, error) {
	w.Conn = pieces{w.Conn}
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
func (w *wire) flood(n int) move {
	return func() (string, error) {
		for range n {
			c, err := w.again()
			if err != nil {
				return "", err
			}
			defer c.Close()
			if _, err := c.Write(cancelRequest(nobody)); err != nil {
				return "", err
			}
		}
		return "", nil
	}
}

// nobody is a process with a key that there is not.
var nobody = []byte{0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4}

func cancelRequest(key []byte) []byte {
	packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(key)))
	return append(binary.BigEndian.AppendUint32(packet, codeCancel), key...)
}

// cancelNobody asks for a query to be cancelled that there is not.
func (w *wire) cancelNobody() (string, error) { return "", askToCancel(w, nobody) }

// askToCancel sends a CancelRequest, and returns when the other side has closed.
func askToCancel(c net.Conn, key []byte) error {
	if _, err := c.Write(cancelRequest(key)); err != nil {
		return err
	}
	var b [1]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

// cancelled starts a query and has it cancelled by its key. A request that comes
// before the query cancels nothing, so it is sent until there is an answer.
func (w *wire) cancelled(inTLS bool) move {
	return func() (string, error) {
		query := append([]byte("select pg_sleep(60)"), 0)
		if _, err := w.Write(append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(query)+4)), query...)); err != nil {
			return "", err
		}
		answered := make(chan string, 1)
		go func() {
			for {
				kind, message, err := w.message()
				switch {
				case err != nil:
					answered <- err.Error()
					return
				case kind == 'E':
					answered <- "error " + sqlstate(message)
					return
				case kind == 'Z':
					answered <- "not cancelled"
					return
				}
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

func (w *wire) cancelOnce(inTLS bool) error {
	c, err := w.again()
	if err != nil {
		return err
	}
	defer c.Close()
	other := &wire{Conn: c, roots: w.roots}
	if inTLS {
		for _, m := range []move{other.request(codeSSL), other.handshake("postgresql")} {
			if _, err := m(); err != nil {
				return err
			}
		}
	}
	if err := askToCancel(other, w.key); !errors.Is(err, io.EOF) {
		return fmt.Errorf("a CancelRequest ended with %w", err)
	}
	return nil
}

// startup starts a session, gives the password where it is asked for in clear, and
// returns the kinds of messages up to the first query, with the sizes of keys and
// the words of refusals. SCRAM ends the script.
func (w *wire) startup(version uint32, parameters ...string) move {
	return func() (string, error) {
		var body []byte
		body = binary.BigEndian.AppendUint32(body, version)
		for _, p := range parameters {
			body = append(append(body, p...), 0)
		}
		body = append(body, 0)
		if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
			return "", err
		}
		var said []string
		for {
			kind, message, err := w.message()
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
					answer := append([]byte(password), 0)
					if _, err := w.Write(append(binary.BigEndian.AppendUint32([]byte{'p'}, uint32(len(answer)+4)), answer...)); err != nil {
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

// message reads one, of at most a megabyte.
func (w *wire) message() (kind byte, body []byte, err error) {
	var head [1]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return 0, nil, err
	}
	body, err = w.body()
	return head[0], body, err
}

// body reads what comes after a message's kind.
func (w *wire) body() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > 1<<20 {
		return nil, errors.New("no message has that length")
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(w, body)
	return body, err
}

// sqlstate finds it among the fields of an error.
func sqlstate(message []byte) string {
	for field := range bytes.SplitSeq(message, []byte{0}) {
		if len(field) == 6 && field[0] == 'C' {
			return string(field[1:])
		}
	}
	return "without SQLSTATE"
}
