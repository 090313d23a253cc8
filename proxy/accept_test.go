package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/socket"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// starveEnv makes the test binary a gate with few file descriptors; its value is
// the backend's socket directory.
const starveEnv = "PGWICKET_TEST_STARVE"

// starved is a gate in another process that has no descriptors to spare.
type starved struct {
	addr string
	in   io.WriteCloser
	out  *bufio.Scanner
}

// state is what such a gate says of itself.
type state struct {
	AcceptErrors float64 // the metric
	Failed       int     // lines "accept failed" in the log
	Sessions     int
	Addr         string
}

// starvedGate is the other process: it answers each line with its state.
func starvedGate(t *testing.T, socketDir string) {
	g := newGate(t, socketDir)
	limitDescriptors(t, descriptors(t)+20)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s := state{
			Failed:   strings.Count(g.Log.String(), `"accept failed"`),
			Sessions: g.Server.Sessions(),
			Addr:     g.Addr,
		}
		if in.Text() == "metrics" { // reading them takes descriptors, and gives them back
			s.AcceptErrors = g.metric(t, "pgwicket_accept_errors_total")
		}
		b, _ := json.Marshal(s)
		fmt.Fprintln(os.Stdout, string(b))
	}
}

func startStarved(t *testing.T, socketDir string) *starved {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), starveEnv+"="+socketDir)
	cmd.Stderr = os.Stderr
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
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // after the Wait below it finds nobody
	s := &starved{in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = in.Close()
		rest, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the gate's process: %v\n%s", err, rest)
		}
	})
	s.addr = s.state(t, "").Addr
	return s
}

func (s *starved) state(t *testing.T, with string) (st state) {
	t.Helper()
	if _, err := io.WriteString(s.in, with+"\n"); err != nil {
		t.Fatal(err)
	}
	if !s.out.Scan() {
		t.Fatal("the gate's process has ended: ", s.out.Err())
	}
	if err := json.Unmarshal(s.out.Bytes(), &st); err != nil {
		t.Fatalf("%v: %s", err, s.out.Text())
	}
	return st
}

// ghostunnel#757 spun, and pgdog's loop ended on EMFILE: out of file
// descriptors the gate waits, counts, logs an error now and then, and goes on when
// there are some again.
func TestAcceptOutlivesWantOfDescriptors(t *testing.T) {
	if dir := os.Getenv(starveEnv); dir != "" {
		starvedGate(t, dir)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("counts descriptors in /proc")
	}
	b := newBackend(t)
	s := startStarved(t, b.SocketDir)
	g := &gate{Addr: s.addr}

	began := time.Now()
	var silent []net.Conn
	for range 60 { // the kernel takes what the gate cannot
		silent = append(silent, g.dial(t))
	}
	var st state
	eventually(t, "accepts fail again and again", func() bool {
		st = s.state(t, "")
		return st.Failed >= 7
	})
	// After 5, 10, 20, … 160 ms the seventh comes no sooner than 315 ms after the
	// first, and from the ninth on there is one a second.
	if d := time.Since(began); d < 315*time.Millisecond || st.Failed > 8+int(d/time.Second) {
		t.Errorf("%d failed accepts within %v: the loop spins", st.Failed, d)
	}
	if st.Sessions >= len(silent) {
		t.Errorf("all %d connections were accepted with descriptors for 20", st.Sessions)
	}

	for _, c := range silent {
		_ = c.Close()
	}
	// A session needs two.
	raw := g.dial(t)
	send(t, raw, sslRequest)
	expectByte(t, raw, 'S')
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // its CA lives in the other process
	send(t, conn, startup(protocol3, "user", "app"))
	readReady(t, conn)
	_ = conn.Close()
	b.received(t)
	eventually(t, "all connections are gone", func() bool { return s.state(t, "").Sessions == 0 })
	if st := s.state(t, "metrics"); st.AcceptErrors != float64(st.Failed) {
		t.Errorf("accept_errors_total is %v, the log has %d", st.AcceptErrors, st.Failed)
	}
}

