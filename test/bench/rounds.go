package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// results is all that a report is made of, and what --json writes.
type results struct {
	Machine  machine   `json:"machine"`
	Series   []series  `json:"series,omitempty"`
	Figures  []figure  `json:"figures,omitempty"`
	Settings []figure  `json:"settings,omitempty"` // of the runtime, a figure for each scenario
	Profiles []profile `json:"profiles,omitempty"`
}

// series are the rounds of one scenario: in each, a sample of each contender.
type series struct {
	Scenario string              `json:"scenario"`
	Title    string              `json:"title"`
	Unit     string              `json:"unit"`
	Beside   string              `json:"beside,omitempty"`
	Main     string              `json:"main"`
	About    string              `json:"about"`
	Rounds   []map[string]sample `json:"rounds"`
	Out      map[string]string   `json:"out,omitempty"`    // who has no part, and why
	Failed   map[string]string   `json:"failed,omitempty"` // who broke down, and how
}

// measure runs the chosen scenarios with the chosen contenders.
func measure(ctx context.Context, o options, progress io.Writer) (*results, error) {
	chosen, err := choose(o.contenders, o.other)
	if err != nil {
		return nil, err
	}
	if o.most, err = raiseFiles(slices.Max(o.idle)); err != nil {
		return nil, err
	}
	loads, err := chooseScenarios(o)
	if err != nil {
		return nil, err
	}
	l, err := newLab(ctx, o, chosen, progress)
	if err != nil {
		return nil, err
	}
	defer l.remove()
	r := &results{Machine: describe(l, chosen)}
	for _, s := range loads {
		one, err := l.series(ctx, o, s, chosen)
		if err != nil {
			return nil, err
		}
		r.Series = append(r.Series, one)
		if err := r.save(o.json); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *results) save(file string) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}

// series runs one scenario.
func (l *lab) series(ctx context.Context, o options, sc scenario, chosen []contender) (series, error) {
	out := sc.series()
	out.Out = map[string]string{}
	var field []candidate
	for _, c := range chosen {
		why := sc.excludes(c)
		switch {
		case !strings.HasPrefix(sc.ID, c.only): // of no interest here
		case why != "":
			out.Out[c.id] = why
		default:
			field = append(field, candidate{c, sc})
		}
	}
	rounds := o.rounds
	if sc.fake > 0 {
		rounds = min(rounds, 3) // memory does not waver as time does
	}
	err := l.compete(ctx, &out, field, rounds, o.burst)
	return out, err
}

// series is the scenario with nothing measured yet.
func (sc scenario) series() series {
	return series{Scenario: sc.ID, Title: sc.Title, Unit: sc.Unit, Beside: sc.Beside, Main: sc.Main, About: sc.About}
}

// candidate is a contender in a scenario: what is measured in each round, under
// the contender's name.
type candidate struct {
	contender
	scenario scenario
}

// compete measures all candidates once in each round. A candidate that breaks down
// is left out of the rest; only the end of ctx ends the run.
func (l *lab) compete(ctx context.Context, out *series, field []candidate, rounds int, d time.Duration) error {
	out.Failed = map[string]string{}
	a := &runner{lab: l, gates: map[string]*endpoint{}}
	defer a.close()
	for r := range rounds {
		round := map[string]sample{}
		for i := range field {
			e := candidateAt(field, r, i)
			if out.Failed[e.id] != "" {
				continue
			}
			s, err := a.burst(ctx, e, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				out.Failed[e.id] = err.Error()
				logf(l.progress, "%s %d/%d %s: %v", out.Scenario, r+1, rounds, e.id, err)
				continue
			}
			round[e.id] = s
			logf(l.progress, "%s %d/%d %s: %s", out.Scenario, r+1, rounds, e.id, s.line(e.scenario.Unit))
		}
		out.Rounds = append(out.Rounds, round)
	}
	return nil
}

// candidateAt returns the i-th in round r: each begins once, and every second round
// goes backwards, so that none always follows the same other.
func candidateAt[T any](field []T, r, i int) T {
	n := len(field)
	if r%2 == 1 {
		i = n - 1 - i
	}
	return field[(r/2+i)%n]
}

// line is a sample as one line of progress.
func (s sample) line(unit string) string {
	memory := fmt.Sprintf("%.1f KiB for each session", s.PerSession/1024)
	if s.PerSession > 0 && s.P99 == 0 {
		return memory
	}
	text := fmt.Sprintf("%s/s, CPU %s for each %s", short(s.Units/s.Seconds), span(s.GateCPU/s.Units), unit)
	if s.P99 > 0 {
		text += fmt.Sprintf(", p50 %s, p99 %s", span(s.P50), span(s.P99))
	}
	if s.PerSession > 0 {
		text += ", idle " + memory
	}
	if s.StartUp > 0 {
		text += ", up after " + span(s.StartUp)
	}
	return text
}

// runner holds the gates of one field while it lasts.
type runner struct {
	lab   *lab
	gates map[string]*endpoint
}

// burst measures a candidate once. Its gate is started when it is first needed, and
// then stays for all rounds, unless each has to begin anew.
func (a *runner) burst(ctx context.Context, e candidate, d time.Duration) (s sample, err error) {
	sc := e.scenario
	if sc.fake > 0 {
		return a.fresh(ctx, e, d)
	}
	g := a.gates[e.id]
	if g == nil {
		if g, err = a.lab.start(ctx, e.contender, place{cert: sc.cert, sessions: sc.most(), fair: sc.fair}); err != nil {
			return s, err
		}
		a.gates[e.id] = g
	}
	if s, err = sc.burst(ctx, a.lab, g, d); err != nil {
		return s, g.failure(err)
	}
	return s, nil
}

func (a *runner) fresh(ctx context.Context, e candidate, d time.Duration) (sample, error) {
	f, err := fakeBackend()
	if err != nil {
		return sample{}, err
	}
	defer f.Stop()
	g, err := a.lab.start(ctx, e.contender, place{socketDir: f.SocketDir, cert: e.scenario.cert, sessions: e.scenario.most()})
	if err != nil {
		return sample{}, err
	}
	defer g.stop()
	s, err := e.scenario.burst(ctx, a.lab, g, d)
	if err != nil {
		return s, g.failure(err)
	}
	return s, nil
}

func (a *runner) close() {
	for _, g := range a.gates {
		g.stop()
	}
}
