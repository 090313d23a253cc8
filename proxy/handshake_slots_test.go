package proxy_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/proxy"
)

// handshakesAtATime is the bound, in the words of docs/design.md.
func handshakesAtATime() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// Of many new connections a few are served at a time, and in the end all.
func TestHandshakesTakeTurns(t *testing.T) {
	b := newBackend(t)
	var now, most atomic.Int64
	release := make(chan struct{})
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			return nil, nil
		}
	})
	var clients sync.WaitGroup
	for range 4 * handshakesAtATime() {
		raw := g.dial(t)
		send(t, raw, sslRequest)
		expectByte(t, raw, 'S')
		clients.Go(func() {
			if err := tls.Client(raw, g.clientTLS()).Handshake(); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "as many as may are at it", func() bool { return int(now.Load()) == handshakesAtATime() })
	time.Sleep(20 * time.Millisecond) // for one too many to show itself
	close(release)
	clients.Wait()
	if n := int(most.Load()); n != handshakesAtATime() {
		t.Errorf("%d handshakes at a time, want %d", n, handshakesAtATime())
	}
}

// Clients that stop in the middle of a handshake hold up nobody: not those who
// stop within their ClientHello, and not those who have had our answer.
func TestSlowHandshakesHoldNobody(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	hello := clientHello(t, g)
	for range 3 * handshakesAtATime() {
		for _, part := range [][]byte{hello[:len(hello)/2], hello} {
			raw := g.dial(t)
			send(t, raw, sslRequest)
			expectByte(t, raw, 'S')
			send(t, raw, part)
			if len(part) == len(hello) {
				expectByte(t, raw, 0x16) // our answer
			}
		}
	}
	for range 3 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		readReady(t, conn)
	}
}

// clientHello returns what a client says first.
func clientHello(t *testing.T, g *gate) []byte {
	t.Helper()
	recorder := new(onlyWrites)
	_ = tls.Client(recorder, g.clientTLS()).Handshake()
	if recorder.Len() == 0 {
		t.Fatal("no ClientHello")
	}
	return recorder.Bytes()
}

// onlyWrites is a connection whose other end never answers.
type onlyWrites struct {
	net.Conn
	bytes.Buffer
}

func (w *onlyWrites) Read([]byte) (int, error)    { return 0, net.ErrClosed }
func (w *onlyWrites) Write(p []byte) (int, error) { return w.Buffer.Write(p) }
func (w *onlyWrites) Close() error                { return nil }
