package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pgwicket/config"
	"pgwicket/internal/filewatch"
	"pgwicket/internal/logwriter"
	"pgwicket/internal/phrase"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/status"
	"pgwicket/internal/systemd"
	"pgwicket/metrics"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

const serveHelp = `Run the gate until a signal ends it. The log goes to standard error, with one line
for each connection, as JSON unless standard error is a terminal (log.format).

The configuration and every file that it names are loaded again when one of them
changes (watch_files) and on SIGHUP. If anything is wrong, the error is logged and
the configuration is unchanged.

The gate needs no privileges. Started as root it becomes the account in user once it
listens. On Linux it then gives up access to all files outside of the directories
of its configuration (landlock).

Signals:
  SIGHUP           reload, whether or not a file has changed
  SIGTERM, SIGINT  report not ready, stop listening after limits.drain_delay,
                   terminate each session when it is outside of a transaction, and
                   the rest after limits.drain_timeout; a second one exits at once

Exit status: 0 stopped by a signal, 1 failed, or stopped by a second signal, 2 wrong
usage, 78 the configuration is wrong.`

// gate is a running serve command.
type gate struct {
	path     string
	prompt   passphrases
	log      *slog.Logger
	level    *slog.LevelVar
	metrics  *metrics.Set
	server   *proxy.Server
	started  *config.Config // what only a restart can change is from here
	inForce  *config.Config // what the last load that worked has made
	ready    atomic.Bool
	failures chan error // of listeners, which should run for ever
	admin    admin
	asked    chan chan *status.Reload // for a reload, by the socket
	shown    atomic.Pointer[shown]
	build    status.Build

	sockets  systemd.Sockets
	notifier *systemd.Notifier
	outcome  string // of the last load, for the manager
	stopping atomic.Bool

	sandbox *sandbox.Sandbox                   // nil: none
	watcher *filewatch.Watcher                 // nil: only SIGHUP reloads
	loaded  atomic.Pointer[filewatch.Snapshot] // of the last load, failed or not
	putOff  int                                // loads since then that counted for nothing
}

func serveCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "Run the gate", Long: serveHelp}
	path := configFlag(cmd)
	return runs(cmd, func() int { return serve(s, *path) })
}

func serve(s streams, path string) int {
	signals := make(chan os.Signal, 4)
	sockets, err := systemd.PassedSockets()
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket: %v\n", err)
		return exitConfig
	}
	signal.Notify(signals, syscall.SIGHUP) // one that comes too early is a reload, not the end
	defer signal.Stop(signals)
	prompt := askedFor(s)
	files := filewatch.Take(config.Files(path)) // before the load, so that a change during it is noticed
	cfg, problems := config.Load(path, nil, prompt.ask, time.Now())
	if cfg == nil {
		printProblems(s.err, problems)
		return exitConfig
	}
	account, mistakes := sandbox.AccountFor(cfg, path)
	problems = append(problems, mistakes...)
	if config.Failed(mistakes) {
		printProblems(s.err, problems)
		return exitConfig
	}
	if err := tlsconfig.FixTLS13(cfg.TLS.TLS13); err != nil {
		fmt.Fprintf(s.err, "pgwicket: %v\n", err)
		return exitFailed
	}
	if err := sockets.CheckUsed(cfg.Listen); err != nil {
		fmt.Fprintf(s.err, "pgwicket: %v\n", err)
		return exitConfig
	}
	settings := *cfg
	settings.Policy, settings.TLS = nil, nil // which a reload makes anew, and which may be large
	if settings.Admin.TLS != nil {
		settings.Admin.TLS = new(tlsconfig.Server) // that there is one is for the whole life of the gate
	}
	g := &gate{path: path, prompt: prompt, sockets: sockets, level: new(slog.LevelVar), started: &settings, failures: make(chan error, 1), asked: make(chan chan *status.Reload), build: buildNow(path)}
	g.level.Set(cfg.LogLevel)
	g.metrics = metrics.New(g.build.Version)
	var flush func()
	g.log, flush = newLogger(s, cfg.LogFormat, g.level, g.metrics.LogLineDropped)
	defer flush()
	g.notifier = systemd.NewNotifier(g.log)
	defer g.notifier.Close()
	if g.server, err = proxy.New(cfg.Policy, g.log, g.metrics); err != nil {
		fmt.Fprintf(s.err, "pgwicket: %v\n", err)
		return exitFailed
	}
	g.loaded.Store(&files)
	if len(cfg.Variables) > 0 {
		g.log.Info("keys are set by the environment", "variables", cfg.Variables)
	}
	g.logProblems(problems)
	g.nowInForce(cfg)
	g.note("start", true, []string{}, problems)

	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	listeners, err := g.listen(account)
	defer g.admin.close()
	if err != nil {
		g.log.Error("cannot start", "error", err)
		return exitFailed
	}
	if cfg.ReusePort && !reusePortMigrates() {
		g.log.Warn("reuse_port: the system resets clients that connect at the moment when one of two gates stops; the sysctl net.ipv4.tcp_migrate_req=1 prevents it")
	}
	if err := g.confine(account, cfg); err != nil {
		g.log.Error("cannot start", "error", err)
		return exitFailed
	}
	g.serve(listeners)
	g.ready.Store(true)
	g.watch(cfg.WatchFiles)
	defer g.watch(false)
	g.notifier.Ready(g.status())
	defer g.notifier.Watchdog(g.server.Alive)()
	g.log.Info("ready", "version", g.build.Version, "listen", cfg.Listen, "admin", cfg.Admin.Address, "socket", cfg.Admin.Socket, "backends", addresses(cfg.Policy), "config", g.source())
	return g.wait(signals)
}

