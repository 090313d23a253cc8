// Package gate runs a gate: it opens the listeners and the admin address, gives up
// privileges, serves, reloads the configuration when its files change, and drains.
// Its caller parses flags, loads the first configuration and maps the errors to exit
// statuses.
//
// It may import every package of pgwicket except internal/doctor and
// internal/nftables; only cmd/pgwicket imports it.
package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/config"
	"pgwicket/internal/audit"
	"pgwicket/internal/filewatch"
	"pgwicket/internal/phrase"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/status"
	"pgwicket/internal/systemd"
	"pgwicket/internal/upgrade"
	"pgwicket/metrics"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// Options are what a gate is started with.
type Options struct {
	// Path is the configuration file; empty: the environment has all of it.
	Path string
	// Config was loaded from Path, with Problems that are all warnings.
	Config   *config.Config
	Problems []config.Problem
	// Files is their snapshot from before the load, so that a change during the load
	// is noticed.
	Files   filewatch.Snapshot
	Prompts Prompts
	// Account is the one to become; nil: stay.
	Account *sandbox.Account
	// Sockets are the listeners that the service manager has opened.
	Sockets systemd.Sockets
	// Predecessor is the process that this one takes over from; nil: none. Upgraded is called when that is
	// done.
	Predecessor *upgrade.Predecessor
	Upgraded    func(upgrade.Result)
	Build       status.Build
	Log         *slog.Logger
	// Refusals gets the lines about refused connections. They never displace one of Log.
	Refusals *slog.Logger
	Level    *slog.LevelVar
	Metrics  *metrics.Set
	// Now is the clock by which clients are judged; nil: time.Now.
	Now func() time.Time
}

// Prompts ask a person at the terminal for the passphrase of a key. Both are nil if
// there is none.
type Prompts struct {
	// Ask asks once for each text: a reload uses what was typed before.
	Ask func(text string) ([]byte, error)
	// Recall is for a reload by a changed file, which must not block on a
	// question: it fails for what was not typed before.
	Recall func(text string) ([]byte, error)
}

// Gate is a gate. Make one with New; Run runs it once.
type Gate struct {
	Options
	server    *proxy.Server
	started   *config.Config // has the settings that only a restart changes
	inForce   *config.Config // is from the last successful load
	accepts   atomic.Bool    // it has begun to, and no upgrade holds it up; see ready
	stopping  atomic.Bool
	failures  chan error // of listeners, which never end by themselves
	admin     admin
	requests  chan reloadRequest // by the admin socket
	published atomic.Pointer[published]
	locks     locks
	groups    groups
	trail     atomic.Pointer[audit.Writer] // nil: none

	notifier *systemd.Notifier
	outcome  string // of the last load, for the service manager

	sandbox   *sandbox.Sandbox                   // nil: none
	watcher   *filewatch.Watcher                 // nil: only requests and signals reload
	loaded    atomic.Pointer[filewatch.Snapshot] // of the last load, successful or not
	kept      atomic.Pointer[[]string]           // the files of inForce that the configuration in the file does not name; nil: none
	postponed int                                // loads since then that were discarded
}

// New returns a gate with the policy of o.Config.
func New(o Options) (*Gate, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	started := *o.Config
	started.Policy, started.TLS, started.Settings = nil, nil, nil // a reload replaces them, and they may be large
	if started.Admin.TLS != nil {
		started.Admin.TLS = new(tlsconfig.Server) // only its presence is fixed
	}
	g := &Gate{Options: o, started: &started, failures: make(chan error, 1), requests: make(chan reloadRequest)}
	g.admin.upgrade.begin()
	var audit func(string, []slog.Attr)
	if started.AuditFile != "" {
		audit = g.recordDecision
	}
	var err error
	if g.server, err = proxy.New(proxy.Options{
		Policy: o.Config.Policy, Log: o.Log, Refusals: o.Refusals, Metrics: o.Metrics, Now: o.Now,
		Audit: audit, AuditFailing: g.auditFailing,
	}); err != nil {
		return nil, err
	}
	g.loaded.Store(&o.Files)
	if len(o.Config.Variables) > 0 {
		g.Log.Info("keys are set by the environment", "variables", o.Config.Variables)
	}
	g.logProblems(o.Problems)
	g.setInForce(o.Config)
	g.record(status.Reload{Trigger: "start", Successful: true}, o.Problems)
	g.Config, g.Problems = nil, nil // a reload replaces them, and the policy may be large
	return g, nil
}

// Signals are what Run gets from the system. One that waits must not displace one of the other kind, so each kind has a
// channel, with room for one that reloads and two that stop.
type Signals struct {
	Reload <-chan os.Signal
	Stop   <-chan os.Signal
}

