//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// action is something that the plan of a soak does to the gate or to its clients.
// Its text is what the summary calls it.
type action string

// What operators do. One of these is under way at a time.
const (
	signalled     action = "reload by SIGHUP"
	fileChanged   action = "reload by a changed file"
	fileBroken    action = "broken configuration refused"
	revocation    action = "certificate revoked, another issued"
	newList       action = "new revocation list"
	newServerCert action = "new server certificate"
	overlapping   action = "restart with overlap"
	interrupting  action = "restart with a gap"
	crashing      action = "gate killed and started again"
)

// What upgrades do, beside revocations but not beside the other actions of operators.
const (
	upgrading       action = "upgrade"
	upgradingBroken action = "upgrade to a program that does not start"
	upgradingDying  action = "upgrade to a process that dies in mid-transfer"
	killingUpgrade  action = "process killed during an upgrade"
	killingOld      action = "old process killed after an upgrade" // a part of upgrading
)

// What clients and the network do, beside the operators.
const (
	killing      action = "client killed in mid-query"
	resetting    action = "client that resets in mid-answer"
	terminating  action = "backend terminated"
	badFlood     action = "flood of bad inputs"
	connectFlood action = "flood of connects"
	wrongCancels action = "cancels with wrong keys"
	guessing     action = "failed passwords"
	stalling     action = "handshakes that stall"
)

// What an administrator does in an incident, beside both.
const (
	locking        action = "clients locked"
	lockRunningOut action = "clients locked for seconds"
	unlocking      action = "locks removed"
	commanding     action = "sessions terminated by command"
	ruleEnding     action = "rule whose time ends"
	rotating       action = "audit trail rotated"
)

// lane is a list of actions of which one is under way at a time. All are drawn, each as often as it
// is listed, before any is drawn again, so that a short run has all of them.
type lane struct {
	actions  []action
	min, max time.Duration // from one to the next, at least
}

var (
	operators   = lane{[]action{signalled, fileChanged, fileBroken, revocation, newList, newServerCert, overlapping, interrupting, crashing}, time.Second, 6 * time.Second}
	upgrades    = lane{[]action{upgrading, upgrading, upgradingBroken, upgradingDying, killingUpgrade}, time.Second, 6 * time.Second}
	environment = lane{[]action{killing, resetting, terminating, badFlood, connectFlood, wrongCancels, guessing, stalling}, time.Second, 5 * time.Second}
	incidents   = lane{[]action{locking, lockRunningOut, unlocking, commanding, ruleEnding, rotating}, time.Second, 8 * time.Second}
)

// step is one action of the plan. It is done at that time or, where the one before
// takes longer, right after it; its seed decides all the rest.
type step struct {
	at     time.Duration
	action action
	seed   uint64
}

func (s step) String() string { return fmt.Sprintf("%s at %.1fs", s.action, s.at.Seconds()) }

func (s step) rnd() *rand.Rand { return rand.New(rand.NewPCG(s.seed, 0)) } //nolint:gosec // it must be repeatable

// The streams of a seed that are not a client's.
const (
	operatorStream = 1<<32 + iota
	environmentStream
	incidentStream
	upgradeStream
)

// plan returns what a lane does in a time. It is the beginning of what it does
// in a longer one.
func (l lane) plan(seed, stream uint64, length time.Duration) (steps []step) {
	rnd := rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // it must be repeatable
	for at := time.Duration(0); ; {
		deck := slices.Clone(l.actions)
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
