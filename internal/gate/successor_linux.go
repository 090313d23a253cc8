package gate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"pgwicket/internal/handover"
	"pgwicket/internal/lock"
	"pgwicket/internal/socket"
	"pgwicket/proxy"
)

const formatVersion = handover.Version

// How long each step of an upgrade may take. The new process has loaded its configuration before it asks.
const (
	meetTimeout    = 10 * time.Second
	prepareTimeout = 2 * time.Minute
	switchTimeout  = 30 * time.Second
)

// successor is the new process of an upgrade, as the old one sees it.
type successor struct {
	*handover.Conn
	gate     *Gate
	pid      int
	version  string
	commands net.Conn        // on which the new process sends what the admin socket is asked
	sent     map[string]bool // places, by the ids of their sessions
	accepted chan accepted
	gone     chan error // gets one when the new process has closed the channel
	moved    int
	stuck    bool            // no more sessions are offered
	refused  map[string]bool // sessions that the new process cannot go on with, by their ids
}

// serveUpgrade lets another process of the same account begin an upgrade. The request's connection only
// carries the descriptor of the channel.
func (g *Gate) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	refuse := func(code int, err error) {
		g.Log.Warn("upgrade refused", "by", operator(r.Context()), "reason", err.Error())
		http.Error(w, err.Error(), code)
	}
	if err := g.mayUpgrade(); err != nil {
		refuse(http.StatusConflict, err)
		return
	}
	if !g.admin.upgrade.under.CompareAndSwap(false, true) {
		refuse(http.StatusConflict, errors.New("an upgrade is under way"))
		return
	}
	begun := false
	defer func() {
		if !begun {
			g.admin.upgrade.under.Store(false)
		}
	}()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(http.StatusInternalServerError, err)
		return
	}
	defer conn.Close()
	s, err := g.meet(conn)
	if err != nil {
		g.Log.Warn("upgrade refused", "by", operator(r.Context()), "reason", err.Error())
		_ = conn.SetDeadline(time.Now().Add(meetTimeout))
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n%v\n", err)
		return
	}
	begun = true
	go s.run()
}

// meet opens the channel to the process that has connected, if the kernel says that it is of this
// account.
func (g *Gate) meet(conn net.Conn) (*successor, error) {
	if bounded, ok := conn.(*adminConn); ok {
		conn = bounded.Conn
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("an upgrade needs the admin socket")
	}
	peer, err := handover.PeerOf(u)
	if err != nil {
		return nil, err
	}
	if peer.UID != os.Geteuid() {
		return nil, fmt.Errorf("the new process has the account %d, and this one has %d; both must have the same", peer.UID, os.Geteuid())
	}
	channel, other, err := handover.Pair()
	if err != nil {
		return nil, err
	}
	defer other.Close()
	_ = u.SetDeadline(time.Now().Add(meetTimeout))
	if _, err = io.WriteString(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\n\r\n"); err == nil {
		err = handover.With(other, func(fd int) error { return handover.OverSocket(u).Send(handover.Welcome, nil, nil, fd) })
	}
	if err != nil {
		_ = channel.Close()
		return nil, err
	}
	return &successor{Conn: channel, gate: g, pid: peer.PID, sent: make(map[string]bool), refused: make(map[string]bool), accepted: make(chan accepted, 1), gone: make(chan error, 1)}, nil
}

// run takes the steps of an upgrade. Until the new process serves, a failure changes nothing.
func (s *successor) run() {
	g := s.gate
	began := time.Now()
	fail := func(err error) {
		g.Log.Error("upgrade failed; this process goes on", "pid", s.pid, "error", err.Error())
		s.SetDeadline(time.Now().Add(time.Second))
		_ = s.Send(handover.Failed, failure{err.Error()}, nil)
		s.close()
		g.admin.upgrade.under.Store(false)
	}
	if err := s.prepare(); err != nil {
		fail(err)
		return
	}
	g.pauseServing()
	if err := s.hand(); err != nil {
		g.resumeServing()
		fail(err)
		return
	}
	s.SetDeadline(time.Time{})
	g.Log.Info("upgraded: a new process accepts the connections", "pid", s.pid, "version", s.version, "took", time.Since(began).String(), "sessions", g.server.Sessions())
	g.notifier.MainPID(s.pid)
	s.report() // the new process says that it is ready when it has this
	s.serveCommands()
	go s.listen()
	g.admin.upgrade.finished <- s
}

