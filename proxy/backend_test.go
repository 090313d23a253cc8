package proxy_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/pgwire"
	"pgwicket/proxy"
)

// tlsPostgres starts a PostgreSQL that listens on 127.0.0.1 with TLS, too: clear is
// admitted without it only, cert by its certificate, and app with it.
func tlsPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	pair := testCA().Server("localhost", "127.0.0.1")
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		Host: "127.0.0.1",
		HBA: "local all all trust\nhostnossl all clear all trust\nhostssl all cert all cert\n" +
			"hostssl all scram all scram-sha-256\nhostssl all app all trust",
		Files:    map[string][]byte{"server.crt": pair.CertPEM(), "server.key": pair.KeyPEM(), "ca.crt": testCA().CertPEM()},
		Settings: []string{"ssl=on", "ssl_ca_file=ca.crt"},
		SQL: `create role app login; create role clear login; create role cert login;
			create role scram login password '` + secret + `'; grant all on schema public to app;`,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return db
}

// over is a host on TCP, and asked asks it for TLS with a certificate that must be
// of that name.
func over(db *pgtest.Server, config *tls.Config) proxy.Host {
	return proxy.Host{Network: "tcp", Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(db.Port)), TLS: config}
}

func asked(name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(testCA().Cert)
	return &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"postgresql"}, DynamicRecordSizingDisabled: true}
}

func backendOf(hosts ...proxy.Host) *proxy.Backend {
	return &proxy.Backend{Hosts: hosts, ConnectTimeout: patience}
}

func to(b *proxy.Backend) func(*proxy.Policy) { return func(p *proxy.Policy) { p.Backend = b } }

const inTLS = "select coalesce(version, 'none') from pg_stat_ssl where pid = pg_backend_pid()"

// Both legs have a TLS of their own (envoy#27808, envoy#30194: the S of one leg
// leaks into the other), and the backend's is as strict as it was asked to be
// (pgbouncer#1303: the name of another host is taken).
func TestBackendOverTLS(t *testing.T) {
	t.Parallel()
	db := tlsPostgres(t)
	withCert := asked("localhost")
	withCert.Certificates = []tls.Certificate{testCA().Client("cert").TLS()}
	stranger := asked("localhost")
	stranger.RootCAs = x509.NewCertPool()
	for _, c := range []struct {
		name, user, want string // what PostgreSQL says of its TLS, or what psql gets
		outcome, reason  string
		host             proxy.Host
	}{
		{"verified by name", "app", "TLSv1.3", "client_closed", "", over(db, asked("localhost"))},
		{"verified by address", "app", "TLSv1.3", "client_closed", "", over(db, asked("127.0.0.1"))},
		{"another name", "app", "the database cannot be reached", "backend_unavailable", "not db.example", over(db, asked("db.example"))},
		{"unknown authority", "app", "the database cannot be reached", "backend_unavailable", "unknown authority", over(db, stranger)},
		{"in clear", "clear", "none", "client_closed", "", over(db, nil)},
		{"in clear, refused by PostgreSQL", "app", "no pg_hba.conf entry", "authentication_failed", "", over(db, nil)},
		{"our certificate", "cert", "TLSv1.3", "client_closed", "", over(db, withCert)},
		{"no certificate of ours", "cert", "requires a valid client certificate", "authentication_failed", "", over(db, asked("localhost"))},
	} {
		g := newGate(t, db.SocketDir, to(backendOf(c.host)))
		out, _ := psql(t, libpq(t, g, "PGUSER="+c.user, "PGDATABASE=postgres"), inTLS)
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: psql says %q, want %q", c.name, out, c.want)
		}
		line := g.expect(t, c.outcome)
		if !strings.Contains(line.get("reason"), c.reason) {
			t.Errorf("%s: the log's reason is %q, want %q", c.name, line.get("reason"), c.reason)
		}
	}
}

