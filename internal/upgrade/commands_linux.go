package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// serveCommands answers the new process as the admin socket did.
func (s *Successor) serveCommands() {
	s.served = &oneConn{conn: s.commands, closed: make(chan struct{})}
	go func() { _ = s.gate.Commands.Serve(s.served) }()
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	conn := l.conn
	l.conn = nil
	l.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "upgrade", Net: "unix"} }

// commandClient asks on one connection, one request after another.
type commandClient struct {
	http *http.Client
	free chan struct{} // has one while no request is under way
	late atomic.Bool   // somebody has waited in vain for the request that is under way
}

// clientOver returns a client that has one connection.
func clientOver(conn net.Conn) *commandClient {
	var once sync.Once
	c := &commandClient{free: make(chan struct{}, 1), http: &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			err := net.ErrClosed
			once.Do(func() { err = nil })
			return conn, err
		},
	}}}
	c.free <- struct{}{}
	return c
}

// endTimeout is how long the end of a process may take to be known whose connection for commands is closed.
const endTimeout = 2 * time.Second

// Ask has the old process do what the admin socket is asked, and returns the answer. If that takes too long, the old one
// may still do it. The connection stays, so the next command can succeed. The error is ErrEnded if there is no old
// process any more.
func (p *Predecessor) Ask(method, path string, within time.Duration) ([]byte, error) {
	c := p.commands
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-c.free:
	default:
		if c.late.Load() { // a command may ask several times, and its client waits once
			return nil, errors.New("it has not answered an earlier command yet")
		}
		select {
		case <-c.free:
		case <-timeout.C:
			c.late.Store(true)
			return nil, fmt.Errorf("it has not answered an earlier command for %v", within)
		}
	}
	type result struct {
		body []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		body, err := c.request(method, path)
		if errors.Is(err, errConnection) {
			select {
			case <-p.over:
				err = ErrEnded
			case <-time.After(endTimeout):
			}
		}
		c.late.Store(false)
		c.free <- struct{}{}
		done <- result{body, err}
	}()
	select {
	case r := <-done:
		return r.body, r.err
	case <-timeout.C:
		c.late.Store(true)
		return nil, fmt.Errorf("no answer within %v", within)
	}
}

var errConnection = errors.New("its connection for commands")

// request returns when the answer has come, or the connection is closed: that is errConnection.
func (c *commandClient) request(method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(context.Background(), method, "http://pgwicket"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	var of *url.Error // repeats the request
	if errors.As(err, &of) {
		err = of.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnection, err)
	}
	defer response.Body.Close()
	const most = 64 << 20
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnection, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
