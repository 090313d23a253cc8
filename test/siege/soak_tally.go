//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// counts counts by name. The zero value is ready; safe for concurrent use.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = make(map[string]int)
	}
	c.of[name] += n
}

func (c *counts) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.of {
		n += v
	}
	return n
}

// rows are the counts as lines of a table, in order.
func (c *counts) rows() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.of)) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, c.of[name])
	}
	return b.String()
}

// gauge counts what is there, and remembers the most that ever was.
type gauge struct{ now, peak atomic.Int64 }

func (g *gauge) add(n int64) {
	now := g.now.Add(n)
	for peak := g.peak.Load(); now > peak && !g.peak.CompareAndSwap(peak, now); peak = g.peak.Load() {
	}
}

// tally is what a soak has done.
type tally struct {
	open     gauge // sessions
	connects atomic.Int64
	queries  counts // by kind
	faults   counts // survived, by action
	bad      counts // inputs, by kind
	sent     atomic.Int64
	compared atomic.Int64 // bytes of answers
}

// maxLosses is when a soak gives up: later losses follow from the first.
const maxLosses = 10

// loss is anything that must not happen.
type loss struct {
	at                   time.Duration
	who, asked, answered string
	steps                []string // of the plan, the last ones before it
}

// losses are all of them. Safe for concurrent use.
type losses struct {
	mu      sync.Mutex
	all     []loss
	more    int
	enough  chan struct{} // closed when there are too many to go on
	history []string      // of the plan
}

func newLosses() *losses { return &losses{enough: make(chan struct{})} }

// did remembers a step of the plan.
func (l *losses) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 6
	l.history = append(l.history, what)
	l.history = l.history[max(0, len(l.history)-most):]
}

// add returns false if there are too many to report this one.
func (l *losses) add(n loss) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == maxLosses {
		l.more++
		return false
	}
	n.steps = slices.Clone(l.history)
	l.all = append(l.all, n)
	if len(l.all) == maxLosses {
		close(l.enough)
	}
	return true
}

func (l *losses) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all) + l.more
}

func (l *losses) write(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.all {
		fmt.Fprintf(w, "\nLoss %d, after %.1fs: %s\n  asked:    %s\n  answered: %s\n  the plan before it: %s\n",
			i+1, n.at.Seconds(), n.who, shorten(n.asked), n.answered, strings.Join(n.steps, "; "))
	}
	if l.more > 0 {
		fmt.Fprintf(w, "\nand %d more\n", l.more)
	}
}

func shorten(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s … (%d bytes)", s[:most], len(s))
}
