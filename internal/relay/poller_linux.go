package relay

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for events of many sockets. While none is ready it waits on the
// runtime's own poller, in which the epoll descriptor is registered: a parked
// goroutine and no thread. Its system calls never block, so they are made
// without telling the scheduler; telling it wakes the runtime's monitor thread,
// which on a quiet gate costs more than the work itself (docs/performance.md).
//
// Only wakeUp may be called by another goroutine than the one that waits.
type poller struct {
	epoll  int
	file   *os.File                 // of epoll, for the runtime's poller
	raw    syscall.RawConn          // of file
	poll   func(epoll uintptr) bool // made once, or each wait would allocate it
	wake   int                      // an eventfd
	events [128]unix.EpollEvent
	ready  int // of events
}

// wakeData is the data of the event that wakeUp causes.
const wakeData = -1

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Only a non-blocking file is put into the runtime's poller.
	if err := unix.SetNonblock(epoll, true); err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll")}
	if err := p.open(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *poller) open() (err error) {
	// An error means that the runtime's poller has not taken the file.
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return err
	}
	p.poll = func(uintptr) bool {
		p.ready = epollWait(p.epoll, p.events[:])
		return p.ready != 0
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeData}); err != nil {
		_ = unix.Close(p.wake)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// wait returns the events that are ready, once there are any, or none and true
// when the deadline has passed.
func (p *poller) wait() (events []unix.EpollEvent, timedOut bool) {
	p.ready = 0
	err := p.raw.Read(p.poll)
	timedOut = errors.Is(err, os.ErrDeadlineExceeded)
	if err != nil && !timedOut {
		panic("relay: the epoll descriptor: " + err.Error()) // only close closes it
	}
	return p.events[:p.ready], timedOut
}

// setDeadline makes wait return by then; the zero time is never.
func (p *poller) setDeadline(t time.Time) { _ = p.file.SetReadDeadline(t) }

// wakeUp makes wait return an event with wakeData.
func (p *poller) wakeUp() { _, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// awake takes note of wakeUp, or its event would come again.
func (p *poller) awake() {
	var counter [8]byte
	_, _ = read(p.wake, counter[:])
}

// watch changes what a socket is watched for from one set of events to another;
// an empty set takes it out, since epoll would go on reporting its end.
func (p *poller) watch(fd int, from, to uint32, data, generation int32) error {
	op := unix.EPOLL_CTL_MOD
	switch {
	case from == 0:
		op = unix.EPOLL_CTL_ADD
	case to == 0:
		op = unix.EPOLL_CTL_DEL
	}
	return unix.EpollCtl(p.epoll, op, fd, &unix.EpollEvent{Events: to, Fd: data, Pad: generation})
}

func (p *poller) close() {
	_ = unix.Close(p.wake)
	_ = p.file.Close() // epoll itself
}
