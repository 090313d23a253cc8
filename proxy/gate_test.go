package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/socket"
	"pgwicket/internal/tlstest"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// patience is how long a test waits for what must happen, and how long its
// sockets live. It is long because the machine may be busy; nothing waits for
// it to pass.
const patience = time.Minute

// testCA is one CA for all gates: making keys takes longer than most tests.
var testCA = sync.OnceValue(func() *tlstest.CA { return tlstest.NewCA("pgwicket test CA") })

var testServer = sync.OnceValue(func() tls.Certificate { return testCA().Server("localhost", "127.0.0.1", "::1").TLS() })

// verifying makes a Policy.Verify of a function that accepts or refuses: what the
// client has sent is the verified chain.
func verifying(judge func(tls.ConnectionState, time.Time) error) func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
	return func(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error) {
		for _, der := range sent {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			state.PeerCertificates = append(state.PeerCertificates, cert)
		}
		if err := judge(state, at); err != nil {
			return nil, err
		}
		return sent, nil
	}
}

// gate is a proxy.Server on its own port, with its log and its metrics.
type gate struct {
	Addr    string
	CA      *tlstest.CA // signed the server's certificate; sign clients with it
	Server  *proxy.Server
	Metrics *metrics.Set
	Log     *logBook // every line, as JSON, from debug upwards
	Text    *logBook // the same, in slog's other format
	Clock   testClock

	policy   proxy.Policy // the one in force
	outcomes []string     // that the counters had before anything was counted
	served   chan error
}

// newGate serves the backend whose socket (port 5432) is in socketDir. Without
// an edit it admits 127.0.0.0/8 and ::1, asks for a client certificate, and
// takes any or none. When the test ends the gate is shut down, and must then
// have no session left and every connection accounted for.
func newGate(t testing.TB, socketDir string, edit ...func(*proxy.Policy)) *gate {
	t.Helper()
	return newGateOn(t, "127.0.0.1:0", socketDir, edit...)
}