// source is where the configuration is from, in words for the log.
func (g *gate) source() string { return cmp.Or(g.path, "environment") }

func addresses(p *proxy.Policy) (all []string) {
	for _, h := range p.Hosts() {
		all = append(all, h.Address)
	}
	return all
}

// newLogger returns a log that never waits, and what is to be called at the end
// so that all of it is written. dropped is called for each line that is not.
func newLogger(s streams, format string, level slog.Leveler, dropped func()) (log *slog.Logger, flush func()) {
	opts := &slog.HandlerOptions{Level: level}
	handler := func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opts) }
	file, isFile := s.err.(*os.File)
	if format == "text" || format == "auto" && isFile && term.IsTerminal(int(file.Fd())) {
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, opts) }
	}
	// The Go runtime ends a program whose write to standard error fails with EPIPE,
	// unless it has asked for SIGPIPE (os/signal, "SIGPIPE").
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	w := logwriter.New(s.err, dropped, func(w io.Writer, n int64) {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped", 0)
		r.AddAttrs(slog.Int64("lines", n), slog.String("reason", "the log was not read or could not be written"))
		_ = handler(w).Handle(context.Background(), r)
	})
	return slog.New(handler(w)), w.Close
}

// listen opens every address before it serves the first, so that a gate either
// has all of them or does not start.
func (g *gate) listen(account *sandbox.Account) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close()
			}
		}
	}()
	for _, address := range g.started.Listen {
		ln, err := g.open(address)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, g.openAdmin(account)
}

// serve begins to accept.
func (g *gate) serve(listeners []net.Listener) {
	g.serveAdmin()
	if g.started.ReusePort || len(g.sockets) > 0 {
		g.server.HandOver()
	}
	for _, ln := range listeners {
		go func() {
			if err := g.server.Serve(ln); !errors.Is(err, proxy.ErrServerClosed) {
				g.fail(err)
			}
		}()
	}
}

// open listens on an address, if that has not been done for us.
func (g *gate) open(address string) (net.Listener, error) {
	timeout := g.started.TCPUserTimeout
	if f, ok := g.sockets[address]; ok {
		return proxy.Inherit(f, timeout)
	}
	if g.started.ReusePort {
		return proxy.ListenShared(context.Background(), address, timeout)
	}
	return proxy.Listen(context.Background(), address, timeout)
}

func (g *gate) fail(err error) {
	select {
	case g.failures <- err:
	default: // one is enough to end the gate
	}
}

// watch begins to watch the files, or ends it.
func (g *gate) watch(on bool) {
	switch {
	case on && g.watcher == nil:
		g.watcher = filewatch.Start(filewatch.Options{Config: g.path, List: config.Files, Loaded: &g.loaded, Log: g.log})
	case !on && g.watcher != nil:
		g.watcher.Stop()
		g.watcher = nil
	}
}

// What a reload is for.
const (
	bySignal  = "signal"
	byFiles   = "files"
	byCommand = "command"
)

// wait serves the signals, the changes of files and what is asked by the socket
// until the gate has ended, and returns the exit status.
func (g *gate) wait(signals <-chan os.Signal) int {
	var drained chan error
	status := time.NewTicker(statusInterval)
	defer status.Stop()
	for {
		var changed <-chan filewatch.Snapshot
		if g.watcher != nil {
			changed = g.watcher.Changes()
		}
		select {
		case files := <-changed:
			if !files.Equal(*g.loaded.Load()) { // a SIGHUP may have been faster
				g.reload(byFiles, files)
			}
		case done := <-g.asked:
			if drained != nil {
				done <- nil
				continue
			}
			done <- g.reload(byCommand, filewatch.Take(config.Files(g.path)))
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP && drained != nil:
				g.log.Info("no reload while shutting down")
			case sig == syscall.SIGHUP:
				g.reload(bySignal, filewatch.Take(config.Files(g.path)))
			case drained != nil:
				g.log.Warn("second signal, leaving at once", "signal", sig.String(), "sessions", g.server.Sessions())
				return exitFailed
			default:
				drained = make(chan error, 1)
				g.beginShutdown()
				go g.drain(sig, drained)
				g.watch(false)
			}
		case <-status.C:
			g.notifier.Status(g.status())
		case err := <-drained:
			if err != nil {
				g.log.Warn("stopped; the sessions that were left have been ended")
				return exitOK
			}
			g.log.Info("stopped")
			return exitOK
		case err := <-g.failures:
			g.log.Error("the gate has failed", "error", err)
			return exitFailed
		}
	}
}

