//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// mostMemory is what a gate may use: the race detector takes five to ten times the
// memory of the gate itself, and keeps it.
const mostMemory = 1 << 30

// watch inspects the gate now and then, and reports progress.
func (s *soak) watch() {
	for n := 1; ; n++ {
		select {
		case <-s.over:
			return
		case <-time.After(time.Second):
		}
		if b, err := s.newest().Resident(); err == nil {
			s.mu.Lock()
			s.peakMemory = max(s.peakMemory, b)
			s.mu.Unlock()
		}
		if n%10 != 0 {
			continue
		}
		s.logf("%d sessions, %d connects, %d queries checked, %s compared, %d faults survived, %d bad inputs, %d losses",
			s.open.now.Load(), s.connects.Load(), s.queries.total(), bytesText(s.compared.Load()), s.faults.total(), s.bad.total(), s.losses.count())
		if n%30 == 0 {
			s.inspect()
		}
	}
}

// inspect checks the gate's log and counters. The counters may be read while a
// connection changes its state, so it tries again.
func (s *soak) inspect() {
	if err := s.newest().Check(); err != nil {
		s.recordLoss("the gate", "its log", err.Error())
	}
	err := gate.Eventually(context.Background(), "the counters add up", gate.Timeout, func() error {
		g := s.newest()
		m, err := g.Metrics()
		if n := m.Unaccounted(); err == nil && n != 0 {
			err = fmt.Errorf("%v connections are counted in and nowhere else", n)
		}
		return err
	})
	if err != nil {
		s.recordLoss("the gate", "its metrics", err.Error())
	}
}

