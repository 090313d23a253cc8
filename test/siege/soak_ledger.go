//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// rowState is what must be true of a row.
type rowState uint8

// The states. The zero value is that of a row that no client has tried to write.
const (
	_            rowState = iota
	acknowledged          // its commit was answered: it is there
	inDoubt               // its commit was asked for and the answer never came: either way
	neverAsked            // its commit was never asked for: it is not there
)

func (f rowState) String() string {
	return [...]string{"not in the ledger", "acknowledged", "in doubt", "never committed"}[f]
}

// entry names a row of the ledger: its client, and the client's count of rows.
type entry struct{ client, number int }

func (e entry) String() string { return fmt.Sprintf("row %d of client %d", e.number, e.client) }

// ledger is what the clients know of the table that all of them write to. It is
// compared with the table at the end. Safe for concurrent use.
type ledger struct {
	mu   sync.Mutex
	rows map[entry]due
}

type due struct {
	rowState rowState
	md5      string
}

func newLedger() *ledger { return &ledger{rows: make(map[entry]due)} }

// note sets the state of a row; the last one counts.
func (l *ledger) note(e entry, f rowState, md5 string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[e] = due{f, md5}
}

func (l *ledger) count(f rowState) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.rows {
		if d.rowState == f {
			n++
		}
	}
	return n
}

// written is a row as the table has it.
type written struct {
	entry entry
	md5   string
}

// audit compares the table with the ledger and returns what is wrong.
func (l *ledger) audit(table []written) (wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	times := make(map[entry]int, len(table))
	for _, w := range table {
		d := l.rows[w.entry]
		times[w.entry]++
		switch {
		case times[w.entry] == 2:
			wrong = append(wrong, fmt.Sprintf("%v was written once and is there more than once", w.entry))
		case times[w.entry] > 2:
		case d.rowState != acknowledged && d.rowState != inDoubt:
			wrong = append(wrong, fmt.Sprintf("%v is there; it is %v", w.entry, d.rowState))
		case d.md5 != w.md5:
			wrong = append(wrong, fmt.Sprintf("%v has other contents: md5 %s instead of %s", w.entry, w.md5, d.md5))
		}
	}
	lost := slices.Collect(maps.Keys(l.rows))
	lost = slices.DeleteFunc(lost, func(e entry) bool { return l.rows[e].rowState != acknowledged || times[e] > 0 })
	slices.SortFunc(lost, func(a, b entry) int { return 1<<20*(a.client-b.client) + a.number - b.number })
	for _, e := range lost {
		wrong = append(wrong, fmt.Sprintf("%v was acknowledged and is lost", e))
	}
	return wrong
}