// Not a byte is lost through two TLS connections, and a cancel goes the same way.
func TestSessionOverTLSToTheBackend(t *testing.T) {
	t.Parallel()
	db := tlsPostgres(t)
	g := newGate(t, db.SocketDir, to(backendOf(over(db, asked("localhost")))))
	conn := pgxTo(t, g, "app")
	value := make([]byte, 20<<20)
	for i := range value {
		value[i] = byte(i * i >> 7)
	}
	var back []byte
	var sum string
	if err := conn.QueryRow(context.Background(), "select $1::bytea, md5($1::bytea)", value).Scan(&back, &sum); err != nil {
		t.Fatal(err)
	}
	if own := md5.Sum(value); !bytes.Equal(value, back) || sum != hex.EncodeToString(own[:]) {
		t.Error("a large value has come back as another")
	}
	started := time.Now()
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(600)")
		failed <- err
	}()
	eventually(t, "the query runs", func() bool {
		out, err := db.SQL("select count(*) from pg_stat_activity where query like '%pg_sleep(600)' and wait_event = 'PgSleep'")
		return err == nil && strings.TrimSpace(out) == "1"
	})
	if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("the query ended with %v after %v", err, time.Since(started))
	}
	db.Kill()
	if _, err := conn.Exec(context.Background(), "select 1"); err == nil {
		t.Error("an answer of a dead server")
	}
}

// A COPY over TLS on both legs leaves the session as it was; ProxySQL's next query was
// written into a buffer that nobody sent (sysown/proxysql#6191).
func TestCopyOverTLSToTheBackend(t *testing.T) {
	t.Parallel()
	db := tlsPostgres(t)
	g := newGate(t, db.SocketDir, to(backendOf(over(db, asked("localhost")))))
	conn := pgxTo(t, g, "app")
	if _, err := conn.Exec(context.Background(), "create temp table copied (n int, text text)"); err != nil {
		t.Fatal(err)
	}
	const rows = 20_000
	for round := range 2 {
		n, err := conn.CopyFrom(context.Background(), pgx.Identifier{"copied"}, []string{"n", "text"},
			pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{i, strings.Repeat("x", 100)}, nil }))
		if err != nil || n != rows {
			t.Fatalf("%d rows copied, %v", n, err)
		}
		if got, want := query[int](t, conn, "select count(*)::int from copied"), (round+1)*rows; got != want {
			t.Errorf("the table has %d rows, want %d", got, want)
		}
		var out bytes.Buffer
		if _, err := conn.PgConn().CopyTo(context.Background(), &out, "copy copied to stdout"); err != nil {
			t.Fatal(err)
		}
		if got, want := bytes.Count(out.Bytes(), []byte("\n")), (round+1)*rows; got != want {
			t.Errorf("%d rows come back, want %d", got, want)
		}
		if got := query[int](t, conn, "select 1"); got != 1 {
			t.Errorf("select 1 yields %d", got)
		}
	}
}

// The first host that opens its door has the session; if none does, the client
// hears so, and the log has why of each.
func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	db := tlsPostgres(t)
	closed, err := pgtest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	down := proxy.Host{Network: "tcp", Address: closed, TLS: asked("localhost")}
	g := newGate(t, db.SocketDir, to(backendOf(down, over(db, asked("wrong.example")), over(db, asked("localhost")))))
	if out, _ := psql(t, libpq(t, g, "PGUSER=app", "PGDATABASE=postgres"), inTLS); !strings.Contains(out, "TLSv1.3") {
		t.Errorf("psql says %q", out)
	}
	g.expect(t, "client_closed")
	g.reload(to(backendOf(down, over(db, asked("wrong.example")))))
	if out, _ := psql(t, libpq(t, g, "PGUSER=app", "PGDATABASE=postgres"), inTLS); !strings.Contains(out, "the database cannot be reached") {
		t.Errorf("psql says %q", out)
	}
	if r := g.expect(t, "backend_unavailable").get("reason"); !strings.Contains(r, closed) || !strings.Contains(r, "wrong.example") {
		t.Errorf("reason %q", r)
	}
}

