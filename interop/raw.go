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
}

func rawScripts() []rawScript {
	all := []rawScript{
		// teleport#6284, electric#630, encore#637: GSSENCRequest first.
		{"GSSENCRequest, then SSLRequest", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeGSS), w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// caddy-l4#256, databasus#722.
		{"SSLRequest, TLS without ALPN", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		{"SSLRequest, TLS with ALPN postgresql", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// neon#12783, lib/pq#1354. Before 17 the server has no direct TLS.
		{"direct TLS with ALPN postgresql", "", func(w *wire) (string, error) {
			return w.steps(w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		{"direct TLS without ALPN", "", func(w *wire) (string, error) {
			return w.steps(w.handshake(), w.startup(protocol30, "user", clearUser))
		}},
		{"protocol 3.0", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol30, "user", clearUser))
		}},
		// teleport#68711, pgx#2489: the keys of 3.2.
		{"protocol 3.2", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.startup(protocol32, "user", clearUser))
		}},
		// pgwire#455, pgagroal#971.
		{"protocol 3.9999 with _pq_.one and _pq_.two", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocolNew, "user", clearUser, "_pq_.one", "1", "_pq_.two", "2"))
		}},
		// cockroach#93425: a CancelRequest inside of TLS. It is never answered.
		{"SSLRequest, TLS, CancelRequest of nobody", "", func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"), w.cancelNobody)
		}},
	}
	// pgbouncer#382, #1164, #1196: how one asks for replication.
	for _, value := range []string{"true", "on", "yes", "1", "t", "TRUE", "database", "false", "off", "0", "perhaps"} {
		limit := ""
		if value == "perhaps" {
			limit = "refused as by PostgreSQL, but with the SQLSTATE of a malformed packet"
		}
		all = append(all, rawScript{"replication=" + value, limit, func(w *wire) (string, error) {
			return w.steps(w.request(codeSSL), w.handshake("postgresql"),
				w.startup(protocol30, "user", replicatorUser, "database", "postgres", "replication", value))
		}})
	}
	return all
}

// rawTable runs every script on both ways.
func (m *matrix) rawTable(ctx context.Context, s *server, g *gate) (rows []rawRow, err error) {
	for _, script := range rawScripts() {
		row := rawRow{title: script.title, byDesign: script.byDesign}
		if row.straight, err = m.rawRun(ctx, s.Port, script); err != nil {
			return nil, err
		}
		if row.through, err = m.rawRun(ctx, g.port, script); err != nil {
			return nil, err
		}
		if strings.HasPrefix(script.title, "direct TLS") && s.major < "17" {
			row.byDesign = "pgwicket has direct TLS in front of every release"
		}
		if strings.HasPrefix(row.straight, "G,") { // a server that was built with GSSAPI
			row.byDesign = "pgwicket does TLS, and no encryption by GSSAPI"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// rawRun returns what was answered, the end of the connection included. An error
// is one of ours.
func (m *matrix) rawRun(ctx context.Context, port int, script rawScript) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	pem, err := os.ReadFile(m.caFile)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return script.run(&wire{Conn: c, roots: roots})
}

// wire is a connection that a script speaks on.
type wire struct {
	net.Conn
	roots *x509.CertPool
}

// move does something and says what was answered; an error is the end of the
// script, and of what it says.
type move func() (string, error)

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
		case errors.As(err, &timeout) && timeout.Timeout():
			return strings.Join(append(said, "no answer"), ", "), nil
		default:
			return strings.Join(append(said, "closed"), ", "), nil
		}
	}
	return strings.Join(said, ", "), nil
}

// request asks for encryption, and returns the byte that is the answer.
func (w *wire) request(code uint32) move {
	return func() (string, error) {
		if _, err := w.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)); err != nil {
			return "", err
		}
		var b [1]byte
		_, err := io.ReadFull(w, b[:])
		return strings.Trim(string(b[:]), "\x00"), err
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

// cancelNobody asks for a query to be cancelled that there is not.
func (w *wire) cancelNobody() (string, error) {
	packet := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancel)
	if _, err := w.Write(append(packet, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4)); err != nil {
		return "", err
	}
	var b [1]byte
	_, err := io.ReadFull(w, b[:])
	return "", err
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
	var head [5]byte
	if _, err := io.ReadFull(w, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<20 {
		return 0, nil, errors.New("no message has that length")
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(w, body)
	return head[0], body, err
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
