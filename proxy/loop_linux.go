package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/pgwire"
)

// A loop relays many sessions from one goroutine. It owns an epoll instance
// with both legs of each, and every descriptor, queue and flow in it: nobody
// else touches them. Others talk to it through do.
//
// While nothing is ready the loop waits on the runtime's own poller, in which
// the epoll descriptor is registered: a parked goroutine and no thread. Its
// system calls never block, so they are made without telling the scheduler;
// telling it wakes the runtime's monitor thread, which on a quiet gate costs
// more than the work itself (docs/performance.md).
type loop struct {
	epoll int
	file  *os.File                 // of epoll, for the runtime's poller
	raw   syscall.RawConn          // of file
	poll  func(epoll uintptr) bool // made once, or each wait would allocate it
	wake  int                      // eventfd: commands are waiting
	count func(up, down int)       // metrics
	alarm func(panicked any)       // reports a panic that has cost one session its life

	mu       sync.Mutex
	commands []func()
	closed   bool // wake is another's descriptor by now

	slots     []slot
	free      []uint32
	events    [128]unix.EpollEvent
	ready     int                 // of events
	in        [bufferSize]byte    // what was read from either leg
	plain     [bufferSize]byte    // what was decrypted of it
	out       []byte              // the records of one write to a client
	outUp     []byte              // and to a backend
	deadlines map[*flow]time.Time // of the flows that have one
	next      time.Time           // not after the first of them
	up, down  int                 // bytes moved since count was last called
	stopped   bool
}

// slot is where an event finds its flow. The generation tells an event of a
// flow that has gone from one of its successor in the same slot.
type slot struct {
	flow       *flow
	generation int32
}

// flow is one session in a loop.
type flow struct {
	client, backend leg
	tls             *tls.Conn
	wire            *wire
	upstream        *upstream // nil: the backend leg has no TLS
	tracker         pgwire.Tracker
	slot            uint32
	gone            bool
	deaf            bool    // the backend takes no more; what the client still says is dropped
	thin            bool    // the client has sent many records for very few bytes
	read            int     // bytes of the client since it was last weighed
	worth           int64   // up, then
	noted           bool    // relayed has its cause
	ending          *ending // that is to come, at the next place for it
	relayed         relayed // but for the bytes
	up, down        atomic.Int64
	ready           func(pgwire.Login)
	done            func(relayed)
}

// leg is one of the two sockets of a flow.
type leg struct {
	fd       int
	interest uint32 // what epoll watches; 0: it does not know the descriptor
	ended    bool   // the peer has said all it had to say
	shut     bool   // we have
	queue    []byte // what the socket has not taken yet; until it has, the other leg is not read
}

// The side of a flow that an event is for, in the lowest bit of its data.
const (
	clientSide  = 0
	backendSide = 1
	wakeData    = -1
)

func newLoop(count func(up, down int), alarm func(any)) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Only a non-blocking file is put into the runtime's poller.
	if err := unix.SetNonblock(epoll, true); err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{
		epoll:     epoll,
		file:      os.NewFile(uintptr(epoll), "epoll"),
		count:     count,
		alarm:     alarm,
		out:       make([]byte, 0, bufferSize+4<<10),
		outUp:     make([]byte, 0, bufferSize+4<<10),
		deadlines: make(map[*flow]time.Time),
	}
	if err := l.open(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	go l.run()
	return l, nil
}

