package group_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/group"
	"pgwicket/internal/pgtest"
)

// keep starts a Keeper that asks often, and returns what it reports.
func keep(t *testing.T, l group.Lookup, previous group.State, clock *atomic.Int64) (*group.Keeper, <-chan group.Result) {
	t.Helper()
	results := make(chan group.Result, 1000)
	k := group.Keep(group.Options{
		Lookup: l, Refresh: 50 * time.Millisecond, MaxAge: time.Minute, Previous: previous,
		Now:   func() time.Time { return time.Unix(clock.Load(), 0) },
		Asked: func(r group.Result) { results <- r },
	})
	t.Cleanup(k.Stop)
	return k, results
}

// until returns the first result that is as wanted.
func until(t *testing.T, results <-chan group.Result, what string, wanted func(group.Result) bool) group.Result {
	t.Helper()
	end := time.After(time.Minute)
	for {
		select {
		case r := <-results:
			if wanted(r) {
				return r
			}
		case <-end:
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestKeeper(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, pgtest.Options{})
	var clock atomic.Int64
	clock.Store(1_800_000_000)
	at := func() time.Time { return time.Unix(clock.Load(), 0) }
	l := lookup(s.SocketDir, "ops", "gone")
	k, results := keep(t, l, group.State{}, &clock)
	<-k.First()
	first := until(t, results, "an answer", func(r group.Result) bool { return r.Err == nil })
	switch {
	case first.Before != nil, first.Renewed, !first.Members.Has("ops", "carol"), first.Members.Has("ops", "alice"):
		t.Errorf("%+v", first)
	case !first.Members.Until().Equal(at().Add(time.Minute)), !k.State().LastSuccess.Equal(at()):
		t.Errorf("known until %v", first.Members.Until())
	}

	// The same answer holds for longer.
	clock.Add(10)
	renewed := until(t, results, "a renewed answer", func(r group.Result) bool { return r.Renewed && r.Members.Until().Equal(at().Add(time.Minute)) })
	if !renewed.Members.Same(first.Members) {
		t.Error("not the same members")
	}
	if _, err := s.SQL("grant ops to alice"); err != nil {
		t.Fatal(err)
	}
	changed := until(t, results, "a GRANT", func(r group.Result) bool { return !r.Renewed && r.Members.Has("ops", "alice") })
	if got := strings.Join(changed.Members.Joined("ops", changed.Before), " "); got != "alice" {
		t.Errorf("%q joined", got)
	}

	// PostgreSQL is down: the answer stays as it is, and the retries become rarer up to Refresh.
	s.Kill()
	failed := until(t, results, "a failure", func(r group.Result) bool { return r.Err != nil })
	if failed.Members != changed.Members && !failed.Members.Same(changed.Members) || failed.RetryIn <= 0 || failed.RetryIn > 50*time.Millisecond {
		t.Errorf("%+v", failed)
	}
	clock.Add(120)
	if state := k.State(); state.Members.KnownAt(at()) || state.Err == nil || state.LastFailure.IsZero() {
		t.Errorf("%+v", state)
	}
	until(t, results, "another failure", func(r group.Result) bool { return r.Err != nil })
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Back after the end: the same members are news.
	back := until(t, results, "an answer again", func(r group.Result) bool { return r.Err == nil })
	if back.Renewed || !back.Members.KnownAt(at()) {
		t.Errorf("%+v", back)
	}

	// Another Keeper of the same server goes on with what is known.
	next, _ := keep(t, lookup("/nowhere", "ops"), k.State(), &clock)
	<-next.First()
	if !next.Members().Has("ops", "carol") || next.State().Err == nil {
		t.Errorf("%+v", next.State())
	}
}

// Stop does not wait for a server that says nothing.
func TestKeeperStops(t *testing.T) {
	t.Parallel()
	f, err := pgtest.StartFake(silent)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	var clock atomic.Int64
	k, _ := keep(t, lookup(f.SocketDir, "dba"), group.State{}, &clock)
	for f.Accepted.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	k.Stop()
	if took := time.Since(began); took > group.Timeout/2 {
		t.Errorf("took %v", took)
	}
	if n := f.Accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
