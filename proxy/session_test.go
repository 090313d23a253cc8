package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// ticketPolicy takes its TLS from where the product takes it; the tickets that
// it leaves off are what a test turns on, to see that it would notice them.
func ticketPolicy(t *testing.T, tickets bool) func(*proxy.Policy) {
	t.Helper()
	dir := t.TempDir()
	o := tlsconfig.Options{
		CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"), ClientCert: tlsconfig.ClientCertNone,
	}
	if err := testCA().Server("localhost").WriteFiles(o.CertFile, o.KeyFile); err != nil {
		t.Fatal(err)
	}
	s, problems := tlsconfig.Load(o, nil, nil, time.Now())
	if s == nil {
		t.Fatal(problems)
	}
	return func(p *proxy.Policy) {
		p.TLS, p.Verify = s.Config, s.Verify
		if tickets {
			p.TLS = s.Config.Clone()
			p.TLS.SessionTicketsDisabled = false
		}
	}
}

// cache counts the tickets that a client is given.
type cache struct {
	tls.ClientSessionCache
	tickets atomic.Int64
}

func (c *cache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.tickets.Add(1)
	}
	c.ClientSessionCache.Put(key, s)
}

// CVE-2025-68121, golang/go#77217, Traefik's GHSA-gv8r-9rw9-9697, nginx's
// CVE-2025-23419, cnpg#10478: a resumed session is one whose certificate nobody
// has looked at again. There are no tickets, so there is nothing to resume.
func TestNoSessionTickets(t *testing.T) {
	b := newBackend(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tickets := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, enabled %t", tls.VersionName(version), tickets), func(t *testing.T) {
				g := newGate(t, b.SocketDir, ticketPolicy(t, tickets))
				c := &cache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
				resumed := false
				for range 3 {
					conn := session(t, g, withVersion(version), func(config *tls.Config) { config.ClientSessionCache = c })
					resumed = resumed || conn.ConnectionState().DidResume
					_ = conn.Close()
				}
				if n := c.tickets.Load(); (n > 0) != tickets || resumed != tickets {
					t.Errorf("crypto/tls was given %d tickets, resumed: %t", n, resumed)
				}
				if saved := opensslTicket(t, g, version); saved != tickets {
					t.Errorf("openssl has saved a session: %t", saved)
				}
			})
		}
	}
}

// opensslTicket opens a session with openssl, which is not as choosy as
// crypto/tls about what it keeps, and reports whether it has kept something to
// resume.
func opensslTicket(t *testing.T, g *gate, version uint16) bool {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl in PATH")
	}
	file := filepath.Join(t.TempDir(), "session")
	flag := map[uint16]string{tls.VersionTLS12: "-tls1_2", tls.VersionTLS13: "-tls1_3"}[version]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, openssl, "s_client", "-starttls", "postgres", "-connect", g.Addr, flag, "-sess_out", file, "-quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	send(t, in, startup(protocol3, "user", "app"))
	readReady(t, out) // a ticket would have come before it
	_, err = os.Stat(file)
	return err == nil
}

