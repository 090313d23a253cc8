package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/pgwire"
)

// flow is one session in a loop. But for the methods of Handle, everything here
// runs in the loop's goroutine.
type flow struct {
	shared
	loop            *loop
	client, backend leg
	tracker         pgwire.Tracker
	guard           keyUpdateGuard
	slot            uint32
	over            bool         // both legs are closed
	caused          bool         // result has its cause
	held            bool         // termination waits until the queue to the backend has gone
	frozen          bool         // see Frozen
	termination     *Termination // at the next place for it
	postponed       []func()     // commands that came meanwhile
	result          Result       // but for the bytes
	login           loginHooks
	done            func(Result)
}

// shared is what other goroutines may read of a flow.
type shared struct {
	fromClient, toClient atomic.Int64
	backendClosed        atomic.Bool
	activity             atomic.Uint32 // after each step
}

// loginHooks is what a flow's owner wants done during the login.
type loginHooks struct {
	ready   func(pgwire.Login) *Termination
	refused func(pgwire.Login)      // nil: it has been called, or the login is over
	message func(sent int64) []byte // for a login that takes too long
	// Deadlines of the login, and of the backend's first byte for a client that has left.
	deadline, firstByte time.Time
}

// leg is one of the two sockets of a flow.
type leg struct {
	fd       int
	tls      records // nil: it is in clear
	interest uint32  // what epoll watches; 0: it does not know the descriptor
	ended    bool    // the peer's direction is over
	shut     bool    // ours is
	closed   bool    // the peer reads no more; what is still for it is dropped
	notified bool    // our side of the TLS is over
	queue    []byte  // what the socket has not taken yet; until it has, the other leg is not read
}

// begin takes the flow into its loop. Either leg may have read ahead.
func (f *flow) begin(fromClient, fromBackend readAhead) {
	f.loop.add(f)
	f.loop.use(f.client.tls)
	f.loop.use(f.backend.tls)
	f.tracker.Login = &f.result.Login
	f.loop.setFlowDeadline(f, f.login.deadline)
	f.step(func() {
		f.forward(fromClient.plain)
		if !f.over {
			f.decrypt(fromClient.came)
		}
		if f.backend.tls != nil && !f.over {
			if len(fromBackend.plain) > 0 {
				f.deliver(fromBackend.plain)
			}
			f.decryptBackend(fromBackend.came)
		}
	})
}

// step runs one step of the flow and settles what comes of it. Whatever one
// client has sent that makes crypto/tls panic, the others keep their sessions.
func (f *flow) step(do func()) {
	defer func() {
		if p := recover(); p != nil {
			f.loop.out, f.loop.outUp = f.loop.out[:0], f.loop.outUp[:0]
			f.loop.observer.Panicked(p)
			f.fail(Failed, fmt.Errorf("panic: %v", p))
		}
	}()
	do()
	f.sendRecords() // or what is left would go to the next flow's client
	f.sendBackend(nil)
	f.settle()
	f.activity.Store(uint32(activityOf(&f.tracker)))
}

// handle serves one event of one leg. An error or a hang-up shows itself in
// the call that is due.
func (f *flow) handle(backend bool, events uint32) {
	l, read := &f.client, f.readClient
	if backend {
		l, read = &f.backend, f.readBackend
	}
	if f.frozen {
		return // an event from before; epoll reports it again
	}
	f.step(func() {
		if len(l.queue) > 0 && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			f.flush(l)
			if f.held && len(f.backend.queue) == 0 {
				f.held = false
				f.tryTerminate()
			}
		}
		if !f.over && l.interest&unix.EPOLLIN != 0 && events&^unix.EPOLLOUT != 0 {
			read()
		}
	})
}

// readClient moves what the client has sent to the backend.
func (f *flow) readClient() {
	buf := f.loop.in[:]
	if f.guard.lowYield {
		buf = buf[:lowYieldRead]
	}
	n, errno := read(f.client.fd, buf)
	switch {
	case errno == syscall.EAGAIN:
		return
	case (n == 0 || errno != 0) && f.termination != nil && !f.termination.WhenIdle:
		f.endTerminated(*f.termination) // there is nobody to send the message to
		return
	case errno != 0:
		f.fail(ClientLost, os.NewSyscallError("read", errno))
		return
	case n == 0 && f.backend.closed:
		f.client.ended = true
		return
	case f.backend.closed:
		return
	case n == 0:
		f.nothingMore(f.client.tls.End())
	default:
		f.decrypt(buf[:n])
	}
	f.guard.observe(n, f.fromClient.Load())
}

