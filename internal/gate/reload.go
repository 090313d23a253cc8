package gate

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pgwicket/config"
	"pgwicket/internal/filewatch"
	"pgwicket/internal/phrase"
	"pgwicket/internal/status"
	"pgwicket/metrics"
	"pgwicket/tlsconfig"
)

// The triggers of a reload.
const (
	bySignal  = "signal"
	byFiles   = "files"
	byCommand = "command"
)

// watch starts or stops watching the files.
func (g *Gate) watch(on bool) {
	switch {
	case on && g.watcher == nil:
		g.watcher = filewatch.Start(filewatch.Options{Config: g.Path, List: g.files, Loaded: &g.loaded, Log: g.Log})
	case !on && g.watcher != nil:
		g.watcher.Stop()
		g.watcher = nil
	}
}

// files returns the paths of a configuration, and those of the one in force after a reload that has
// failed or was put off.
func (g *Gate) files(path string) []string {
	all := config.Files(path)
	if kept := g.kept.Load(); kept != nil {
		for _, one := range *kept {
			if !slices.Contains(all, one) {
				all = append(all, one)
			}
		}
	}
	return all
}

// reload loads everything again and puts all of it into force, or nothing. files is
// the snapshot from before the load, with which the watcher compares from now on. The
// result is nil if another attempt follows.
func (g *Gate) reload(trigger string, files filewatch.Snapshot) *status.Reload {
	defer g.beginReload()()
	prompt := g.Prompts.Ask
	if trigger == byFiles {
		prompt = g.Prompts.Recall
	}
	load := config.Load
	if trigger == byFiles {
		load = config.LoadChanged
	}
	cfg, problems := load(g.Path, g.inForce, prompt, time.Now())
	if problems = g.sandbox.Explain(problems, g.Path, config.Names(g.Path)); config.Failed(problems) {
		cfg = nil
	}
	const maxPostponed = 3 // a file may be written faster than this reads
	if trigger == byFiles && !files.Unsettled && g.postponed < maxPostponed && !filewatch.Take(files.Paths).Equal(files) {
		// A file may have been read in part. The watcher has noticed the change, too.
		g.postponed++
		g.Log.Debug("files have changed while they were read; trying again when they have settled")
		return nil
	}
	g.postponed = 0
	before := *g.loaded.Load()
	changed := phrase.Shorten(files.ChangedSince(before))
	about := []any{"config", g.source(), "trigger", trigger, "files", changed}
	g.loaded.Store(&files)
	g.logProblems(problems)
	if cfg == nil {
		g.reloadFiles(trigger, before)
		g.Metrics.LoadFailed(blamesCRL(problems))
		g.outcome = "the last reload failed (" + timestamp() + "), the configuration before it is in force"
		result := g.record(status.Reload{Trigger: trigger, Files: changed}, problems) // who has read the log finds it in the status
		g.Log.Error("reload failed, configuration unchanged", about...)
		return result
	}
	if gone := cfg.Settings.Gone(g.inForce.Settings); trigger == byFiles && len(gone) > 0 {
		gone = phrase.Shorten(gone)
		g.reloadFiles(trigger, before)
		g.Metrics.LoadFailed(false)
		g.outcome = "a reload was put off (" + timestamp() + "), as it would allow more; pgwicket reload loads it"
		result := g.record(status.Reload{Trigger: trigger, Files: changed, PutOff: gone}, problems)
		g.Log.Warn("reload put off, configuration unchanged: it would allow more, because something is gone; if that is intended, run pgwicket reload or send SIGHUP",
			append(about, "gone", gone)...)
		return result
	}
	changes := phrase.Shorten(cfg.Settings.Differences(g.inForce.Settings))
	g.warnOfRestart(cfg)
	g.Level.Set(cfg.LogLevel)
	g.setPolicy(cfg)
	g.setInForce(cfg)
	g.watch(cfg.WatchFiles)
	g.audit("reloaded", slog.String("trigger", trigger), slog.Any("changes", append([]string{}, changes...)), slog.String("digest", cfg.Settings.Digest()))
	result := g.record(status.Reload{Trigger: trigger, Successful: true, Files: changed, Changes: changes}, problems)
	g.Log.Info("configuration reloaded", append(about, "changes", changes)...)
	return result
}