// answering is a server on TCP that sends something to each client.
func answering(t *testing.T, script func(net.Conn)) string {
	t.Helper()
	f, err := pgtest.StartFakeTCP(func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(patience))
		script(conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f.Address
}

// What a server may answer to an SSLRequest is told apart (envoy#31762), and what
// somebody slips in behind the answer, in clear, ends it (CVE-2021-23222).
func TestBackendAnswersToSSLRequest(t *testing.T) {
	pair := testCA().Server("localhost").TLS()
	request := func(conn net.Conn) {
		got := make([]byte, 8)
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, pgwire.RequestTLS()) {
			t.Errorf("the server got %q, %v", got, err)
		}
	}
	serve := func(conn net.Conn, protocols ...string) {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: protocols})
		got := make([]byte, 4)
		if _, err := io.ReadFull(secure, got); err == nil {
			_, _ = secure.Write([]byte("E\x00\x00\x00\x20SFATAL\x00C53300\x00Mfull already\x00\x00"))
			_ = secure.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	for _, c := range []struct {
		name, outcome, reason string
		direct, clear         bool
		script                func(net.Conn)
	}{
		{"S", "backend_refused", "", false, false, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("S"))
			serve(conn)
		}},
		{"N", "backend_unavailable", "the server has no TLS", false, false, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("N"))
			_, _ = io.Copy(io.Discard, conn)
		}},
		{"N, prefer", "backend_refused", "", false, true, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("N"))
			_, _ = io.ReadFull(conn, make([]byte, 4))
			_, _ = conn.Write([]byte("E\x00\x00\x00\x20SFATAL\x00C53300\x00Mfull already\x00\x00"))
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}},
		{"E", "backend_unavailable", "FATAL C53300 Mfull already", false, true, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("E\x00\x00\x00\x20SFATAL\x00C53300\x00Mfull already\x00\x00"))
		}},
		{"another byte", "backend_unavailable", "which no PostgreSQL does", false, true, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("H"))
		}},
		{"nothing", "backend_unavailable", "no answer to the SSLRequest", false, true, func(conn net.Conn) { request(conn) }},
		{"S with more", "backend_unavailable", "TLS: ", false, true, func(conn net.Conn) {
			request(conn)
			_, _ = conn.Write([]byte("SR\x00\x00\x00\x08\x00\x00\x00\x00"))
			serve(conn)
		}},
		{"direct", "backend_refused", "", true, false, func(conn net.Conn) { serve(conn, "postgresql") }},
		{"direct, no ALPN", "backend_unavailable", "ALPN", true, false, func(conn net.Conn) { serve(conn) }},
	} {
		host := proxy.Host{Network: "tcp", Address: answering(t, c.script), TLS: asked("localhost"), Direct: c.direct, Clear: c.clear}
		g := newGate(t, t.TempDir(), to(backendOf(host)))
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		if line := g.expect(t, c.outcome); !strings.Contains(line.get("reason"), c.reason) {
			t.Errorf("%s: reason %q, want %q", c.name, line.get("reason"), c.reason)
		}
	}
}

// A server that does not answer is given up after connect_timeout, and a shutdown
// does not wait for it.
func TestBackendThatStallsItsTLS(t *testing.T) {
	t.Parallel()
	silent := proxy.Host{Network: "tcp", Address: answering(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }), TLS: asked("localhost")}
	g := newGate(t, t.TempDir(), func(p *proxy.Policy) {
		p.Backend = &proxy.Backend{Hosts: []proxy.Host{silent}, ConnectTimeout: 200 * time.Millisecond}
	})
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	expectFatal(t, conn, "57P03", "cannot be reached")
	g.expect(t, "backend_unavailable")
	g.reload(func(p *proxy.Policy) { p.Backend = backendOf(silent) })
	waiting := g.secure(t)
	send(t, waiting, startup(protocol3, "user", "app"))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_ = g.Server.Shutdown(ctx)
	if d := time.Since(began); d > patience/2 {
		t.Errorf("the shutdown took %v", d)
	}
	if n := g.metric(t, "pgwicket_backend_connects_total", "result", "failure"); n != 1 {
		t.Errorf("%v failures, want the one that was the server's", n)
	}
}

