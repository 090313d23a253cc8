package gate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/acl"
	"pgwicket/internal/handover"
	"pgwicket/internal/sandbox"
	"pgwicket/proxy"
)

// Predecessor is the process before this one, which hands over its sockets, its state and its sessions. nil is
// none.
type Predecessor struct {
	*handover.Conn
	log         *os.File // the standard error of that process
	pid         int
	version     string
	sockets     []*passedFile
	commands    *http.Client
	commandConn net.Conn // of commands

	// The rest is for after the switch.
	gate     *Gate
	places   *proxy.Predecessor
	process  int       // a descriptor that tells when that process has ended; -1: the system has none
	batch    []arrival // that is not committed
	accepted bool      // this process has accepted the batch
	handed   handed
	moved    int  // sessions that have come
	reported bool // see report
}

// arrival is a session that has come, with its sockets.
type arrival struct {
	id              string
	*proxy.Arriving // nil: it cannot be gone on with here
	files           []int
}

type passedFile struct {
	passedSocket
	*os.File
}

// MeetPredecessor asks the gate at an admin socket for an upgrade to this process, which must have loaded its
// configuration: all that can fail without having asked is to have succeeded. version is that of this
// process.
func MeetPredecessor(adminSocket, version string) (*Predecessor, error) {
	c, peer, err := openChannel(adminSocket)
	if err != nil {
		return nil, err
	}
	p := &Predecessor{Conn: c, pid: peer.PID, process: -1}
	if fd, err := unix.PidfdOpen(peer.PID, 0); err == nil {
		p.process = fd
	}
	c.SetDeadline(time.Now().Add(meetTimeout))
	if err = c.Send(handover.Hello, hello{handover.Version, version}, nil); err == nil {
		err = p.receiveSockets()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return p, nil
}

// confineAs keeps this process from gaining privileges, as the old one: it has begun as the account that the old
// one may have become.
func (p *Predecessor) confineAs() error {
	if p == nil || os.Geteuid() == 0 {
		return nil
	}
	return sandbox.NoNewPrivileges()
}

// openChannel connects to the admin socket, and has a channel opened. The kernel says whose it is.
func openChannel(adminSocket string) (*handover.Conn, handover.Peer, error) {
	var none handover.Peer
	conn, err := new(net.Dialer).Dial("unix", adminSocket)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, none, fmt.Errorf("nothing listens on %s; is the gate running with this configuration?", adminSocket)
	case err != nil:
		return nil, none, err
	}
	defer conn.Close()
	u := conn.(*net.UnixConn)
	_ = u.SetDeadline(time.Now().Add(meetTimeout))
	if _, err := fmt.Fprintf(u, "POST %s HTTP/1.1\r\nHost: pgwicket\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\nContent-Length: 0\r\n\r\n", UpgradePath); err != nil {
		return nil, none, err
	}
	if err := readSwitch(u); err != nil {
		return nil, none, fmt.Errorf("%s: %w", adminSocket, err)
	}
	f, err := handover.OverSocket(u).Receive()
	if err != nil || len(f.Files) != 1 {
		f.Close()
		return nil, none, fmt.Errorf("%s: no channel has come: %w", adminSocket, err)
	}
	c, err := handover.NewConn(f.Files[0])
	if err != nil {
		return nil, none, err
	}
	peer, err := c.Peer()
	if err == nil && peer.UID != os.Geteuid() {
		err = fmt.Errorf("the process at %s has the account %d, and this one has %d", adminSocket, peer.UID, os.Geteuid())
	}
	if err != nil {
		_ = c.Close()
	}
	return c, peer, err
}