// stolon#323, kviklet#537, proxysql#6129: psql dies in the middle
// of a result; its backend session must not go on without it.
func TestPsqlKilledInTheMiddleOfAResult(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	cmd := program(t, libpq(t, g), "psql", "-Xq", "-c", `\copy (select repeat('x', 100000) from generate_series(1, 100000)) to stdout`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, out, 4<<20); err != nil {
		t.Fatal(err)
	}
	// Nobody reads any more, so that psql, the gate and the server come to wait
	// for each other.
	sent, since := 0.0, time.Now()
	eventually(t, "the result is stuck", func() bool {
		if n := g.metric(t, "pgwicket_client_sent_bytes_total"); n != sent {
			sent, since = n, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
	if n := backends(t, watch, true); n != 1 {
		t.Fatalf("%d statements are running, want 1", n)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the backend session is gone", func() bool { return backends(t, watch, false) == 0 })
	// The kernel reports a reset once: if the writing side has had it, the
	// reading one sees an end.
	if o := g.outcome(t).get("outcome"); o != "client_lost" && o != "client_closed" {
		t.Errorf("outcome %s, want client_lost or client_closed", o)
	}
}

// stolon#323, kviklet#537, alloydb-auth-proxy#282: psql dies while it has locks. They
// must not be held for it any longer.
func TestPsqlKilledInATransaction(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	cmd := program(t, libpq(t, g), "psql", "-Xq")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	send(t, in, []byte("begin; select pg_advisory_xact_lock(37);\n"))
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has read all, or the kernel would send a reset
		t.Fatal(err)
	}
	locked := func() bool {
		return query[bool](t, watch, "select exists (select from pg_locks where locktype = 'advisory' and objid = 37 and granted)")
	}
	eventually(t, "psql has the lock", locked)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the lock is free", func() bool { return !locked() })
	eventually(t, "the backend session is gone", func() bool { return backends(t, watch, false) == 0 })
	g.expect(t, "client_closed")
}

// alloydb-auth-proxy#282, pg_auto_failover#1180, and pgbouncer's test_ssl_eof:
// every other way in which a client may go.
func TestClientGoesAway(t *testing.T) {
	s := realPostgres(t)
	watch := control(t, s)
	for _, c := range []struct {
		name    string
		end     func(c *tls.Conn)
		outcome string
	}{
		{"Terminate and wait", func(c *tls.Conn) {
			_, _ = c.Write([]byte{'X', 0, 0, 0, 4})
			_, _ = io.ReadAll(c)
			_ = c.Close()
		}, "client_closed"},
		{"close_notify and FIN", func(c *tls.Conn) { _ = c.Close() }, "client_closed"},
		{"FIN without close_notify", func(c *tls.Conn) { _ = tcpOf(c).Close() }, "client_closed"},
		{"reset", reset, "client_lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(t, s.SocketDir)
			conn := session(t, g)
			if n := query[int](t, watch, "select count(*) from pg_stat_activity where application_name = $1", t.Name()); n != 1 {
				t.Fatalf("%d backend sessions, want 1", n)
			}
			c.end(conn)
			eventually(t, "the backend session is gone", func() bool {
				return query[int](t, watch, "select count(*) from pg_stat_activity where application_name = $1", t.Name()) == 0
			})
			g.expect(t, c.outcome)
		})
	}
}

// When PostgreSQL ends a session, the client hears it from
// PostgreSQL, word for word, and then gets an orderly end.
func TestBackendTerminated(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	c := session(t, g)
	if !query[bool](t, watch, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and pid <> pg_backend_pid()", t.Name()) {
		t.Fatal("pg_terminate_backend: false")
	}
	expectFatal(t, c, "57P01", "terminating connection due to administrator command")
	_ = c.Close()
	g.expect(t, "backend_closed")
}

// A driver that closes as soon as it has read why PostgreSQL ends its session (pgx; at
// times psqlodbc, node-postgres and JDBC) does not make that end its own: a mass
// pg_terminate_backend would look like clients that leave.
func TestBackendTerminatedWithAHastyDriver(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	for range 20 {
		conn := pgxTo(t, g, "app").PgConn()
		query[bool](t, watch, "select pg_terminate_backend($1)", conn.PID())
		left(t, conn, "57P01", "terminating connection due to administrator command")
		_ = conn.Conn().Close()
		if line := g.expect(t, "backend_closed"); line.get("sqlstate") != "57P01" || line["backend_pid"] == nil {
			t.Errorf("the log says %v", line)
		}
	}
	conn := pgxTo(t, g, "app").PgConn()
	speak(t, conn, 1, &pgproto3.Query{String: "set idle_in_transaction_session_timeout = '50ms'"})
	speak(t, conn, 1, &pgproto3.Query{String: "begin"})
	left(t, conn, "25P03", "terminating connection due to idle-in-transaction timeout")
	if line := g.expect(t, "backend_closed"); line.get("sqlstate") != "25P03" {
		t.Errorf("the log says %v", line)
	}
}

// The database crashes: its sessions end, the gate stays, refuses new clients with the reason
// next in a way that moves libpq to its next host (57P03), and needs no
// restart when there is a server again.
func TestServerCrashAndReturn(t *testing.T) {
	s, err := pgtest.Start(context.Background(), realOptions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	socketDir := filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(s.SocketDir, socketDir); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, socketDir)
	open := []*tls.Conn{session(t, g), session(t, g), session(t, g)}
	s.Kill()
	for _, c := range open {
		// PostgreSQL may still say why; it must not be cut short.
		rest, err := io.ReadAll(c)
		if err != nil || len(rest) > 0 && !bytes.Contains(rest, []byte("57P0")) {
			t.Errorf("the client got %q, %v", rest, err)
		}
		_ = c.Close()
		g.expect(t, "backend_closed")
	}

	c := g.secure(t)
	send(t, c, startup(protocol3, "user", "app"))
	expectFatal(t, c, "57P03", "the database cannot be reached")
	_ = c.Close()
	g.expect(t, "backend_unavailable")

	if err := os.Remove(socketDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(realPostgres(t).SocketDir, socketDir); err != nil {
		t.Fatal(err)
	}
	_ = session(t, g).Close()
	g.expect(t, "client_closed")
}

// kviklet#537, and tailscale's pgproxy: the backend is dialled for nobody
// but the admitted; scanners and probes must not take its connection slots.
func TestBackendIsDialledForTheAdmittedOnly(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, certificateOf(testCA()))
	hasty := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.StartupTimeout = 50 * time.Millisecond })
	// say sends a first packet in clear and reads the answer to its end.
	say := func(g *gate, b []byte) {
		c := g.dial(t)
		send(t, c, b)
		_, _ = io.ReadAll(c)
		_ = c.Close()
	}
	refused := func(edit ...func(*tls.Config)) {
		c := g.secure(t, edit...)
		send(t, c, startup(protocol3, "user", "app"))
		expectFatal(t, c, "28000", "certificate")
		_ = c.Close()
	}
	for _, c := range []struct {
		name    string
		gate    *gate
		do      func()
		outcome string
	}{
		{"port scan", g, func() { _ = g.dial(t).Close() }, "probe"},
		{"silence", hasty, func() { say(hasty, nil) }, "startup_timeout"},
		{"HTTP", g, func() { say(g, []byte("GET / HTTP/1.1\r\n\r\n")) }, "invalid_packet"},
		{"startup packet in clear", g, func() { say(g, startup(protocol3, "user", "app")) }, "plaintext"},
		{"TLS and nothing else", g, func() { _ = g.secure(t, withCert(g.CA.Client("alice"))).Close() }, "probe"},
		{"no certificate", g, func() { refused() }, "certificate_missing"},
		{"certificate of another CA", g, func() { refused(withCert(tlstest.NewCA("another").Client("alice"))) }, "certificate_unknown_ca"},
	} {
		c.do()
		if got := c.gate.outcome(t).get("outcome"); got != c.outcome {
			t.Errorf("%s: outcome %s, want %s", c.name, got, c.outcome)
		}
		if n := b.Accepted.Load(); n != 0 {
			t.Fatalf("%s: the backend was dialled", c.name)
		}
	}
	_ = session(t, g, withCert(g.CA.Client("alice"))).Close()
	g.expect(t, "client_closed")
	if n := b.Accepted.Load(); n != 1 {
		t.Errorf("the backend was dialled %d times for one session", n)
	}
}

