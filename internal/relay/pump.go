package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/internal/pgwire"
)

// pump is the relay of one session with two goroutines, for systems without
// epoll. On Linux it is the model that the tests compare the loops with.
type pump struct {
	Session
	observer             Observer
	login                pgwire.Login
	started              time.Time
	timeout              *time.Timer // of the login
	fromClient, toClient atomic.Int64
	termination          atomic.Pointer[Termination] // at the next place for it
	cause                atomic.Int32                // see setCause
	muted                atomic.Bool                 // no byte of the client is forwarded any more
	backendClosed        atomic.Bool
	queued               atomic.Bool // bytes of the client are being written to the backend
	err                  error       // of the cause; written once

	writing     sync.Mutex // held during a write to the backend
	mu          sync.Mutex
	tracker     pgwire.Tracker
	backendSent bool // the backend has sent a byte
}

func newPump(s Session, o Observer) *pump {
	p := &pump{Session: s, observer: o, started: time.Now()}
	p.tracker.Login = &p.login
	return p
}

// run moves the bytes until both directions have ended, and reports.
func (p *pump) run() {
	p.timeout = time.AfterFunc(time.Until(p.LoginDeadline), func() {
		p.setCause(LoginTimeout)
		p.Terminate(Termination{Message: p.loginMessage(p.toClient.Load()), Deadline: time.Now().Add(boundaryWait)})
	})
	defer p.timeout.Stop()
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		p.guard(p.upload)
	}()
	p.guard(p.download)
	<-uploaded
	p.cut()
	noted := p.cause.Load()
	r := Result{Cause: Cause(noted&0xff - 1), Termination: uint8(noted >> 8), Err: p.err, Busy: p.tracker.Busy(), Login: p.login}
	r.SQLSTATE, r.Fatal = p.tracker.Fatal()
	r.FromClient, r.ToClient = p.Moved()
	p.Done(r)
}

// guard runs one direction; a panic in it ends the session.
func (p *pump) guard(direction func()) {
	defer func() {
		if panicked := recover(); panicked != nil {
			p.fail(Failed, fmt.Errorf("panic: %v", panicked))
			p.observer.Panicked(panicked)
		}
	}()
	direction()
}

// fail ends the session for a cause that has an error, unless it has another one.
func (p *pump) fail(c Cause, err error) {
	p.note(c, err)
	p.cut()
}

// note is setCause, with its error. Only the two directions call it.
func (p *pump) note(c Cause, err error) {
	if p.setCause(c) {
		p.err = err
	}
}

// setCause notes what ended the session, unless something else did before: the
// cause plus one and, above it, the reason of a termination.
func (p *pump) setCause(c Cause) bool { return p.cause.CompareAndSwap(0, int32(c)+1) }

func (p *pump) causeTerminated(t *Termination) {
	p.cause.CompareAndSwap(0, int32(t.Reason)<<8|int32(Terminated)+1)
}

// cut ends both directions at once.
func (p *pump) cut() {
	_ = p.ClientConn.Close()
	p.closeBackend()
}

// closeBackend closes the backend's connection; before the end of the login with a reset, for
// PostgreSQL would execute what it has received, and there is no key to cancel it with.
func (p *pump) closeBackend() {
	p.mu.Lock()
	loggingIn := p.tracker.Login != nil
	p.mu.Unlock()
	if tcp, ok := p.Backend.Socket.(*net.TCPConn); ok && loggingIn {
		_ = tcp.SetLinger(0)
	}
	_ = p.Backend.Close()
	p.backendClosed.Store(true)
}

// Moved implements Handle.
func (p *pump) Moved() (fromClient, toClient int64) { return p.fromClient.Load(), p.toClient.Load() }

// Activity implements Handle.
func (p *pump) Activity() Activity {
	p.mu.Lock()
	defer p.mu.Unlock()
	return activityOf(&p.tracker)
}

// Terminate implements Handle.
func (p *pump) Terminate(t Termination) {
	p.terminate(t)
	if t.Taken != nil {
		go t.Taken() // the caller may hold what it takes
	}
}

// terminate has download end the session at the next place for it, or cuts it.
func (p *pump) terminate(t Termination) {
	if t.Message == nil {
		p.causeTerminated(&t)
		p.cut()
		return
	}
	if e := p.termination.Load(); e != nil && !e.WhenIdle && t.WhenIdle {
		return // its client is not heard any more
	}
	p.termination.Store(&t)
	if !t.WhenIdle {
		p.muted.Store(true)
	}
	_ = p.Backend.SetReadDeadline(time.Now()) // for pumpDown to see it
	if !t.Deadline.IsZero() {
		time.AfterFunc(time.Until(t.Deadline), func() {
			if p.termination.Load() == &t {
				p.causeTerminated(&t)
				p.cut()
			}
		})
	}
}