// readSwitch reads the answer to the request, and not a byte behind it: the descriptor comes with the
// next one.
func readSwitch(u *net.UnixConn) error {
	const most = 8 << 10
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := io.ReadFull(u, one); err != nil {
			return err
		}
		if len(head) > most {
			return handover.ErrFormat
		}
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head))), nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(u, most))
	if r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusMethodNotAllowed {
		return errors.New("the gate is of a release without upgrades; restart it")
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// receiveSockets takes what the old process passes, and its environment of systemd.
func (p *Predecessor) receiveSockets() error {
	var w welcome
	if err := expect(p.Conn, handover.Welcome, &w); err != nil {
		return err
	}
	p.version = w.Version
	const most = 1000 // far more than anybody has listeners
	if w.Format != handover.Version || w.Sockets > most {
		return fmt.Errorf("the gate hands over in format %d, and this release in format %d", w.Format, handover.Version)
	}
	for range w.Sockets {
		f, err := p.Receive()
		if err != nil {
			return err
		}
		var s passedSocket
		if err := f.Decode(&s); err != nil || f.Kind != handover.Socket || len(f.Files) != 1 {
			f.Close()
			return fmt.Errorf("%w: %v", handover.ErrFormat, f.Kind)
		}
		p.sockets = append(p.sockets, &passedFile{s, os.NewFile(uintptr(f.Files[0]), nameOf(s))})
	}
	if p.log = p.take(roleLog, ""); p.log == nil {
		return errors.New("the gate passes no log")
	}
	if f := p.take(roleCommands, ""); f != nil {
		conn, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return err
		}
		p.commands, p.commandConn = clientOver(conn), conn
	}
	for name, value := range map[string]string{"NOTIFY_SOCKET": w.NotifySocket, "WATCHDOG_USEC": w.WatchdogUsec} {
		if value != "" {
			_ = os.Setenv(name, value)
		}
	}
	_ = os.Unsetenv("WATCHDOG_PID") // of the process that systemd has started
	return nil
}

// AdoptLog has the standard error of this process lead where that of the old one does.
func (p *Predecessor) AdoptLog() error {
	defer p.log.Close()
	return handover.With(p.log, func(fd int) error { return os.NewSyscallError("dup3", unix.Dup3(fd, unix.Stderr, 0)) })
}

func nameOf(s passedSocket) string { return s.Role + " " + s.Address }

// clientOver returns a client that has one connection.
func clientOver(conn net.Conn) *http.Client {
	var once sync.Once
	return &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: 1,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			err := net.ErrClosed
			once.Do(func() { err = nil })
			return conn, err
		},
	}}
}

// take returns a socket that was passed, for which the caller is responsible then; nil: there is none.
func (p *Predecessor) take(role, address string) *os.File {
	if p == nil {
		return nil
	}
	i := slices.IndexFunc(p.sockets, func(s *passedFile) bool { return s.Role == role && s.Address == address })
	if i < 0 {
		return nil
	}
	f := p.sockets[i].File
	p.sockets = slices.Delete(p.sockets, i, i+1)
	return f
}

// switchOver says that this process is prepared, and takes over the state of the old one. When it returns,
// nobody accepts; serve must follow.
func (p *Predecessor) switchOver(g *Gate) error {
	for _, s := range p.sockets { // of addresses that the configuration does not have any more
		g.Log.Info("a socket of the process before is not needed", "role", s.Role, "address", s.Address)
		_ = s.Close()
	}
	p.gate, p.places, p.sockets = g, g.server.Predecessor(), nil
	p.SetDeadline(time.Now().Add(switchTimeout))
	if err := p.Send(handover.Prepared, nil, nil); err != nil {
		return err
	}
	for {
		f, err := p.Receive()
		if err != nil {
			return fmt.Errorf("the process before has ended the upgrade: %w", err)
		}
		if f.Kind == handover.Go {
			return f.Decode(&p.handed)
		}
		var why failure
		if f.Kind == handover.Failed && f.Decode(&why) == nil {
			return errors.New(why.Reason)
		}
		if err := p.apply(&f); err != nil {
			return err
		}
	}
}