// decrypt sends the backend all that the bytes hold that came from the client.
func (f *flow) decrypt(came []byte) {
	l := f.loop
	before := len(l.out)
	plain, out, err := f.client.tls.Open(l.plain[:0], came, l.out)
	answers := len(out) - before
	l.out = out
	if f.forward(plain); f.over || len(plain) > 0 && f.backend.closed {
		return
	}
	f.sendRecords() // an answer to a KeyUpdate, an alert
	switch {
	case f.over:
	case answers > maxAnswers:
		f.fail(LimitReached, errManyAnswers)
	case err != nil:
		f.nothingMore(err)
	}
}

// forward sends the backend what the client has sent.
func (f *flow) forward(p []byte) {
	if len(p) == 0 {
		return
	}
	f.tracker.Ask(p)
	f.sendBackend(p)
	if !f.backend.closed && !f.over {
		f.fromClient.Add(int64(len(p)))
		f.loop.fromClient += len(p)
	}
}

// nothingMore acts on why the client's TLS brings nothing more.
func (f *flow) nothingMore(err error) {
	switch {
	case errors.Is(err, io.EOF):
		f.cause(ClientClosed)
		f.clientEnded()
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.note(ClientLost, err)
		f.clientEnded()
	default:
		f.fail(clientFailure(err), err)
	}
}

// clientEnded takes note that the client's direction is over. A client that has gone before the
// login began is not waited for until the end of the time for that.
func (f *flow) clientEnded() {
	f.client.ended = true
	if from, to := f.Moved(); from+to == 0 && f.tracker.Login != nil && f.termination == nil && f.login.firstByte.Before(f.login.deadline) {
		f.loop.setFlowDeadline(f, f.login.firstByte)
	}
}

// readBackend moves what the backend has sent to the client.
func (f *flow) readBackend() {
	in := &f.loop.in
	n, errno := read(f.backend.fd, in[:])
	switch {
	case errno == syscall.EAGAIN:
		return
	case n == 0 && errno == 0, errno == syscall.ECONNRESET:
		// A backend that exits with unread input resets the socket, after
		// the last of its output.
		if f.backend.tls != nil && !f.tracker.Terminated() {
			f.note(BackendLost, io.ErrUnexpectedEOF) // a backend that ends in order sends close_notify
		}
		f.backendEnded()
	case errno != 0:
		f.fail(BackendLost, os.NewSyscallError("read", errno))
	case f.backend.tls != nil:
		f.decryptBackend(in[:n])
	default:
		f.deliver(in[:n])
		f.tryTerminate()
	}
}

// decryptBackend delivers all that the bytes hold that came from the backend.
func (f *flow) decryptBackend(came []byte) {
	plain, out, err := f.backend.tls.Open(f.loop.plain[:0], came, f.loop.outUp)
	f.loop.outUp = out
	if len(plain) > 0 {
		f.deliver(plain)
		f.tryTerminate()
	}
	if f.over || f.backend.ended {
		return
	}
	f.sendBackend(nil) // an answer to a KeyUpdate, an alert
	switch {
	case err == nil || f.over:
	case errors.Is(err, io.EOF): // its close_notify
		f.backendEnded()
	default:
		f.fail(BackendLost, err)
	}
}

// backendEnded passes on that the backend's direction is over.
func (f *flow) backendEnded() {
	f.backend.ended, f.backend.closed = true, true
	if f.tracker.Terminated() {
		f.cause(ClientClosed)
	}
	f.cause(BackendClosed)
	f.loop.out = f.client.tls.CloseNotify(f.loop.out)
	f.sendRecords()
}

// deliver sends the client what the backend has sent.
func (f *flow) deliver(p []byte) {
	if f.client.ended && f.toClient.Load() == 0 && f.tracker.Login != nil && f.termination == nil {
		f.loop.setFlowDeadline(f, f.login.deadline) // see clientEnded
	}
	n := f.follow(p)
	if err := f.sealRecords(p[:n]); err != nil {
		f.fail(ClientLost, err) // a fatal alert of its own has gone before
		return
	}
	f.toClient.Add(int64(n))
	f.loop.toClient += n
	f.sendRecords()
}

