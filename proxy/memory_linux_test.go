package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/proxy"
)

// What an idle session costs the gate, goroutine stacks included, once it has
// had one query answered. Whatever a change adds to every session shows here
// first. The sockets are counted by the kernel and not by us.
func TestMemoryOfIdleSessions(t *testing.T) {
	for _, c := range []struct {
		name string
		cert bool
		most int // bytes a session
	}{
		{"without a certificate", false, 4 << 10},
		{"with a certificate each", true, 6 << 10},
	} {
		t.Run(c.name, func(t *testing.T) { testMemoryOfIdleSessions(t, c.cert, c.most) })
	}
}

func testMemoryOfIdleSessions(t *testing.T, cert bool, most int) {
	const sessions = 300
	far := new(farEnds)
	defer far.close()
	f := fakeBackend(t, func(c *net.UnixConn) {
		if err := answer(c); err != nil {
			t.Error("backend:", err)
		}
		if err := far.keep(c); err != nil {
			t.Error("backend:", err)
		}
	})
	g := newGate(t, f.SocketDir, func(p *proxy.Policy) { p.LogEndsOnly = true }) // the log would be measured, too
	client := g.clientTLS()
	open := func(n int) {
		t.Helper()
		for i := range n {
			config := client.Clone()
			if cert {
				// crypto/tls keeps equal certificates once, so each has its own.
				withCert(g.CA.Client(fmt.Sprintf("client %d", i)))(config)
			}
			if err := far.query(g.Addr, config); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled := func(n int) bool {
		return g.metric(t, "pgwicket_sessions_open") == float64(n) && far.len() == 2*n
	}

	const first = 8
	open(first) // what is made once is not a session's
	eventually(t, "the first sessions are idle", func() bool { return settled(first) })
	before, goroutines := inUse(), runtime.NumGoroutine()
	open(sessions)
	eventually(t, "all sessions are idle", func() bool { return settled(first + sessions) })
	// A goroutine is on its way out when it has done its last work, not gone.
	eventually(t, "no goroutine is a session's", func() bool { return runtime.NumGoroutine() <= goroutines })
	after := inUse()

	// Stacks come in spans of 32 KiB, of which the runtime may have given some back.
	heap, stacks := (after.heap-before.heap)/sessions, max(after.stacks-before.stacks, 0)/sessions
	t.Logf("%d bytes a session: %d of heap, %d of stacks", heap+stacks, heap, stacks)
	if heap+stacks > most {
		t.Errorf("an idle session holds %d bytes, want no more than %d", heap+stacks, most)
	}
	if log := g.Log.all(); len(log) > 0 {
		t.Errorf("the log was measured, too: %q", log)
	}
}

// memory is what is in use.
type memory struct{ heap, stacks int }

// inUse measures without garbage. Pools are empty after two collections; what
// finalizers and cleanups hold goes when they have run, in a goroutine of their
// own.
func inUse() memory {
	var m runtime.MemStats
	least := memory{heap: 1 << 62}
	for again := 3; again > 0; again-- {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		if now := (memory{int(m.HeapAlloc), int(m.StackInuse)}); now.heap+now.stacks < least.heap+least.stacks {
			least, again = now, 3
		}
	}
	return least
}

// farEnds are the far ends of sessions, of each no more than a descriptor: the
// clients and the backend run in the process that is measured.
type farEnds struct {
	mu  sync.Mutex
	fds []int
}

// keep takes a duplicate of a connection's descriptor, so that the connection
// may be closed here without its peer hearing of it.
func (h *farEnds) keep(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if e := raw.Control(func(original uintptr) { fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fds = append(h.fds, fd)
	return nil
}

func (h *farEnds) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.fds)
}

func (h *farEnds) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fd := range h.fds {
		_ = unix.Close(fd)
	}
	h.fds = nil
}

// A question and its answer, as simple as PostgreSQL has them.
const (
	question = "Q\x00\x00\x00\x0dselect 1\x00"
	reply    = "T\x00\x00\x00\x21\x00\x01?column?\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00" +
		"D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011" + "C\x00\x00\x00\x0dSELECT 1\x00" + "Z\x00\x00\x00\x05I"
)

// answer is the backend's part of one query.
func answer(c io.ReadWriter) error {
	if _, err := io.ReadFull(c, make([]byte, len(question))); err != nil {
		return err
	}
	_, err := io.WriteString(c, reply)
	return err
}

// query opens a session, has one query answered and keeps its far end.
func (h *farEnds) query(address string, config *tls.Config) error {
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() // and not the tls.Conn, which would say goodbye
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(sslRequest); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	c := tls.Client(conn, config)
	if _, err := c.Write(startup(protocol3, "user", "app", "database", "postgres", "application_name", "idle")); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, len(ready))); err != nil {
		return err
	}
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	got := make([]byte, len(reply))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != reply {
		return fmt.Errorf("got %q, %w; want %q", got, err, reply)
	}
	return h.keep(conn.(syscall.Conn))
}