// BackendClosed implements Handle.
func (p *pump) BackendClosed() bool { return p.backendClosed.Load() }

// Movable implements Handle.
func (p *pump) Movable() bool { return false }

// Freeze implements Handle.
func (p *pump) Freeze(done func(*Frozen)) { done(nil) }

// TerminateIf implements Handle.
func (p *pump) TerminateIf(s State, t Termination, moved int64) {
	p.mu.Lock()
	from, to := p.Moved()
	holds := from+to == moved && s.holds(&p.tracker, p.queued.Load())
	p.mu.Unlock()
	if holds {
		p.Terminate(t)
	}
}

// CancelTermination implements Handle.
func (p *pump) CancelTermination() {
	if t := p.termination.Load(); t != nil && t.WhenIdle {
		p.termination.CompareAndSwap(t, nil)
	}
}

// tryTerminate sends the message that ends the session, if there is a termination
// and this is the place for it, and reports whether it did.
func (p *pump) tryTerminate() bool {
	t := p.termination.Load()
	if t == nil || !p.canSend(t) {
		return false
	}
	if t.WhenIdle {
		// What the client of a walsender has sent goes first. Until it has, the
		// deadline of t holds.
		p.writing.Lock()
		defer p.writing.Unlock()
		if !p.canSend(t) { // the client has asked for something
			return false
		}
	}
	if !p.termination.CompareAndSwap(t, nil) {
		return false // taken back or replaced
	}
	p.causeTerminated(t)
	_ = p.ClientConn.SetWriteDeadline(time.Now().Add(lingerTimeout)) // a client that does not read is not waited for
	p.closeBackend()                                                 // upload finds out, and reads the client until it is done
	_, _ = p.Client.Write(t.Message)
	return true
}

func (p *pump) canSend(t *Termination) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.canSend(&p.tracker)
}

// closeBackendWrite ends our side of the backend's connection in order.
func (p *pump) closeBackendWrite() {
	if p.BackendTLS != nil {
		_ = p.BackendTLS.CloseWrite()
	}
	_ = p.Backend.CloseWrite()
}

func (p *pump) writeBackend(b []byte) error {
	var err error
	if p.BackendTLS != nil {
		_, err = p.BackendTLS.Write(b)
	} else {
		_, err = p.Backend.Write(b)
	}
	return err
}

// upload moves the client's bytes to the backend.
func (p *pump) upload() {
	err := p.pumpUp()
	if t := p.termination.Load(); t != nil && !t.WhenIdle {
		p.causeTerminated(t) // there is nobody to send the message to
		p.cut()
		return
	}
	switch {
	case errors.Is(err, errBackendWrite):
		// download delivers what the backend sent before. Until then the
		// client must be read: closing a socket with unread bytes in it
		// resets it, and the rest would be lost.
		_, _ = io.Copy(io.Discard, p.ClientConn.Socket)
	case errors.Is(err, io.EOF):
		p.setCause(ClientClosed)
		p.clientEnded()
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.note(ClientLost, err) // in the middle of a record
		p.clientEnded()
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.fail(ClientLost, errLingers)
	default:
		p.fail(clientFailure(err), err)
	}
}

// clientEnded passes on that the client's direction is over. A client that has gone before the
// login began is not waited for until the end of the time for that.
func (p *pump) clientEnded() {
	p.closeBackendWrite()
	p.mu.Lock()
	defer p.mu.Unlock()
	firstByte := p.started.Add(firstByteTimeout)
	if !p.backendSent && p.fromClient.Load() == 0 && firstByte.Before(p.LoginDeadline) {
		p.timeout.Reset(time.Until(firstByte))
	}
}

// download moves the backend's bytes to the client.
func (p *pump) download() {
	switch err := p.pumpDown(); {
	case errors.Is(err, errClientWrite):
		p.fail(ClientLost, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		// A backend that exits with unread input resets the socket, after
		// the last of its output.
		p.mu.Lock()
		terminated := p.tracker.Terminated()
		p.mu.Unlock()
		if terminated {
			p.setCause(ClientClosed)
		}
		if p.BackendTLS != nil && !errors.Is(err, io.EOF) {
			p.note(BackendLost, io.ErrUnexpectedEOF) // a backend that ends in order sends close_notify
		}
		p.setCause(BackendClosed)
		_ = p.Client.CloseWrite()
		_ = p.ClientConn.CloseWrite()
		_ = p.ClientConn.SetReadDeadline(time.Now().Add(lingerTimeout))
		_ = p.Backend.SetWriteDeadline(time.Now().Add(lingerTimeout))
	default:
		p.fail(BackendLost, err)
	}
}

func (p *pump) pumpUp() error {
	socket, err := newReader(p.ClientConn.Socket)
	if err != nil {
		return err
	}
	p.ClientConn.fed = true
	for {
		// Before the first read too: the handshake may have read ahead.
		if err := p.decrypt(); err != nil {
			return err
		}
		buf, n, err := socket.read()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			p.ClientConn.err = err // tls.Conn knows if a record was cut
			continue
		}
		p.ClientConn.pending = buf[:n]
		err = p.decrypt()
		buffers.Put(buf)
		if err != nil {
			return err
		}
	}
}

