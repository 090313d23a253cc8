package relay

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/tlsrecord"
)

// loop relays many sessions from one goroutine. It owns every descriptor, queue
// and flow in it: nobody else touches them. Other goroutines reach it by post.
type loop struct {
	*poller
	observer Observer

	mu     sync.Mutex
	posted []func()
	closed bool // the poller's descriptors may be another's by now

	slots     []slot
	free      []uint32
	in        [bufferSize]byte              // what was read from either leg
	plain     [bufferSize + maxPartial]byte // what was decrypted of it
	ciphers   *tlsrecord.Cache
	out       []byte              // the records of one write to a client
	outUp     []byte              // and to a backend
	deadlines map[*flow]time.Time // of the flows that have one
	next      time.Time           // not after the first of them
	// Bytes moved since the observer was last told.
	fromClient, toClient int
	stopped              bool
}

// slot is where an event finds its flow. The generation tells an event of a
// flow that has ended from one of its successor in the same slot.
type slot struct {
	flow       *flow
	generation int32
}

// The side of a flow that an event is for, in the lowest bit of its data.
const (
	clientSide  = 0
	backendSide = 1
)

func newLoop(o Observer) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &loop{
		poller:    p,
		observer:  o,
		out:       make([]byte, 0, bufferSize+4<<10),
		outUp:     make([]byte, 0, bufferSize+4<<10),
		ciphers:   tlsrecord.NewCache(cachedCiphers),
		deadlines: make(map[*flow]time.Time),
	}
	go l.run()
	return l, nil
}

// post runs f in the loop's goroutine, soon, unless the loop has stopped.
func (l *loop) post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		l.wakeUp()
	}
}

func (l *loop) runPosted() {
	l.awake()
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// run is the loop.
func (l *loop) run() {
	for !l.stopped {
		events, timedOut := l.wait()
		for _, ev := range events {
			l.dispatch(ev)
		}
		l.reportMoved()
		if timedOut || len(l.deadlines) > 0 {
			l.expire(time.Now())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.close()
}

// stop ends the loop, which must have no flows any more.
func (l *loop) stop() { l.post(func() { l.stopped = true }) }

// reportMoved counts what has moved since the last time: once a round, not once
// a read.
func (l *loop) reportMoved() {
	if l.fromClient|l.toClient != 0 {
		l.observer.Moved(l.fromClient, l.toClient)
		l.fromClient, l.toClient = 0, 0
	}
}

func (l *loop) dispatch(ev unix.EpollEvent) {
	if ev.Fd == wakeData {
		l.runPosted()
		return
	}
	s := l.slots[ev.Fd>>1]
	if s.flow == nil || s.generation != ev.Pad {
		return // ended by an earlier event of the same batch
	}
	s.flow.handle(ev.Fd&1 == backendSide, ev.Events)
}

// add gives a flow its slot.
func (l *loop) add(f *flow) {
	if n := len(l.free); n > 0 {
		f.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		f.slot = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[f.slot].flow = f
}

// remove takes a flow out. Events for it that are on their way find nobody.
func (l *loop) remove(f *flow) {
	s := &l.slots[f.slot]
	s.flow = nil
	s.generation++
	l.free = append(l.free, f.slot)
	delete(l.deadlines, f)
}

// setFlowDeadline has f.timedOut called by then.
func (l *loop) setFlowDeadline(f *flow, deadline time.Time) {
	l.deadlines[f] = deadline
	if l.next.IsZero() || deadline.Before(l.next) {
		l.next = deadline
		l.setDeadline(deadline) // wakes the loop
	}
}

// expire tells the flows whose deadline has passed. While the loop is always
// busy, the poller's own deadline never tells it.
func (l *loop) expire(now time.Time) {
	if now.Before(l.next) {
		return
	}
	l.next = time.Time{}
	for f, at := range l.deadlines {
		switch {
		case !now.Before(at):
			f.timedOut()
		case l.next.IsZero() || at.Before(l.next):
			l.next = at
		}
	}
	l.setDeadline(l.next)
}
