package pgtest

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Fake is a scripted backend on a Unix socket, for behaviour that a real PostgreSQL does
// not show.
type Fake struct {
	SocketDir string
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
	ln, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		return nil, err
	}
	f := &Fake{SocketDir: dir, ln: ln, open: make(map[net.Conn]bool)}
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
