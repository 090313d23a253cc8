package upgrade

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"pgwicket/internal/handover"
)

// Format is the format of the channel; 0: this system has no upgrades.
const Format = handover.Version

// How long each step of an upgrade may take. The new process has loaded its configuration before it asks.
const (
	meetTimeout    = 10 * time.Second
	prepareTimeout = 2 * time.Minute
	switchTimeout  = 30 * time.Second
)

// Successor is the new process of an upgrade, as the old one sees it.
type Successor struct {
	conn     *handover.Conn
	gate     OldGate
	pid      int
	version  string
	stateDir string          // of the new process
	commands net.Conn        // on which the new process sends what the admin socket is asked
	served   *oneConn        // commands, as what is served; nil: not yet
	sent     map[string]bool // places, by the ids of their sessions
	accepted chan accepted
	gone     chan struct{}    // closed when the new process has closed the channel, and all that it has sent was taken
	goneWhy  error            // then
	process  handover.Process // of the new process
	claim    handover.Claim   // to accept connections; the process that takes it does
	tookBack handover.Mark    // sessions that the new process had were gone on with here
	moved    int
	stuck    bool            // no more sessions are offered
	refused  map[string]bool // sessions that the new process cannot go on with, by their ids

	mu        sync.Mutex
	withdrawn string // why this process has taken the claim; empty: it has not
}

// Accept opens the channel to the process that has asked for an upgrade on a connection to the admin socket, if the
// kernel says that it is of this account. Run must follow. The connection is the caller's.
func Accept(conn net.Conn, g OldGate) (*Successor, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("an upgrade needs the admin socket")
	}
	process, peer, err := handover.ProcessOf(u)
	if err != nil {
		return nil, err
	}
	if peer.UID != os.Geteuid() {
		process.Close()
		return nil, fmt.Errorf("the new process has the account %d, and this one has %d; both must have the same", peer.UID, os.Geteuid())
	}
	s := &Successor{gate: g, pid: peer.PID, process: process, sent: make(map[string]bool), refused: make(map[string]bool), accepted: make(chan accepted, 1), gone: make(chan struct{})}
	if err := s.open(u); err != nil {
		process.Close()
		return nil, err
	}
	return s, nil
}

// open opens the channel, and what decides without it.
func (s *Successor) open(u *net.UnixConn) (err error) {
	if s.tookBack, err = handover.NewMark(); err != nil {
		return err
	}
	if s.claim, err = handover.NewClaim(); err != nil {
		s.tookBack.Close()
		return err
	}
	var other *os.File
	if s.conn, other, err = handover.Pair(); err == nil {
		defer other.Close()
		_ = u.SetDeadline(time.Now().Add(meetTimeout))
		if _, err = io.WriteString(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\n\r\n"); err == nil {
			err = handover.With(other, func(fd int) error { return handover.OverSocket(u).Send(handover.Welcome, nil, nil, fd) })
		}
		if err != nil {
			_ = s.conn.Close()
		}
	}
	if err != nil {
		s.tookBack.Close()
		s.claim.Close()
	}
	return err
}

// Run takes the steps of an upgrade until the new process accepts connections, and reports whether it does. If not,
// nothing has changed, and the log has the reason. Finish must follow if it does.
func (s *Successor) Run() bool {
	g := s.gate
	began := time.Now()
	err := s.prepare()
	if err == nil && g.Stopping() {
		err = errors.New(shuttingDown)
	}
	if err != nil {
		s.fail(err)
		return false
	}
	g.Pause()
	err = s.hand()
	if why, mine := s.takeBack(err); mine {
		g.Resume()
		s.fail(why)
		return false
	}
	if err != nil {
		g.Log.Error("the new process has taken over without a word", "pid", s.pid, "error", err.Error())
	}
	s.conn.SetDeadline(time.Time{})
	g.Log.Info("upgraded: a new process accepts the connections", "pid", s.pid, "version", s.version, "took", time.Since(began).String(), "sessions", g.Server.Sessions())
	g.Accepts(s.pid)
	s.report() // the new process says that it is ready when it has this
	s.serveCommands()
	go s.listen()
	return true
}

const shuttingDown = "the gate is shutting down"