// sealRecords collects p in records for the client.
func (f *flow) sealRecords(p []byte) (err error) {
	for len(p) > 0 && err == nil {
		n := min(len(p), recordSize)
		f.loop.out, err = f.client.tls.Seal(f.loop.out, p[:n])
		p = p[n:]
	}
	return err
}

// follow has the tracker follow what the backend has sent, and returns how much
// of it the client is still to get.
func (f *flow) follow(p []byte) (n int) {
	if f.tracker.Login != nil {
		var start int
		n, start = followLogin(&f.tracker, f.termination, p)
		if f.login.refused != nil && f.result.Login.SQLSTATE != "" {
			f.login.refused(f.result.Login)
			f.login.refused = nil
		}
		if f.tracker.Login == nil && f.refusedAtReady() {
			return start
		}
	}
	switch t := f.termination; {
	case t == nil, f.held:
		f.tracker.Feed(p[n:])
		return len(p)
	case n > 0 && t.canSend(&f.tracker):
		return n
	default:
		return n + t.follow(&f.tracker, p[n:])
	}
}

// refusedAtReady takes note that the login is over, and reports whether the owner
// ends the session there.
func (f *flow) refusedAtReady() bool {
	f.login.message, f.login.refused = nil, nil
	delete(f.loop.deadlines, f)
	if f.termination != nil && !f.termination.Deadline.IsZero() {
		f.loop.setFlowDeadline(f, f.termination.Deadline)
	}
	if !f.result.Login.Ready {
		return false // the stream is not followed any more
	}
	t := f.login.ready(f.result.Login)
	if t == nil || f.termination != nil && !f.termination.WhenIdle {
		return false
	}
	f.termination = t
	return true
}

// sendBackend sends the backend p, over its TLS if it has any.
func (f *flow) sendBackend(p []byte) {
	l := f.loop
	if f.backend.tls != nil {
		if len(p) > 0 && !f.backend.closed {
			l.outUp, _ = f.backend.tls.Seal(l.outUp, p) // it fails only where the stream has
		}
		p = l.outUp
	}
	if len(p) > 0 && !f.over {
		f.send(&f.backend, p)
	}
	l.outUp = l.outUp[:0]
}

// sendRecords sends the client the records that were collected.
func (f *flow) sendRecords() {
	l := f.loop
	if len(l.out) > 0 {
		if !f.over {
			f.send(&f.client, l.out)
		}
		l.out = l.out[:0]
	}
}

// send writes p to a leg and queues what the socket does not take.
func (f *flow) send(to *leg, p []byte) {
	if to.shut || to.closed {
		return
	}
	if len(to.queue) == 0 {
		n, errno := write(to.fd, p)
		if errno != 0 && errno != syscall.EAGAIN {
			f.writeFailed(to, errno)
			return
		}
		p = p[n:]
	}
	if len(p) > 0 {
		to.queue = append(to.queue, p...)
	}
}

// flush writes what a leg has queued.
func (f *flow) flush(to *leg) {
	n, errno := write(to.fd, to.queue)
	if errno != 0 && errno != syscall.EAGAIN {
		f.writeFailed(to, errno)
		return
	}
	if to.queue = to.queue[n:]; len(to.queue) == 0 {
		to.queue = nil // idle sessions hold no buffer
	}
}

func (f *flow) writeFailed(to *leg, errno syscall.Errno) {
	switch {
	case to == &f.client:
		f.fail(ClientLost, os.NewSyscallError("write", errno))
	case errno == syscall.EPIPE, errno == syscall.ECONNRESET:
		// The backend has closed; what it sent before is still to be read.
		to.closed, to.queue = true, nil
	default:
		f.fail(BackendLost, os.NewSyscallError("write", errno))
	}
}