// shutdown runs Shutdown in a goroutine and returns its error on a channel.
func shutdown(ctx context.Context, g *gate) <-chan error {
	done := make(chan error, 1)
	go func() { done <- g.Server.Shutdown(ctx) }()
	return done
}

// refusesConnections waits until nobody listens any more.
func refusesConnections(t *testing.T, addr string) {
	t.Helper()
	eventually(t, "connections are refused", func() bool {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// ended is the next connection's end, other than that of a connection which
// refusesConnections has made while it was not yet refused.
func ended(t *testing.T, g *gate) string {
	t.Helper()
	for {
		if o := g.outcome(t).get("outcome"); o != "probe" {
			return o
		}
	}
}

// cloud-sql-proxy#206, cloud-sql-proxy#1805: a shutdown lets the sessions that
// are busy come to their own end, and nobody new in.
func TestShutdownWaitsForSessions(t *testing.T) {
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	c := session(t, g)
	send(t, c, []byte("?")) // it has asked something, and its answer is not complete
	expectByte(t, c, '?')
	idle, asking := session(t, g), g.secure(t) // which has not yet said who it is
	done := shutdown(context.Background(), g)
	expectFatal(t, idle, "57P01", "terminating connection due to administrator command")
	_ = idle.Close()
	if o := ended(t, g); o != "drained" {
		t.Errorf("outcome %s, want drained", o)
	}

	// A client in its startup, or a new one, is told, in a way that moves libpq on.
	for _, late := range []*tls.Conn{asking, g.secure(t)} {
		send(t, late, startup(protocol3, "user", "app"))
		expectFatal(t, late, "57P03", "the gate is shutting down")
		_ = late.Close()
		if o := ended(t, g); o != "shutting_down" {
			t.Errorf("outcome %s, want shutting_down", o)
		}
	}
	// Ctrl-C on a statement that holds up the drain is forwarded.
	raw := g.dial(t)
	send(t, raw, cancelRequest(1, []byte("????")))
	eventually(t, "the backend has the CancelRequest", func() bool { return f.Accepted.Load() == 3 })
	_ = raw.Close()
	if o := ended(t, g); o != "forwarded" {
		t.Errorf("outcome %s, want forwarded", o)
	}
	for i := range 100 {
		send(t, c, []byte{byte(i)})
		expectByte(t, c, byte(i))
	}
	select {
	case err := <-done:
		t.Fatal("Shutdown has not waited for the session: ", err)
	default:
	}
	_ = c.Close()
	if err := <-done; err != nil {
		t.Error("Shutdown: ", err)
	}
	if n := g.Server.Sessions(); n != 0 {
		t.Errorf("%d sessions after Shutdown", n)
	}
	if o := ended(t, g); o != "client_closed" {
		t.Errorf("outcome %s, want client_closed", o)
	}
	err := <-g.served
	g.served <- err
	if !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
}

// pgbouncer#234: a stop that hangs. What is left when the time is up is ended, be it idle, busy or stuck, and
// Shutdown returns only when it has gone.
func TestShutdownEndsWhatIsLeft(t *testing.T) {
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	idle, stuck := session(t, g), session(t, g)
	var sent atomic.Int64
	writer := make(chan struct{})
	go func() { // nobody reads the echo, so all four pumps fill up
		defer close(writer)
		for buf := make([]byte, 64<<10); ; {
			n, err := stuck.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	eventually(t, "the session is busy", func() bool { return sent.Load() > 1<<20 })
	silent := g.dial(t)
	eventually(t, "all three are in", func() bool { return g.Server.Sessions() == 3 })

	ctx, cancel := context.WithCancel(context.Background())
	done := shutdown(ctx, g)
	expectFatal(t, idle, "57P01", "terminating connection due to administrator command")
	began := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v, want the context's error", err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("it took %v", d)
	}
	if n := g.Server.Sessions(); n != 0 {
		t.Errorf("%d sessions after Shutdown", n)
	}
	<-writer
	if n, err := silent.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the client read %d bytes, %v; want its end", n, err)
	}
	got := map[string]int{}
	for range 3 {
		got[ended(t, g)]++
	}
	if got["drained"] != 1 || got["drain_timeout"] != 1 || got["shutting_down"] != 1 {
		t.Errorf("outcomes %v, want drained, drain_timeout and shutting_down", got)
	}
}

// 0.0.0.0 is IPv4 and keeps its name, which rules and logs have: Go alone would
// make it [::].
func TestListenOnAllOfIPv4(t *testing.T) {
	ln, err := socket.Listen(context.Background(), "0.0.0.0:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a := ln.Addr().String(); !strings.HasPrefix(a, "0.0.0.0:") {
		t.Errorf("it listens on %s", a)
	}
}

// The contract of net/http.Server: after Shutdown no Serve begins.
func TestServeAfterShutdown(t *testing.T) {
	s := newServer(t, &proxy.Policy{}, slog.New(slog.DiscardHandler), metrics.New("test"))
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal("Shutdown without a session: ", err)
	}
	ln, err := socket.Listen(context.Background(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln); !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Serve returned %v, want ErrServerClosed", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve has left its listener open: %v", err)
	}
}

// Serve does not take the loss of its listener for a shutdown.
func TestServeWithoutListener(t *testing.T) {
	s := newServer(t, &proxy.Policy{}, slog.New(slog.DiscardHandler), metrics.New("test"))
	ln, err := socket.Listen(context.Background(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) || errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Serve returned %v, want net.ErrClosed", err)
	}
}

// A connection that is accepted while Shutdown begins is either waited for or
// never begun: when Shutdown has returned, nothing is left.
func TestShutdownInAStormOfConnections(t *testing.T) {
	for range 50 {
		ln, err := socket.Listen(context.Background(), "127.0.0.1:0", 0)
		if err != nil {
			t.Fatal(err)
		}
		m := metrics.New("test")
		s := newServer(t, &proxy.Policy{Networks: networks([]string{"::1"}, nil)}, slog.New(slog.DiscardHandler), m)
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		var storm sync.WaitGroup
		var dialled atomic.Int64
		for range 8 {
			storm.Go(func() {
				for {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						return
					}
					dialled.Add(1)
					_ = c.Close()
				}
			})
		}
		eventually(t, "the storm blows", func() bool { return dialled.Load() > 20 })
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error("Shutdown: ", err)
		}
		if n := s.Sessions(); n != 0 {
			t.Errorf("%d sessions after Shutdown", n)
		}
		if err := <-served; !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if n := s.Sessions(); n != 0 {
			t.Errorf("%d sessions have begun after Shutdown", n)
		}
		storm.Wait()
		if t.Failed() {
			return // once is enough
		}
	}
}

