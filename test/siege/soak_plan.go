//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// deed is something that the plan of a soak does to the gate or to its clients.
// Its text is what the summary calls it.
type deed string

// What operators do. One of these is under way at a time, as with good operators.
const (
	hangup        deed = "reload by SIGHUP"
	fileChanged   deed = "reload by a changed file"
	fileBroken    deed = "broken configuration refused"
	revocation    deed = "certificate revoked, another issued"
	newList       deed = "new revocation list"
	newServerCert deed = "new server certificate"
	overlapping   deed = "restart with overlap"
	interrupting  deed = "restart with a gap"
	crashing      deed = "gate killed and started again"
)

// What the world does, beside the operators.
const (
	killing      deed = "client killed in mid-query"
	resetting    deed = "client that resets in mid-answer"
	terminating  deed = "backend terminated"
	badCrowd     deed = "flood of bad inputs"
	connectCrowd deed = "flood of connects"
	wrongCancels deed = "cancels with wrong keys"
	guessing     deed = "failed passwords"
	stalling     deed = "handshakes that stall"
)

// lane is a row of deeds of which one is under way at a time. Each is drawn once
// before any is drawn again, so that a short run has all of them, too.
type lane struct {
	deeds    []deed
	min, max time.Duration // from one to the next, at least
}

var (
	operators = lane{[]deed{hangup, fileChanged, fileBroken, revocation, newList, newServerCert, overlapping, interrupting, crashing}, time.Second, 6 * time.Second}
	world     = lane{[]deed{killing, resetting, terminating, badCrowd, connectCrowd, wrongCancels, guessing, stalling}, time.Second, 5 * time.Second}
)

// step is one deed of the plan. It is done at that time or, where the one before
// takes longer, right after it; its seed decides all the rest.
type step struct {
	at   time.Duration
	deed deed
	seed uint64
}

func (s step) String() string { return fmt.Sprintf("%s at %.1fs", s.deed, s.at.Seconds()) }

func (s step) rnd() *rand.Rand { return rand.New(rand.NewPCG(s.seed, 0)) } //nolint:gosec // it must be repeatable

// The streams of a seed that are not a client's.
const (
	operatorStream = 1<<32 + iota
	worldStream
)

// plan returns what a lane does in a time. It is the beginning of what it does
// in a longer one.
func (l lane) plan(seed, stream uint64, length time.Duration) (steps []step) {
	rnd := rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // it must be repeatable
	for at := time.Duration(0); ; {
		deck := slices.Clone(l.deeds)
		rnd.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		for _, d := range deck {
			at += l.min + time.Duration(rnd.Int64N(int64(l.max-l.min)))
			s := step{at, d, rnd.Uint64()}
			if at >= length {
				return steps
			}
			steps = append(steps, s)
		}
	}
}
