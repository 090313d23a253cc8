package proxy

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/internal/pgwire"
)

// pump is the relay of one session with two goroutines, for systems without
// epoll; on Linux it is what the loops are held against.
type pump struct {
	handover
	count    func(up, down int)
	alarm    func(panicked any)
	login    pgwire.Login
	timeout  *time.Timer // of the login
	up, down atomic.Int64
	ending   atomic.Pointer[ending] // that is to come, at the next place for it
	cause    atomic.Int32           // an Outcome plus one; the first to be noted stays

	mu      sync.Mutex
	tracker pgwire.Tracker
}

func newPump(h handover, count func(up, down int), alarm func(any)) *pump {
	p := &pump{handover: h, count: count, alarm: alarm}
	p.tracker.Login = &p.login
	return p
}

// run moves the bytes until both directions have ended, and reports.
func (p *pump) run() {
	p.timeout = time.AfterFunc(time.Until(p.deadline), func() { p.end(LoginTimeout) })
	defer p.timeout.Stop()
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		p.guard(p.upload)
	}()
	p.guard(p.download)
	<-uploaded
	p.cut()
	r := relayed{up: p.up.Load(), down: p.down.Load(), cause: Outcome(p.cause.Load() - 1), busy: p.tracker.Busy(), login: p.login}
	r.settle()
	p.done(r)
}

// guard runs one direction; a panic in it ends the session.
func (p *pump) guard(direction func()) {
	defer func() {
		if panicked := recover(); panicked != nil {
			p.end(InternalError)
			p.alarm(panicked)
		}
	}()
	direction()
}

// end ends the session for a cause, unless it has already another one.
func (p *pump) end(cause Outcome) {
	p.note(cause)
	p.cut()
}

func (p *pump) reins() reins {
	return reins{
		end:   p.dismiss,
		close: p.closeQuiet,
		spare: p.spare,
		moved: func() (up, down int64) { return p.up.Load(), p.down.Load() },
	}
}

// dismiss ends the session from outside, or promises to.
func (p *pump) dismiss(e ending) {
	if e.words == nil {
		p.end(e.cause)
		return
	}
	p.ending.Store(&e)
	_ = p.backend.SetReadDeadline(time.Now()) // for pumpDown to see it
	if !e.by.IsZero() {
		time.AfterFunc(time.Until(e.by), func() {
			if p.ending.Load() == &e {
				p.end(e.cause)
			}
		})
	}
}

// closeQuiet ends the session if nothing has moved in it since so many bytes.
func (p *pump) closeQuiet(e ending, moved int64) {
	p.mu.Lock()
	quiet := !p.tracker.Busy() && p.up.Load()+p.down.Load() == moved
	p.mu.Unlock()
	if quiet {
		p.dismiss(e)
	}
}

func (p *pump) spare() {
	if e := p.ending.Load(); e != nil && e.idle {
		p.ending.CompareAndSwap(e, nil)
	}
}

// dismissNow sends the words that end the session, if there is an ending and
// this is the place for it, and reports whether it did.
func (p *pump) dismissNow() bool {
	e := p.ending.Load()
	if e == nil || !p.may(e) {
		return false
	}
	p.ending.Store(nil)
	p.note(e.cause)
	_ = p.wire.SetWriteDeadline(time.Now().Add(lingerTimeout)) // a client that does not read is not waited for
	_, _ = p.client.Write(e.words)
	_ = p.backend.Close() // upload finds out, and reads the client until it is done
	return true
}

func (p *pump) may(e *ending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.may(&p.tracker)
}

func (p *pump) note(o Outcome) { p.cause.CompareAndSwap(0, int32(o)+1) }

// cut ends both directions at once.
func (p *pump) cut() {
	_ = p.wire.Close()
	_ = p.backend.Close()
}

// upload moves the client's bytes to the backend.
func (p *pump) upload() {
	switch err := p.pumpUp(); {
	case errors.Is(err, errBackendGone):
		// download delivers what the backend said before. Until then the
		// client must be read: closing a socket with unread bytes in it
		// resets it, and the rest would be lost.
		_, _ = io.Copy(io.Discard, p.wire.socket)
	case errors.Is(err, io.EOF):
		p.note(ClientClosed)
		_ = p.backend.CloseWrite()
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.note(ClientLost) // in the middle of a record
		_ = p.backend.CloseWrite()
	default:
		p.end(ClientLost)
	}
}

