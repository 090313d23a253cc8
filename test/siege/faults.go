//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pgwicket/test/gate"
)

// scenario is one fault. run does it to a gate that it opens, and returns what
// it has done, with numbers, for the report.
type scenario struct {
	name  string
	title string
	run   func(ctx context.Context, t *trial) (done string, err error)
}

// scenarios are all faults, in the order in which they are run.
func scenarios() []scenario {
	return []scenario{
		{"client-killed", "A client is killed", clientKilled},
		{"backend-killed", "A backend process is killed", backendKilled},
		{"postmaster-killed", "PostgreSQL is killed and started again", postmasterKilled},
		{"gate-killed", "The gate is killed and started again", gateKilled},
		{"socket-gone", "The backend's socket goes and returns", socketGone},
		{"log-stuck", "Nobody reads the log", logStuck},
		{"log-full", "The log's disk is full", logFull},
		{"log-gone", "The log's reader is dead", logGone},
		{"audit-full", "The audit trail's disk is full", auditFull},
		{"audit-read-only", "The audit trail's disk is read-only", auditReadOnly},
		{"audit-slow", "The audit trail cannot be written fast enough", auditSlow},
		{"descriptors", "No descriptor is left", descriptors},
		{"reader-stops", "A client stops reading", readerStops},
		{"slow-client", "A client sends a byte a second", slowClient},
		{"reset", "A reset after each step of the dialogue", resets},
		{"no-close-notify", "A client leaves without close_notify", noCloseNotify},
		{"half-close", "A client closes its sending side", halfClose},
		{"gate-stopped", "The gate is stopped for a while", gateStopped},
		{"network-cut", "The network is cut", networkCut},
		{"list-server", "The server of the revocation lists is hostile", listServerHostile},
		{"silent-clients", "Clients that send nothing", silentClients},
		{"handshake-flood", "A flood of handshakes", handshakeFlood},
		{"junk-certificates", "Certificates that nobody asked for, then silence", junkCertificates},
		{"junk-behind", "A good certificate with others behind it", junkBehindCertificate},
		{"half-open", "Ten sources of half-open connections", halfOpenClients},
		{"deaf-handshake", "Clients that do not read their handshake", deafClients},
		{"parallel-guesses", "Sixty guesses of a password at once", parallelGuesses},
		{"stale-password", "A stale password beside the right one", stalePassword},
		{"cancel-at-limit", "CancelRequests when every place is taken", cancelAtLimit},
		{"strange-cancels", "CancelRequests with keys that nobody has", strangeCancels},
		{"revoked-clients", "A certificate is revoked in the middle of statements", revokedClientsStop},
		{"hostile-cpu", "What hostile connections cost in processor time", hostileCPU},
		{"hostile-hour", "All that is hostile at once", hostileHour},
	}
}

// errSkipped is wrapped by the reason why a scenario cannot be run here.
var errSkipped = errors.New("skipped")

// trial is one run of a scenario.
type trial struct {
	*lab
	quick  bool
	length time.Duration // of hostile-hour; 0: its own
	scenes []*scene
	after  []func() // what is to be undone when the scenes have been looked at
}

// pick returns the first of two for the bounded form, else the second.
func pick[T any](t *trial, quick, full T) T {
	if t.quick {
		return quick
	}
	return full
}

// scene is a gate with observers, and what it held before anything happened.
type scene struct {
	*target
	observers *observers
	before    level
}

// observerCount is how many observers a scene has.
const observerCount = 4

// open starts a gate with observers. When the scenario has returned, all of it
// is checked: see (*scene).checkEnd.
func (t *trial) open(ctx context.Context, s setting) (*scene, error) {
	g, err := t.start(ctx, s)
	if err != nil {
		return nil, err
	}
	sc := &scene{target: g}
	t.scenes = append(t.scenes, sc)
	// What a gate makes once, with its first session and reload, is no leak.
	c, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	closeSession(c)
	return sc, sc.populate(ctx)
}

// populate opens the observers, in place of those that a fault was allowed to end,
// and notes what the gate holds with them.
func (s *scene) populate(ctx context.Context) (err error) {
	if s.observers != nil {
		s.observers.end()
	}
	none := 0
	err = gate.Eventually(ctx, "no session is left", gate.Timeout, func() error {
		if none, err = s.lab.backends(); err == nil && none > 0 {
			err = fmt.Errorf("%d are", none)
		}
		return err
	})
	if err != nil {
		return err
	}
	if s.observers, err = s.observe(ctx, observerCount); err != nil {
		return err
	}
	if err := s.observers.awaitAnswers(ctx, observerCount); err != nil {
		return err
	}
	return gate.Eventually(ctx, "only the observers are connected", gate.Timeout, func() error {
		m, err := s.Metrics()
		if err != nil {
			return err
		}
		if open, starting := m["pgwicket_sessions_open"], m["pgwicket_connections_starting"]; open != observerCount || starting != 0 {
			return fmt.Errorf("%v sessions and %v connections in their startup", open, starting)
		}
		s.before, err = s.level()
		return err
	})
}

