package pgtest

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Fake is a scripted backend, for behaviour that a real PostgreSQL does not show.
type Fake struct {
	SocketDir string       // empty on TCP
	Address   string       // on TCP
	Accepted  atomic.Int64 // connections so far

	ln   net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]bool
}

// StartFake listens on port 5432 of a new socket directory. It calls script for each
// connection, each in its own goroutine, and closes the connection when script returns.
// The caller must call Stop.
func StartFake(script func(net.Conn)) (*Fake, error) {
	dir, err := os.MkdirTemp("", "pgwicket-fake-")
	if err != nil {
		return nil, err
	}
	return start(&Fake{SocketDir: dir}, "unix", filepath.Join(dir, ".s.PGSQL.5432"), script)
}

// StartFakeTCP is StartFake on a free port of 127.0.0.1.
func StartFakeTCP(script func(net.Conn)) (*Fake, error) {
	return start(&Fake{}, "tcp", "127.0.0.1:0", script)
}

func start(f *Fake, network, address string, script func(net.Conn)) (_ *Fake, err error) {
	if f.ln, err = net.Listen(network, address); err != nil {
		return nil, err
	}
	if network == "tcp" {
		f.Address = f.ln.Addr().String()
	}
	f.open = make(map[net.Conn]bool)
	f.wg.Go(func() { f.accept(script) })
	return f, nil
}

func (f *Fake) accept(script func(net.Conn)) {
	for {
		c, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.Accepted.Add(1)
		f.mu.Lock()
		f.open[c] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			script(c)
			_ = c.Close()
			f.mu.Lock()
			delete(f.open, c)
			f.mu.Unlock()
		})
	}
}

// Stop closes the listener and every connection, and waits for the scripts.
func (f *Fake) Stop() {
	_ = f.ln.Close()
	f.mu.Lock()
	for c := range f.open {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	_ = os.RemoveAll(f.SocketDir)
}
