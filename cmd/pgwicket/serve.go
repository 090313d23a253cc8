package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/cmd/pgwicket/prompt"
	"pgwicket/config"
	"pgwicket/internal/filewatch"
	"pgwicket/internal/gate"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/status"
	"pgwicket/internal/systemd"
	"pgwicket/internal/upgrade"
	"pgwicket/metrics"
	"pgwicket/tlsconfig"
)

const serveHelp = `Run the gate until a signal ends it. The log goes to standard error, with two lines
for each session and one for each other connection. It is JSON, unless standard error is
a terminal (log.format).

The configuration and every file that it names are loaded again when one of them
changes (watch_files) and on SIGHUP. If anything is wrong, the error is logged and
the configuration is unchanged.

The gate needs no privileges. Started as root it becomes the account in user once it
listens. On Linux it then gives up access to all files outside of the directories
of its configuration (landlock).

Signals:
  SIGHUP           reload, whether or not a file has changed
  SIGTERM, SIGINT  report not ready, and after limits.drain_delay drain: refuse new
                   sessions with 57P03, terminate each session when it is outside of
                   a transaction, and the rest after limits.drain_timeout; a second
                   signal exits at once

Exit status: 0 stopped by a signal, 1 failed, or stopped by a second signal, 2 wrong
usage, 78 the configuration is wrong.`

func serveCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "Run the gate", Long: serveHelp}
	path := cli.ConfigFlag(cmd)
	return cli.Runs(cmd, func() int {
		if fd, err := strconv.Atoi(os.Getenv(reportVariable)); err == nil && fd > 2 {
			return serveUpgrade(s, *path, fd)
		}
		return serve(s, *path, nil)
	})
}

// serveUpgrade is serve for the new process of an upgrade, which reports to the command that has started it.
func serveUpgrade(s cli.Streams, path string, fd int) int {
	_ = os.Unsetenv(reportVariable)
	pipe := os.NewFile(uintptr(fd), "report")
	closeOnExec(fd)
	report := func(r upgradeReport) {
		_ = json.NewEncoder(pipe).Encode(r)
		_ = pipe.Close()
	}
	return serve(s, path, report)
}

// serve runs a gate. report is for one that takes over from the running gate; nil: it does not.
func serve(s cli.Streams, path string, report func(upgradeReport)) int {
	reloads, stops := make(chan os.Signal, 1), make(chan os.Signal, 2) // see gate.Signals
	running := false
	sockets, err := systemd.PassedSockets()
	if err != nil {
		fmt.Fprintf(s.Err, "pgwicket: %v\n", err)
		return cli.BadConfig
	}
	if problems := gate.CheckGODEBUG(os.Getenv("GODEBUG")); len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintf(s.Err, "pgwicket: %v\n", p)
		}
		return cli.BadConfig
	}
	if err := sandbox.HideMemory(); err != nil { // before a key is read
		fmt.Fprintf(s.Err, "pgwicket: %v\n", err)
		return cli.Failed
	}
	signal.Notify(reloads, syscall.SIGHUP) // before the load: an early one must not end the process
	defer signal.Stop(reloads)
	o := gate.Options{
		Path: path, Prompts: promptsOf(s, raiseUnless(&running)), Sockets: sockets, Level: new(slog.LevelVar), Build: thisBuild(path),
		Files: filewatch.Take(config.Files(path)),
	}
	var status int
	if o.Config, o.Account, o.Problems, status = loadConfig(s, o); o.Config == nil {
		return status
	}
	if report != nil {
		if err := meet(&o); err != nil {
			report(upgradeReport{Error: err.Error()})
			return cli.Failed
		}
		o.Upgraded = func(u upgrade.Result) { report(upgradeReport{Done: &u}) }
	}
	o.Level.Set(o.Config.LogLevel)
	o.Metrics = metrics.New(o.Build.Version)
	var flush func()
	o.Log, o.Refusals, flush = newLogger(s, o.Config.LogFormat, o.Level, o.Metrics.LogLineDropped)
	defer flush()
	g, err := gate.New(o)
	if err != nil {
		fmt.Fprintf(s.Err, "pgwicket: %v\n", err)
		return cli.Failed
	}
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stops)
	running = true
	if err := g.Run(gate.Signals{Reload: reloads, Stop: stops}); err != nil {
		if report != nil {
			report(upgradeReport{Error: err.Error()}) // nobody reads it if the gate has served
		}
		return cli.Failed // the log has the reason
	}
	return cli.OK
}

// raiseUnless is prompt.Raise for a gate that handles signals itself once it is running.
func raiseUnless(running *bool) func(os.Signal) {
	return func(sig os.Signal) {
		if !*running || sig == syscall.SIGQUIT {
			prompt.Raise(sig)
		}
	}
}

// meet asks the gate that runs for an upgrade to this process.
func meet(o *gate.Options) (err error) {
	if o.Predecessor, err = upgrade.Meet(o.Config.Admin.Socket, o.Config.StateDir, o.Build.Version); err != nil {
		return err
	}
	if os.Getenv("JOURNAL_STREAM") != "" { // in a unit of systemd the journal knows this process by its own connection
		return nil
	}
	return o.Predecessor.AdoptLog()
}

// loadConfig loads the configuration of a gate. If that fails, it prints why and
// returns no configuration, and the status.
func loadConfig(s cli.Streams, o gate.Options) (*config.Config, *sandbox.Account, []config.Problem, int) {
	cfg, problems := config.Load(o.Path, nil, o.Prompts.Ask, time.Now())
	if cfg == nil {
		printProblems(s.Err, problems)
		return nil, nil, nil, cli.BadConfig
	}
	account, more := sandbox.AccountFor(cfg, o.Path)
	problems = append(problems, more...)
	if config.Failed(more) {
		printProblems(s.Err, problems)
		return nil, nil, nil, cli.BadConfig
	}
	if err := tlsconfig.FixTLS13(cfg.TLS.TLS13); err != nil {
		fmt.Fprintf(s.Err, "pgwicket: %v\n", err)
		return nil, nil, nil, cli.Failed
	}
	if err := o.Sockets.CheckUsed(cfg.Listen); err != nil {
		fmt.Fprintf(s.Err, "pgwicket: %v\n", err)
		return nil, nil, nil, cli.BadConfig
	}
	return cfg, account, problems, cli.OK
}

// thisBuild describes this process for the status page.
func thisBuild(path string) status.Build {
	v, goVersion, platform := buildVersion()
	host, _ := os.Hostname()
	return status.Build{Version: v, Go: goVersion, Platform: platform, Host: host, Config: path, Started: time.Now()}
}