// cockroach wired ConnectionLatency to another descriptor. After
// a known story every series has the value that the story gives it, and there
// is no other series. No label tells who the client was.
func TestMetricsTellTheStory(t *testing.T) {
	f := fakeBackend(t, func(c *net.UnixConn) {
		var b [5]byte
		if _, err := io.ReadFull(c, b[:]); err == nil && b[0] == 'Q' {
			_, _ = c.Write(make([]byte, 1000))
			_, _ = c.Read(b[:])
		}
	})
	g := newGate(t, f.SocketDir, certificateOf(testCA()), func(p *proxy.Policy) {
		p.Limits.Sessions, p.Limits.Startups = 10, 20
		p.TLS.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
		p.TLS.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	})
	alice := withCert(g.CA.Client("alice", func(c *x509.Certificate) { c.DNSNames = []string{"alice.example"} }))
	group := func(id tls.CurveID) func(*tls.Config) {
		return func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{id} }
	}

	// Two sessions over TLS 1.3, one of them ended by its backend…
	c := session(t, g, alice, group(tls.X25519), withVersion(tls.VersionTLS13))
	send(t, c, []byte{'Q', 0, 0, 0, 4})
	if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	g.expect(t, "client_closed")
	c = session(t, g, alice, group(tls.X25519), withVersion(tls.VersionTLS13))
	send(t, c, []byte{'S', 0, 0, 0, 4})
	expectEOF(t, c)
	_ = c.Close()
	g.expect(t, "backend_closed")
	// …one over TLS 1.2 that is cut, and one that stays.
	reset(session(t, g, alice, group(tls.CurveP256), withVersion(tls.VersionTLS12)))
	g.expect(t, "client_lost")
	open := session(t, g, alice, group(tls.CurveP256), withVersion(tls.VersionTLS12))
	// Refusals, of all kinds of reason.
	_ = g.dial(t).Close()
	g.expect(t, "probe")
	raw := g.dial(t)
	send(t, raw, startup(protocol3, "user", "mallory"))
	_ = raw.CloseWrite()
	g.expect(t, "plaintext")
	raw = g.dial(t)
	send(t, raw, sslRequest)
	expectByte(t, raw, 'S')
	send(t, raw, []byte("this is not TLS at all"))
	_ = raw.CloseWrite()
	g.expect(t, "not_tls")
	for range 2 {
		c = g.secure(t, group(tls.X25519), withVersion(tls.VersionTLS13))
		send(t, c, startup(protocol3, "user", "mallory", "database", "secrets"))
		expectFatal(t, c, "28000", "certificate")
		_ = c.Close()
		g.expect(t, "certificate_missing")
	}
	// A cancel request in clear, and one that is just being sent.
	raw = g.dial(t)
	send(t, raw, cancelRequest(1, []byte("key!")))
	_ = raw.CloseWrite()
	g.expect(t, "forwarded")
	starting := g.dial(t)

	listener := fmt.Sprintf("{listener=%q}", g.Addr)
	host := fmt.Sprintf("{address=%q,backend=\"default\",result=", g.policy.Backend.Hosts[0].Address)
	cipher13, cipher12 := "TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	want := map[string]int{
		"connections_accepted_total" + listener:                                                     11,
		"accept_errors_total":                                                                       0,
		"connections_refused_total{outcome=\"probe\"}":                                              1,
		"connections_refused_total{outcome=\"plaintext\"}":                                          1,
		"connections_refused_total{outcome=\"not_tls\"}":                                            1,
		"connections_refused_total{outcome=\"certificate_missing\"}":                                2,
		"connections_starting":                                                                      1,
		"sessions_open":                                                                             1,
		"sessions_ended_total{outcome=\"client_closed\"}":                                           1,
		"sessions_ended_total{outcome=\"backend_closed\"}":                                          1,
		"sessions_ended_total{outcome=\"client_lost\"}":                                             1,
		"cancel_requests_total{outcome=\"forwarded\"}":                                              1,
		"client_received_bytes_total":                                                               10,
		"client_sent_bytes_total":                                                                   4*len(ready) + 1000,
		"backend_connect_duration_seconds_count":                                                    5, // a CancelRequest connects, too
		"backend_connects_total" + host + "\"success\"}":                                            4,
		"tls_handshake_duration_seconds_count":                                                      6,
		"tls_handshakes_total{cipher=\"" + cipher13 + "\",group=\"X25519\",version=\"TLS 1.3\"}":    4,
		"tls_handshakes_total{cipher=\"" + cipher12 + "\",group=\"CurveP256\",version=\"TLS 1.2\"}": 2,
		"tls_handshake_failures_total{reason=\"not_tls\"}":                                          1,
		"tls_handshake_failures_total{reason=\"certificate_missing\"}":                              2,
		"rechecks_total":           0,
		"recheck_failing_sessions": 0,
		"recheck_duration_seconds": 0,
		// Of the configuration, which nobody has loaded here.
		"crl_load_failures_total":                      0,
		"config_reloads_total{result=\"success\"}":     0,
		"config_reloads_total{result=\"failure\"}":     0,
		"config_last_reload_successful":                0,
		"log_lines_dropped_total":                      0,
		"limit_connections":                            10,
		"limit_startups":                               20,
		"connections_unproved":                         1,
		"config_last_reload_success_timestamp_seconds": 0,
	}
	// The last connection is counted by its own goroutine.
	eventually(t, "the last connection is counted", func() bool { return g.metric(t, "pgwicket_connections_starting") == 1 })
	got := scrape(t, g)
	place := strings.Split(host, ",result=")[0] + "}"
	want["backend_up"+place] = 1
	if at := "backend_last_success_timestamp_seconds" + place; got[at] == "0" {
		t.Errorf("%s is 0", at)
	} else {
		delete(got, at)
	}
	for series, n := range want {
		if got[series] != fmt.Sprint(n) {
			t.Errorf("%s is %q, want %d", series, got[series], n)
		}
		delete(got, series)
	}
	for series, n := range got {
		if n != "0" { // for the first of its kind
			t.Errorf("nobody expects %s %s", series, n)
		}
	}
	_ = open.Close()
	_ = starting.Close()
}