// apply takes over what a frame brings.
func (p *Predecessor) apply(f *handover.Frame) error {
	defer f.Close()
	g := p.gate
	switch f.Kind {
	case handover.State:
		var s state
		if err := f.Decode(&s); err != nil {
			return err
		}
		g.server.Restore(s.Server)
		g.Metrics.RestoreBackends(s.Backends)
		for _, one := range s.Places {
			p.places.Hold(one)
		}
		for _, l := range s.Locks {
			if _, _, err := g.locks.table.Add(l, g.Now()); err != nil {
				return fmt.Errorf("lock %s: %w", l.ID, err)
			}
		}
		if len(s.Locks) > 0 {
			g.setLocks()
		}
	case handover.Counters:
		return g.Metrics.Carry(f.Data)
	case handover.Ended:
		var e ended
		if err := f.Decode(&e); err != nil {
			return err
		}
		for _, id := range e.IDs {
			p.places.Release(id)
		}
	default:
		return p.applySession(f)
	}
	return nil
}

// applySession is apply for what brings sessions.
func (p *Predecessor) applySession(f *handover.Frame) error {
	switch {
	case f.Kind == handover.Session && !p.accepted:
		return p.prepare(f)
	case f.Kind == handover.Batch && !p.accepted:
		p.accepted = true
		var a accepted
		for _, one := range p.batch {
			if one.Arriving == nil {
				a.Refused = append(a.Refused, one.id)
			}
		}
		return p.Send(handover.Accepted, a, nil)
	case f.Kind == handover.Commit && p.accepted:
		p.commit()
	case f.Kind == handover.Abort:
		p.abort()
	case f.Kind == handover.Rest:
		var r rest
		if err := f.Decode(&r); err != nil {
			return err
		}
		p.report(Upgraded{Moved: r.Moved, Stay: r.Stay, Starting: p.handed.Starting, Drain: p.handed.Drain})
	default:
		return fmt.Errorf("%v has come", f.Kind)
	}
	return nil
}

// report says, once, what the upgrade has done.
func (p *Predecessor) report(u Upgraded) {
	if p.reported {
		return
	}
	p.reported = true
	u.PID, u.Version = p.pid, p.version
	p.gate.Log.Info("upgraded from another process", "before", u.PID, "version_before", u.Version, "moved", u.Moved, "stay", u.Stay)
	if p.gate.Upgraded != nil {
		p.gate.Upgraded(u)
	}
}

// prepare has everything ready to go on with a session. One that this process cannot go on with stays in the
// other one.
func (p *Predecessor) prepare(f *handover.Frame) error {
	defer f.Wipe()
	var saved proxy.SavedSession
	if err := f.Decode(&saved); err != nil {
		return err
	}
	if saved.Relay == nil || len(f.Files) != 2 {
		return fmt.Errorf("%w: %v", handover.ErrFormat, f.Kind)
	}
	if err := saved.Relay.Join(f.Data); err != nil {
		return err
	}
	one := arrival{id: saved.Place.ID}
	arriving, err := p.places.Prepare(&saved, f.Files[0], f.Files[1])
	if err != nil {
		p.gate.Log.Error("cannot go on with a session", "session", saved.Place.ID, "error", err.Error())
	} else {
		one.Arriving, one.files, f.Files = arriving, f.Files, nil
	}
	p.batch = append(p.batch, one)
	return nil
}

// commit goes on with the sessions of a batch.
func (p *Predecessor) commit() {
	for _, one := range p.batch {
		if one.Arriving != nil {
			one.Start()
			p.moved++
		}
	}
	p.batch, p.accepted = nil, false
}

// abort forgets the sessions of a batch: they are the other process's.
func (p *Predecessor) abort() {
	for _, one := range p.batch {
		if one.Arriving != nil {
			one.Discard()
		}
		for _, fd := range one.files {
			_ = unix.Close(fd)
		}
	}
	p.batch, p.accepted = nil, false
}

