package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgtest"
)

// ready is what a fake backend says until the session is open.
const ready = "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"

// fakeBackend starts a backend that opens every session and leaves the rest to
// script.
func fakeBackend(t *testing.T, script func(*net.UnixConn)) *pgtest.Fake {
	t.Helper()
	f, err := pgtest.StartFake(func(c net.Conn) {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil || binary.BigEndian.Uint32(head[4:]) != protocol3 {
			return // a CancelRequest is answered by closing
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))-8); err != nil {
			return
		}
		if _, err := io.WriteString(c, ready); err != nil {
			return
		}
		script(c.(*net.UnixConn))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

// echo answers every byte with itself and keeps a buffer of 1 KiB meanwhile.
func echo(c *net.UnixConn) {
	buf := make([]byte, 1024)
	for {
		n, err := c.Read(buf)
		if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// session opens a session as role "app" and reads up to ReadyForQuery.
func session(t *testing.T, g *gate, edit ...func(*tls.Config)) *tls.Conn {
	t.Helper()
	c := g.secure(t, edit...)
	send(t, c, startup(protocol3, "user", "app", "database", "postgres", "application_name", t.Name()))
	readReady(t, c)
	return c
}

// tcpOf is the TCP connection under TLS.
func tcpOf(c *tls.Conn) *net.TCPConn { return c.NetConn().(*net.TCPConn) }

// reset cuts a connection as a crash or a firewall does.
func reset(c *tls.Conn) {
	_ = tcpOf(c).SetLinger(0)
	_ = tcpOf(c).Close()
}

// An idle session costs its two sockets, its TLS state and two goroutines, but
// no buffer: 10,000 sessions of 64 KiB each would be 640 MiB for nothing. What
// is measured holds the client's half of TLS as well.
func TestIdleSessionsHoldNoBuffer(t *testing.T) {
	const sessions, most = 100, 30 << 10
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	block := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	talk := func(c *tls.Conn) {
		t.Helper()
		go func() { _, _ = c.Write(block) }()
		if got := make([]byte, len(block)); true {
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, block) {
				t.Fatalf("the echo differs, %v", err)
			}
		}
	}
	talk(session(t, g)) // what is made once is not a session's
	before := heap()
	open := make([]*tls.Conn, sessions)
	for i := range open {
		open[i] = session(t, g)
		// Two collections empty a sync.Pool, so that a buffer that a session
		// still points to cannot be another session's as well.
		runtime.GC()
		runtime.GC()
	}
	if each := (heap() - before) / sessions; each > most {
		t.Errorf("a new session holds %d bytes of heap, want less than %d", each, most)
	} else {
		t.Logf("%d bytes a new session", each)
	}
	// A session that has been busy gives its buffers back, too. What crypto/tls
	// has grown to hold the largest record stays, here on either side.
	for _, c := range open {
		talk(c)
		runtime.GC()
		runtime.GC()
	}
	const record = 2 * 35 << 10
	if each := (heap() - before) / sessions; each > most+record {
		t.Errorf("a session that was busy holds %d bytes of heap, want less than %d", each, most+record)
	} else {
		t.Logf("%d bytes a session that was busy", each)
	}
	runtime.KeepAlive(open)
}

// heap is what is in use, without garbage and without what sync.Pools keep.
func heap() int {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// What the backend says last must reach a client that is talking
// itself, because a reset would overtake it. PostgreSQL ends a session like
// this in the middle of a COPY: FATAL, and exit with unread input.
func TestLastWordsReachAClientThatIsTalking(t *testing.T) {
	fatal, err := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "terminating connection"}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := fakeBackend(t, func(c *net.UnixConn) {
		// A little of it, so that the client is in the middle.
		_, _ = io.CopyN(io.Discard, c, 256<<10)
		_, _ = c.Write(fatal)
	})
	g := newGate(t, f.SocketDir)
	for range 20 {
		c := session(t, g)
		done := make(chan struct{})
		go func() {
			defer close(done)
			block := make([]byte, 64<<10)
			for range 64 {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}()
		if e := readFatal(t, c); e.Code != "57P01" {
			t.Errorf("got %q", e.Message)
		}
		_ = c.Close()
		<-done
		g.expect(t, "backend_closed")
	}
}

// In tailscale's pgproxy the first EOF ends both directions. Here a client that
// ends its half in order still gets the answer, however long it is.
func TestAnswerOutlivesTheQuestion(t *testing.T) {
	const n = 10 << 20
	f := fakeBackend(t, func(c *net.UnixConn) {
		question, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.Repeat(question, n/len(question)))
	})
	g := newGate(t, f.SocketDir)
	c := session(t, g)
	send(t, c, []byte("word"))
	_ = c.CloseWrite()
	_ = tcpOf(c).CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(answer, bytes.Repeat([]byte("word"), n/4)) {
		t.Errorf("got %d bytes of %d, %v", len(answer), n, err)
	}
	line := g.expect(t, "client_closed")
	if up, down := line["bytes_from_client"], line["bytes_to_client"]; up != 4.0 || down != float64(n+len(ready)) {
		t.Errorf("the log has %v bytes from the client and %v to it, want 4 and %d", up, down, n+len(ready))
	}
}

// Every way to end gives both descriptors back, at once and not when the
// garbage collector comes by.
func TestSessionsLeaveNoDescriptor(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	ends := []func(c *tls.Conn){
		func(c *tls.Conn) { _ = c.Close() },
		reset,
		func(c *tls.Conn) { _ = tcpOf(c).Close() },
		func(c *tls.Conn) { // the echo of it fills both ways
			go func() { _, _ = c.Write(make([]byte, 16<<20)) }()
			_, _ = io.CopyN(io.Discard, c, 1<<20)
			reset(c)
		},
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what nobody holds any more
	ends[0](session(t, g))
	g.outcome(t)
	before := descriptors(t)
	for range 10 {
		for _, end := range ends {
			end(session(t, g))
			g.outcome(t)
		}
		// And who never becomes a session.
		_ = g.dial(t).Close()
		_ = g.secure(t).Close()
		g.outcome(t)
		g.outcome(t)
	}
	eventually(t, "the descriptors are given back", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// A session that is ended from outside is cut, never answered: an error in the
// middle of one of the backend's messages would be read as part of it.
// cockroach#66205, cockroach#66156.
func TestNothingIsSaidInTheMiddleOfAMessage(t *testing.T) {
	stop := make(chan struct{})
	head := []byte("d\x00\x10\x00\x04") // a CopyData of 1 MiB…
	f := fakeBackend(t, func(c *net.UnixConn) {
		_, _ = c.Write(head)
		_, _ = c.Write(make([]byte, 1000)) // …that never ends
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	g := newGate(t, f.SocketDir)
	c := session(t, g)
	if _, err := io.ReadFull(c, make([]byte, len(head)+1000)); err != nil {
		t.Fatal(err)
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.Server.Shutdown(now)
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("after 1000 bytes of a message the client read %q", rest)
	}
	g.expect(t, "drain_timeout")
}

// stolon#323, kviklet#537, proxysql#6129, alloydb-auth-proxy#282:
// no backend session outlives its client, whatever the client was doing.
func TestBackendHearsOfTheClientsEnd(t *testing.T) {
	for _, c := range []struct {
		name    string
		end     func(c *tls.Conn)
		outcome string
	}{
		{"close_notify", func(c *tls.Conn) { _ = c.Close() }, "client_closed"},
		{"FIN without close_notify", func(c *tls.Conn) { _ = tcpOf(c).Close() }, "client_closed"},
		{"reset", reset, "client_lost"},
		{"garbage", func(c *tls.Conn) { _, _ = tcpOf(c).Write(make([]byte, 100)) }, "client_lost"},
		{"record cut short", func(c *tls.Conn) {
			_, _ = tcpOf(c).Write([]byte{23, 3, 3, 1, 0, 'x'})
			_ = tcpOf(c).CloseWrite()
		}, "client_lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			gone := make(chan error, 1)
			f := fakeBackend(t, func(c *net.UnixConn) {
				_, err := c.Read(make([]byte, 1))
				gone <- err
			})
			g := newGate(t, f.SocketDir)
			c.end(session(t, g))
			if err := <-gone; !errors.Is(err, io.EOF) {
				t.Errorf("the backend read %v, want the end", err)
			}
			g.expect(t, c.outcome)
		})
	}
}
