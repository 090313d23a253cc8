package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pgwicket/config"
)

const doctorHelp = `Examine a deployment as a whole: the configuration, its certificates and lists,
what the listeners really accept, and the PostgreSQL behind the gate, with what
in it would let somebody go round. Each line is a check, PASS, WARN, FAIL or
SKIP (it could not look, and says what would let it), with the reason, the
setting or file, and the fix. Nothing is changed.

Run it where the gate and PostgreSQL run, as root or as the gate's account. It
connects to PostgreSQL over the socket of backend.host as libpq would (PGUSER,
PGPASSWORD, .pgpass; as root in the name of the socket's owner, whom peer lets
in), as a superuser if it is to see everything. Without that it reads
postgresql.conf and what belongs to it:

  pgwicket doctor --config pgwicket.yaml --pg-conf /etc/postgresql/15/main

Exit status: 0 no warning and no failure, 1 warnings, 2 wrong usage,
3 failures, 78 the configuration is wrong. A SKIP changes nothing.
`

// exitUnwell is doctor's for a failure: 1 is taken by warnings and 2 by usage.
const exitUnwell = 3

// verdict is what came of a check.
type verdict string

const (
	pass verdict = "pass"
	skip verdict = "skip"
	warn verdict = "warn"
	fail verdict = "fail"
)

// byWeight are all of them, the worst last.
func byWeight() []verdict { return []verdict{pass, skip, warn, fail} }

// finding is one line of the checklist. docs/troubleshooting.md has its form in JSON.
type finding struct {
	Group   string  `json:"group"`             // gate, tls, listener or postgresql
	Subject string  `json:"subject,omitempty"` // which listener or PostgreSQL
	Check   string  `json:"check"`
	Status  verdict `json:"status"`
	Reason  string  `json:"reason"`
	Where   string  `json:"where,omitempty"` // a key of the configuration, a parameter or a file
	Fix     string  `json:"fix,omitempty"`

	key string // of the configuration, whose warnings this makes superfluous
}

func well(format string, args ...any) finding {
	return finding{Status: pass, Reason: fmt.Sprintf(format, args...)}
}

// found returns what is not as it should be; the fix may be empty where the reason
// has it.
func found(s verdict, where, reason, fix string) finding {
	return finding{Status: s, Where: where, Reason: reason, Fix: fix, key: where}
}

// inspection is one question to the facts of a group. It may find several things, and
// where it finds none it says what is well.
type inspection[F any] struct {
	name string
	look func(F) []finding
}

// examine asks all of a group's questions.
func examine[F any](group, subject string, facts F, checks []inspection[F]) (all []finding) {
	for _, c := range checks {
		for _, f := range c.look(facts) {
			f.Group, f.Subject, f.Check = group, subject, c.name
			all = append(all, f)
		}
	}
	return all
}

// allPassed returns the findings, or that everything is well if there are none.
func allPassed(found []finding, format string, args ...any) []finding {
	if len(found) == 0 {
		found = []finding{well(format, args...)}
	}
	return found
}

func doctor(args []string, s streams) int {
	f := flags("doctor")
	path := configFlag(f)
	asJSON := f.Bool("json", false, "print JSON, as docs/troubleshooting.md explains it")
	var ask patient
	f.StringVar(&ask.user, "user", "", "the role to connect as (default: PGUSER, else the account)")
	f.StringVar(&ask.database, "dbname", "postgres", "the database to connect to (default postgres)")
	f.StringVar(&ask.files, "pg-conf", "", "do not connect, read the postgresql.conf of this directory")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	now := time.Now()
	cfg, problems := config.Load(*path, nil, passphrasePrompt(s), now)
	if cfg != nil {
		_, mistakes := accountOf(cfg, *path)
		problems = append(problems, mistakes...)
	}
	if config.Failed(problems) {
		printProblems(s.err, problems)
		return exitConfig
	}
	ctx := context.Background()
	gate := gateFactsOf(ctx, cfg)
	all := examine("gate", "", gate, gateChecks())
	all = append(all, examine("tls", "", tlsFactsOf(cfg, now), tlsChecks())...)
	for _, l := range listenerFactsOf(ctx, cfg) {
		all = append(all, examine("listener", l.address, l, listenerChecks())...)
	}
	for _, p := range ask.serversOf(ctx, gate) {
		all = append(all, examine("postgresql", p.name, p, p.checks())...)
	}
	all = withWarnings(all, problems)
	if *asJSON {
		return printJSON(s.out, *path, now, all)
	}
	return printChecklist(s.out, all)
}

// withWarnings puts what check warns of before the rest, unless a finding speaks of
// the same.
func withWarnings(all []finding, problems []config.Problem) []finding {
	var more []finding
	for _, p := range problems {
		if !slices.ContainsFunc(all, func(f finding) bool { return f.Status != pass && f.key != "" && within(p.Key, f.key) }) {
			more = append(more, finding{Group: "gate", Check: "check", Status: warn, Where: p.Key, Reason: p.Text})
		}
	}
	return append(more, all...)
}

// within says whether a key is the other one or below it.
func within(key, other string) bool {
	rest, ok := strings.CutPrefix(key, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func count(all []finding, s verdict) (n int) {
	for _, f := range all {
		if f.Status == s {
			n++
		}
	}
	return n
}

// severity is the exit status.
func severity(all []finding) int {
	switch {
	case count(all, fail) > 0:
		return exitUnwell
	case count(all, warn) > 0:
		return exitFailed
	}
	return exitOK
}

func printChecklist(w io.Writer, all []finding) int {
	last := ""
	for _, f := range all {
		if group := strings.TrimSpace(f.Group + " " + f.Subject); group != last {
			fmt.Fprintf(w, "%s\n", group)
			last = group
		}
		fmt.Fprintf(w, "  %-4s  %-20s %s\n", strings.ToUpper(string(f.Status)), f.Check, f.Reason)
		if f.Where != "" {
			fmt.Fprintf(w, "%28s where  %s\n", "", f.Where)
		}
		if f.Fix != "" {
			fmt.Fprintf(w, "%28s fix    %s\n", "", f.Fix)
		}
	}
	fmt.Fprintf(w, "\n%d passed, %s, %s, %d skipped\n", count(all, pass),
		plural(count(all, warn), "warning"), plural(count(all, fail), "failure"), count(all, skip))
	return severity(all)
}

func printJSON(w io.Writer, path string, now time.Time, all []finding) int {
	worst := pass
	counts := map[verdict]int{}
	for _, s := range byWeight() {
		counts[s] = count(all, s)
		if counts[s] > 0 {
			worst = s
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Config   string          `json:"config"`
		Time     time.Time       `json:"time"`
		Worst    verdict         `json:"worst"`
		Counts   map[verdict]int `json:"counts"`
		Findings []finding       `json:"findings"`
	}{path, now.UTC().Truncate(time.Second), worst, counts, all})
	if err != nil {
		return exitFailed
	}
	return severity(all)
}