// listen takes the answers of the new process until it is gone.
func (s *successor) listen() {
	for {
		f, err := s.Receive()
		var a accepted
		if err == nil {
			f.Close()
			if f.Kind == handover.End { // it has been told to stop
				s.gate.stopUpgraded()
				continue
			}
			if f.Kind != handover.Accepted {
				err = fmt.Errorf("%v has come", f.Kind)
			} else {
				err = f.Decode(&a)
			}
		}
		if err != nil {
			s.gone <- err
			return
		}
		s.accepted <- a
	}
}

// prepare makes acquaintance and waits until the new process is prepared.
func (s *successor) prepare() error {
	g := s.gate
	s.SetDeadline(time.Now().Add(meetTimeout))
	var h hello
	if err := s.expect(handover.Hello, &h); err != nil {
		return err
	}
	if h.Format != formatVersion {
		return fmt.Errorf("%s hands over in format %d, and %s in format %d; restart the gate", h.Version, h.Format, g.Build.Version, formatVersion)
	}
	s.version = h.Version
	g.Log.Info("upgrade begins", "pid", s.pid, "version", h.Version)
	if err := s.sendSockets(); err != nil {
		return err
	}
	s.SetDeadline(time.Now().Add(prepareTimeout))
	return s.expect(handover.Prepared, nil)
}