// newGateOn is newGate on another address.
func newGateOn(t testing.TB, address, socketDir string, edit ...func(*proxy.Policy)) *gate {
	t.Helper()
	ln, err := socket.Listen(context.Background(), address, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{
		Addr:    ln.Addr().String(),
		CA:      testCA(),
		Metrics: metrics.New("test"),
		Log:     new(logBook),
		Text:    new(logBook),
		served:  make(chan error, 1),
		policy: proxy.Policy{
			Networks: networks([]string{"127.0.0.0/8", "::1"}, nil),
			TLS: &tls.Config{
				Certificates:           []tls.Certificate{testServer()},
				MinVersion:             tls.VersionTLS12,
				ClientAuth:             tls.RequestClientCert,
				NextProtos:             []string{"postgresql"},
				SessionTicketsDisabled: true,
			},
			Verify:            verifying(func(tls.ConnectionState, time.Time) error { return nil }),
			Backend:           unixBackend(socketDir),
			StartupTimeout:    patience,
			MaxCancelRequests: 64,
		},
	}
	for _, e := range edit {
		e(&g.policy)
	}
	policy := g.policy
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	log := slog.NewMultiHandler(slog.NewJSONHandler(g.Log, all), slog.NewTextHandler(g.Text, all))
	g.Server = newServer(t, &policy, slog.New(log), g.Metrics, g.Clock.Now)
	g.outcomes = g.counted(t)
	go func() { g.served <- g.Server.Serve(ln) }()
	t.Cleanup(func() { g.stop(t) })
	return g
}

// unixBackend is PostgreSQL on a Unix socket in a directory.
func unixBackend(dir string) *proxy.Backend {
	return socketBackend(filepath.Join(dir, ".s.PGSQL.5432"))
}

func socketBackend(path string) *proxy.Backend {
	return &proxy.Backend{Hosts: []proxy.Host{{Network: "unix", Address: path}}, ConnectTimeout: patience}
}

func newServer(t testing.TB, p *proxy.Policy, log *slog.Logger, m *metrics.Set, clock ...func() time.Time) *proxy.Server {
	t.Helper()
	var now func() time.Time
	if len(clock) > 0 {
		now = clock[0]
	}
	s, err := proxy.New(proxy.Options{Policy: p, Log: log, Refusals: log, Metrics: m, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // the relay, where the test has not
	return s
}

// reload puts an edited copy of the policy into force.
func (g *gate) reload(edit ...func(*proxy.Policy)) {
	for _, e := range edit {
		e(&g.policy)
	}
	policy := g.policy
	g.Server.SetPolicy(&policy)
}

// stop ends the gate and everybody in it, and checks that all are gone and
// counted, and that nobody has written into the log but the gate.
func (g *gate) stop(t testing.TB) {
	t.Helper()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.Server.Shutdown(now) // nil or context.Canceled
	if err := <-g.served; !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
	eventually(t, "no session is left", func() bool { return g.Server.Sessions() == 0 })
	g.balance(t)
	for _, gauge := range []string{"pgwicket_connections_starting", "pgwicket_sessions_open"} {
		if n := g.metric(t, gauge); n != 0 {
			t.Errorf("%s = %v after the shutdown", gauge, n)
		}
	}
	for _, series := range g.counted(t) {
		if !slices.Contains(g.outcomes, series) {
			t.Errorf("%s was not there at 0 from the start, so that an alert on its rate would miss the first", series)
		}
	}
	for _, book := range []*logBook{g.Log, g.Text} {
		for _, line := range book.all() {
			if i := strings.IndexFunc(line, unicode.IsControl); i != len(line)-1 {
				t.Errorf("a control character in the log at byte %d of %q", i, line)
			}
		}
	}
}

// balance checks that every accepted connection is in exactly one place.
func (g *gate) balance(t testing.TB) {
	t.Helper()
	var accepted, elsewhere float64
	sums := func() bool {
		accepted = g.metric(t, "pgwicket_connections_accepted_total")
		elsewhere = g.metric(t, "pgwicket_connections_refused_total") + g.metric(t, "pgwicket_cancel_requests_total") +
			g.metric(t, "pgwicket_sessions_ended_total") + g.metric(t, "pgwicket_connections_starting") + g.metric(t, "pgwicket_sessions_open")
		return accepted == elsewhere
	}
	for deadline := time.Now().Add(patience); !sums(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%v connections accepted, but %v refused, cancelled, ended, starting or open", accepted, elsewhere)
			return
		}
	}
}

// metric sums a counter or gauge over all series that have these labels, given
// as name, value, name, value.
// counted returns the series that have an outcome or a reason.
func (g *gate) counted(t testing.TB) (all []string) {
	t.Helper()
	families, err := g.Metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" || l.GetName() == "reason" {
					all = append(all, f.GetName()+"/"+l.GetValue())
				}
			}
		}
	}
	return all
}

func (g *gate) metric(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := g.Metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			has := make(map[string]string)
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// outcome waits for the next connection to end and returns what the log says
// of it. Other lines are passed over.
func (g *gate) outcome(t testing.TB) logLine {
	t.Helper()
	var line logLine
	eventually(t, "a connection ends", func() bool {
		for {
			var ok bool
			if line, ok = g.Log.next(); !ok {
				return false
			}
			if line.get("outcome") != "" {
				return true
			}
		}
	})
	return line
}

// outcomeOf waits for one client's connection to end and returns what the log
// says of it. Unlike outcome it may be used by clients in parallel.
func (g *gate) outcomeOf(t testing.TB, client net.Addr) logLine {
	t.Helper()
	var line logLine
	eventually(t, "the connection ends", func() bool {
		for _, text := range g.Log.all() {
			line = logLine{}
			if json.Unmarshal([]byte(text), &line) == nil && line.get("outcome") != "" && line.get("client") == client.String() {
				return true
			}
		}
		return false
	})
	return line
}

// expect waits for the next connection to end and checks its outcome, and that
// the metrics have it too.
func (g *gate) expect(t testing.TB, outcome string) logLine {
	t.Helper()
	line := g.outcome(t)
	g.check(t, line, outcome)
	return line
}

func (g *gate) check(t testing.TB, line logLine, outcome string) {
	t.Helper()
	if got := line.get("outcome"); got != outcome {
		t.Errorf("outcome %s (%s), want %s", got, line.get("reason"), outcome)
	}
	counted := g.metric(t, "pgwicket_connections_refused_total", "outcome", outcome) +
		g.metric(t, "pgwicket_sessions_ended_total", "outcome", outcome) +
		g.metric(t, "pgwicket_cancel_requests_total", "outcome", outcome)
	if counted == 0 {
		t.Errorf("no metric counts the outcome %s", outcome)
	}
}

// logLine is one line of the log, by attribute; message and level are "msg" and
// "level".
type logLine map[string]any

func (l logLine) get(attr string) string {
	s, _ := l[attr].(string)
	return s
}

// logBook is what a gate has logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
	read  int
	see   func(line string) // is called before a line is written; nil: nothing is
}

