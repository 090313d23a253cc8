package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// quartiles of what several rounds gave. N is 0 where nothing was measured.
type quartiles struct {
	Q1, Median, Q3 float64
	N              int
}

// quartilesOf interpolates between neighbours, as R and NumPy do by default.
func quartilesOf(values []float64) quartiles {
	if len(values) == 0 {
		return quartiles{}
	}
	v := slices.Sorted(slices.Values(values))
	return quartiles{quantile(v, 0.25), quantile(v, 0.5), quantile(v, 0.75), len(v)}
}

func quantile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// metric is one number that a sample holds.
type metric struct {
	id, title string
	higher    bool // higher is better
	value     func(sample) float64
	show      func(float64) string
}

// metrics are all columns.
func metrics(unit string) []metric {
	return []metric{
		{"cpu", "CPU / " + unit, false, func(s sample) float64 { return s.GateCPU / s.Units }, span},
		{"total", "with the server's", false, func(s sample) float64 { return (s.GateCPU + s.ServerCPU) / s.Units }, span},
		{"throughput", plural(2, unit) + " / s", true, func(s sample) float64 { return s.Units / s.Seconds }, short},
		{"p50", "p50", false, func(s sample) float64 { return s.P50 }, span},
		{"p99", "p99", false, func(s sample) float64 { return s.P99 }, span},
		{"rss", "peak RSS", false, func(s sample) float64 { return s.PeakRSS }, size},
		{"memory", "memory / session", false, func(s sample) float64 { return s.PerSession }, size},
		{"busy", "cores used", false, func(s sample) float64 { return s.GateCPU / s.Seconds }, short},
		{"volume", "CPU / GiB", false, func(s sample) float64 { return s.GateCPU / s.Bytes * gib }, span},
		{"startup", "startup time", false, func(s sample) float64 { return s.StartUp }, span},
		{"beside", "beside", true, func(s sample) float64 { return s.Beside }, short},
	}
}

func metricOf(unit, id string) metric {
	all := metrics(unit)
	i := slices.IndexFunc(all, func(m metric) bool { return m.id == id })
	return all[max(i, 0)]
}

// values are what a contender had in each round that it took part in. A zero is
// what was not measured.
func (s series) values(id string, m metric) quartiles {
	var v []float64
	for _, r := range s.Rounds {
		if one, ok := r[id]; ok && sound(m.value(one)) {
			v = append(v, m.value(one))
		}
	}
	return quartilesOf(v)
}

// ratio compares two contenders inside each round, where both had the machine in
// the same state.
func (s series) ratio(id, to string, m metric) quartiles {
	var v []float64
	for _, r := range s.Rounds {
		a, ok1 := r[id]
		b, ok2 := r[to]
		if ok1 && ok2 && sound(m.value(a)) && sound(m.value(b)) {
			v = append(v, m.value(a)/m.value(b))
		}
	}
	return quartilesOf(v)
}

func sound(x float64) bool { return x > 0 && !math.IsInf(x, 0) && !math.IsNaN(x) }

// spread is how far the control's ratio is from 1: a smaller difference is
// not established. Without a control nothing is known, and it is 0.
func (s series) spread(m metric) float64 {
	q := s.ratio(controlID, "pgwicket", m)
	if q.N == 0 {
		return 0
	}
	return max(math.Abs(q.Q1-1), math.Abs(q.Q3-1), math.Abs(q.Median-1))
}

// span shows seconds with three digits and a fitting unit.
func span(seconds float64) string {
	switch {
	case seconds == 0:
		return "0"
	case seconds < 1e-3:
		return digits(seconds*1e6) + " µs"
	case seconds < 1:
		return digits(seconds*1e3) + " ms"
	}
	return digits(seconds) + " s"
}

func size(bytes float64) string {
	if bytes < 1<<20 {
		return digits(bytes/1024) + " KiB"
	}
	return digits(bytes/(1<<20)) + " MiB"
}

// short shows a number with three digits at least.
func short(x float64) string { return digits(x) }

func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func (q quartiles) ratioText() string {
	if q.N == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f [%.2f–%.2f]", q.Median, q.Q1, q.Q3)
}

func (q quartiles) text(m metric) string {
	if q.N == 0 {
		return "–"
	}
	return m.show(q.Median)
}

// spreadText is the median with its quartiles, whose unit stands only where it is
// another.
func (q quartiles) spreadText(m metric) string {
	if q.N < 2 {
		return q.text(m)
	}
	_, unit, _ := strings.Cut(m.show(q.Median), " ")
	same := func(v float64) string { return strings.TrimSuffix(m.show(v), " "+unit) }
	return fmt.Sprintf("%s [%s–%s]", m.show(q.Median), same(q.Q1), same(q.Q3))
}

// most returns the highest of several, by a key.
func most[T any](all []T, key func(T) float64) (best T) {
	if len(all) == 0 {
		return best
	}
	return slices.MaxFunc(all, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