// checkEnd is what must hold after every fault: the observers are served and noticed
// nothing, the gate holds no goroutine, descriptor or backend session more than
// before, its counters add up, it ends in order, and its log has no data race and
// no panic.
func (s *scene) checkEnd(ctx context.Context) error {
	if s.observers == nil {
		return s.Check()
	}
	defer s.observers.end()
	var errs []error
	if s.HasExited() {
		return s.Check()
	}
	if err := s.observers.awaitAnswers(ctx, 2*observerCount); err != nil {
		errs = append(errs, fmt.Errorf("an observer: %w", err))
	} else if err := s.settles(ctx, s.before, gate.Timeout); err != nil {
		errs = append(errs, err)
	}
	s.observers.end()
	return errors.Join(append(errs, s.Stop(), s.Check())...)
}

// finish checks and ends a scene before its scenario has ended.
func (t *trial) finish(ctx context.Context, s *scene) error {
	t.scenes = slices.DeleteFunc(t.scenes, func(other *scene) bool { return other == s })
	return s.checkEnd(ctx)
}

// result is a row of the table.
type result struct {
	title   string
	done    string
	verdict string
}

const faultsHelp = `Run every fault once, or those that --only names, and print a table.

After each fault, sessions that had no part in it have gone on with every answer
right; the gate holds no goroutine, descriptor or session of
PostgreSQL more than before; its counters add up; and its log has no data race
and no panic. The exit status is 1 if anything of this does not hold.

`

// faults is the subcommand.
func faults(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, faultsHelp)
		f.PrintDefaults()
	}
	only := f.String("only", "", "these only, with commas (a name or the beginning of names)")
	quick := f.Bool("quick", false, "smaller and shorter, about five minutes, for CI")
	list := f.Bool("list", false, "list the names and leave")
	length := f.Duration("for", 0, "how long hostile-hour lasts (default 5m, with --quick 30s)")
	before := f.String("before", "", "an older pgwicket: put its figures beside those of the hostile clients")
	into := f.String("into", "", "write the table into this Markdown file; with --only, those rows of it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("faults: unexpected %q", f.Arg(0))
	}
	chosen, err := choose(*only)
	switch {
	case err != nil:
		return err
	case *list:
		for _, s := range chosen {
			fmt.Fprintf(stdout, "%-18s %s\n", s.name, s.title)
		}
		return nil
	}
	results, err := runAll(ctx, chosen, options{*quick, *length, *before}, stderr)
	fmt.Fprint(stdout, "\n", faultsTable(results))
	if *into != "" && ctx.Err() == nil {
		err = errors.Join(err, renewFaults(*into, results))
	}
	return err
}

func choose(only string) ([]scenario, error) {
	if only == "" {
		return scenarios(), nil
	}
	var chosen []scenario
	for prefix := range strings.SplitSeq(only, ",") {
		n := len(chosen)
		for _, s := range scenarios() {
			if strings.HasPrefix(s.name, prefix) {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("faults: --only: there is no %q; --list lists them", prefix)
		}
	}
	return chosen, nil
}

// options are how scenarios are run.
type options struct {
	quick  bool          // smaller and shorter
	length time.Duration // of hostile-hour; 0: its own
	older  string        // another pgwicket to compare with; empty: none
}

// runAll runs scenarios, one after another, and fails if one of them did.
func runAll(ctx context.Context, chosen []scenario, o options, progress io.Writer) (results []result, err error) {
	l, err := newLab(ctx, progress)
	if err != nil {
		return nil, err
	}
	defer l.remove()
	l.older = o.older
	var failed []string
	for _, s := range chosen {
		began := time.Now()
		t := &trial{lab: l, quick: o.quick, length: o.length}
		done, err := t.runOne(ctx, s)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		r := result{s.title, done, "passed"}
		switch {
		case errors.Is(err, errSkipped):
			r.verdict = err.Error()
		case err != nil:
			failed = append(failed, s.name)
			r.verdict = "**failed**: " + err.Error()
		}
		results = append(results, r)
		l.logf("%-18s %5.1f s  %s  %s", s.name, time.Since(began).Seconds(), r.verdict, done)
	}
	if len(failed) > 0 {
		return results, fmt.Errorf("failed: %s; \"make faults ARGS='--only NAME'\" repeats one", strings.Join(failed, ", "))
	}
	return results, nil
}

// runOne runs one scenario and checks what it has left.
func (t *trial) runOne(ctx context.Context, s scenario) (done string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	defer func() {
		for _, undo := range slices.Backward(t.after) {
			undo()
		}
	}()
	done, err = s.run(ctx, t)
	for _, sc := range slices.Backward(t.scenes) {
		if err != nil { // what is left proves nothing
			if sc.observers != nil {
				sc.observers.end()
			}
			err = errors.Join(err, sc.Check())
			sc.Kill()
			continue
		}
		err = sc.checkEnd(ctx)
	}
	return done, err
}
