package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// besideItsOwnTLS starts a PostgreSQL with TLS, and a gate that reaches it by its socket. It also returns the address of
// PostgreSQL itself.
func besideItsOwnTLS(t *testing.T, o pgtest.Options, edit ...func(*proxy.Policy)) (g *gate, straight string) {
	t.Helper()
	pair := testCA().Server("localhost", "127.0.0.1")
	o.Host, o.Settings = "127.0.0.1", []string{"ssl=on"}
	o.Files = map[string][]byte{"server.crt": pair.CertPEM(), "server.key": pair.KeyPEM()}
	db, err := pgtest.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	socket := socketBackend(fmt.Sprintf("%s/.s.PGSQL.%d", db.SocketDir, db.Port))
	return newGate(t, db.SocketDir, append([]func(*proxy.Policy){to(socket)}, edit...)...), net.JoinHostPort("127.0.0.1", strconv.Itoa(db.Port))
}

// A start-up packet that PostgreSQL refuses the gate refuses with the same SQLSTATE,
// whichever of the two refuses it. The same packets go to PostgreSQL itself,
// over its own TLS, and to a gate in front of it. Where both are to differ, the
// reason says why.
func TestStartupPacketsAsPostgreSQL(t *testing.T) {
	t.Parallel()
	g, straight := besideItsOwnTLS(t, pgtest.Options{
		HBA: "local all all trust\nlocal replication all trust\nhostssl all all all trust\nhostssl replication all all trust",
		SQL: "create role app login; create role " + strings.Repeat("n", 63) + " login; create role shut nologin",
	})

	body := func(s string) []byte { return packet(protocol3, []byte(s)) }
	length := func(n uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, n), 0, 3, 0, 0) }
	with := func(more ...string) []byte {
		return startup(protocol3, append([]string{"user", "app", "database", "postgres"}, more...)...)
	}
	long63, long64 := strings.Repeat("n", 63), strings.Repeat("n", 64)
	for _, c := range []struct {
		name   string
		says   []byte
		answer string
	}{
		{"a session", with(), "ready"},
		{"3.1", startup(protocol3|1, "user", "app", "database", "postgres"), "ready"},
		{"3.9999 with _pq_", startup(protocol3|9999, "user", "app", "database", "postgres", "_pq_.x", "1"), "ready"},
		{"0.0", startup(0, "user", "app"), "error 0A000"},
		{"2.0", startup(2<<16, "user", "app"), "error without SQLSTATE"},
		{"1.0", startup(1<<16, "user", "app"), "error without SQLSTATE"},
		{"4.0", startup(4<<16, "user", "app"), "error 0A000"},
		{"1234.5681", startup(1234<<16|5681, "user", "app"), "error 0A000"},
		{"SSLRequest in TLS", sslRequest, "error 0A000"},
		{"GSSENCRequest in TLS", gssencRequest, "error 0A000"},
		{"no user", startup(protocol3, "database", "postgres"), "error 28000"},
		{"nothing", startup(protocol3), "error 28000"},
		{"an empty user", startup(protocol3, "user", "", "database", "postgres"), "error 28000"},
		{"USER", startup(protocol3, "USER", "app", "database", "postgres"), "error 28000"},
		{"a role that is not there", startup(protocol3, "user", "nobody", "database", "postgres"), "error 28000"},
		{"a role without LOGIN", startup(protocol3, "user", "shut", "database", "postgres"), "error 28000"},
		{"a role of Latin-1", startup(protocol3, "user", "\xe9", "database", "postgres"), "error 28000"},
		{"no such database", startup(protocol3, "user", "app", "database", "nowhere"), "error 3D000"},
		{"no database", startup(protocol3, "user", "app"), "error 3D000"},
		{"an empty database", startup(protocol3, "user", "app", "database", ""), "error 3D000"},
		{"a role of 63 bytes", startup(protocol3, "user", long63, "database", "postgres"), "ready"},
		{"a database of 63 bytes", startup(protocol3, "user", "app", "database", long63), "error 3D000"},
		{"replication=perhaps", with("replication", "perhaps"), "error 22023"},
		{"replication=Database", with("replication", "Database"), "error 22023"},
		{"replication=", with("replication", ""), "error 22023"},
		{"perhaps without a user", startup(protocol3, "replication", "perhaps"), "error 22023"},
		{"perhaps, and bytes more", body("user\x00app\x00replication\x00perhaps\x00\x00more"), "error 22023"},
		{"REPLICATION=perhaps", with("REPLICATION", "perhaps"), "error 42704"},
		{"replication, not allowed", startup(protocol3, "user", "app", "replication", "true"), "error 42501"},
		{"replication=database", with("replication", "database"), "error 42501"},
		{"replication=off", with("replication", "off"), "ready"},
		{"no such setting", with("nothing", "1"), "error 42704"},
		{"a setting of no sense", with("statement_timeout", "x"), "error 22023"},
		{"a superuser's setting", with("log_statement", "all"), "error 42501"},
		{"a setting that is fixed", with("port", "1"), "error 55P02"},
		{"no such encoding", with("client_encoding", "x"), "error 22023"},
		{"options of no sense", with("options", "--x"), "error 42601"},
		{"options, no such setting", with("options", "-c nothing=1"), "error 42704"},
		{"options of 9,900 bytes", with("options", strings.Repeat(" ", 9_900)), "ready"},
		{"a name without a value", body("user\x00app\x00options\x00"), "error 08P01"},
		{"no terminator", body("user\x00app\x00"), "error 08P01"},
		{"a value without its end", body("user\x00app"), "error 08P01"},
		{"a name without its end", body("user"), "error 08P01"},
		{"a byte more", body("user\x00app\x00\x00\x00"), "error 08P01"},
		{"parameters behind the end", body("user\x00app\x00\x00user\x00postgres\x00\x00"), "error 08P01"},
		{"an empty name", body("\x00app\x00\x00"), "error 08P01"},
		{"no body", packet(protocol3, nil), "error 08P01"},
		{"a length of 0", length(0), "closed"},
		{"a length of 4", length(4), "closed"},
		{"a length of 7", length(7), "closed"},
		{"a length of 10,005", length(10_005), "closed"},
		{"a length of -1", length(1<<32 - 1), "closed"},
		{"a length of 2 GiB", length(1<<31 - 1), "closed"},
		{"a cancel of nobody", cancelRequest(1<<31-1, []byte{1, 2, 3, 4}), "closed"},
		{"a cancel without a key", packet(80877102, []byte{0, 0, 0, 1}), "closed"},
		{"a cancel with half a key", cancelRequest(1<<31-1, []byte{1, 2}), "closed"},
		{"a cancel with 257 bytes", cancelRequest(1<<31-1, make([]byte, 257)), "closed"},
		{"a cancel without a process", packet(80877102, nil), "closed"},
	} {
		for who, address := range map[string]string{"PostgreSQL": straight, "the gate": g.Addr} {
			if got := answerTo(t, g, address, c.says); got != c.answer {
				t.Errorf("%s: %s: %s, want %s", c.name, who, got, c.answer)
			}
		}
	}

	const (
		ambiguous = "who reads it otherwise than PostgreSQL checks somebody else"
		owned     = "the gate's word for who the client is must not be the client's"
	)
	for _, c := range []struct {
		name                   string
		says                   []byte
		postgres, gate, reason string
	}{
		{"a role of 64 bytes", startup(protocol3, "user", long64, "database", "postgres"), "ready", "error 08P01", ambiguous},
		{"a database of 64 bytes", startup(protocol3, "user", "app", "database", long64), "error 3D000", "error 08P01", ambiguous},
		{"user twice", startup(protocol3, "user", "nobody", "user", "app", "database", "postgres"), "ready", "error 08P01", ambiguous},
		{"a setting in two cases", with("TimeZone", "UTC", "timezone", "CET"), "ready", "error 08P01", ambiguous},
		{"a last byte that is not NUL", body("user\x00app\x00database\x00postgres\x00X"), "ready", "error 08P01", ambiguous},
		{"pgwicket.client_cn", with("PgWicket.client_cn", "x"), "ready", "error 42501", owned},
		{"pgwicket.client_cn, options", with("options", "-cpgwicket.client_cn=x"), "ready", "error 42501", owned},
		{"an SSLRequest of 9 bytes", packet(80877103, []byte{0}), "error 0A000", "closed", ambiguous},
		{"a GSSENCRequest of 100 bytes", packet(80877104, make([]byte, 92)), "error 0A000", "closed", ambiguous},
	} {
		if got := answerTo(t, g, straight, c.says); got != c.postgres {
			t.Errorf("%s: PostgreSQL: %s, want %s", c.name, got, c.postgres)
		}
		if got := answerTo(t, g, g.Addr, c.says); got != c.gate {
			t.Errorf("%s: the gate: %s, want %s, for %s", c.name, got, c.gate, c.reason)
		}
	}
}

// answerTo says how a start-up packet inside TLS is answered by the server that listens
// there.
func answerTo(t *testing.T, g *gate, address string, says []byte) string {
	t.Helper()
	raw, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience))
	send(t, raw, sslRequest)
	expectByte(t, raw, 'S')
	conn := shake(t, raw, g.clientTLS(withALPN("postgresql")))
	send(t, conn, says)
	for {
		var head [5]byte
		switch _, err := io.ReadFull(conn, head[:]); {
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET): // PostgreSQL resets what it leaves unread
			return "closed"
		case err != nil:
			t.Fatal(err)
		case string(head[:]) == "EFATA": // as before protocol 3
			return "error without SQLSTATE"
		}
		message := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(conn, message); err != nil {
			t.Fatal(err)
		}
		switch head[0] {
		case 'E':
			var e pgproto3.ErrorResponse
			if err := e.Decode(message); err != nil {
				t.Fatal(err)
			}
			return "error " + e.Code
		case 'Z':
			return "ready"
		}
	}
}