// scrape reads /metrics and returns the values of pgwicket's own series by
// name and labels, without the times that no story fixes.
func scrape(t *testing.T, g *gate) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	g.Metrics.Handler(func() bool { return true }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	series := make(map[string]string)
	for line := range strings.Lines(w.Body.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndex(line, " "); i > 0 && !strings.HasPrefix(line, "#") {
			name, value = line[:i], strings.TrimSpace(line[i:]) // label values may hold spaces
		}
		name, ours := strings.CutPrefix(name, "pgwicket_")
		if !ours || slices.ContainsFunc([]string{"_bucket{", "_sum", "build_info{"}, func(s string) bool { return strings.Contains(name, s) }) {
			continue
		}
		series[name] = value
	}
	return series
}

// A snapshot shows who is in, and what has passed so far; those still at the
// door are not in it.
func TestSnapshot(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	_ = g.secure(t)
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app", "database", "shop"))
	readReady(t, conn)
	send(t, conn, []byte("12345"))
	var all []proxy.Session
	eventually(t, "the bytes are counted", func() bool {
		all = g.Server.Snapshot()
		return len(all) == 1 && all[0].FromClient == 5
	})
	s := all[0]
	if s.User != "app" || s.Database != "shop" || s.Client.String() != conn.LocalAddr().String() || s.Listener != g.Addr ||
		s.ToClient == 0 || s.ID == "" || time.Since(s.Since) > patience {
		t.Errorf("%+v", s)
	}
	if u := g.Server.Usage(); u != (proxy.Usage{Connections: 2, Startups: 1, Sessions: 1, PerSource: 2, PerAccount: 1}) {
		t.Errorf("%+v", u)
	}
	if n := g.Server.Sessions(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	_ = conn.Close()
	eventually(t, "nobody is left in", func() bool { return len(g.Server.Snapshot()) == 0 })
}

// Who was turned away is remembered with what it claimed to be; a port scan is not.
func TestRefusalsOfAGate(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Verify = verifying(func(tls.ConnectionState, time.Time) error {
			return &proxy.Refusal{Outcome: outcome.CertRevoked, Detail: "on a list"}
		})
	})
	_ = g.dial(t).Close()
	conn := g.dial(t)
	send(t, conn, startup(protocol3, "user", "a\x07pp", "database", "shop"))
	eventually(t, "it is refused", func() bool { return len(g.Server.Refusals()) == 1 })
	inTLS := g.secure(t)
	send(t, inTLS, startup(protocol3, "user", "app"))
	var all []proxy.Refused
	eventually(t, "the other one, too", func() bool {
		all = g.Server.Refusals()
		return len(all) == 2
	})
	if r := all[1]; r.Outcome != outcome.Plaintext || r.User != `a\app` || r.Database != "shop" || r.Client.String() != conn.LocalAddr().String() || r.Listener != g.Addr || r.Session {
		t.Errorf("%+v", r)
	}
	if r := all[0]; r.Outcome != outcome.CertRevoked || r.Reason != "on a list" || r.Database != "app" || time.Since(r.At) > patience {
		t.Errorf("%+v", r)
	}
}

// No two connections have one id, whatever gate they came to: a restart is another gate.
func TestSessionIDsAreUnique(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	seen := map[string]bool{}
	for range 3 {
		g := newGate(t, b.SocketDir)
		for range 3 {
			g.session(t, "app")
		}
		for _, s := range g.Server.Snapshot() {
			if seen[s.ID] || !regexp.MustCompile(`^[0-9a-v]{13}-[1-9][0-9]*$`).MatchString(s.ID) {
				t.Errorf("%q is not a new id", s.ID)
			}
			seen[s.ID] = true
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d sessions, want 9", len(seen))
	}
}