// Run listens, serves, and returns when a signal has ended the gate: Reload reloads,
// Stop drains, and a second one of these ends it at once. It logs why it
// returns an error, which is ErrCannotStart, ErrFailed or ErrKilled.
func (g *Gate) Run(signals Signals) error {
	g.notifier = systemd.NewNotifier(g.Log)
	defer g.notifier.Close()
	defer g.admin.close()
	if err := g.start(signals); err != nil {
		g.Log.Error("cannot start", "error", err)
		return fmt.Errorf("%w: %w", ErrCannotStart, err)
	}
	defer g.watch(false)
	defer g.stopGroups()
	defer gatherGarbage()()
	defer returnMemory(g.server.Sessions)()
	g.notifier.Ready(g.status())
	defer g.notifier.Watchdog(g.alive)()
	cfg := g.inForce
	g.Log.Info("ready", "version", g.Build.Version, "listen", cfg.Listen, "admin", cfg.Admin.Address, "socket", cfg.Admin.Socket,
		"backends", Addresses(cfg.Policy), "config", g.source())
	var e ending
	err := g.wait(signals, &e)
	g.leaveUpgrade(&e)
	why := "signal"
	if err != nil {
		why = err.Error()
	}
	g.closeAudit(why)
	return err
}

// The errors of Run.
var (
	ErrCannotStart = errors.New("the gate cannot start")
	ErrFailed      = errors.New("the gate has failed")
	ErrKilled      = errors.New("a second signal has ended the gate")
)

// start opens everything, gives up privileges, and accepts the first connections.
func (g *Gate) start(signals Signals) (err error) {
	if g.Predecessor != nil {
		defer func() {
			if err != nil {
				g.Predecessor.Fail(err)
			}
		}()
	}
	if g.admin.upgrade.listeners, err = g.listen(g.Account); err != nil {
		return err
	}
	if g.started.ReusePort && !reusePortMigrates() {
		g.Log.Warn("reuse_port: the system resets clients that connect at the moment when one of two gates stops; the sysctl net.ipv4.tcp_migrate_req=1 prevents it")
	}
	if err := g.confine(g.Account, g.inForce); err != nil {
		return err
	}
	if err := g.openLocks(); err != nil {
		return err
	}
	if err := g.openAudit(); err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	if g.Predecessor != nil {
		if err := g.takeOver(signals); err != nil {
			return err
		}
	} else {
		g.auditStart("started")
		g.serve(g.admin.upgrade.listeners)
		g.accepts.Store(true)
	}
	g.watch(g.inForce.WatchFiles)
	return nil
}

// wait handles signals, changed files and requests until the gate has ended.
func (g *Gate) wait(signals Signals, e *ending) error {
	status := time.NewTicker(statusInterval)
	defer status.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		var changed <-chan filewatch.Snapshot
		if g.watcher != nil {
			changed = g.watcher.Changes()
		}
		select {
		case files := <-changed:
			if !files.Equal(*g.loaded.Load()) { // a SIGHUP may have loaded them
				g.reload(byFiles, files)
			}
		case r := <-g.requests:
			r.answer <- g.reloadByCommand(r.forwarded)
		case <-signals.Reload:
			g.reloadBySignal()
		case <-g.admin.upgrade.told.reload:
			g.reloadBySignal()
		case sig := <-signals.Stop:
			if err := g.stop(sig, e); err != nil {
				return err
			}
		case sig := <-g.admin.upgrade.told.stop:
			g.stopAsTold(sig, e)
		case <-second.C:
			g.followLocks()
			g.followGroups()
		case <-status.C:
			g.notifier.Status(g.status())
		case next := <-g.admin.upgrade.finished:
			g.onUpgrade(next, e)
		case err := <-e.drained:
			if errors.Is(err, upgrade.ErrSuccessorGone) {
				e.drained = nil
				g.resumeAfterUpgrade(err)
				if g.stopping.Load() { // it was told to stop just now
					e.asked = syscall.SIGTERM
					g.shutDown(e)
				}
				continue
			}
			g.logStopped(err)
			return nil
		case err := <-g.failures:
			g.Log.Error("the gate has failed", "error", err)
			return ErrFailed
		}
	}
}

// statusInterval is how often the status line of the service manager is updated.
const statusInterval = 10 * time.Second

// ready reports whether clients should come here.
func (g *Gate) ready() bool { return g.accepts.Load() && !g.stopping.Load() }

// status is the line that the service manager shows.
func (g *Gate) status() string {
	connections := phrase.Count(g.server.Sessions(), "connection")
	if g.stopping.Load() {
		return "shutting down, " + connections + " left"
	}
	return connections + "; " + g.outcome
}