// reloadFiles loads the files of the configuration in force again, if others than the configuration
// itself have changed since a snapshot: one that cannot be loaded, or is put off, must not keep a
// revocation from coming into force. If a file cannot be used, nothing is changed, as ever; without a
// watcher, the next reload tries it again.
func (g *Gate) reloadFiles(trigger string, before filewatch.Snapshot) {
	named, watched := config.Files(g.Path), g.files(g.Path)
	kept := slices.DeleteFunc(g.inForce.Files(), func(one string) bool { return slices.Contains(named, one) })
	g.kept.Store(&kept)
	now := filewatch.Take(g.files(g.Path))
	g.loaded.Store(&now)
	if g.watcher != nil && !slices.Equal(watched, now.Paths) {
		g.watch(false)
		g.watch(true)
	}
	changed := slices.DeleteFunc(now.ChangedSince(before), func(one string) bool { return one == g.Path })
	if len(changed) == 0 {
		return
	}
	cfg, problems := config.LoadFiles(g.inForce, g.Prompts.Recall, time.Now())
	if cfg == nil {
		mistake := slices.IndexFunc(problems, func(p config.Problem) bool { return !p.Warning }) // they are in the order of their lines
		g.Log.Warn("files not reloaded", "reason", problems[max(mistake, 0)].String(), "files", phrase.Shorten(changed))
		if g.watcher == nil {
			g.loaded.Store(&before)
		}
		return
	}
	if g.watcher != nil && !filewatch.Take(now.Paths).Equal(now) {
		return // the watcher has noticed the change, too
	}
	g.logProblems(problems)
	g.setPolicy(cfg)
	g.setInForce(cfg)
	g.Log.Info("files reloaded, configuration unchanged", "trigger", trigger, "files", phrase.Shorten(changed))
}

// beginReload tells the service manager of a reload, until the returned function is
// called.
func (g *Gate) beginReload() (end func()) {
	g.notifier.Reloading()
	return func() { g.notifier.Ready(g.status()) }
}

// warnOfRestart logs the changed settings that need a restart.
func (g *Gate) warnOfRestart(cfg *config.Config) {
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
	add("admin.tls (whether it is there)", (old.Admin.TLS == nil) != (cfg.Admin.TLS == nil))
	add("admin.socket", old.Admin.Socket != cfg.Admin.Socket)
	add("log.format", old.LogFormat != cfg.LogFormat)
	add("reuse_port", old.ReusePort != cfg.ReusePort)
	add("user", old.User != cfg.User)
	add("state_dir", old.StateDir != cfg.StateDir)
	add("audit.file", old.AuditFile != cfg.AuditFile)
	add("landlock", old.Landlock != cfg.Landlock)
	if len(keys) > 0 {
		g.Log.Warn("changed settings need a restart; until then the old ones apply", "keys", keys)
	}
}

// blamesCRL reports whether a load has failed because of a revocation list.
func blamesCRL(problems []config.Problem) bool {
	return slices.ContainsFunc(problems, func(p config.Problem) bool {
		return !p.Warning && strings.HasPrefix(p.Key, "tls.crl_")
	})
}

// timestamp is the time of a load in the status line.
func timestamp() string { return time.Now().UTC().Format(time.DateTime) + " UTC" }

// setInForce records the configuration that is in force, for reloads and metrics.
func (g *Gate) setInForce(cfg *config.Config) {
	g.inForce = cfg
	g.outcome = "configuration loaded " + timestamp()
	var certs []metrics.Certificate
	for _, c := range cfg.TLS.Certificates {
		certs = append(certs, metrics.Certificate{File: c.File, NotBefore: c.NotBefore, NotAfter: c.NotAfter, StapledUntil: c.StapledUntil})
	}
	var crls []metrics.CRL
	for _, c := range cfg.TLS.CRLs {
		if c.Kept { // the series are about the files
			continue
		}
		crls = append(crls, metrics.CRL{
			File: c.File, Issuer: c.Issuer, ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, Number: c.Number, Entries: c.Entries,
			Unusable: c.Problem != "",
		})
	}
	g.Metrics.Loaded(time.Now(), certs, crls)
}

func (g *Gate) logProblems(problems []config.Problem) {
	for _, p := range problems {
		level := slog.LevelError
		if p.Warning {
			level = slog.LevelWarn
		}
		about := []any{"file", p.File, "line", p.Line, "key", p.Key}
		if p.Line == 0 {
			about = []any{"variable", p.File, "key", p.Key}
		}
		g.Log.Log(context.Background(), level, "configuration: "+p.Text, about...) //nolint:sloglint // the text says what is wrong
	}
}
