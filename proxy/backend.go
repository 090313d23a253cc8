package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Backend is where PostgreSQL listens.
type Backend struct {
	// Socket is the path of a Unix socket; a leading @ means one in Linux's
	// abstract namespace, as in libpq.
	Socket string
	// ConnectTimeout bounds the connect.
	ConnectTimeout time.Duration
}

// dial connects to the backend. A socket whose queue is full refuses at once
// with EAGAIN, which libpq reports as a failure; waiting a moment is all that
// it takes.
func (b Backend) dial(ctx context.Context) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.ConnectTimeout)
	defer cancel()
	delay := time.Millisecond
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", b.Socket)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(delay):
			delay = min(2*delay, 50*time.Millisecond)
		}
	}
}
