package proxy_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/socket"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// With a successor, a client that has connected before the shutdown is admitted, and stays for
// half of its time.
func TestShutdownHandsOver(t *testing.T) {
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	g.Server.HandOver()
	c := session(t, g)
	asking := g.secure(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := shutdown(ctx, g)
	refusesConnections(t, g.Addr)

	send(t, asking, startup(protocol3, "user", "app"))
	readReady(t, asking)
	for _, conn := range []net.Conn{c, asking} {
		send(t, conn, []byte{'x'})
		expectByte(t, conn, 'x')
		_ = conn.Close()
	}
	if err := <-done; err != nil {
		t.Error("Shutdown: ", err)
	}
}

func TestShutdownHandsOverForHalfOfItsTime(t *testing.T) {
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	g.Server.HandOver()
	c := session(t, g)
	const time2 = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), time2)
	defer cancel()
	began := time.Now()
	done := shutdown(ctx, g)
	expectFatal(t, c, "57P01", "terminating connection due to administrator command")
	if d := time.Since(began); d < time2/2 {
		t.Errorf("an idle session was ended after %v", d)
	}
	_ = c.Close()
	if err := <-done; err != nil {
		t.Error("Shutdown: ", err)
	}
}

// Each accept loop must come round, and a proof is no connection.
func TestAlive(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // no IPv6
			continue
		}
		_ = ln.Close()
		g := newGateOn(t, address, t.TempDir(), func(p *proxy.Policy) { p.Networks = networks(nil, nil) })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for range 20 {
			if err := g.Server.Alive(ctx); err != nil {
				t.Error(err)
			}
		}
		if n := g.metric(t, "pgwicket_connections_accepted_total"); n != 0 || g.Log.String() != "" {
			t.Errorf("%s: %v connections, and in the log %s", address, n, g.Log)
		}
		// Others still count while there is a proof.
		done := make(chan error, 1)
		go func() { done <- g.Server.Alive(ctx) }()
		_ = g.dial(t).Close()
		<-done
		eventually(t, "the connection is counted", func() bool { return g.metric(t, "pgwicket_connections_accepted_total") == 1 })
	}
}

// stuck is a listener whose accept loop hangs until it is closed.
type stuck struct{ net.Listener }

func (s stuck) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		_ = conn.Close()
		for err == nil { // it never comes round
			if conn, err = s.Listener.Accept(); err == nil {
				_ = conn.Close()
			}
		}
	}
	return nil, err
}

// A loop that does not come round is found, though the kernel lets clients
// connect, and though other loops are well.
func TestNotAlive(t *testing.T) {
	g := newGate(t, t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Server.Serve(stuck{ln}) }()
	eventually(t, "the loop is found", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		err := g.Server.Alive(ctx)
		return err != nil && strings.Contains(err.Error(), "the accept loop of "+ln.Addr().String()+" does not answer")
	})
	go func() { _ = g.Server.Shutdown(context.Background()) }()
	<-served
	if err := g.Server.Alive(context.Background()); err != nil {
		t.Error("a server that shuts down has no loop to prove: ", err)
	}
}

// A passed socket is served as one of our own, with the options of one.
func TestInherit(t *testing.T) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := socket.Inherit(file, 7*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = ln.Close()
	conn, err := inherited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if runtime.GOOS == "linux" { // the options have its numbers
		checkOptions(t, conn.(*net.TCPConn), 7*time.Second)
	}

	// When the server that has it shuts down, the socket still listens.
	again, err := inherited.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, &proxy.Policy{}, slog.New(slog.DiscardHandler), metrics.New("test"))
	served := make(chan error, 1)
	go func() { served <- s.Serve(inherited) }()
	eventually(t, "it serves", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return s.Alive(ctx) == nil
	})
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	waiting, err := net.Dial("tcp", inherited.Addr().String())
	if err != nil {
		t.Fatal("refused between two servers: ", err)
	}
	defer waiting.Close()
	next, err := socket.Inherit(again, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if conn, err = next.Accept(); err != nil || conn.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Errorf("the next server has got %v, %v", conn, err)
	}
	_ = conn.Close()
}

func TestInheritWrongSocket(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Inherit(file, 0); err == nil {
		t.Error("a socket of UDP was taken")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if file, err = client.(*net.TCPConn).File(); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Inherit(file, 0); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("a connection was taken: %v", err)
	}
}

// A server may be told to stop while an upgrade that has failed gives it its accept loops back.
func TestShutdownWhileAcceptingResumes(t *testing.T) {
	f := fakeBackend(t, echo)
	for range 20 {
		g := newGate(t, f.SocketDir)
		g.Server.PauseAccepting()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		done := shutdown(ctx, g)
		for resumed := time.Now().Add(20 * time.Millisecond); time.Now().Before(resumed); {
			g.Server.ResumeAccepting() // at every moment of the shutdown
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error("Shutdown: ", err)
			}
		case <-time.After(patience):
			t.Fatal("the server goes on accepting")
		}
		cancel()
	}
}

// slow is a listener whose loop has accepted a connection, and does not go on before goOn is closed.
type slow struct {
	*net.TCPListener
	accepted, goOn chan struct{}
}

func (s *slow) Accept() (net.Conn, error) {
	conn, err := s.TCPListener.Accept()
	if err == nil {
		close(s.accepted)
		<-s.goOn
	}
	return conn, err
}

// A connection that an accept loop has just accepted is neither the new process's nor counted yet. The old one must not
// end before it.
func TestNotIdleWithAConnectionAccepted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, &proxy.Policy{Networks: networks([]string{"127.0.0.0/8"}, nil), StartupTimeout: patience}, slog.New(slog.DiscardHandler), metrics.New("test"))
	loop := &slow{ln.(*net.TCPListener), make(chan struct{}), make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(loop) }()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	<-loop.accepted
	s.PauseAccepting()
	s.HandedOver()
	if s.Idle() {
		t.Error("it is idle before the connection is served")
	}
	close(loop.goOn)
	eventually(t, "the connection is served", func() bool { return s.Sessions() == 1 })
	if s.Idle() {
		t.Error("it is idle beside the connection")
	}
	_ = client.Close()
	eventually(t, "it is idle", s.Idle)
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}
