package limit

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
)

// What a process has known of clients holds in the next one: a key that is refused stays refused, one
// that has just logged in stays known, and a source that has used its burst has none.
func TestStateOfAnotherProcess(t *testing.T) {
	t.Parallel()
	limits, now := Limits{AuthFailures: 2, AuthRefusal: time.Hour, Rate: 0.001, Burst: 5}, time.Now()
	before, connections := NewAttempts(), NewConnections(func(Stage, int) {})
	refused := Key{Source: source4(1), User: "not UTF-8 \xff"}
	known := Key{Source: source6(1, 1), User: "app", SPKI: "ab"}
	for range limits.AuthFailures {
		a, err := before.Begin(t.Context(), limits, refused, func() bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		a.Failed(limits)
	}
	a, err := before.Begin(t.Context(), limits, known, func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	a.Succeeded()
	for range 3 {
		if over := connections.rates.allow(limits, source6(1, 1), now); over.IsValid() {
			t.Fatal(over)
		}
	}

	encoded, err := json.Marshal(before.State())
	if err != nil {
		t.Fatal(err)
	}
	var states []KeyState
	if err := json.Unmarshal(encoded, &states); err != nil {
		t.Fatal(err)
	}
	after, next := NewAttempts(), NewConnections(func(Stage, int) {})
	after.Restore(limits, states)
	after.Restore(limits, states) // a second time changes nothing
	next.RestoreRates(limits, connections.RateStates(now), now)
	if got := after.State(); len(got) != len(states) || len(got) != 2 {
		t.Errorf("%+v\nwant %+v", got, states)
	}
	if !reflect.DeepEqual(before.Backoffs(limits, now)[0].User, after.Backoffs(limits, now)[0].User) {
		t.Errorf("%+v", after.Backoffs(limits, now))
	}
	var limited *Error
	if _, err := after.Begin(t.Context(), limits, refused, nil); !errors.As(err, &limited) || limited.Kind != BackedOff {
		t.Errorf("a key that was refused: %v", err)
	}
	if !after.use(known).isKnown(limits, now) {
		t.Error("a key that had logged in is not known")
	}
	again, err := after.Begin(t.Context(), Limits{AuthFailures: 5, AuthRefusal: time.Hour}, refused, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Succeeded()
	after.Restore(limits, states) // as the process before has it at its end
	if got := len(after.Backoffs(limits, now)); got != 0 {
		t.Errorf("%d keys have failures again after a success", got)
	}
	for i := range 3 {
		if over := next.rates.allow(limits, source6(1, 1), now); over.IsValid() != (i == 2) {
			t.Errorf("connection %d of the 2 that were left: over %v", i, over)
		}
	}
}

// A session of another process counts as one of this, and its places are given back.
func TestAdoptedSessionsCount(t *testing.T) {
	t.Parallel()
	l, limits := NewConnections(func(Stage, int) {}), Limits{Sessions: 1, PerAccount: 1, PerSource: 1}
	ticket, account, rule := l.Adopt(source4(1)), l.AdoptAccount(Account{"u", "d"}), l.Rules.Adopt("r", "ab")
	if r, spki := rule.Of(); r != "r" || spki != "ab" {
		t.Errorf("rule %q, certificate %q", r, spki)
	}
	if u := l.Usage(); u.Sessions != 1 || u.PerAccount != 1 || u.PerSource != 1 || u.Startups != 0 {
		t.Errorf("usage %+v", u)
	}
	if _, err := l.AdmitAccount(limits, Account{"u", "d"}); err == nil {
		t.Error("the account is not full")
	}
	if _, err := l.Rules.Admit("r", "", 1, 0); err == nil {
		t.Error("the rule is not full")
	}
	other, err := l.Admit(limits, source4(2), time.Now(), func() {})
	if err != nil || other.Over() == nil {
		t.Errorf("beside a full gate: %v", err)
	}
	l.Adopt(source4(1)).Release() // also beyond a limit
	ticket.Release()
	account.Release()
	rule.Release()
	if err := other.AdmitSession(context.Background(), limits); err != nil {
		t.Error(err)
	}
	other.Release()
	if u := l.Usage(); u != (Usage{}) || len(l.sources) != 0 || len(l.networks) != 0 || len(l.accounts) != 0 || len(l.Rules.counts) != 0 {
		t.Errorf("left over: %+v", u)
	}
}