func (g *gate) drain(sig os.Signal, done chan<- error) {
	g.ready.Store(false)
	if g.started.ReusePort {
		g.admin.close() // who asks for health and metrics shall find the other one
	}
	g.log.Info("shutting down", "signal", sig.String(), "sessions", g.server.Sessions(), "drain_delay", g.started.DrainDelay.String(), "drain_timeout", g.started.DrainTimeout.String())
	time.Sleep(g.started.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), g.started.DrainTimeout)
	defer cancel()
	done <- g.server.Shutdown(ctx)
}

// reload loads everything again and puts it into force, or nothing of it. files
// is what was there before, and what the watcher compares with from now on. The
// result is nil if another attempt is to follow.
func (g *gate) reload(trigger string, files filewatch.Snapshot) *status.Reload {
	defer g.beginReload()()
	prompt := g.prompt.ask
	if trigger == byFiles {
		prompt = g.prompt.recall
	}
	cfg, problems := config.Load(g.path, g.inForce, prompt, time.Now())
	if problems = g.sandbox.Explain(problems, g.path, config.Names(g.path)); config.Failed(problems) {
		cfg = nil
	}
	const patient = 3 // times; somebody may write faster than this reads
	if trigger == byFiles && !files.Unsettled && g.putOff < patient && !filewatch.Take(files.Paths).Equal(files) {
		// It may have read half of something. The watcher has noticed, too.
		g.putOff++
		g.log.Debug("files have changed while they were read; once more when they are still")
		return nil
	}
	g.putOff = 0
	changed := phrase.Shorten(files.ChangedSince(*g.loaded.Load()))
	about := []any{"config", g.source(), "trigger", trigger, "files", changed}
	g.loaded.Store(&files)
	g.logProblems(problems)
	if cfg == nil {
		g.metrics.LoadFailed(blamesCRL(problems))
		g.outcome = "the last reload failed (" + now() + "), the configuration before it is in force"
		g.log.Error("reload failed, configuration unchanged", about...)
		return g.note(trigger, false, changed, problems)
	}
	g.warnOfRestart(cfg)
	g.level.Set(cfg.LogLevel)
	g.server.SetPolicy(cfg.Policy)
	g.nowInForce(cfg)
	g.watch(cfg.WatchFiles)
	g.log.Info("configuration reloaded", about...)
	return g.note(trigger, true, changed, problems)
}

// warnOfRestart names what has changed in the file but not in the process.
func (g *gate) warnOfRestart(cfg *config.Config) {
	var keys []string
	add := func(key string, changed bool) {
		if changed {
			keys = append(keys, key)
		}
	}
	old := g.started
	add("listen", !slices.Equal(old.Listen, cfg.Listen))
	add("tls.ciphers (the TLS 1.3 suites)", tlsconfig.FixTLS13(cfg.TLS.TLS13) != nil)
	add("limits.tcp_user_timeout", old.TCPUserTimeout != cfg.TCPUserTimeout)
	add("limits.drain_delay", old.DrainDelay != cfg.DrainDelay)
	add("limits.drain_timeout", old.DrainTimeout != cfg.DrainTimeout)
	add("admin.address", old.Admin.Address != cfg.Admin.Address)
	add("admin.tls (that there is one)", (old.Admin.TLS == nil) != (cfg.Admin.TLS == nil))
	add("admin.socket", old.Admin.Socket != cfg.Admin.Socket)
	add("log.format", old.LogFormat != cfg.LogFormat)
	add("reuse_port", old.ReusePort != cfg.ReusePort)
	add("user", old.User != cfg.User)
	add("landlock", old.Landlock != cfg.Landlock)
	if len(keys) > 0 {
		g.log.Warn("changed settings that need a restart; until then the old ones hold", "keys", keys)
	}
}

// blamesCRL says whether a load has failed over revocation lists.
func blamesCRL(problems []config.Problem) bool {
	return slices.ContainsFunc(problems, func(p config.Problem) bool {
		return !p.Warning && strings.HasPrefix(p.Key, "tls.crl_")
	})
}