// Which of several hosts is down is seen while the others still serve, under the name that the rules have for them; a
// reload takes a host that has gone out of the metrics.
func TestBackendsAreCounted(t *testing.T) {
	b := newBackend(t)
	up, down := unixBackend(b.SocketDir).Hosts[0], proxy.Host{Network: "unix", Address: t.TempDir() + "/.s.PGSQL.5432"}
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Limits.Sessions = 7
		p.Backends = map[string]*proxy.Backend{"pair": backendOf(down, up)}
		p.Rules = rules(t, acl.RuleOptions{Action: "allow", Users: []string{"report"}, Backend: "pair"}, acl.RuleOptions{Action: "allow"})
	})
	for _, user := range []string{"report", "report", "app"} {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", user))
		readReady(t, conn)
		_ = conn.Close()
		g.expect(t, "client_closed")
	}
	tries := func(backend string, h proxy.Host, result string) float64 {
		return g.metric(t, "pgwicket_backend_connects_total", "backend", backend, "address", h.Address, "result", result)
	}
	if n := []float64{tries("pair", down, "failure"), tries("pair", up, "success"), tries("default", up, "success")}; !slices.Equal(n, []float64{2, 2, 1}) {
		t.Errorf("%v failures of the first, successes of the second and of the default; want 2, 2, 1", n)
	}
	if n := g.metric(t, "pgwicket_backend_connects_total"); n != 5 {
		t.Errorf("%v attempts, want 5", n)
	}
	if n := g.metric(t, "pgwicket_limit_connections"); n != 7 {
		t.Errorf("the limit is %v, want 7", n)
	}
	g.reload(func(p *proxy.Policy) { p.Backends, p.Rules, p.Limits.Sessions = nil, nil, 0 })
	if n := g.metric(t, "pgwicket_backend_connects_total"); n != 1 {
		t.Errorf("%v attempts at what is still there, want 1", n)
	}
	if n := g.metric(t, "pgwicket_limit_connections"); !math.IsInf(n, 1) {
		t.Errorf("the limit is %v, want none", n)
	}
}