// audit checks what is left when all clients have gone.
func (s *soak) audit() {
	check := func(what string, err error) {
		if err != nil {
			s.recordLoss("the audit", what, err.Error())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*gate.Timeout)
	defer cancel()
	check("what the gate holds without clients", s.newest().settles(ctx, s.baseline, gate.Timeout))
	check("the sessions that the gate counts", s.allGone())
	check("the ledger", s.auditLedger(ctx))
	check("pgbench's ledger", s.auditPgbench())
	check("the end of the gate", s.newest().Stop())
	var records []gate.Record
	for _, g := range s.gates {
		records = append(records, g.Records()...)
		check("the log of a gate", errors.Join(g.Check(), s.auditLog(g.RawLog())))
		check("the sessions and clients that a gate has ended or refused by a lock, a command or the end of a rule", s.auditRestrictions(g.Records()))
	}
	check("the audit trail", s.auditTrail(ctx))
	check("the sessions of gates that were upgraded", s.auditSessions())
	check("what the gates' logs say of the sessions that were ended", s.auditExcuses(records))
	if s.peakMemory > mostMemory {
		check("memory", fmt.Errorf("a gate has taken %s", bytesText(s.peakMemory)))
	}
}

// auditTrail has the program verify the trail that all gates have written, over all its files.
func (s *soak) auditTrail(ctx context.Context) error {
	files, err := filepath.Glob(s.auditFile() + "*")
	if err != nil {
		return err
	}
	out, err := harness.Output(ctx, s.lab.dir, nil, append([]string{s.lab.plain, "audit", "verify"}, files...)...)
	if err == nil && (!strings.Contains(out, ", 1 to ") || strings.Contains(out, "another trail begins")) {
		err = errors.New("it is not one trail from its first line on: " + out)
	}
	s.trail, _, _ = strings.Cut(out, " ")
	s.trail += fmt.Sprintf(" in %d files", len(files))
	if err != nil {
		return err
	}
	return s.auditUpgrades(files)
}

// auditUpgrades fails if the trail has fewer upgrades than have succeeded. It may have more: a process may have been
// killed that had just taken over.
func (s *soak) auditUpgrades(files []string) error {
	lines := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(name, ".gz") {
			text, err = unpack(text)
		}
		if err != nil {
			return err
		}
		lines += bytes.Count(text, []byte(`"event":"upgraded"`))
	}
	if lines < s.upgrades {
		return fmt.Errorf("the audit trail has %d upgrades, and %d have succeeded", lines, s.upgrades)
	}
	return nil
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// auditSessions fails unless each session has begun and ended once by the log that all processes of a gate have
// written. Those of a process that was killed have no end.
func (s *soak) auditSessions() error {
	var wrong []string
	for _, g := range s.gates {
		began, ended := make(map[any]int), make(map[any]int)
		whole := true
		for _, r := range g.Records() {
			switch id := r["session"]; {
			case r.Is(gate.MessageBegan):
				began[id]++
			case r.Is(gate.MessageEnded):
				ended[id]++
			case r.Is(gate.MessageDropped):
				whole = false
			}
		}
		killed := s.lab.wasKilled(g)
		for id, n := range began {
			if m := ended[id]; n != 1 || m > 1 || m == 0 && whole && !killed {
				wrong = append(wrong, fmt.Sprintf("session %v of %s has %d beginnings and %d ends", id, g.Dir, n, m))
			}
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d sessions: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	return nil
}

// allGone fails unless a gate without clients counts none.
func (s *soak) allGone() error {
	return gate.Eventually(context.Background(), "no session is open", gate.Timeout, func() error {
		m, err := s.newest().Metrics()
		if n := m["pgwicket_sessions_open"] + m["pgwicket_connections_starting"]; err == nil && n != 0 {
			err = fmt.Errorf("%v are open, and there are no clients", n)
		}
		return err
	})
}

func (s *soak) auditLedger(ctx context.Context) error {
	rows, err := s.control.Query(ctx, "select client, number, md5(body) from ledger")
	if err != nil {
		return err
	}
	defer rows.Close()
	var table []written
	for rows.Next() {
		var w written
		if err := rows.Scan(&w.entry.client, &w.entry.number, &w.md5); err != nil {
			return err
		}
		table = append(table, w)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if wrong := s.ledger.audit(table); len(wrong) > 0 {
		return fmt.Errorf("%d rows: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	return nil
}

// auditPgbench sees that no transaction is lost or done twice, and that each was
// done whole.
func (s *soak) auditPgbench() error {
	sums, err := s.ask(`select concat_ws(' ', (select count(*) from pgbench_history), (select coalesce(sum(delta), 0) from pgbench_history),
		(select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches))`)
	if err != nil {
		return err
	}
	return s.pgbench.audit(sums)
}

// audit takes the number of transactions in the history, and four sums that must be one.
func (t *transactions) audit(sums string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n, history, accounts, tellers, branches int
	if _, err := fmt.Sscan(sums, &n, &history, &accounts, &tellers, &branches); err != nil {
		return fmt.Errorf("%w: %q", err, sums)
	}
	if n < t.answered || n > t.most {
		return fmt.Errorf("there are %d transactions; %d were answered, and %d at most asked for", n, t.answered, t.most)
	}
	if history != accounts || history != tellers || history != branches {
		return fmt.Errorf("the sums of the history, accounts, tellers and branches differ: %s", sums)
	}
	return nil
}

// auditLog fails if the log has an outcome that the manual does not describe.
func (s *soak) auditLog(raw []byte) error {
	for line := range bytes.Lines(raw) {
		var r gate.Record
		if err := json.Unmarshal(line, &r); err != nil {
			continue // sound has it
		}
		if o, ok := r["outcome"].(string); ok && !s.outcomes[o] {
			return fmt.Errorf("the manual does not name this outcome: %s", bytes.TrimSpace(line))
		}
	}
	return nil
}

// outcomesOf are the outcomes that the gate may log for what a client takes to be the
// end of its session by an action.
var outcomesOf = map[action][]string{
	revocation: {"certificate_revoked"},
	// A session that was opened while a command ran may have been ended by it or by a later restart.
	overlapping:  {"drained", "drain_timeout", "terminated"},
	interrupting: {"drained", "drain_timeout", "terminated"},
	upgrading:    {"drained", "drain_timeout", "terminated"},
	// The client gets PostgreSQL's message, and may be the first to close. A gate that is
	// draining may have sent the same message before.
	terminating: {"backend_closed", "backend_lost", "client_closed", "client_lost", "drained", "drain_timeout", "terminated", "locked", "no_rule"},

	locking:        {"locked"},
	lockRunningOut: {"locked"},
	commanding:     {"terminated"},
	ruleEnding:     {"no_rule"},
}

// mayLog returns the outcomes that explain an end. One without words, or with those of a drain, may have more than one
// cause: its client may notice late. The caller holds mu.
func (d *disturbances) mayLog(e excusal) []string {
	may := slices.Clone(outcomesOf[e.action])
	if e.words == "" {
		may = append(may, "locked", "no_rule", "terminated", "certificate_revoked")
	}
	drained := d.met(overlapping, e.began, e.noticed) || d.met(interrupting, e.began, e.noticed) || d.met(upgrading, e.began, e.noticed)
	if drained && (e.words == "" || e.words == gate.FatalTerminated) {
		may = append(may, "drained", "drain_timeout")
	}
	return may
}

// lingers is how long the gate may keep a session that is over, and so its line in the log, until its client
// has read the end and closed.
const lingers = 6 * time.Second

// auditExcuses fails unless the records of the gates have the same reason for each end of a
// session that was excused.
func (d *disturbances) auditExcuses(records []gate.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	logged := make(map[string]bool)
	for _, r := range records {
		if r.Is(gate.MessageEnded) {
			logged[fmt.Sprint(r["client"], " ", r["outcome"])] = true
		}
	}
	var wrong []string
	for _, e := range d.seen {
		found := d.killed(e.began, e.began, e.noticed.Add(lingers)) != "" // it could log nothing
		for _, outcome := range d.mayLog(e) {
			found = found || logged[e.client+" "+outcome]
		}
		if !found {
			wrong = append(wrong, fmt.Sprintf("%s was ended by a %s, of which no log has a line", e.client, e.action))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d sessions: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	return nil
}

// report prints the losses and the summary, and renews the page if there is one.
// It is an error if there is any loss, or if the run was cut short.
func (s *soak) report(stdout io.Writer, into string) error {
	summary := s.summary()
	fmt.Fprint(stdout, summary)
	s.losses.write(stdout)
	switch n := s.losses.count(); {
	case n > 0:
		return fmt.Errorf("%d losses; to see them again: bin/siege soak --time %v --seed %d", n, s.length.Round(time.Second), s.seed)
	case s.interrupted:
		return errors.New("interrupted")
	case into != "":
		return renew(into, "soak", summary)
	}
	return nil
}

// keepLogs copies the logs of the gates to a directory if there are losses.
func (s *soak) keepLogs(dir string) error {
	if dir == "" || s.losses.count() == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i, g := range s.gates {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("gate%d.log", i)), g.RawLog(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// summary is the report, in Markdown.
func (s *soak) summary() string {
	var b strings.Builder
	detector := "without the race detector"
	if s.lab.racing {
		detector = "with the race detector"
	}
	fmt.Fprintf(&b, "%v with seed %d, a gate %s, %d processors, %s.\n\n", s.length.Round(time.Second), s.seed, detector, runtime.NumCPU(),
		time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "| load held | |\n|---|---|\n")
	for _, row := range [][2]any{
		{"sessions open at the peak", s.open.peak.Load()},
		{"connects", s.connects.Load()},
		{"answers checked", s.queries.total()},
		{"bytes sent to be stored or echoed", bytesText(s.sent.Load())},
		{"bytes of answers compared", bytesText(s.compared.Load())},
		{"rows of the ledger acknowledged, and there", s.ledger.count(acknowledged)},
		{"rows whose commit was cut off, there or not", s.ledger.count(inDoubt)},
		{"rows never committed, and not there", s.ledger.count(neverAsked)},
		{"until the last session of a revoked certificate was over, at most", s.slowest.Round(time.Millisecond)},
		{"until the last session of a lock or of a rule that was over had ended, at most", s.slowestLock.Round(time.Millisecond)},
		{"upgrades that sessions went on through", s.upgrades},
		{"lines of the audit trail, verified", s.trail},
		{"memory of a gate at the peak", bytesText(s.peakMemory)},
		{"**losses**", fmt.Sprintf("**%d**", s.losses.count())},
	} {
		fmt.Fprintf(&b, "| %v | %v |\n", row[0], row[1])
	}
	fmt.Fprintf(&b, "\n| answers checked | %d |\n|---|---|\n%s", s.queries.total(), s.queries.rows())
	fmt.Fprintf(&b, "\n| faults survived | %d |\n|---|---|\n%s", s.faults.total(), s.faults.rows())
	fmt.Fprintf(&b, "\n| sessions that they ended, as they should | %d |\n|---|---|\n%s", s.sessionsEnded.total(), s.sessionsEnded.rows())
	fmt.Fprintf(&b, "\n| bad inputs tried | %d |\n|---|---|\n%s", s.bad.total(), s.bad.rows())
	return b.String()
}

func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
