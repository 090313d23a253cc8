package gate

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"pgwicket/internal/socket"
	"pgwicket/internal/upgrade"
)

// The bounds of the admin address, and of the admin socket. Together they are a small
// part of the descriptors of a process, so clients of the gate do not run out of them.
const (
	maxAdminConnections = 100
	adminIdleTimeout    = 30 * time.Second
)

// adminConns is a listener that holds a bounded number of connections. When it is full, a
// new connection takes the place of the one that has waited longest without a request; if
// all of them are answering requests, the new one is closed.
type adminConns struct {
	net.Listener
	max    int
	passed upgrade.Socket // to the next process
	pause  socket.Pause

	mu   sync.Mutex
	open map[*adminConn]time.Time // since when each waits for a request; zero: it does not
}

type adminConn struct {
	net.Conn
	of *adminConns
}

func boundConns(ln net.Listener, passed upgrade.Socket) *adminConns {
	return &adminConns{Listener: ln, max: maxAdminConnections, passed: passed, open: make(map[*adminConn]time.Time)}
}

func (l *adminConns) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil && l.pause.Wait(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := &adminConn{conn, l}
		if l.admit(c) {
			return c, nil
		}
		_ = conn.Close()
	}
}

// admit records a connection if there is a place for it.
func (l *adminConns) admit(c *adminConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.max {
		var oldest *adminConn
		for other, since := range l.open {
			if !since.IsZero() && (oldest == nil || since.Before(l.open[oldest])) {
				oldest = other
			}
		}
		if oldest == nil {
			return false
		}
		delete(l.open, oldest)
		_ = oldest.Conn.Close()
	}
	l.open[c] = time.Now()
	return true
}

// Close implements net.Listener: it ends a pause, too.
func (l *adminConns) Close() error {
	l.pause.Stop()
	return l.Listener.Close()
}

func (c *adminConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// follow is the ConnState of the server: it records which connections wait for a request.
func (l *adminConns) follow(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*adminConn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[c]; !ok {
		return
	}
	switch state {
	case http.StateIdle:
		l.open[c] = time.Now()
	case http.StateActive:
		l.open[c] = time.Time{}
	}
}