// Write takes one line; slog's handlers write each with one call.
func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	see := l.see
	l.mu.Unlock()
	if see != nil {
		see(string(p))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logBook) next() (logLine, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read == len(l.lines) {
		return nil, false
	}
	line := logLine{}
	if err := json.Unmarshal([]byte(l.lines[l.read]), &line); err != nil {
		line["msg"] = "not JSON: " + l.lines[l.read]
	}
	l.read++
	return line, true
}

func (l *logBook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// String returns all lines so far.
func (l *logBook) String() string { return strings.Join(l.all(), "") }

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func networks(allow, deny []string) *acl.Networks {
	parse := func(texts []string) (out []netip.Prefix) {
		for _, s := range texts {
			p, err := acl.ParsePrefix(s)
			if err != nil {
				panic(err)
			}
			out = append(out, p)
		}
		return out
	}
	return acl.NewNetworks(parse(allow), parse(deny))
}

// dial connects to the gate and says nothing.
func (g *gate) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", g.Addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// clientTLS is what a careful client uses.
func (g *gate) clientTLS(edit ...func(*tls.Config)) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	c.RootCAs.AddCert(g.CA.Cert)
	for _, e := range edit {
		e(c)
	}
	return c
}

// Edits of a client's tls.Config.
func withALPN(names ...string) func(*tls.Config) {
	return func(c *tls.Config) { c.NextProtos = names }
}

func withVersion(v uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = v, v }
}

func withCert(p *tlstest.Pair) func(*tls.Config) {
	cert := p.TLS()
	// Not Certificates, of which crypto/tls sends only what the server says
	// that it likes.
	return func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
}

// secure connects and goes through SSLRequest and the handshake, as libpq does.
func (g *gate) secure(t testing.TB, edit ...func(*tls.Config)) *tls.Conn {
	t.Helper()
	raw := g.dial(t)
	send(t, raw, sslRequest)
	expectByte(t, raw, 'S')
	return shake(t, raw, g.clientTLS(edit...))
}

func shake(t testing.TB, raw net.Conn, c *tls.Config) *tls.Conn {
	t.Helper()
	conn := tls.Client(raw, c)
	if err := conn.Handshake(); err != nil {
		t.Fatal("handshake: ", err)
	}
	return conn
}

// Start-up packets, each as a client sends it.
var (
	sslRequest    = packet(80877103, nil)
	gssencRequest = packet(80877104, nil)
)

const protocol3 = 3 << 16

// packet returns a start-up packet: length, code, body.
func packet(code uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

// startup returns a startup message with these names and values.
func startup(version uint32, namesAndValues ...string) []byte {
	var body []byte
	for _, s := range namesAndValues {
		body = append(append(body, s...), 0)
	}
	return packet(version, append(body, 0))
}

func cancelRequest(pid uint32, key []byte) []byte {
	return packet(80877102, append(binary.BigEndian.AppendUint32(nil, pid), key...))
}

func send(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal("write: ", err)
	}
}

func expectByte(t testing.TB, r io.Reader, want byte) {
	t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil || b[0] != want {
		t.Fatalf("got %q, %v; want %q", b[0], err, want)
	}
}

