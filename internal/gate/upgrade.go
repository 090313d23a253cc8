package gate

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"pgwicket/internal/health"
	"pgwicket/internal/lock"
	"pgwicket/internal/status"
	"pgwicket/proxy"
)

// UpgradePath is where the admin socket says what an upgrade would do (GET), and where a new process asks
// for one (POST): the connection then goes on as the channel of internal/handover.
const UpgradePath = "/upgrade"

// UpgradePlan is the answer at UpgradePath.
type UpgradePlan struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Format   int    `json:"format"` // of the channel
	UID      int    `json:"uid"`    // the account that the new process must have
	GID      int    `json:"gid"`
	Groups   []int  `json:"groups"`
	Sessions int    `json:"sessions"` // open
	Movable  int    `json:"movable"`  // of them, those that the new process goes on with
	Starting int    `json:"starting"` // connections that are no sessions yet; they are finished by the old process
	// DrainTimeout is how long sessions may stay in the old process.
	DrainTimeout time.Duration `json:"drain_timeout"`
	Program      string        `json:"program"` // see ProgramID; of the file that it runs
	Problem      string        `json:"problem"` // why there can be no upgrade now; empty: there can be
}

// Upgraded is what an upgrade has done.
type Upgraded struct {
	PID      int           `json:"pid"` // of the process before
	Version  string        `json:"version"`
	Moved    int           `json:"moved"`    // sessions that this process goes on with
	Stay     int           `json:"stay"`     // sessions that the process before still has
	Starting int           `json:"starting"` // connections in their startup that it still has
	Drain    time.Duration `json:"drain"`    // the longest that they may take
}

// The texts of frames.
type (
	// hello is the new process's.
	hello struct {
		Format  int    `json:"format"`
		Version string `json:"version"`
	}
	// welcome is the old process's. What systemd has set in its environment is not in that of the new one.
	welcome struct {
		Format       int    `json:"format"`
		Version      string `json:"version"`
		Sockets      int    `json:"sockets"` // frames that follow
		NotifySocket string `json:"notify_socket"`
		WatchdogUsec string `json:"watchdog_usec"`
	}
	// passedSocket says what the descriptor of a frame is.
	passedSocket struct {
		Role    string `json:"role"`
		Address string `json:"address"` // of a listener, or the path of the admin socket
	}
	// state is a part of what the old process knows.
	state struct {
		Server   proxy.ClientState `json:"server"`
		Places   []proxy.Place     `json:"places"`
		Locks    []lock.Lock       `json:"locks"` // where no file keeps them
		Backends []health.State    `json:"backends"`
	}
	// handed says what the old process still has when the new one begins to accept.
	handed struct {
		Sessions int           `json:"sessions"`
		Starting int           `json:"starting"`
		Drain    time.Duration `json:"drain"`
	}
	ended struct {
		IDs []string `json:"ids"`
	}
	accepted struct {
		Refused []string `json:"refused"` // sessions of the batch that stay
	}
	rest struct {
		Moved int `json:"moved"`
		Stay  int `json:"stay"`
	}
	failure struct {
		Reason string `json:"reason"`
	}
)

// The roles of passed sockets.
const (
	roleListener  = "listener"
	roleActivated = "activated" // a listener that the service manager has opened, and keeps open
	roleAdmin     = "admin address"
	roleSocket    = "admin socket"
	roleCommands  = "commands" // a connection to the old process, which answers as its admin socket did
	roleLog       = "log"
)

// upgrades is what a gate knows of the processes before and after it.
type upgrades struct {
	listeners []net.Listener              // in the order of listen
	before    atomic.Pointer[Predecessor] // nil: there is none, or it has ended

	under    atomic.Bool // an upgrade to another process is under way, or has been made
	given    atomic.Bool // the other process has the sockets
	finished chan *successor
	drainNow chan struct{} // closed by stopUpgraded
	program  string        // see ProgramID
}

// alive is the probe of the watchdog. While a new process takes over, nothing may be accepted here.
func (g *Gate) alive(ctx context.Context) error {
	if err := g.server.Alive(ctx); err != nil && !g.admin.upgrade.under.Load() {
		return err
	}
	return nil
}

// pauseServing holds up every accept loop. Connections wait in the queues of the sockets.
func (g *Gate) pauseServing() {
	g.ready.Store(false)
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
	g.server.ResumeAccepting()
	g.ready.Store(true)
}

var errUpgradeSystem = errors.New("only Linux has upgrades; restart the gate")

// finishUpgrade has this process finish what it still has, while the new one serves.
func (g *Gate) finishUpgrade(next *successor) chan error {
	g.admin.upgrade.given.Store(true)
	g.server.HandedOver()
	file := g.admin.file
	g.admin.file = nil // the socket is the new process's
	done := make(chan error, 1)
	go func() {
		err := next.finish(g.drainUpgraded)
		if errors.Is(err, errSuccessorGone) {
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
	if g.stopping.CompareAndSwap(false, true) {
		close(g.admin.upgrade.drainNow)
	}
}

// resumeAfterUpgrade has this process accept again, as its successor is gone.
func (g *Gate) resumeAfterUpgrade(err error) {
	g.Log.Error("the new process is gone; this process accepts connections again", "error", err)
	g.server.TakenBack()
	g.resumeServing()
	g.admin.upgrade.given.Store(false)
	g.admin.upgrade.under.Store(false)
}

// planUpgrade returns what an upgrade would do now.
func (g *Gate) planUpgrade() UpgradePlan {
	groups, _ := os.Getgroups()
	totals := g.Metrics.Totals()
	p := UpgradePlan{
		PID: os.Getpid(), Version: g.Build.Version, Format: formatVersion, UID: os.Geteuid(), GID: os.Getegid(), Groups: groups,
		Sessions: totals.Open, Movable: g.server.Movable(), Starting: totals.Starting, DrainTimeout: g.started.DrainTimeout, Program: g.admin.upgrade.program,
	}
	if err := g.mayUpgrade(); err != nil {
		p.Problem = err.Error()
	}
	return p
}

// mayUpgrade returns why there can be no upgrade now.
func (g *Gate) mayUpgrade() error {
	switch {
	case formatVersion == 0:
		return errUpgradeSystem
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
	case !g.ready.Load():
		return errors.New("the gate is not ready yet")
	}
	return nil
}

func (g *Gate) servePlan(w http.ResponseWriter, _ *http.Request) {
	status.WriteJSON(w, g.planUpgrade())
}