// stolon#323, alloydb-auth-proxy#282, pg_auto_failover#1180: a client that vanishes without a word is found out
// by the kernel, if the socket asks it to: keepalive when nothing is under way,
// TCP_USER_TIMEOUT when something is. The options are the accepted sockets',
// not only the listener's.
func TestSocketOptions(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the options have Linux's numbers")
	}
	for _, timeout := range []time.Duration{0, 90 * time.Second} {
		ln, err := socket.Listen(context.Background(), "127.0.0.1:0", timeout)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		checkOptions(t, conn.(*net.TCPConn), timeout)
	}
}

func checkOptions(t *testing.T, conn *net.TCPConn, timeout time.Duration) {
	t.Helper()
	const (
		keepIdle, keepInterval, keepCount, userTimeout = 4, 5, 6, 18 // TCP_…, of linux/tcp.h
	)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name                string
		level, option, want int
	}{
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, keepIdle, 60},
		{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, keepInterval, 15},
		{"TCP_KEEPCNT", syscall.IPPROTO_TCP, keepCount, 4},
		{"TCP_USER_TIMEOUT", syscall.IPPROTO_TCP, userTimeout, int(timeout.Milliseconds())},
		{"TCP_NODELAY", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	} {
		got := 0
		if e := raw.Control(func(fd uintptr) { got, err = socketOption(fd, o.level, o.option) }); e != nil || err != nil {
			t.Fatal(o.name, e, err)
		}
		if got != o.want {
			t.Errorf("user timeout %v: %s is %d, want %d", timeout, o.name, got, o.want)
		}
	}
}
