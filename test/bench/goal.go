package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// goal is a promise: pgwicket's ratio to a peer is at most, or for what is better
// when higher at least, this.
type goal struct {
	scenario, metric string
	peers            []string // the best of them, which is the hardest to beat
	limit            float64
}

// goals returns what pgwicket promises.
func goals() []goal {
	c := []string{"pgbouncer", "stunnel"}
	all := []goal{
		{"select-1", "cpu", c, 0.95},
		{"select-8", "cpu", c, 0.85},
		{"select-32", "cpu", c, 0.85},
		{"select-128", "cpu", c, 0.85},
		{"select-8", "throughput", c, 1.10},
		{"select-32", "throughput", c, 1.10},
		{"connect", "cpu", c, 0.95},
		{"connect-cert", "cpu", c, 0.45},
		{"copy-out", "cpu", c, 1.00},
		{"copy-in", "cpu", c, 0.70},
		{"rate-500", "p50", c, 1.00},
		{"rate-500", "p99", c, 1.00},
		{"idle-10000", "memory", c[:1], 0.75},
		{"mixed", "p99", c[:1], 1.20},
		{"select-8", "cpu", []string{"floor"}, 1.70},
		{"select-32", "cpu", []string{"floor"}, 1.70},
	}
	for _, s := range []string{
		"select-1", "select-8", "select-32", "select-128", "answer-8", "answer-32", "rate-500", "connect", "connect-cert",
		"copy-out", "copy-in", "idle-1000", "idle-10000", "mixed", "storm",
	} {
		all = append(all, goal{s, plainMetric(s), []string{"plain"}, plainLimit(s)})
	}
	return all
}

func plainMetric(scenario string) string {
	switch {
	case strings.HasPrefix(scenario, "idle"):
		return "memory"
	case scenario == "mixed", scenario == "storm":
		return "p99"
	}
	return "cpu"
}

func plainLimit(scenario string) float64 {
	if strings.HasPrefix(scenario, "connect") {
		return 1.00
	}
	return 0.80
}

// verdict is a goal that was measured.
type verdict struct {
	goal
	series series
	metric metric
	peer   string
	ratio  quartiles
	spread float64
}

// judge returns nothing for a goal of which pgwicket or every peer is missing.
func (r *results) judge(b goal) (v verdict, ok bool) {
	i := slices.IndexFunc(r.Series, func(s series) bool { return s.Scenario == b.scenario })
	if i < 0 {
		return v, false
	}
	v = verdict{goal: b, series: r.Series[i], metric: metricOf(r.Series[i].Unit, b.metric)}
	v.spread = v.series.spread(v.metric)
	measured := slices.DeleteFunc(slices.Clone(b.peers), func(p string) bool { return v.series.ratio("pgwicket", p, v.metric).N == 0 })
	if len(measured) == 0 {
		return v, false
	}
	v.peer = most(measured, func(p string) float64 {
		m := v.series.ratio("pgwicket", p, v.metric).Median
		if v.metric.higher {
			return -m
		}
		return m
	})
	v.ratio = v.series.ratio("pgwicket", v.peer, v.metric)
	return v, true
}

// over is by how much the goal is missed, as a part of it; negative if it is met.
func (v verdict) over() float64 {
	d := v.ratio.Median/v.limit - 1
	if v.metric.higher {
		return -d
	}
	return d
}

func (v verdict) text() string {
	text := "met"
	if v.over() > 0 {
		text = fmt.Sprintf("**missed** by %.0f %%", math.Ceil(v.over()*100))
	}
	if math.Abs(v.over()) <= v.spread {
		text += ", within the control's spread"
	}
	return text
}

func (v verdict) limitText() string {
	if v.metric.higher {
		return fmt.Sprintf("≥ %.2f", v.limit)
	}
	return fmt.Sprintf("≤ %.2f", v.limit)
}

// judgeQuick fails when pgwicket costs more CPU per transaction than PgBouncer,
// by more than pgwicket differs from itself.
func (r *results) judgeQuick(w io.Writer) error {
	var failed []string
	for _, s := range r.Series {
		m := metricOf(s.Unit, "cpu")
		q, spread := s.ratio("pgwicket", "pgbouncer", m), s.spread(m)
		if q.N == 0 {
			failed = append(failed, s.Scenario+" (not measured)")
			continue
		}
		verdict := "no more than PgBouncer's"
		switch {
		case q.Median > 1+spread:
			verdict = "more than PgBouncer's, and more than noise explains"
			failed = append(failed, s.Scenario)
		case q.Median > 1:
			verdict = "more than PgBouncer's, but within what pgwicket differs from itself in this run"
		}
		logf(w, "%s: pgwicket's CPU per %s is %s of PgBouncer's, and its control differs from it by up to %.0f %%: %s.",
			s.Scenario, s.Unit, q.ratioText(), spread*100, verdict)
	}
	if len(failed) > 0 {
		return fmt.Errorf("pgwicket was not shown to cost no more CPU than PgBouncer: %s", strings.Join(failed, ", "))
	}
	return nil
}

// unmeasured is an error when pgwicket itself broke down somewhere, or when a
// scenario of quick has nothing to compare.
func (r *results) unmeasured() error {
	for _, s := range r.Series {
		for _, id := range []string{"pgwicket", controlID} {
			if why := s.Failed[id]; why != "" {
				return fmt.Errorf("%s broke down in %s: %s", id, s.Scenario, why)
			}
		}
	}
	for _, f := range slices.Concat(r.Figures, r.Settings) {
		for id, why := range f.Failed {
			return fmt.Errorf("pgwicket broke down at %s of %s: %s", id, f.Scenario, why)
		}
	}
	return nil
}
