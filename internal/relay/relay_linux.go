package relay

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// coresPerLoop is how many processors one loop is for. A second loop on two
// cores costs more than it saves: each has fewer events to a wake-up.
const coresPerLoop = 4

// Relay moves the bytes of sessions, in event loops.
type Relay struct {
	loops []*loop
	last  atomic.Uint32
}

// New returns a relay that tells o what it does. It fails only for want of file
// descriptors.
func New(o Observer) (*Relay, error) {
	r := new(Relay)
	for range (runtime.GOMAXPROCS(0) + coresPerLoop - 1) / coresPerLoop {
		l, err := newLoop(o)
		if err != nil {
			r.Stop()
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

// Stop ends the relay, which must have no sessions any more.
func (r *Relay) Stop() {
	for _, l := range r.loops {
		l.stop()
	}
}

// Start takes a session over. With an error nothing has been taken over, and
// s.Done is not called. Done may be called before Start returns.
func (r *Relay) Start(s Session) (Handle, error) {
	l := r.loops[int(r.last.Add(1))%len(r.loops)]
	f := &flow{loop: l, login: loginHooks{s.Ready, s.Refused, s.loginMessage, s.LoginDeadline, time.Now().Add(firstByteTimeout)}, done: s.Done}
	var err error
	if f.client.fd, err = detach(s.ClientConn.Socket); err != nil {
		return nil, err
	}
	if f.backend.fd, err = detach(s.Backend.Socket); err != nil {
		_ = unix.Close(f.client.fd)
		return nil, err
	}
	_ = s.ClientConn.Close()
	_ = s.Backend.Close()
	var fromClient, fromBackend readAhead
	f.client.tls, fromClient = recordsOf(s.Client, s.ClientConn)
	if s.BackendTLS != nil {
		f.backend.tls, fromBackend = recordsOf(s.BackendTLS, s.Backend)
	}
	l.post(func() { f.begin(fromClient, fromBackend) })
	return f, nil
}

// detach duplicates a connection's descriptor, out of the runtime's poller, which
// knows the original alone.
func detach(conn Socket) (fd int, err error) {
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