// fail ends the upgrade.
func (s *Successor) fail(err error) {
	s.gate.Log.Error("upgrade failed; this process goes on", "pid", s.pid, "error", err.Error())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withdrawn == "" {
		s.withdrawn = err.Error()
	}
	s.conn.SetDeadline(time.Now().Add(time.Second))
	_ = s.conn.Send(handover.Failed, failure{err.Error()}, nil)
	s.close()
	s.claim.Close()
	s.process.Close()
}

// deathTimeout is how long the end of a process may take that has closed its descriptors, which come first.
const deathTimeout = 5 * time.Second

// listen takes the answers of the new process until it is gone.
func (s *Successor) listen() {
	for {
		f, err := s.conn.Receive()
		var a accepted
		if err == nil {
			f.Close()
			if f.Kind == handover.Serving { // hand has not waited for it
				continue
			}
			if f.Kind == handover.End { // it has been told to stop
				s.gate.Stop()
				continue
			}
			if f.Kind != handover.Accepted {
				err = fmt.Errorf("%v has come", f.Kind)
			} else {
				err = f.Decode(&a)
			}
		}
		if err != nil {
			s.goneWhy = err
			close(s.gone)
			return
		}
		s.accepted <- a
	}
}

// prepare makes acquaintance and waits until the new process is prepared.
func (s *Successor) prepare() error {
	g := s.gate
	s.bound(meetTimeout)
	var h hello
	if err := s.expect(handover.Hello, &h); err != nil {
		return err
	}
	if h.Format != Format {
		return fmt.Errorf("%s hands over in format %d, and %s in format %d; restart the gate", h.Version, h.Format, g.Version, Format)
	}
	s.version, s.stateDir = h.Version, h.StateDir
	g.Log.Info("upgrade begins", "pid", s.pid, "version", h.Version)
	if err := s.sendSockets(); err != nil {
		return err
	}
	s.bound(prepareTimeout)
	return s.expect(handover.Prepared, nil)
}

// expect receives a frame of a kind, and its text.
func (s *Successor) expect(k handover.Kind, text any) error { return expect(s.conn, k, text) }

func expect(c *handover.Conn, k handover.Kind, text any) error {
	f, err := c.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the other process has ended before %v", k)
		}
		return fmt.Errorf("%v: %w", k, err)
	}
	defer f.Close()
	var why failure
	switch {
	case f.Kind == handover.Failed && f.Decode(&why) == nil:
		return errors.New(why.Reason)
	case f.Kind != k:
		return fmt.Errorf("%v has come instead of %v", f.Kind, k)
	case text != nil:
		return f.Decode(text)
	}
	return nil
}

// sendSockets sends what listens, and where the log goes.
func (s *Successor) sendSockets() error {
	g := s.gate
	ours, theirs, err := handover.SocketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	s.commands = ours
	all := append([]OpenSocket{{Socket{Role: roleLog}, os.Stderr}, {Socket{Role: roleCommands}, theirs}}, g.Sockets...)
	totals := g.Metrics.Totals()
	w := welcome{Format, g.Version, len(all), neededFiles(totals.Open + totals.Starting), os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC")}
	if err := s.conn.Send(handover.Welcome, w, nil); err != nil {
		return err
	}
	for _, one := range all {
		if err := handover.With(one.Conn, func(fd int) error { return s.conn.Send(handover.Socket, one.Socket, nil, fd) }); err != nil {
			return err
		}
	}
	return nil
}

// hand gives the sockets to the new process: nobody accepts until it does.
func (s *Successor) hand() error {
	s.bound(switchTimeout)
	if err := s.sendState(); err != nil {
		return err
	}
	if err := s.sendCounters(true); err != nil {
		return err
	}
	totals := s.gate.Metrics.Totals()
	if err := s.conn.Send(handover.Go, handed{totals.Open, totals.Starting, s.gate.DrainTimeout}, nil, s.claim.Descriptor(), s.tookBack.Descriptor()); err != nil {
		return err
	}
	return s.expect(handover.Serving, nil)
}

// close ends the channel.
func (s *Successor) close() {
	_ = s.conn.Close()
	s.tookBack.Close()
	if s.commands != nil {
		_ = s.commands.Close()
	}
	if s.served != nil {
		_ = s.served.Close()
	}
}
