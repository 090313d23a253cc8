package socket

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Back-off after a failed accept, as net/http has it. Running out of file
// descriptors is the usual cause and passes as sessions end.
const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Loop is the accept loop of a listener. The zero value is ready for one Run; the other methods may be called
// concurrently.
type Loop struct {
	rounds atomic.Uint64
	held   atomic.Bool
}

// Rounds returns how often the loop has accepted, or has failed to. See Probes.
func (l *Loop) Rounds() uint64 { return l.rounds.Load() }

// Held reports whether the loop is held up, or has ended: no connection is between its accept and the end of take.
func (l *Loop) Held() bool { return l.held.Load() }

// Run passes the connections of ln, which must yield *net.TCPConn, to take, until pause is stopped; then it returns nil. It
// returns an error if something else has closed ln. After any other failure it calls failed, and tries again.
func (l *Loop) Run(ln net.Listener, pause *Pause, take func(*net.TCPConn), failed func(err error, retryIn time.Duration)) error {
	delay := time.Duration(0)
	for {
		conn, err := ln.Accept()
		l.rounds.Add(1)
		if err == nil {
			delay = 0
			take(conn.(*net.TCPConn))
			continue
		}
		l.held.Store(true)
		switch {
		case pause.Wait(err):
			l.held.Store(false)
		case pause.Stopped():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			l.held.Store(false)
			delay = min(max(2*delay, minAcceptDelay), maxAcceptDelay)
			failed(err, delay)
			time.Sleep(delay)
		}
	}
}