// download moves the backend's bytes to the client.
func (p *pump) download() {
	switch err := p.pumpDown(); {
	case errors.Is(err, errClientGone):
		p.end(ClientLost)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		// A backend that exits with unread input resets the socket, after
		// the last of its output.
		p.mu.Lock()
		terminated := p.tracker.Terminated()
		p.mu.Unlock()
		if terminated {
			p.note(ClientClosed)
		}
		if p.backend.tls != nil && !errors.Is(err, io.EOF) {
			p.note(BackendLost) // a backend that ends in order says so by close_notify
		}
		p.note(BackendClosed)
		_ = p.client.CloseWrite()
		_ = p.wire.CloseWrite()
		_ = p.wire.SetReadDeadline(time.Now().Add(lingerTimeout))
		_ = p.backend.SetWriteDeadline(time.Now().Add(lingerTimeout))
	default:
		p.end(BackendLost)
	}
}

func (p *pump) pumpUp() error {
	raw, err := p.wire.SyscallConn()
	if err != nil {
		return err
	}
	socket := newReader(raw)
	p.wire.fed = true
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
			p.wire.err = err // tls.Conn knows if a record was cut
			continue
		}
		p.wire.pending = buf[:n]
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
		have, err := 0, error(nil)
		for err == nil && have < len(plain) {
			var n int
			n, err = p.client.Read(plain[have:])
			have += n
		}
		if have > 0 {
			p.mu.Lock()
			p.tracker.Ask(plain[:have])
			p.mu.Unlock()
			if _, err := p.backend.Write(plain[:have]); err != nil {
				return errBackendGone
			}
			p.up.Add(int64(have))
			p.count(have, 0)
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
	if p.backend.tls == nil {
		raw, err := p.backend.SyscallConn()
		if err != nil {
			return err
		}
		read = newReader(raw).read
	}
	for {
		buf, n, err := read()
		if errors.Is(err, os.ErrDeadlineExceeded) { // an ending has come, and may have been taken back
			_ = p.backend.SetReadDeadline(time.Time{}) // first, or it could undo another ending's
			if p.dismissNow() {
				return io.EOF
			}
			continue
		}
		if err != nil {
			return err
		}
		n = p.follow(buf[:n])
		err = say(p.client, buf[:n])
		buffers.Put(buf)
		if err != nil {
			return errClientGone
		}
		p.down.Add(int64(n))
		p.count(0, n)
		if p.dismissNow() {
			return io.EOF
		}
	}
}

// follow keeps track of what the backend says, and returns how much of it the
// client is still to hear.
func (p *pump) follow(b []byte) (n int) {
	p.mu.Lock()
	starting := p.tracker.Login != nil
	n = len(b)
	if e := p.ending.Load(); e == nil {
		p.tracker.Feed(b)
	} else {
		n = e.follow(&p.tracker, b)
	}
	ready := starting && p.tracker.Login == nil
	p.mu.Unlock()
	if ready {
		p.timeout.Stop()
		if p.login.Ready {
			p.ready(p.login)
		}
	}
	return n
}

// readTLS waits for bytes of a backend with TLS, as reader.read does, but with the
// buffer in hand.
func (p *pump) readTLS() (buf *[bufferSize]byte, n int, err error) {
	buf = buffers.Get().(*[bufferSize]byte)
	if n, err = p.backend.tls.Read(buf[:]); n > 0 {
		return buf, n, nil // an error comes again
	}
	buffers.Put(buf)
	return nil, 0, err
}

// reader reads a socket into a buffer that it borrows only when there is
// something to read.
type reader struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once, or each read would allocate it
	buf *[bufferSize]byte
	n   int
	err error
}

func newReader(raw syscall.RawConn) *reader {
	r := &reader{raw: raw}
	r.try = func(fd uintptr) bool {
		buf := buffers.Get().(*[bufferSize]byte)
		n, err := syscall.Read(int(fd), buf[:])
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), buf[:])
		}
		if err != nil || n == 0 {
			buffers.Put(buf)
			buf = nil
		}
		if err == syscall.EAGAIN {
			return false
		}
		r.buf, r.n, r.err = buf, n, err
		return true
	}
	return r
}

// read waits for bytes; the caller gives the buffer back. The end of the stream
// is io.EOF, without a buffer.
func (r *reader) read() (buf *[bufferSize]byte, n int, err error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	if r.err == nil && r.n == 0 {
		return nil, 0, io.EOF
	}
	buf = r.buf
	r.buf = nil // or an idle session would keep it alive
	return buf, r.n, r.err
}
