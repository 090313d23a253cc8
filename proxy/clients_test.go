package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// libpq is the environment of a libpq client with everything that it needs to
// trust the gate and to be trusted. settings are further variables, as
// NAME=value.
func libpq(t *testing.T, g *gate, settings ...string) []string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("root.crt"), g.CA.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.CA.Client("alice").WriteFiles(at("client.crt"), at("client.key")); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C",
		"PGHOST=localhost", "PGHOSTADDR=127.0.0.1", "PGPORT=" + port, "PGUSER=app", "PGDATABASE=postgres",
		"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + at("root.crt"), "PGSSLCERT=" + at("client.crt"), "PGSSLKEY=" + at("client.key"),
		"PGCONNECT_TIMEOUT=30", "PGAPPNAME=" + t.Name(),
	}
	return append(env, settings...)
}

// program is a client program as a command that the test cannot outlive. Without env it has
// no settings of this account.
func program(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := pgtest.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	if env == nil {
		cmd.Env = pgtest.Environ()
	}
	return cmd
}

// psql runs statements through the gate and returns what it prints, both
// streams in one.
func psql(t *testing.T, env []string, statements string) (string, error) {
	t.Helper()
	cmd := program(t, env, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-")
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// pgxTo connects pgx through the gate.
func pgxTo(t *testing.T, g *gate, user string, edit ...func(*tls.Config)) *pgx.Conn {
	t.Helper()
	return pgxOpen(t, fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, strings.ReplaceAll(secret, " ", "%20"), g.Addr),
		func(c *pgx.ConnConfig) { c.TLSConfig = g.clientTLS(edit...) })
}

// pgxFrom is pgxTo from another address of this machine.
func pgxFrom(t *testing.T, g *gate, source, user string, edit ...func(*tls.Config)) *pgx.Conn {
	t.Helper()
	return pgxOpen(t, fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, strings.ReplaceAll(secret, " ", "%20"), g.Addr),
		func(c *pgx.ConnConfig) {
			c.TLSConfig = g.clientTLS(edit...)
			c.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext
		})
}

// pgxTry is pgxTo for a client that may be refused.
func pgxTry(g *gate, user string, edit ...func(*tls.Config)) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", user, g.Addr))
	if err != nil {
		return nil, err
	}
	config.TLSConfig = g.clientTLS(edit...)
	return pgx.ConnectConfig(context.Background(), config)
}

// control is a session of the superuser past the gate, to watch the others.
func control(t *testing.T, s *pgtest.Server) *pgx.Conn {
	t.Helper()
	return pgxOpen(t, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", s.SocketDir, s.Port, pgtest.Superuser),
		func(*pgx.ConnConfig) {})
}