// settle decides on a batch when the channel has ended without a commit. It is this process's only if the
// kernel says that the other one is dead.
func (p *Predecessor) settle() {
	if p.accepted && p.dead() {
		p.gate.Log.Warn("the process before has died while it handed sessions over; this one goes on with them", "sessions", len(p.batch))
		p.commit()
		return
	}
	p.abort()
}

// dead waits until the other process is dead, for some seconds: it closes its descriptors a little before.
func (p *Predecessor) dead() bool {
	if p.process < 0 {
		return false
	}
	wait := []unix.PollFd{{Fd: int32(p.process), Events: unix.POLLIN}}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if n, err := unix.Poll(wait, 100); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// serving says that this process accepts connections, and listens to the old one from now on.
func (p *Predecessor) serving() error {
	if err := p.Send(handover.Serving, nil, nil); err != nil {
		return err
	}
	p.SetDeadline(time.Time{})
	p.gate.admin.upgrade.before.Store(p)
	first := make(chan error, 1)
	go p.follow(first)
	select {
	case err := <-first: // the service manager knows this process by then
		return err
	case <-time.After(switchTimeout):
	}
	return nil
}

// takenBack returns why the old process goes on as if there had been no upgrade; nil: it does not. f and err are
// the first that it has sent since this one serves.
func (p *Predecessor) takenBack(f *handover.Frame, err error) error {
	var why failure
	switch {
	case err == nil && f.Kind == handover.Failed && f.Decode(&why) == nil:
		return errors.New(why.Reason)
	case err != nil && !p.dead():
		return fmt.Errorf("the process before has ended the upgrade: %w", err)
	}
	return nil
}

// stop says that this process has been told to stop. The old one must not accept again when it is gone.
func (p *Predecessor) stop() {
	p.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.Send(handover.End, nil, nil)
	p.SetWriteDeadline(time.Time{})
}

// fail tells the old process why this one does not take over.
func (p *Predecessor) fail(err error) {
	p.SetDeadline(time.Now().Add(time.Second))
	_ = p.Send(handover.Failed, failure{err.Error()}, nil)
	_ = p.Close()
}

// close ends the channel and the connection for commands.
func (p *Predecessor) close() {
	_ = p.Close()
	if p.commandConn != nil {
		_ = p.commandConn.Close()
	}
}

// follow listens to the old process until it has ended. first gets one error: that of takenBack, or nil when the
// first frame has come.
func (p *Predecessor) follow(first chan<- error) {
	g := p.gate
	heard := false
	defer g.admin.upgrade.before.Store(nil)
	defer p.close()
	defer p.places.ReleaseAll()
	defer func() { _ = unix.Close(p.process) }()
	for {
		f, err := p.Receive()
		if !heard {
			heard = true
			why := p.takenBack(&f, err)
			if first <- why; why != nil {
				return
			}
		}
		if err == nil && f.Kind == handover.End {
			g.Log.Info("the process before has ended in order", "pid", p.pid)
			return
		}
		if err == nil {
			err = p.apply(&f)
		}
		if err != nil {
			p.settle()
			g.Log.Error("the process before is gone; sessions that it still had have ended", "pid", p.pid, "error", err.Error())
			p.report(Upgraded{Moved: p.moved}) // unless that one had handed everything over: the command waits for it
			g.Metrics.CarriedEnded()
			return
		}
	}
}

// terminate has sessions end as they arrive.
func (p *Predecessor) terminate(matches func(*acl.Request) bool, detail string) {
	p.places.Terminate(matches, detail)
}

// ask has the old process do what the admin socket is asked, and returns the answer.
func (p *Predecessor) ask(method, path string, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://pgwicket"+path, http.NoBody) //nolint:gosec // the connection is there already
	if err != nil {
		return nil, err
	}
	response, err := p.commands.Do(request) //nolint:gosec // likewise
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	const most = 64 << 20
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	return body, err
}