func now() string { return time.Now().UTC().Format(time.DateTime) + " UTC" }

// loaded tells the metrics what is in force.
func (g *gate) nowInForce(cfg *config.Config) {
	g.inForce = cfg
	g.outcome = "configuration loaded " + now()
	var certs []metrics.Certificate
	for _, c := range cfg.TLS.Certificates {
		certs = append(certs, metrics.Certificate{File: c.File, NotBefore: c.NotBefore, NotAfter: c.NotAfter, StapledUntil: c.StapledUntil})
	}
	var crls []metrics.CRL
	for _, c := range cfg.TLS.CRLs {
		if c.Kept { // the series are of what is in the files
			continue
		}
		crls = append(crls, metrics.CRL{
			File: c.File, Issuer: c.Issuer, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, Number: c.Number, Entries: c.Entries,
		})
	}
	g.metrics.Loaded(time.Now(), certs, crls)
}

func (g *gate) logProblems(problems []config.Problem) {
	for _, p := range problems {
		level := slog.LevelError
		if p.Warning {
			level = slog.LevelWarn
		}
		about := []any{"file", p.File, "line", p.Line, "key", p.Key}
		if p.Line == 0 {
			about = []any{"variable", p.File, "key", p.Key}
		}
		g.log.Log(context.Background(), level, "configuration: "+p.Text, about...)
	}
}

// passphrases are those of keys, from whoever is at the terminal. Both are nil
// if there is none.
type passphrases struct {
	// ask asks once for each: a reload uses what was typed at the start.
	ask func(text string) ([]byte, error)
	// recall is for a reload that nobody has asked for. A question would hold
	// up the gate until somebody comes by.
	recall func(text string) ([]byte, error)
}

func askedFor(s streams) passphrases {
	fd := int(s.in.Fd())
	if !term.IsTerminal(fd) {
		return passphrases{}
	}
	typed := make(map[string][]byte)
	return passphrases{
		ask: func(text string) ([]byte, error) {
			if p, ok := typed[text]; ok {
				return bytes.Clone(p), nil // the one who gets it clears it
			}
			fmt.Fprint(s.err, text)
			p, err := term.ReadPassword(fd)
			fmt.Fprintln(s.err)
			if err == nil {
				typed[text] = bytes.Clone(p)
			}
			return p, err
		},
		recall: func(text string) ([]byte, error) {
			if p, ok := typed[text]; ok {
				return bytes.Clone(p), nil
			}
			return nil, errors.New("it has not been typed yet; send SIGHUP and it is asked for")
		},
	}
}

// passphrasePrompt is for those who load once.
func passphrasePrompt(s streams) func(string) ([]byte, error) { return askedFor(s).ask }

// statusInterval is how often the status line of the service manager is updated.
const statusInterval = 10 * time.Second

// status is the line that the service manager shows.
func (g *gate) status() string {
	connections := phrase.Count(g.server.Sessions(), "connection")
	if g.stopping.Load() {
		return "shutting down, " + connections + " left"
	}
	return connections + "; " + g.outcome
}

// beginReload tells the service manager of a reload, until the returned function is
// called.
func (g *gate) beginReload() (end func()) {
	g.notifier.Reloading()
	return func() { g.notifier.Ready(g.status()) }
}

// beginShutdown tells the service manager of the shutdown and how long it may take.
func (g *gate) beginShutdown() {
	g.stopping.Store(true)
	const margin = 10 * time.Second // for what follows the drain
	g.notifier.Stopping(g.status(), g.started.DrainDelay+g.started.DrainTimeout+margin)
}

// confine gives up what the gate does not need any more: root, if root has started it,
// then everything outside of its sandbox. Every listener must be open, and no
// connection accepted yet.
func (g *gate) confine(a *sandbox.Account, cfg *config.Config) (err error) {
	names, hosts := config.Names(g.path), cfg.Policy.Hosts()
	if a != nil {
		if err := a.Become(); err != nil {
			return err
		}
		g.log.Info("no longer root", "user", a.Name, "uid", a.UID, "gid", a.GID, "groups", a.Groups)
		a.WarnUnreadable(g.log, names, hosts)
	}
	if !cfg.Landlock {
		g.log.Info("no sandbox: landlock is false")
		return nil
	}
	o := sandbox.Options{Names: names, Hosts: hosts, Listen: cfg.Listen, Commands: cfg.RunsCommands}
	if !cfg.ReusePort { // else the socket may be another gate's at any moment
		o.Remove = cfg.Admin.Socket
	}
	g.sandbox, err = sandbox.Enter(g.log, o)
	return err
}

// reusePortMigrates reports whether connections that a closing listener has not yet
// accepted move to another one on the same address. It is true where that cannot be
// read, in a sandbox or on another system.
func reusePortMigrates() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}