// expectEOF checks that the gate says nothing more and ends in order: a reset
// is an error to libpq. It does not see a missing close_notify, which tls.Conn
// forgives.
func expectEOF(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v; want an orderly end without a byte", b, err)
	}
}

// readMessage reads one message of the backend.
func readMessage(t testing.TB, r io.Reader) (kind byte, body []byte) {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal("read a message: ", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<20 {
		t.Fatalf("message %q of length %d", head[0], n)
	}
	body = make([]byte, n-4)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatalf("read a message %q of %d bytes: %v", head[0], n, err)
	}
	return head[0], body
}

// readFatal reads an ErrorResponse, which pgx must understand.
func readFatal(t testing.TB, r io.Reader) *pgproto3.ErrorResponse {
	t.Helper()
	kind, body := readMessage(t, r)
	if kind != 'E' {
		t.Fatalf("got a message %q (%q), want an ErrorResponse", kind, body)
	}
	e := new(pgproto3.ErrorResponse)
	if err := e.Decode(body); err != nil {
		t.Fatalf("pgx does not understand %q: %v", body, err)
	}
	return e
}

// expectFatal checks that the gate says FATAL with this SQLSTATE and text, and
// then ends in order.
func expectFatal(t testing.TB, r io.Reader, sqlstate, text string) {
	t.Helper()
	e := readFatal(t, r)
	if e.Severity != "FATAL" || e.SeverityUnlocalized != "FATAL" || e.Code != sqlstate || !strings.Contains(e.Message, text) {
		t.Errorf("got %s %s: %q, want FATAL %s: …%q…", e.Severity, e.Code, e.Message, sqlstate, text)
	}
	expectEOF(t, r)
}

// readReady reads the answer to a startup message up to ReadyForQuery.
func readReady(t testing.TB, r io.Reader) {
	t.Helper()
	for {
		switch kind, body := readMessage(t, r); kind {
		case 'E':
			t.Fatalf("got an ErrorResponse before ReadyForQuery: %q", body)
		case 'Z':
			return
		}
	}
}

// backend is a fake PostgreSQL that records what reaches it. It answers a
// startup message with AuthenticationOk and ReadyForQuery and then listens to
// the end; everything else, as a CancelRequest, it answers by closing.
type backend struct {
	*pgtest.Fake
	packets chan []byte // the first packet of each connection

	mu   sync.Mutex
	rest []byte // what came after the first packets
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{packets: make(chan []byte, 1<<16)}
	fake, err := pgtest.StartFake(b.serve)
	if err != nil {
		t.Fatal(err)
	}
	b.Fake = fake
	t.Cleanup(fake.Stop)
	return b
}

func (b *backend) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = append(b.rest, p...)
	return len(p), nil
}

func (b *backend) serve(conn net.Conn) {
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		b.packets <- nil // a connection that brought no packet: no test allows it
		return
	}
	first := bytes.Clone(head[:])
	if n := int64(binary.BigEndian.Uint32(head[:])) - 8; n > 0 && n < 1<<20 {
		body := make([]byte, n)
		_, _ = io.ReadFull(conn, body)
		first = append(first, body...)
	}
	b.packets <- first
	if head[4] != 0 || head[5] != 3 {
		return
	}
	_, _ = conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
	_, _ = io.Copy(b, conn)
}

// received returns the first packet of the next connection.
func (b *backend) received(t testing.TB) []byte {
	t.Helper()
	select {
	case p := <-b.packets:
		return p
	case <-time.After(patience):
		t.Fatal("nothing has reached the backend")
		return nil
	}
}

// expectUntouched checks that nobody has come through to the backend. Ask when
// the outcome is known: by then the gate would have dialled.
func (b *backend) expectUntouched(t testing.TB) {
	t.Helper()
	if n := b.Accepted.Load(); n != 0 {
		t.Errorf("%d connections were opened to the backend for clients that were refused", n)
	}
}

// testClock is the clock of a gate, which a test can set forward and back.
type testClock struct{ offset atomic.Int64 }

func (c *testClock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func (c *testClock) Add(d time.Duration) { c.offset.Add(int64(d)) }