// decrypt sends the backend all that the fed bytes hold, in as few writes as
// possible. It returns nil when it needs more of them.
func (p *pump) decrypt() error {
	plain := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(plain)
	for {
		have, err := readAll(p.Client, plain[:])
		if have > 0 && !p.muted.Load() {
			p.mu.Lock()
			p.tracker.Ask(plain[:have])
			p.queued.Store(true)
			p.mu.Unlock()
			p.writing.Lock()
			err := p.writeBackend(plain[:have])
			p.writing.Unlock()
			if err != nil {
				return errBackendWrite
			}
			p.queued.Store(false)
			p.fromClient.Add(int64(have))
			p.observer.Moved(have, 0)
		}
		if errors.Is(err, errWouldBlock) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *pump) pumpDown() error {
	read := p.readTLS
	if p.BackendTLS == nil {
		socket, err := newReader(p.Backend.Socket)
		if err != nil {
			return err
		}
		read = socket.read
	}
	for {
		buf, n, err := read()
		if errors.Is(err, os.ErrDeadlineExceeded) { // a termination has come, and may have been taken back
			_ = p.Backend.SetReadDeadline(time.Time{}) // first, or it could undo another termination's
			if p.tryTerminate() {
				return io.EOF
			}
			continue
		}
		if err != nil {
			return err
		}
		n = p.follow(buf[:n])
		err = writeRecords(p.Client, buf[:n])
		buffers.Put(buf)
		if err != nil {
			return fmt.Errorf("%w: %w", errClientWrite, err)
		}
		p.toClient.Add(int64(n))
		p.observer.Moved(0, n)
		if p.tryTerminate() {
			return io.EOF
		}
	}
}

// follow has the tracker follow what the backend has sent, and returns how much
// of it the client is still to get.
func (p *pump) follow(b []byte) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.backendSent {
		p.backendSent = true
		p.timeout.Reset(time.Until(p.LoginDeadline)) // see clientEnded
	}
	if t := p.termination.Load(); t != nil && !t.WhenIdle && t.canSend(&p.tracker) {
		return 0 // this came after it
	}
	if p.tracker.Login != nil {
		var start int
		n, start = followLogin(&p.tracker, p.termination.Load(), b)
		if p.Refused != nil && p.login.SQLSTATE != "" {
			refused := p.Refused
			p.Refused = nil
			p.mu.Unlock()
			refused(p.login)
			p.mu.Lock()
		}
		if p.tracker.Login == nil && p.refusedAtReady() {
			return start
		}
	}
	switch t := p.termination.Load(); {
	case t == nil:
		p.tracker.Feed(b[n:])
		return len(b)
	case n > 0 && t.canSend(&p.tracker):
		return n
	default:
		return n + t.follow(&p.tracker, b[n:])
	}
}

// refusedAtReady takes note that the login is over, and reports whether the owner
// ends the session there. The caller holds mu, but Ready is called without it: it
// may take locks that callers of Handle hold.
func (p *pump) refusedAtReady() bool {
	p.timeout.Stop()
	if !p.login.Ready {
		return false // the stream is not followed any more
	}
	p.mu.Unlock()
	t, before := p.Ready(p.login), p.termination.Load()
	p.mu.Lock()
	if t == nil || before != nil && !before.WhenIdle {
		return false
	}
	p.termination.Store(t)
	return true
}

// readTLS waits for bytes of a backend with TLS, as reader.read does.
func (p *pump) readTLS() (buf *[bufferSize]byte, n int, err error) { return readHolding(p.BackendTLS) }

// readHolding waits for bytes with a buffer that it has borrowed before. The caller gives the buffer back.
func readHolding(r io.Reader) (buf *[bufferSize]byte, n int, err error) {
	buf = buffers.Get().(*[bufferSize]byte)
	if n, err = r.Read(buf[:]); n > 0 {
		return buf, n, nil // an error comes again
	}
	buffers.Put(buf)
	return nil, 0, err
}