// expect receives a frame of a kind, and its text.
func (s *successor) expect(k handover.Kind, text any) error { return expect(s.Conn, k, text) }

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
func (s *successor) sendSockets() error {
	g := s.gate
	ours, theirs, err := handover.SocketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	s.commands = ours
	type passed struct {
		passedSocket
		conn any
	}
	all := []passed{{passedSocket{Role: roleLog}, os.Stderr}, {passedSocket{Role: roleCommands}, theirs}}
	for i, ln := range g.admin.upgrade.listeners {
		role := roleListener
		if socket.Activated(ln) {
			role = roleActivated
		}
		all = append(all, passed{passedSocket{role, g.started.Listen[i]}, ln})
	}
	for _, conns := range g.admin.conns {
		all = append(all, passed{conns.passed, conns.Listener})
	}
	w := welcome{formatVersion, g.Build.Version, len(all), os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC")}
	if err := s.Send(handover.Welcome, w, nil); err != nil {
		return err
	}
	for _, one := range all {
		if err := handover.With(one.conn, func(fd int) error { return s.Send(handover.Socket, one.passedSocket, nil, fd) }); err != nil {
			return err
		}
	}
	return nil
}

// hand gives the sockets to the new process: nobody accepts until it does.
func (s *successor) hand() error {
	s.SetDeadline(time.Now().Add(switchTimeout))
	if err := s.sendState(); err != nil {
		return err
	}
	if err := s.sendCounters(true); err != nil {
		return err
	}
	totals := s.gate.Metrics.Totals()
	if err := s.Send(handover.Go, handed{totals.Open, totals.Starting, s.gate.started.DrainTimeout}, nil); err != nil {
		return err
	}
	return s.expect(handover.Serving, nil)
}

// maxPart is how many entries of a list one frame has: each is a few hundred bytes at most.
const maxPart = 2000

// sendState sends what this process knows besides the sessions.
func (s *successor) sendState() error {
	g := s.gate
	if err := s.sendKeysAndRates(); err != nil {
		return err
	}
	if table := g.locks.table; !table.Persistent() {
		for _, l := range table.Set().At(g.Now()) {
			if err := s.Send(handover.State, state{Locks: []lock.Lock{l}}, nil); err != nil {
				return err
			}
		}
	}
	if err := s.Send(handover.State, state{Backends: g.Metrics.Backends()}, nil); err != nil {
		return err
	}
	return s.sendPlaces()
}

func (s *successor) sendKeysAndRates() error {
	all := s.gate.server.ClientState()
	for len(all.Keys)+len(all.Rates) > 0 {
		k, r := min(len(all.Keys), maxPart), min(len(all.Rates), maxPart)
		part := proxy.ClientState{Keys: all.Keys[:k], Rates: all.Rates[:r]}
		if err := s.Send(handover.State, state{Server: part}, nil); err != nil {
			return err
		}
		all.Keys, all.Rates = all.Keys[k:], all.Rates[r:]
	}
	return nil
}

// sendPlaces sends which sessions are here that the new process does not know yet, and which have ended.
func (s *successor) sendPlaces() error {
	var fresh []proxy.Place
	here := make(map[string]bool)
	for _, p := range s.gate.server.Places() {
		here[p.ID] = true
		if !s.sent[p.ID] {
			fresh = append(fresh, p)
		}
	}
	var gone []string
	for id := range s.sent {
		if !here[id] {
			gone = append(gone, id)
		}
	}
	for len(gone) > 0 {
		n := min(len(gone), maxPart)
		if err := s.Send(handover.Ended, ended{gone[:n]}, nil); err != nil {
			return err
		}
		gone = gone[n:]
	}
	for len(fresh) > 0 {
		n := min(len(fresh), maxPart)
		if err := s.Send(handover.State, state{Places: fresh[:n]}, nil); err != nil {
			return err
		}
		fresh = fresh[n:]
	}
	s.sent = here
	return nil
}

func (s *successor) sendCounters(live bool) error {
	counters, err := s.gate.Metrics.Counters(live)
	if err != nil {
		return err
	}
	return s.Send(handover.Counters, nil, counters)
}

// reportInterval is how often the new process hears of what the old one still has.
const reportInterval = time.Second

// How many sessions are frozen at a time, how long the new process may take to accept them, and how often
// the old one looks for more that can go.
const (
	batchSize     = 64
	acceptTimeout = 5 * time.Second
	moveInterval  = 20 * time.Millisecond
)

// moveAll hands over the sessions that can go now. If the new process is gone, those of the last batch are
// this one's again, and it returns errSuccessorGone.
func (s *successor) moveAll() error {
	for !s.stuck {
		batch := s.gate.server.Freeze(batchSize, s.refused)
		if len(batch) == 0 {
			return nil
		}
		answer, err := s.offer(batch)
		if err == nil {
			err = s.Send(handover.Commit, nil, nil)
		} else if !errors.Is(err, errSuccessorGone) && s.abort() == nil {
			s.stuck = true
		}
		for _, one := range batch {
			id := one.Session.Place.ID
			if err != nil || slices.Contains(answer.Refused, id) {
				one.Stay()
				continue
			}
			delete(s.sent, id) // the new process has it
			one.Leave()
			s.moved++
		}
		switch {
		case s.stuck:
			s.gate.Log.Error("the new process does not take sessions over; they stay here", "pid", s.pid, "error", err.Error())
			return nil
		case err != nil:
			_ = s.Close()
			return fmt.Errorf("%w: %w", errSuccessorGone, err)
		}
		for _, id := range answer.Refused {
			s.refused[id] = true
		}
		if len(answer.Refused) > 0 {
			s.gate.Log.Warn("the new process cannot go on with some sessions, which stay here", "sessions", len(answer.Refused))
		}
	}
	return nil
}

// abort takes a batch back. Only with its error the new process may not know that.
func (s *successor) abort() error {
	s.SetWriteDeadline(time.Now().Add(acceptTimeout))
	return s.Send(handover.Abort, nil, nil)
}

// offer sends a batch, and waits until the new process has accepted it.
func (s *successor) offer(batch []*proxy.Leaving) (a accepted, err error) {
	s.SetWriteDeadline(time.Now().Add(acceptTimeout))
	for _, one := range batch {
		data := one.Saved.Split()
		err := s.Send(handover.Session, one.Session, data, one.Client, one.Backend)
		clear(data)
		if err != nil {
			return a, err
		}
	}
	if err := s.Send(handover.Batch, nil, nil); err != nil {
		return a, err
	}
	select {
	case a = <-s.accepted:
		return a, nil
	case err := <-s.gone:
		return a, fmt.Errorf("%w: %w", errSuccessorGone, err)
	case <-time.After(acceptTimeout):
		return a, fmt.Errorf("it has not accepted %d sessions within %v", len(batch), acceptTimeout)
	}
}

// finish ends the old process: it has sessions that stay until they end, and connections in their startup.
// For half of the time of a drain it leaves them alone. It reports what it does to the new process. If that
// one dies before the drain begins, finish returns errSuccessorGone, and this process has to accept again.
func (s *successor) finish(drain func() <-chan error) error {
	g := s.gate
	if err := s.moveAll(); err != nil && !g.stopping.Load() {
		return err
	}
	totals := g.Metrics.Totals()
	g.Log.Info("sessions handed over", "pid", s.pid, "moved", s.moved, "stay", totals.Open, "starting", totals.Starting)
	s.report()
	_ = s.Send(handover.Rest, rest{s.moved, totals.Open}, nil)
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	half := time.NewTimer(g.started.DrainTimeout / 2)
	defer half.Stop()
	again := time.NewTicker(moveInterval)
	defer again.Stop()
	gone, now := s.gone, g.admin.upgrade.drainNow
	var drained <-chan error
	for {
		select {
		case <-tick.C:
			s.report()
		case <-now:
			now = nil
			if drained == nil {
				drained = drain()
			}
		case <-half.C:
			if drained == nil {
				drained = drain()
			}
		case <-again.C:
			if drained != nil {
				continue
			}
			if err := s.moveAll(); err != nil && !g.stopping.Load() {
				return err
			}
			if g.server.Sessions() == 0 {
				drained = drain()
			}
		case err := <-drained:
			s.report()
			_ = s.sendKeysAndRates() // with the attempts that have ended here
			_ = s.sendCounters(false)
			_ = s.Send(handover.End, nil, nil)
			return err
		case err := <-gone:
			gone = nil
			if drained == nil && !g.stopping.Load() {
				return fmt.Errorf("%w: %w", errSuccessorGone, err)
			}
			g.Log.Error("the new process is gone", "pid", s.pid, "error", err.Error())
		}
	}
}

var errSuccessorGone = errors.New("the new process is gone")

// report tells what has changed.
func (s *successor) report() {
	s.SetWriteDeadline(time.Now().Add(switchTimeout))
	err := s.sendPlaces()
	if err == nil {
		err = s.sendCounters(true)
	}
	if err != nil {
		_ = s.Close() // a part of a frame may have gone; listen has the end
	}
}

func (s *successor) close() {
	_ = s.Close()
	if s.commands != nil {
		_ = s.commands.Close()
	}
}

// serveCommands answers the new process as the admin socket did.
func (s *successor) serveCommands() {
	server := &http.Server{ConnContext: withVerdict, Handler: s.gate.socketHandler(), ErrorLog: slog.NewLogLogger(s.gate.Log.Handler(), slog.LevelDebug)} //nolint:gosec // its one client is a gate of this account
	go func() { _ = server.Serve(&oneConn{conn: s.commands, closed: make(chan struct{})}) }()
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	conn := l.conn
	l.conn = nil
	l.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "upgrade", Net: "unix"} }
