package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// The figures whose points differ in the load, or in what the runtime is given.

// idleFigure is a few active clients among more and more idle sessions.
func idleFigure(_ context.Context, _ *lab, o options) (figure, error) {
	about := "8 clients ask and wait for the answer, as fast as they can, before a backend of our own, while so many other sessions have asked once and rest; " +
		"a new pgwicket for each; memory is the proportional set size, less that of a gate without sessions"
	counts := []int{10, 100, 1000, 5000, 10000, 20000}
	if most := counts[len(counts)-1]; o.most < most {
		about += fmt.Sprintf("; with this machine's limit of open files a gate, which has two for each session, can hold %d and not %d", o.most, most)
	}
	f := newFigure(scenario{ID: "idle", Title: "Idle sessions", Unit: "transaction", About: about}, "idle sessions", "that with 10", "cpu", "p99", "memory")
	for _, n := range counts {
		if n > o.most && f.Points[len(f.Points)-1].X == float64(o.most) {
			break
		}
		n = min(n, o.most)
		f.add(pointAt("sessions", n, thousands(n), counts[0]), scenario{Unit: f.Unit, fake: n, burst: among(n, o.settle)}, nothing)
	}
	return f, nil
}

// among is query and answer among n idle sessions.
func among(n int, settle time.Duration) burst {
	return func(ctx context.Context, l *lab, g *endpoint, d time.Duration) (sample, error) {
		idle, rested, err := openIdle(ctx, g, n, settle)
		defer idle.resetAll()
		if err != nil {
			return rested, err
		}
		s, err := asking{8, accounts, account}.burst(ctx, l, g, d)
		s.PerSession = rested.PerSession
		return s, err
	}
}

// answers is answers of more and more bytes.
func answers(context.Context, *lab, options) (figure, error) {
	f := newFigure(scenario{
		ID: "answer", Title: "Size of an answer", Unit: "answer",
		About: "8 clients, each time one row of one value of so many bytes, from PostgreSQL",
	}, "size of the value", "that with 10 B", "cpu", "volume")
	for _, bytes := range []int{10, 100, 1 << 10, 8 << 10, 64 << 10, 1 << 20} {
		f.add(pointAt("bytes", bytes, unitOf(bytes), 10), scenario{Unit: f.Unit, burst: sized(bytes)}, nothing)
	}
	return f, nil
}

func sized(bytes int) burst {
	load := asking{8, "select repeat('x', $1)", func(int) string { return bound(bytes) }}
	return func(ctx context.Context, l *lab, g *endpoint, d time.Duration) (sample, error) {
		s, err := load.burst(ctx, l, g, d)
		s.Bytes = s.Units * float64(bytes)
		return s, err
	}
}

// loops is select-only on one processor and on two, and with two event loops.
func loops(ctx context.Context, l *lab, _ options) (figure, error) {
	const usual = "2, one loop"
	f := newFigure(scenario{
		ID: "loops", Title: "Processors and event loops", Unit: "transaction",
		About: "`pgbench -S -M prepared`; pgwicket has (GOMAXPROCS + 3) / 4 event loops, so one here; " +
			"for two, it was built from the same source with `coresPerLoop = 1`",
	}, "clients", "GOMAXPROCS "+usual, "cpu", "throughput", "p99")
	two, err := l.variant(ctx, moreLoops)
	if err != nil {
		return f, err
	}
	for _, line := range []struct{ id, title, procs, binary string }{
		{"procs1", "1, one loop", "1", ""},
		{"procs2", usual, "2", ""},
		{controlID, usual + ", again (control)", "2", ""},
		{"loops2", "2, two loops", "2", two},
	} {
		for _, clients := range []int{8, 32, 128} {
			id, of := line.id+"-"+strconv.Itoa(clients), "procs2-"+strconv.Itoa(clients)
			f.add(point{id, "GOMAXPROCS " + line.title, float64(clients), strconv.Itoa(clients), of},
				scenario{Unit: f.Unit, burst: pgbench{clients: clients}.burst},
				func(s *setting) { s.binary, s.env = line.binary, []string{"GOMAXPROCS=" + line.procs} })
		}
	}
	return f, nil
}

// pointAt is one on a curve that is compared with its own beginning.
func pointAt(line string, x int, label string, first int) point {
	return point{fmt.Sprintf("%s-%d", line, x), line, float64(x), label, fmt.Sprintf("%s-%d", line, first)}
}

func nothing(*setting) {}

// thousands writes 9600 as 9.6k.
func thousands(n int) string {
	switch {
	case n >= 1_000_000:
		return strconv.FormatFloat(float64(n)/1e6, 'f', -1, 64) + "M"
	case n >= 1000:
		return strconv.FormatFloat(float64(n)/1e3, 'f', -1, 64) + "k"
	}
	return strconv.Itoa(n)
}

func unitOf(bytes int) string {
	switch {
	case bytes >= 1<<20:
		return strconv.Itoa(bytes>>20) + " MiB"
	case bytes >= 1<<10:
		return strconv.Itoa(bytes>>10) + " KiB"
	}
	return strconv.Itoa(bytes) + " B"
}