func (l *loop) open() (err error) {
	// An error means that the runtime's poller has not taken the file.
	if err := l.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err
	}
	l.poll = func(uintptr) bool {
		l.ready = epollWait(l.epoll, l.events[:])
		return l.ready != 0
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeData}); err != nil {
		_ = unix.Close(l.wake)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// do runs f in the loop's goroutine, soon, unless the loop has stopped.
func (l *loop) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.commands = append(l.commands, f)
	if len(l.commands) == 1 {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (l *loop) obey() {
	var counter [8]byte
	_, _ = read(l.wake, counter[:])
	l.mu.Lock()
	commands := l.commands
	l.commands = nil
	l.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

// run is the loop.
func (l *loop) run() {
	for !l.stopped {
		l.ready = 0
		err := l.raw.Read(l.poll)
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !late {
			panic("proxy: the relay's epoll descriptor: " + err.Error()) // only stop closes it
		}
		for _, ev := range l.events[:l.ready] {
			l.dispatch(ev)
		}
		l.tally()
		if late || len(l.deadlines) > 0 {
			l.expire(time.Now())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_ = unix.Close(l.wake)
	_ = l.file.Close() // epoll itself
}

// tally counts what has moved since the last time: once a round, not once a read.
func (l *loop) tally() {
	if l.up|l.down != 0 {
		l.count(l.up, l.down)
		l.up, l.down = 0, 0
	}
}

// stop ends the loop, which must have no flows any more.
func (l *loop) stop() { l.do(func() { l.stopped = true }) }

func (l *loop) dispatch(ev unix.EpollEvent) {
	if ev.Fd == wakeData {
		l.obey()
		return
	}
	s := l.slots[ev.Fd>>1]
	if s.flow == nil || s.generation != ev.Pad {
		return // ended by an earlier event of the same batch
	}
	if ev.Fd&1 == backendSide {
		l.guard(s.flow, func(f *flow) { l.handle(f, &f.backend, l.readBackend, ev.Events) })
	} else {
		l.guard(s.flow, func(f *flow) { l.handle(f, &f.client, l.readClient, ev.Events) })
	}
}

// guard runs a step of a flow. Whatever one client has sent that makes crypto/tls
// panic, the others keep their sessions.
func (l *loop) guard(f *flow, step func(*flow)) {
	defer func() {
		if p := recover(); p != nil {
			l.out, l.outUp = l.out[:0], l.outUp[:0]
			l.alarm(p)
			l.end(f, InternalError)
		}
	}()
	step(f)
}

// handle serves one event of one leg. An error or a hang-up shows itself in
// whichever call is due.
func (l *loop) handle(f *flow, of *leg, read func(*flow), events uint32) {
	if len(of.queue) > 0 && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		l.flush(f, of)
	}
	if !f.gone && of.interest&unix.EPOLLIN != 0 && events&^unix.EPOLLOUT != 0 {
		read(f)
	}
	l.settle(f)
}

// begin takes a flow in. Its TLS connection may have read ahead.
func (l *loop) begin(f *flow, deadline time.Time) {
	if n := len(l.free); n > 0 {
		f.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		f.slot = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[f.slot].flow = f
	f.wire.fed, f.wire.sink = true, &l.out
	if f.upstream != nil {
		f.upstream.fed, f.upstream.sink = true, &l.outUp
	}
	f.tracker.Login = &f.relayed.login
	l.until(f, deadline)
	l.guard(f, func(f *flow) {
		l.decrypt(f)
		if f.upstream != nil && !f.gone {
			l.decryptUp(f)
		}
		l.settle(f)
	})
}

// readClient moves what the client has sent to the backend.
func (l *loop) readClient(f *flow) {
	most := len(l.in)
	if f.thin {
		most = thinRead
	}
	n, errno := read(f.client.fd, l.in[:most])
	switch {
	case errno == syscall.EAGAIN:
		return
	case errno != 0:
		l.end(f, ClientLost)
		return
	case n == 0 && f.deaf:
		f.client.ended = true
		return
	case f.deaf:
		return
	case n == 0:
		f.wire.err = io.EOF // tls.Conn knows if a record was cut
	default:
		f.wire.pending = l.in[:n]
	}
	l.decrypt(f)
	f.weigh(n)
}

// A KeyUpdate costs its sender 27 bytes and us a new key, with an answer two.
// One read could hold thousands, before which every other session of the loop
// would wait. So a client whose bytes are not worth a thinness-th of their number
// (a record of one byte is worth more) is read in small pieces from then on, and
// one that asks for more answers at a time than an honest one in its life is
// ended.
const (
	thinness   = 32
	thinRead   = 2 << 10
	maxAnswers = 1 << 10
	// A part of a record is worth nothing yet, so it takes a few of the longest
	// to tell.
	weighed = 64 << 10
)

// weigh compares what was read of a client with what it was worth.
func (f *flow) weigh(n int) {
	if f.read += n; f.read < weighed {
		return
	}
	worth := f.up.Load()
	f.thin = f.thin || worth-f.worth < int64(f.read/thinness)
	f.read, f.worth = 0, worth
}

// decrypt sends the backend all that the fed bytes hold.
func (l *loop) decrypt(f *flow) {
	answers := 0
	for !f.gone {
		have, err := 0, error(nil)
		for err == nil && have < len(l.plain) {
			var n int
			n, err = f.tls.Read(l.plain[have:])
			have += n
		}
		if have > 0 {
			f.tracker.Ask(l.plain[:have])
			l.sendUp(f, l.plain[:have])
			if f.deaf || f.gone {
				return
			}
			f.up.Add(int64(have))
			l.up += have
		}
		answers += len(l.out)
		l.sendRecords(f) // an answer to a KeyUpdate, an alert
		if answers > maxAnswers {
			l.end(f, ClientLost)
			return
		}
		switch {
		case err == nil:
		case errors.Is(err, errWouldBlock):
			return
		case errors.Is(err, io.EOF):
			f.client.ended = true
			f.note(ClientClosed)
			return
		case errors.Is(err, io.ErrUnexpectedEOF):
			f.client.ended = true
			f.note(ClientLost)
			return
		default:
			l.end(f, ClientLost)
		}
	}
}

// readBackend moves what the backend has sent to the client.
func (l *loop) readBackend(f *flow) {
	n, errno := read(f.backend.fd, l.in[:])
	switch {
	case errno == syscall.EAGAIN:
		return
	case n == 0 && errno == 0, errno == syscall.ECONNRESET:
		// A backend that exits with unread input resets the socket, after
		// the last of its output.
		if f.upstream != nil && !f.tracker.Terminated() {
			f.note(BackendLost) // a backend that ends in order says so by close_notify
		}
		l.backendEnded(f)
	case errno != 0:
		l.end(f, BackendLost)
	case f.upstream != nil:
		f.upstream.pending = l.in[:n]
		l.decryptUp(f)
	default:
		l.deliver(f, l.in[:n])
		l.dismissNow(f)
	}
}

// backendEnded passes on that the backend has said all it had to say.
func (l *loop) backendEnded(f *flow) {
	f.backend.ended, f.deaf = true, true
	if f.tracker.Terminated() {
		f.note(ClientClosed)
	}
	f.note(BackendClosed)
	_ = f.tls.CloseWrite()
	l.sendRecords(f)
}

// deliver sends the client what the backend has said.
func (l *loop) deliver(f *flow, p []byte) {
	n := l.follow(f, p)
	if err := say(f.tls, p[:n]); err != nil {
		l.end(f, ClientLost) // a fatal alert of its own has gone before
		return
	}
	f.down.Add(int64(n))
	l.down += n
	l.sendRecords(f)
}

// decryptUp delivers all that the bytes fed to the backend's TLS hold.
func (l *loop) decryptUp(f *flow) {
	for !f.gone && !f.backend.ended {
		have, err := 0, error(nil)
		for err == nil && have < len(l.plain) {
			var n int
			n, err = f.upstream.tls.Read(l.plain[have:])
			have += n
		}
		if have > 0 {
			l.deliver(f, l.plain[:have])
			l.dismissNow(f)
		}
		l.sendUp(f, nil) // an answer to a KeyUpdate, an alert
		switch {
		case err == nil || f.gone:
		case errors.Is(err, errWouldBlock):
			return
		case errors.Is(err, io.EOF): // its close_notify
			l.backendEnded(f)
		default:
			l.end(f, BackendLost)
		}
	}
}

// sendUp sends the backend p, by whichever way it hears.
func (l *loop) sendUp(f *flow, p []byte) {
	if f.upstream != nil {
		if len(p) > 0 && !f.deaf {
			_, _ = f.upstream.tls.Write(p) // into outUp; it fails only where the stream has
		}
		p = l.outUp
	}
	if len(p) > 0 && !f.gone {
		l.send(f, &f.backend, p)
	}
	l.outUp = l.outUp[:0]
}

// follow keeps track of what the backend says, and returns how much of it the
// client is still to hear.
func (l *loop) follow(f *flow, p []byte) (n int) {
	starting := f.tracker.Login != nil
	if n = len(p); f.ending == nil {
		f.tracker.Feed(p)
	} else {
		n = f.ending.follow(&f.tracker, p)
	}
	if starting && f.tracker.Login == nil { // ready for the first query
		delete(l.deadlines, f)
		if f.ending != nil && !f.ending.by.IsZero() {
			l.until(f, f.ending.by)
		}
		if f.relayed.login.Ready {
			f.ready(f.relayed.login)
		}
	}
	return n
}

// dismiss ends a flow from outside, or promises to.
func (l *loop) dismiss(f *flow, e ending) {
	switch {
	case f.gone, f.backend.ended && e.words != nil: // it is ending by itself
		return
	case e.words == nil:
		l.end(f, e.cause)
		return
	}
	l.withdraw(f)
	f.ending = &e
	if at, ok := l.deadlines[f]; !e.by.IsZero() && (!ok || e.by.Before(at)) {
		l.until(f, e.by)
	}
	l.guard(f, func(f *flow) {
		l.dismissNow(f)
		l.settle(f)
	})
}

// closeQuiet ends a flow at once if nothing has moved in it since so many bytes.
func (l *loop) closeQuiet(f *flow, e ending, moved int64) {
	if !f.tracker.Busy() && f.up.Load()+f.down.Load() == moved {
		l.dismiss(f, e)
	}
}

// dismissNow sends the words that end a flow, if there is an ending and this is
// the place for it. The backend sees its client leave; ours gets all that was
// sent before, the words, and an orderly end.
func (l *loop) dismissNow(f *flow) {
	e := f.ending
	if e == nil || f.gone || f.backend.ended || !e.may(&f.tracker) {
		return
	}
	f.note(e.cause)
	if f.upstream != nil {
		_ = f.upstream.tls.CloseWrite()
		l.sendUp(f, nil)
	}
	f.backend.ended, f.backend.shut, f.backend.queue, f.deaf = true, true, nil, true
	_ = unix.Shutdown(f.backend.fd, unix.SHUT_RDWR)
	_, _ = f.tls.Write(e.words)
	_ = f.tls.CloseWrite()
	l.sendRecords(f)
	l.until(f, time.Now().Add(lingerTimeout)) // a client that does not read is not waited for
}

// sendRecords sends the client what tls.Conn has written.
func (l *loop) sendRecords(f *flow) {
	if len(l.out) > 0 {
		if !f.gone {
			l.send(f, &f.client, l.out)
		}
		l.out = l.out[:0]
	}
}

// send writes p to a leg and queues what the socket does not take.
func (l *loop) send(f *flow, to *leg, p []byte) {
	if to.shut || f.deaf && to == &f.backend {
		return
	}
	if len(to.queue) == 0 {
		n, errno := write(to.fd, p)
		if errno != 0 && errno != syscall.EAGAIN {
			l.unwritable(f, to, errno)
			return
		}
		p = p[n:]
	}
	if len(p) > 0 {
		to.queue = append(to.queue, p...)
	}
}

// flush writes what a leg has queued.
func (l *loop) flush(f *flow, to *leg) {
	n, errno := write(to.fd, to.queue)
	if errno != 0 && errno != syscall.EAGAIN {
		l.unwritable(f, to, errno)
		return
	}
	if to.queue = to.queue[n:]; len(to.queue) == 0 {
		to.queue = nil // idle sessions hold no buffer
	}
}

// unwritable deals with a leg that takes no more.
func (l *loop) unwritable(f *flow, to *leg, errno syscall.Errno) {
	switch {
	case to == &f.client:
		l.end(f, ClientLost)
	case errno == syscall.EPIPE, errno == syscall.ECONNRESET:
		// The backend has closed; what it said before is still to be read.
		f.deaf, to.queue = true, nil
	default:
		l.end(f, BackendLost)
	}
}

// settle passes ends on once the bytes before them have gone, and tells epoll
// what the flow waits for now.
func (l *loop) settle(f *flow) {
	if f.gone {
		return
	}
	if f.client.ended && f.upstream != nil && !f.upstream.done {
		f.upstream.done = true
		_ = f.upstream.tls.CloseWrite()
		l.sendUp(f, nil)
	}
	if f.gone {
		return
	}
	if f.client.ended && !f.backend.shut && len(f.backend.queue) == 0 {
		f.backend.shut = true
		_ = unix.Shutdown(f.backend.fd, unix.SHUT_WR)
	}
	if f.backend.ended && !f.client.shut && len(f.client.queue) == 0 {
		f.client.shut = true
		_ = unix.Shutdown(f.client.fd, unix.SHUT_WR)
		l.until(f, time.Now().Add(lingerTimeout))
	}
	if f.client.ended && f.client.shut {
		l.end(f, BackendClosed)
		return
	}
	// A client may write while it does not read, but what it makes us answer
	// must not pile up.
	l.watch(f, &f.client, clientSide, !f.client.ended && len(f.backend.queue) == 0 && len(f.client.queue) <= 2*bufferSize)
	l.watch(f, &f.backend, backendSide, !f.backend.ended && len(f.client.queue) == 0)
}

// watch tells epoll what a leg waits for. A leg that waits for nothing is taken
// out, since epoll would go on reporting its end.
func (l *loop) watch(f *flow, of *leg, side int32, readable bool) {
	var want uint32
	if readable {
		want = unix.EPOLLIN
	}
	if len(of.queue) > 0 {
		want |= unix.EPOLLOUT
	}
	if want == of.interest || f.gone {
		return
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case of.interest == 0:
		op = unix.EPOLL_CTL_ADD
	case want == 0:
		op = unix.EPOLL_CTL_DEL
	}
	ev := unix.EpollEvent{Events: want, Fd: int32(f.slot)<<1 | side, Pad: l.slots[f.slot].generation}
	if err := unix.EpollCtl(l.epoll, op, of.fd, &ev); err != nil {
		l.end(f, InternalError) // fs.epoll.max_user_watches
		return
	}
	of.interest = want
}

// until gives a flow a deadline: for its login, or for its client to close.
func (l *loop) until(f *flow, deadline time.Time) {
	l.deadlines[f] = deadline
	if l.next.IsZero() || deadline.Before(l.next) {
		l.next = deadline
		_ = l.file.SetReadDeadline(deadline) // wakes the loop
	}
}

// expire ends the flows whose deadline has passed. While the loop is always
// busy, the descriptor's own deadline never tells it.
func (l *loop) expire(now time.Time) {
	if now.Before(l.next) {
		return
	}
	l.next = time.Time{}
	for f, at := range l.deadlines {
		switch {
		case now.Before(at):
			if l.next.IsZero() || at.Before(l.next) {
				l.next = at
			}
		case f.backend.ended:
			l.end(f, ClientLost)
		case f.ending != nil:
			l.end(f, f.ending.cause)
		default:
			l.end(f, LoginTimeout)
		}
	}
	_ = l.file.SetReadDeadline(l.next) // the zero time is none
}

// end closes both legs and reports the flow. The first cause that was noted
// stays.
func (l *loop) end(f *flow, cause Outcome) {
	if f.gone {
		return
	}
	f.gone = true
	f.note(cause)
	_ = unix.Close(f.client.fd) // which takes it out of epoll: there is no duplicate
	_ = unix.Close(f.backend.fd)
	s := &l.slots[f.slot]
	s.flow = nil
	s.generation++
	l.free = append(l.free, f.slot)
	delete(l.deadlines, f)
	f.relayed.up, f.relayed.down, f.relayed.busy = f.up.Load(), f.down.Load(), f.tracker.Busy()
	f.relayed.settle()
	l.tally() // whoever hears of the end finds the session's bytes counted
	go f.done(f.relayed)
}

// spare takes back an ending that waits for an idle backend.
func (l *loop) spare(f *flow) {
	if f.ending != nil && f.ending.idle {
		l.withdraw(f)
	}
}

// withdraw takes back an ending, if there is one that has not begun.
func (l *loop) withdraw(f *flow) {
	if f.ending == nil || f.gone || f.backend.ended {
		return
	}
	f.ending = nil
	if f.tracker.Login == nil { // else the deadline is the login's
		delete(l.deadlines, f)
	}
}

func (f *flow) note(o Outcome) {
	if !f.noted {
		f.noted, f.relayed.cause = true, o
	}
}
