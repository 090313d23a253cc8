package proxy

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// coresPerLoop is how many processors one loop is for. A second loop on two
// cores costs more than it brings: each has fewer events to a wake-up.
const coresPerLoop = 4

// relay moves the bytes of sessions, in event loops.
type relay struct {
	loops []*loop
	last  atomic.Uint32
}

// newRelay starts the loops. count is called with the bytes that were moved,
// alarm with a panic that has ended one session.
func newRelay(count func(up, down int), alarm func(panicked any)) (*relay, error) {
	r := new(relay)
	for range (runtime.GOMAXPROCS(0) + coresPerLoop - 1) / coresPerLoop {
		l, err := newLoop(count, alarm)
		if err != nil {
			r.stop()
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

// stop ends the loops, once there are no sessions any more.
func (r *relay) stop() {
	for _, l := range r.loops {
		l.stop()
	}
}

// start takes a session over. With an error nothing has been taken over, and
// h.done is not called.
func (r *relay) start(h handover) (held reins, err error) {
	f := &flow{tls: h.client, wire: h.wire, ready: h.ready, done: h.done}
	if f.client.fd, err = take(h.wire.socket); err != nil {
		return held, err
	}
	if f.backend.fd, err = take(h.backend.socket); err != nil {
		_ = unix.Close(f.client.fd)
		return held, err
	}
	_ = h.wire.Close()
	_ = h.backend.Close()
	h.wire.socket = nil
	if h.backend.tls != nil {
		h.backend.socket = nil
		f.upstream = h.backend
	}
	l := r.loops[int(r.last.Add(1))%len(r.loops)]
	l.do(func() { l.begin(f, h.deadline) })
	return reins{
		end:   func(e ending) { l.do(func() { l.dismiss(f, e) }) },
		close: func(e ending, moved int64) { l.do(func() { l.closeQuiet(f, e, moved) }) },
		spare: func() { l.do(func() { l.spare(f) }) },
		moved: func() (up, down int64) { return f.up.Load(), f.down.Load() },
	}, nil
}

// take duplicates a connection's descriptor, out of the runtime's poller, which
// knows the original alone.
func take(conn socket) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	}); e != nil {
		return 0, e
	}
	return fd, err
}