// A rule chooses the backend and may rename the database; a CancelRequest finds
// the backend of its session, and one of another gate's session asks all.
func TestBackendsByRule(t *testing.T) {
	t.Parallel()
	start := func(name string) *pgtest.Server {
		db, err := pgtest.Start(context.Background(), pgtest.Options{SQL: "create role app login; create role report login; create database " + name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Stop)
		return db
	}
	one, two := start("one"), start("two")
	g := newGate(t, one.SocketDir, func(p *proxy.Policy) {
		p.Backends = map[string]*proxy.Backend{"second": unixBackend(two.SocketDir)}
		p.Rules = rules(t,
			acl.RuleOptions{Action: "allow", Users: []string{"report"}, Backend: "second", DatabaseAs: "two"},
			acl.RuleOptions{Action: "allow"})
	})
	connect := func(user, database string) *pgx.Conn {
		return pgxOpen(t, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", user, g.Addr, database),
			func(c *pgx.ConnConfig) { c.TLSConfig = g.clientTLS() })
	}
	app, report := connect("app", "one"), connect("report", "reports")
	for _, c := range []struct {
		conn *pgx.Conn
		want string
		db   *pgtest.Server
	}{{app, "one", one}, {report, "two", two}} {
		var got string
		if err := c.conn.QueryRow(context.Background(), "select current_database()").Scan(&got); err != nil || got != c.want {
			t.Errorf("the session is in %q, %v; want %q", got, err, c.want)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := c.conn.Exec(context.Background(), "select pg_sleep(600)")
			failed <- err
		}()
		eventually(t, "the query runs", func() bool {
			out, err := c.db.SQL("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
			return err == nil && strings.TrimSpace(out) == "1"
		})
		if err := c.conn.PgConn().CancelRequest(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("the query in %s ended with %v", c.want, err)
		}
		g.expect(t, "forwarded")
	}
	stray := g.dial(t)
	send(t, stray, cancelRequest(4711, []byte("????")))
	expectEOF(t, stray)
	_ = stray.Close()
	g.expect(t, "forwarded")
	for _, db := range []*pgtest.Server{one, two} {
		eventually(t, "both have heard of the stray cancel", func() bool { return strings.Contains(db.Log(), "PID 4711 in cancel request") })
	}
}

// PostgreSQL learns who the client is, and from nobody else: a client's own copies
// are refused (materialize#38442, cockroach#169908).
func TestClientInfo(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
		p.Backend = unixBackend(db.SocketDir)
		p.Backend.ClientInfo = true
	})
	const settings = `select current_setting('application_name'), current_setting('pgwicket.client_addr'), current_setting('pgwicket.client_cn'),
		current_setting('pgwicket.client_serial'), current_setting('pgwicket.session_id')`
	long := strings.Repeat("ä", 40)
	for name, want := range map[string]string{"": "127.0.0.1:", "shop": "shop - 127.0.0.1:", long: "???"} {
		alice := testCA().Client("alice")
		conn := g.secure(t, withCert(alice))
		send(t, conn, startup(protocol3, "user", "app", "database", "postgres", "application_name", name))
		readReady(t, conn)
		row := queryRow(t, conn, settings)
		if len(row) != 5 || !strings.HasPrefix(row[0], want) || !strings.HasSuffix(row[0], conn.LocalAddr().String()) || len(row[0]) > 63 {
			t.Errorf("application_name %q came as %q", name, row)
			continue
		}
		line := func() logLine { _ = conn.Close(); return g.expect(t, "client_closed") }()
		if row[1] != "127.0.0.1" || row[2] != "alice" || row[3] != line.get("cert_serial") || row[4] != fmt.Sprint(line["session"]) {
			t.Errorf("PostgreSQL has %q, the log %v", row, line)
		}
	}
	without := g.secure(t)
	send(t, without, startup(protocol3, "user", "app", "database", "postgres"))
	readReady(t, without)
	if row := queryRow(t, without, settings); len(row) != 5 || row[2] != "" || row[3] != "" {
		t.Errorf("without a certificate PostgreSQL has %q", row)
	}
	_ = without.Close()
	g.expect(t, "client_closed")
	for _, own := range [][2]string{
		{"pgwicket.client_cn", "bob"},
		{"PgWicket.Client_CN", "bob"},
		{"pgwicket.anything", ""},
		{"options", "-c pgwicket.client_cn=bob"},
		{"options", "-cPGWICKET.client_cn=bob"},
		{"options", "--pgwicket.client-cn=bob"},
		{"options", `-c pg\wicket.client_cn=bob`},
		{"options", `-c\ \pgwicket\.client_cn=bob`},
	} {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app", "database", "postgres", own[0], own[1]))
		expectFatal(t, conn, "42501", "are reserved")
		_ = conn.Close()
		g.expect(t, "reserved_setting")
	}
}

// A startup packet that only the gate's own settings make too long for PostgreSQL
// (MAX_STARTUP_PACKET_LENGTH in src/include/libpq/pqcomm.h) is refused in words, which
// PostgreSQL does not do.
func TestClientInfoDoesNotFit(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	packet := func(n int) []byte {
		return startup(protocol3, "user", "app", "database", "postgres", "search_path", strings.Repeat("x", n))
	}
	const fits = 9900
	g := newGate(t, db.SocketDir)
	conn := g.secure(t)
	send(t, conn, packet(fits))
	readReady(t, conn)
	_ = conn.Close()
	g.expect(t, "client_closed")

	g.reload(func(p *proxy.Policy) {
		p.Backend = unixBackend(db.SocketDir)
		p.Backend.ClientInfo = true
	})
	conn = g.secure(t)
	send(t, conn, packet(fits))
	expectFatal(t, conn, "08P01", "startup packet is too long with what the gate adds to it")
	_ = conn.Close()
	g.expect(t, "protocol_violation")
}

// queryRow asks by the simple protocol, past any driver's idea of settings.
func queryRow(t *testing.T, conn *tls.Conn, sql string) (row []string) {
	t.Helper()
	send(t, conn, append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1)), sql+"\x00"...))
	for {
		kind, body := readMessage(t, conn)
		switch kind {
		case 'D':
			body = body[2:]
			for len(body) > 0 {
				n := int(body[2])<<8 | int(body[3])
				row = append(row, string(body[4:4+n]))
				body = body[4+n:]
			}
		case 'E':
			t.Fatalf("%s: %q", sql, body)
		case 'Z':
			return row
		}
	}
}
