package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pgwicket/internal/socket"
	"pgwicket/internal/status"
	"pgwicket/internal/upgrade"
)

// upgrades is what a gate knows of the processes before and after it.
type upgrades struct {
	listeners []net.Listener                      // in the order of listen
	before    atomic.Pointer[upgrade.Predecessor] // nil: there is none, or it has ended

	under    atomic.Bool                       // an upgrade to another process is under way, or has been made
	next     atomic.Pointer[upgrade.Successor] // its new process, until it has failed; nil: there is none
	given    atomic.Bool                       // the other process has the sockets
	finished chan *upgrade.Successor           // gets one when an upgrade has been made or, nil, has failed
	told     told                              // what the process before has got
	stop     sync.Once
	drainNow chan struct{} // closed by stopUpgraded
	program  string        // see upgrade.ProgramID

	commands upgrade.Commands

	reload bool // the new process may have loaded its files before the last reload; of the goroutine of wait
}

func (u *upgrades) begin() {
	u.finished, u.drainNow, u.program = make(chan *upgrade.Successor), make(chan struct{}), upgrade.ProgramID()
	u.told = told{make(chan os.Signal, 1), make(chan os.Signal, 1)}
}

// told are signals for the gate. Each kind has a place: one must not displace the other.
type told struct{ reload, stop chan os.Signal }

// alive is the probe of the watchdog. While a new process takes over, nothing may be accepted here: a probe that has begun
// or ended meanwhile proves nothing.
func (g *Gate) alive(ctx context.Context) error {
	under := g.admin.upgrade.under.Load()
	if err := g.server.Alive(ctx); err != nil && !under && !g.admin.upgrade.under.Load() {
		return err
	}
	return nil
}

// pauseServing holds up every accept loop, and commands. Connections wait in the queues of the sockets.
func (g *Gate) pauseServing() {
	g.admin.upgrade.commands.Pause(true)
	g.accepts.Store(false)
	g.server.PauseAccepting()
	for i, conns := range g.admin.conns {
		conns.pause.Begin(g.admin.conns[i].Listener)
		g.admin.servers[i].SetKeepAlivesEnabled(false)
	}
}

// resumeServing ends pauseServing.
func (g *Gate) resumeServing() {
	for i, conns := range g.admin.conns {
		g.admin.servers[i].SetKeepAlivesEnabled(true)
		conns.pause.End(g.admin.conns[i].Listener)
	}
	g.admin.upgrade.commands.Pause(false)
	g.server.ResumeAccepting()
	g.accepts.Store(true)
}

// finishUpgrade has this process finish what it still has, while the new one serves.
func (g *Gate) finishUpgrade(next *upgrade.Successor) chan error {
	g.admin.upgrade.given.Store(true)
	g.notifier.Silence(true)
	g.server.HandedOver()
	file := g.admin.file
	g.admin.file = nil // the socket is the new process's
	done := make(chan error, 1)
	go func() {
		err := next.Finish(g.drainUpgraded, g.admin.upgrade.drainNow)
		if errors.Is(err, upgrade.ErrSuccessorGone) {
			g.admin.file = file
		}
		done <- err
	}()
	return done
}

// drainUpgraded ends what is left, within the second half of the time of a drain.
func (g *Gate) drainUpgraded() <-chan error {
	g.stopping.Store(true)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), g.started.DrainTimeout/2)
		defer cancel()
		done <- g.server.Drain(ctx)
	}()
	return done
}

// stopUpgraded begins drainUpgraded now, and keeps this process from accepting again.
func (g *Gate) stopUpgraded() {
	g.stopping.Store(true)
	g.admin.upgrade.stop.Do(func() { close(g.admin.upgrade.drainNow) })
}

// planUpgrade returns what an upgrade would do now.
func (g *Gate) planUpgrade() upgrade.Plan {
	totals := g.Metrics.Totals()
	p := upgrade.Plan{
		PID: os.Getpid(), Version: g.Build.Version, Format: upgrade.Format, UID: os.Geteuid(),
		Sessions: totals.Open, Movable: g.server.Movable(), Starting: totals.Starting, DrainTimeout: g.started.DrainTimeout, Program: g.admin.upgrade.program, Credentials: upgrade.Credentials(g.Path, g.files(g.Path)),
	}
	if err := g.mayUpgrade(); err != nil {
		p.Problem = err.Error()
	}
	return p
}

// mayUpgrade returns why there can be no upgrade now.
func (g *Gate) mayUpgrade() error {
	switch {
	case upgrade.Format == 0:
		return upgrade.ErrSystem
	case os.Getpid() == 1:
		return errors.New("the gate is process 1 of its container, which ends with it; start another container")
	case g.stopping.Load():
		return errors.New("the gate is shutting down")
	case g.admin.upgrade.given.Load():
		return errors.New("the gate has been upgraded, and only finishes what it still has")
	case g.admin.upgrade.under.Load():
		return errors.New("an upgrade is under way")
	case g.admin.upgrade.before.Load() != nil:
		return errors.New("the process before this one still has sessions, or connections in their startup; wait until it has ended")
	case !g.accepts.Load():
		return errors.New("the gate is not ready yet")
	}
	return nil
}

func (g *Gate) servePlan(w http.ResponseWriter, _ *http.Request) {
	status.WriteJSON(w, g.planUpgrade())
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
	raw := conn
	if bounded, ok := conn.(*adminConn); ok {
		raw = bounded.Conn
	}
	s, err := upgrade.Accept(raw, g.oldGate())
	if err != nil {
		g.Log.Warn("upgrade refused", "by", operator(r.Context()), "reason", err.Error())
		_ = conn.SetDeadline(time.Now().Add(refusalTimeout))
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n%v\n", err)
		return
	}
	begun = true
	g.admin.upgrade.next.Store(s)
	go func() {
		if !s.Run() {
			s = nil
		}
		g.admin.upgrade.finished <- s
	}()
}

// refusalTimeout is how long the other process may take to read why there is no upgrade.
const refusalTimeout = 10 * time.Second

// oldGate returns what this gate hands over.
func (g *Gate) oldGate() upgrade.OldGate {
	old := upgrade.OldGate{
		Gate: g.shared(), Version: g.Build.Version, DrainTimeout: g.started.DrainTimeout,
		Commands: &http.Server{ConnContext: withVerdict, Handler: upgrade.Forwarded(g.socketHandler()), ErrorLog: slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug)}, //nolint:gosec // its one client is a gate of this account
		Pause:    g.pauseServing, Resume: g.resumeServing, Accepts: g.notifier.MainPID,
		Stop: g.stopUpgraded, Stopping: g.stopping.Load,
	}
	for i, ln := range g.admin.upgrade.listeners {
		role := upgrade.RoleListener
		if socket.Activated(ln) {
			role = upgrade.RoleActivated
		}
		old.Sockets = append(old.Sockets, upgrade.OpenSocket{Socket: upgrade.Socket{Role: role, Address: g.started.Listen[i]}, Conn: ln})
	}
	for _, conns := range g.admin.conns {
		old.Sockets = append(old.Sockets, upgrade.OpenSocket{Socket: conns.passed, Conn: conns.Listener})
	}
	return old
}

// shared returns what an upgrade needs on either side.
func (g *Gate) shared() upgrade.Gate {
	return upgrade.Gate{Server: g.server, Metrics: g.Metrics, Locks: g.locks.table, Log: g.Log, Now: g.Now}
}