// settle passes ends on once the bytes before them have gone, and tells epoll
// what the flow waits for now.
func (f *flow) settle() {
	if f.over {
		return
	}
	if b := &f.backend; b.tls != nil && f.client.ended && !b.notified {
		b.notified = true
		f.loop.outUp = b.tls.CloseNotify(f.loop.outUp)
		if f.sendBackend(nil); f.over {
			return
		}
	}
	if f.client.ended && !f.backend.shut && len(f.backend.queue) == 0 {
		f.backend.shut = true
		_ = unix.Shutdown(f.backend.fd, unix.SHUT_WR)
	}
	if f.backend.ended && !f.client.shut && len(f.client.queue) == 0 {
		f.client.shut = true
		_ = unix.Shutdown(f.client.fd, unix.SHUT_WR)
		f.loop.setFlowDeadline(f, time.Now().Add(lingerTimeout))
	}
	if f.client.ended && f.client.shut {
		f.end(BackendClosed)
		return
	}
	// A client may write while it does not read, but our answers to it must not
	// pile up.
	f.watch(&f.client, clientSide, !f.client.ended && len(f.backend.queue) == 0 && len(f.client.queue) <= 2*bufferSize, len(f.client.queue) > 0)
	f.watch(&f.backend, backendSide, !f.backend.ended && len(f.client.queue) == 0, len(f.backend.queue) > 0)
}

// watch tells epoll what a leg waits for.
func (f *flow) watch(of *leg, side int32, readable, writable bool) {
	var want uint32
	if readable {
		want = unix.EPOLLIN
	}
	if writable {
		want |= unix.EPOLLOUT
	}
	if want == of.interest || f.over {
		return
	}
	if err := f.loop.watch(of.fd, of.interest, want, int32(f.slot)<<1|side, f.loop.slots[f.slot].generation); err != nil {
		f.fail(Failed, os.NewSyscallError("epoll_ctl", err)) // fs.epoll.max_user_watches
		return
	}
	of.interest = want
}

// timedOut ends a flow whose deadline has passed: for its login, for its
// termination, or for its client to close.
func (f *flow) timedOut() {
	switch {
	case f.frozen: // the deadline is a termination's
		f.postponed = append(f.postponed, f.timedOut)
		delete(f.loop.deadlines, f)
	case f.backend.ended:
		f.fail(ClientLost, errLingers)
	case f.termination != nil:
		f.endTerminated(*f.termination)
	default:
		f.cause(LoginTimeout)
		delete(f.loop.deadlines, f)
		f.terminate(Termination{Message: f.login.message(f.toClient.Load()), Deadline: time.Now().Add(boundaryWait)})
	}
}

// end closes both legs and reports the flow.
func (f *flow) end(c Cause) {
	if f.over {
		return
	}
	f.over = true
	f.cause(c)
	f.close(&f.client)
	f.closeBackend()
	f.wipe()
	f.loop.remove(f)
	f.result.FromClient, f.result.ToClient = f.Moved()
	f.result.Busy = f.tracker.Busy()
	f.result.SQLSTATE, f.result.Fatal = f.tracker.Fatal()
	f.loop.reportMoved() // before done: its reader finds the session's bytes counted
	go f.done(f.result)
}

// close ends a leg, also where another process has duplicates of its descriptor, as one has to which it was offered in
// an upgrade: then close(2) alone neither takes it out of epoll, which goes on to report it (Q6 of epoll(7)), nor tells
// the peer. What was written before is still sent, and close(2) resets a peer whose input was not read, as without
// the shutdown.
func (f *flow) close(l *leg) {
	if l.interest != 0 {
		_ = f.loop.watch(l.fd, l.interest, 0, 0, 0)
		l.interest = 0
	}
	_ = unix.Shutdown(l.fd, unix.SHUT_RDWR)
	_ = unix.Close(l.fd)
}

// fail is end, for a cause that has an error.
func (f *flow) fail(c Cause, err error) {
	f.note(c, err)
	f.end(c)
}

// note is cause, with its error.
func (f *flow) note(c Cause, err error) {
	if !f.caused {
		f.result.Err = err
	}
	f.cause(c)
}

// cause notes what ended the flow, unless something else did before.
func (f *flow) cause(c Cause) {
	if !f.caused {
		f.caused, f.result.Cause = true, c
	}
}

// wipe clears the keys.
func (f *flow) wipe() {
	f.client.tls.Wipe()
	if f.backend.tls != nil {
		f.backend.tls.Wipe()
	}
}