func pgxOpen(t *testing.T, conninfo string, edit func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(conninfo)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = t.Name()
	config.ConnectTimeout = patience
	edit(config)
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// query returns the one value that a query yields.
func query[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// backends counts the server's sessions with this test's application_name
// besides the control session itself; active ones run a statement.
func backends(t *testing.T, c *pgx.Conn, active bool) int {
	t.Helper()
	return query[int](t, c, `select count(*) from pg_stat_activity
		where application_name = $1 and pid <> pg_backend_pid() and (state = 'active' or not $2)`, t.Name(), active)
}

// certificateOf admits clients with a certificate of the CA.
func certificateOf(ca *tlstest.CA) func(*proxy.Policy) {
	return func(p *proxy.Policy) {
		p.Verify = verifying(func(s tls.ConnectionState, _ time.Time) error {
			if len(s.PeerCertificates) == 0 {
				return &proxy.Refusal{Outcome: outcome.CertMissing}
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca.Cert)
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			if err != nil {
				return &proxy.Refusal{Outcome: outcome.CertUnknownCA, Detail: err.Error()}
			}
			return nil
		})
	}
}

// The whole way, as the README tells people to go it: libpq with verify-full and
// a certificate of its own.
func TestPsqlWithCertificate(t *testing.T) {
	g := newGate(t, realPostgres(t).SocketDir, certificateOf(testCA()))
	out, err := psql(t, libpq(t, g), "select current_user, 6*7")
	if err != nil || out != "app|42" {
		t.Fatalf("psql: %v: %s", err, out)
	}
	line := g.expect(t, "client_closed")
	for attr, want := range map[string]string{
		"cert_subject": "CN=alice", "user": "app", "database": "postgres", "application_name": t.Name(), "tls_version": "TLS 1.3",
	} {
		if got := line.get(attr); got != want {
			t.Errorf("the log has %s %q, want %q", attr, got, want)
		}
	}

	out, err = psql(t, libpq(t, g, "PGSSLCERT=/nowhere", "PGSSLKEY=/nowhere"), "select 1")
	if err == nil || !strings.Contains(out, "connection requires a valid client certificate") {
		t.Errorf("psql without a certificate: %v: %s", err, out)
	}
	g.expect(t, "certificate_missing")
}

// tap is what has gone through a connection on its way to somebody else.
type tap struct{ up, down bytes.Buffer }

// pass connects both until both have ended.
func (p *tap) pass(client, server net.Conn) {
	var both sync.WaitGroup
	half := func(to, from net.Conn, keep io.Writer) {
		_, _ = io.Copy(to, io.TeeReader(from, keep))
		_ = to.(interface{ CloseWrite() error }).CloseWrite()
	}
	both.Go(func() { half(server, client, &p.up) })
	both.Go(func() { half(client, server, &p.down) })
	both.Wait()
	_ = client.Close()
	_ = server.Close()
}

// tapped is a gate in front of the server for one connection, with a tap on either
// leg; they may be read when ended is closed.
type tapped struct {
	*gate
	client, backend tap
	ended           chan struct{}
}

func newTapped(t *testing.T, s *pgtest.Server) *tapped {
	t.Helper()
	p := &tapped{ended: make(chan struct{})}
	b := rawBackend(t, func(c net.Conn) {
		server, err := net.Dial("unix", filepath.Join(s.SocketDir, ".s.PGSQL.5432"))
		if err != nil {
			t.Error(err)
			return
		}
		p.backend.pass(c, server)
	})
	p.gate = newGate(t, b.SocketDir)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	gate := p.Addr
	p.Addr = ln.Addr().String()
	go func() {
		defer close(p.ended)
		conn, err := ln.Accept()
		_ = ln.Close()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", gate)
		if err != nil {
			return
		}
		p.client.pass(conn, server)
		b.Stop() // which waits for the other leg
	}()
	return p
}

// kinds are the types of the messages in a stream, which must end with one.
func kinds(t *testing.T, stream []byte) (out string) {
	t.Helper()
	for len(stream) > 0 {
		if len(stream) < 5 {
			t.Fatalf("%q is no message, after %q", stream, out)
		}
		n := 1 + int(binary.BigEndian.Uint32(stream[1:]))
		if n < 5 || n > len(stream) {
			t.Fatalf("a message %q of %d bytes, of which there are %d, after %q", stream[0], n, len(stream), out)
		}
		out += string(stream[0])
		stream = stream[n:]
	}
	return out
}

// envoy#27808, envoy#30194, envoy#31762: the dialogue about TLS is the client's
// and the gate's. In clear there are the request and one byte of answer, and
// TLS ever after; PostgreSQL hears the startup packet first, and nobody asks it
// for TLS.
func TestTheDialogueAboutTLSStaysOnItsLeg(t *testing.T) {
	g := newTapped(t, realPostgres(t))
	if out, err := psql(t, libpq(t, g.gate), "select 6*7"); err != nil || out != "42" {
		t.Fatalf("psql: %v: %s", err, out)
	}
	<-g.ended
	for name, leg := range map[string]struct {
		said, clear []byte
	}{"the client": {g.client.up.Bytes(), sslRequest}, "the gate": {g.client.down.Bytes(), []byte("S")}} {
		rest, ok := bytes.CutPrefix(leg.said, leg.clear)
		if !ok || len(rest) == 0 {
			t.Fatalf("%s said %.40q, want %q and then TLS", name, leg.said, leg.clear)
		}
		for len(rest) > 0 {
			if len(rest) < 5 || rest[0] < 20 || rest[0] > 23 || rest[1] != 3 || len(rest) < 5+int(binary.BigEndian.Uint16(rest[3:])) {
				t.Fatalf("%s said %.40q, which is no record of TLS", name, rest)
			}
			rest = rest[5+int(binary.BigEndian.Uint16(rest[3:])):]
		}
	}
	up := g.backend.up.Bytes()
	if len(up) < 8 || binary.BigEndian.Uint32(up[4:]) != protocol3 || len(up) < int(binary.BigEndian.Uint32(up)) {
		t.Fatalf("the first that PostgreSQL heard is %.40q", up)
	}
	if got := kinds(t, up[binary.BigEndian.Uint32(up):]); got != "QX" {
		t.Errorf("after the startup packet PostgreSQL heard messages %s, want QX", got)
	}
	if got := kinds(t, g.backend.down.Bytes()); !regexp.MustCompile("^RS+KZTDCZ$").MatchString(got) {
		t.Errorf("PostgreSQL said %s", got)
	}
}

// multigres#689: synchronous_standby_names names standbys by their
// application_name, and one that a proxy has cut is waited for in vain. It is
// PostgreSQL that makes 63 bytes of it.
func TestNameOfAStandby(t *testing.T) {
	t.Parallel()
	s, err := pgtest.Start(context.Background(), pgtest.Options{HBA: "local replication all trust\nlocal all all trust"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	name := strings.Repeat("standby_", 10)
	g := newTapped(t, s)
	cmd := program(t, libpq(t, g.gate, "PGUSER="+pgtest.Superuser, "PGAPPNAME="+name), "pg_receivewal", "--no-loop", "-D", t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	streams := ""
	eventually(t, "pg_receivewal streams", func() bool {
		streams, err = s.SQL("select application_name from pg_stat_replication where state = 'streaming'")
		return err == nil && streams != ""
	})
	if streams != name[:63] {
		t.Errorf("PostgreSQL calls the standby %q", streams)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("pg_receivewal: %v: %s", err, out.String())
	}
	<-g.ended
	up := g.backend.up.Bytes()
	for _, want := range []string{"\x00replication\x00true\x00", "\x00application_name\x00" + name + "\x00"} {
		if packet := up[:binary.BigEndian.Uint32(up)]; !bytes.Contains(packet, []byte(want)) {
			t.Errorf("PostgreSQL got %q, without %q", packet, want)
		}
	}
}

func TestPgxWithCertificate(t *testing.T) {
	g := newGate(t, realPostgres(t).SocketDir, certificateOf(testCA()))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conn := pgxTo(t, g, "app", withCert(g.CA.Client("bob")), withVersion(version))
		if got := query[string](t, conn, "select current_user || $1", "!"); got != "app!" {
			t.Errorf("current_user is %q", got)
		}
		// 8 MiB in one message each way.
		if got := query[string](t, conn, "select md5($1)", strings.Repeat("x", 8<<20)); len(got) != 32 {
			t.Errorf("md5 of a large parameter is %q", got)
		}
		if got := query[string](t, conn, "select repeat('x', 8 << 20)"); got != strings.Repeat("x", 8<<20) {
			t.Errorf("a large value came as %d bytes", len(got))
		}
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if line := g.expect(t, "client_closed"); line.get("tls_version") != tls.VersionName(version) {
			t.Errorf("TLS version %q in the log", line.get("tls_version"))
		}
	}
}

// pgt-proxy#6: SCRAM through a gate whose backend leg has no TLS.
// libpq's default works, what cannot work says why.
func TestScramThroughTheGate(t *testing.T) {
	g := newGate(t, realPostgres(t).SocketDir)
	for _, c := range []struct {
		name     string
		settings []string
		want     string // of psql's output
		ok       bool
	}{
		{"default channel_binding", []string{"PGPASSWORD=" + secret}, "scram", true},
		{"channel_binding=disable", []string{"PGPASSWORD=" + secret, "PGCHANNELBINDING=disable"}, "scram", true},
		{"channel_binding=require", []string{"PGPASSWORD=" + secret, "PGCHANNELBINDING=require"}, "channel binding is required, but server did not offer", false},
		{"wrong password", []string{"PGPASSWORD=wrong"}, `password authentication failed for user "scram"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := psql(t, libpq(t, g, append(c.settings, "PGUSER=scram")...), "select current_user")
			if (err == nil) != c.ok || !strings.Contains(out, c.want) {
				t.Errorf("psql: %v: %s; want %s", err, out, c.want)
			}
			g.outcome(t)
		})
	}
	t.Run("pgx", func(t *testing.T) {
		if got := query[string](t, pgxTo(t, g, "scram"), "select current_user"); got != "scram" {
			t.Errorf("current_user is %q", got)
		}
	})
}

// pgx#2340, cockroach#93425: psql's Ctrl-C is a CancelRequest in
// clear on a connection of its own. A gate that refuses it makes Ctrl-C do
// nothing at all.
func TestPsqlCtrlC(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	var out bytes.Buffer
	cmd := program(t, libpq(t, g), "psql", "-X", "-c", "select pg_sleep(60)")
	cmd.Stdout, cmd.Stderr = &out, &out
	ownGroup(cmd) // the signal is for psql, not for us
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "psql sleeps", func() bool { return backends(t, watch, true) == 1 })
	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if d := time.Since(began); d > patience {
		t.Errorf("psql took %v to end", d)
	}
	if err == nil || !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql: %v: %s", err, out.String())
	}
	var cancel logLine
	for range 2 { // the request and the session, in either order
		if line := g.outcome(t); line.get("outcome") == "forwarded" {
			cancel = line
		}
	}
	if cancel == nil {
		t.Fatalf("no cancel request was forwarded:\n%s", g.Log)
	}
	// libpq 18 and older; a newer psql may well encrypt it.
	t.Logf("the request came over %q (empty is in clear)", cancel.get("tls_version"))
}

// cockroach#93425, cockroach#93631: the same over TLS, as pgx and libpq's
// PQcancelBlocking send it.
func TestPgxCancelRequest(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir, certificateOf(testCA()))
	watch := control(t, s)
	conn := pgxTo(t, g, "app", withCert(g.CA.Client("carol")))
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(60)")
		done <- err
	}()
	eventually(t, "the statement runs", func() bool { return backends(t, watch, true) == 1 })
	if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
		t.Error("CancelRequest:", err)
	}
	var pgErr *pgconn.PgError
	if err := <-done; !errors.As(err, &pgErr) || pgErr.Code != "57014" {
		t.Errorf("the statement ended with %v, want 57014", err)
	}
	if line := g.expect(t, "forwarded"); line.get("tls_version") == "" || line.get("cert_subject") != "CN=carol" {
		t.Errorf("the request did not come over TLS with its certificate: %v", line)
	}
	// The session itself is as good as before.
	if got := query[int](t, conn, "select 1"); got != 1 {
		t.Errorf("select 1 yields %d", got)
	}
}

// Many sessions under the load that PostgreSQL's own tool makes, simple,
// extended and pipelined by turns; not one transaction may fail.
func TestPgbench(t *testing.T) {
	s := realPostgres(t)
	if _, err := s.SQL("create database bench owner app"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.SQL("drop database bench with (force)"); err != nil {
			t.Error(err)
		}
	})
	g := newGate(t, s.SocketDir)
	env := libpq(t, g, "PGDATABASE=bench")
	if out, err := program(t, env, "pgbench", "-i", "-q", "-s", "1").CombinedOutput(); err != nil {
		t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
	const run = "-T1"
	for _, args := range [][]string{
		{run, "-S", "-c8", "-j2"},
		{run, "-S", "-c8", "-j2", "-Mprepared"},
		{run, "-c4", "-j2", "-Mextended"},
		{"-t20", "-S", "-c4", "-C"}, // a connection for each transaction
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out, err := program(t, env, "pgbench", append([]string{"-n"}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("pgbench: %v\n%s", err, out)
			}
			if n := number(t, out, `transactions actually processed: (\d+)`); n == 0 {
				t.Errorf("no transaction was processed\n%s", out)
			}
			// pgbench 14 and older end at the first failure.
			if strings.Contains(string(out), "failed transactions") && number(t, out, `failed transactions: (\d+)`) != 0 {
				t.Errorf("transactions have failed\n%s", out)
			}
		})
	}
	eventually(t, "all sessions end", func() bool { return g.Server.Sessions() == 0 })
	if n := g.metric(t, "pgwicket_sessions_ended_total"); n < 100 || n != g.metric(t, "pgwicket_sessions_ended_total", "outcome", "client_closed") {
		t.Errorf("of %v sessions not all were ended by their client", n)
	}
}

func number(t *testing.T, text []byte, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %q in\n%s", pattern, text)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A table leaves through the gate and comes back through it, 32 MiB or
// PGWICKET_COPY_MIB, and is the same.
func TestCopyBothWays(t *testing.T) {
	mib := 32
	if n, err := strconv.Atoi(os.Getenv("PGWICKET_COPY_MIB")); err == nil && n > 0 {
		mib = n
	}
	s := realPostgres(t)
	if _, err := s.SQL(fmt.Sprintf(`create unlogged table source as
			select i, repeat(md5(i::text), 32) as x from generate_series(1, %d) i;
		create unlogged table target (like source);
		grant select on source to app; grant insert on target to app`, mib*1024)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.SQL("drop table source, target") })
	g := newGate(t, s.SocketDir)
	// What crosses the gate twice, and what the server holds then.
	there, back := sha256.New(), sha256.New()
	out := program(t, libpq(t, g), "psql", "-Xq", "-c", `\copy source to stdout`)
	in := program(t, libpq(t, g), "psql", "-Xq", "-c", `\copy target from stdin`)
	check := exec.Command(out.Path, "-Xq", "-h", s.SocketDir, "-p", strconv.Itoa(s.Port), "-U", pgtest.Superuser, "-d", "postgres", "-c", `\copy target to stdout`)
	check.Env = pgtest.Environ()
	r, w := io.Pipe()
	bytesOut := new(tally)
	out.Stdout = io.MultiWriter(w, there, bytesOut)
	in.Stdin = r
	check.Stdout = back
	done := make(chan error, 1)
	go func() {
		err := out.Run()
		_ = w.CloseWithError(err) // nil is EOF
		done <- err
	}()
	if text, err := in.CombinedOutput(); err != nil {
		t.Errorf("copy in: %v: %s", err, text)
	}
	if err := <-done; err != nil {
		t.Error("copy out:", err)
	}
	if err := check.Run(); err != nil {
		t.Fatal(err)
	}
	if a, b := there.Sum(nil), back.Sum(nil); !bytes.Equal(a, b) || int(*bytesOut) < mib<<20 {
		t.Errorf("%d bytes went through the gate, sha256 %x; the table is now %x", *bytesOut, a, b)
	}
	for range 2 {
		g.expect(t, "client_closed")
	}
	for _, name := range []string{"pgwicket_client_received_bytes_total", "pgwicket_client_sent_bytes_total"} {
		if n := g.metric(t, name); n < float64(*bytesOut) {
			t.Errorf("%s = %v, but %d bytes of data alone went that way", name, n, *bytesOut)
		}
	}
}

// tally counts bytes.
type tally int

func (n *tally) Write(p []byte) (int, error) {
	*n += tally(len(p))
	return len(p), nil
}

// traefik#10675: the deadline of the start-up must not end the
// session, neither one that waits nor one that works.
func TestSessionsOutliveTheStartupTimeout(t *testing.T) {
	s := realPostgres(t)
	const timeout = time.Second
	g := newGate(t, s.SocketDir, func(p *proxy.Policy) { p.StartupTimeout = timeout })
	idle, busy := pgxTo(t, g, "app"), pgxTo(t, g, "app")
	// The database does the waiting.
	if _, err := busy.Exec(context.Background(), "select pg_sleep($1)", 1.5*timeout.Seconds()); err != nil {
		t.Error("a running statement: ", err)
	}
	if _, err := idle.Exec(context.Background(), "select 1"); err != nil {
		t.Error("a session that has waited: ", err)
	}
}

// pgdog#834, pgdog#1599: the gate sends its whole chain, so a client needs the
// root and nothing else.
func TestServerCertificateBelowAnIntermediate(t *testing.T) {
	pair := testCA().Intermediate("intermediate").Server("localhost")
	g := newGate(t, realPostgres(t).SocketDir, func(p *proxy.Policy) {
		p.TLS.Certificates = []tls.Certificate{pair.TLS()}
	})
	if out, err := psql(t, libpq(t, g), "select 1"); err != nil || out != "1" {
		t.Errorf("psql: %v: %s", err, out)
	}
	if got := query[int](t, pgxTo(t, g, "app"), "select 1"); got != 1 {
		t.Errorf("pgx: select 1 yields %d", got)
	}
}

// A copy of a whole server comes through, with its checksums. It hung, now and then,
// while records were longer than libpq's reads (TestRelayRecordsAreShort).
func TestBasebackup(t *testing.T) {
	t.Parallel()
	s, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA: "local replication all trust\nlocal all all trust",
		SQL: "create table t as select n, md5(n::text) from generate_series(1, 200000) n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	g := newGate(t, s.SocketDir)
	env := libpq(t, g, "PGUSER="+pgtest.Superuser)
	for i := range 3 {
		dir := filepath.Join(t.TempDir(), "copy")
		if out, err := program(t, env, "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast").CombinedOutput(); err != nil {
			t.Fatalf("copy %d: %v: %s", i, err, out)
		}
		if out, err := program(t, env, "pg_verifybackup", dir).CombinedOutput(); err != nil {
			t.Errorf("copy %d: %v: %s", i, err, out)
		}
	}
}
