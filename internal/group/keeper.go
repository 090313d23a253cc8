package group

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"pgwicket/acl"
)

// Options are what a Keeper is made of.
type Options struct {
	Lookup Lookup
	// Refresh is the time from one answer to the next question, and MaxAge how long an answer
	// holds if no other follows.
	Refresh, MaxAge time.Duration
	// Previous is what another Keeper knows of the same server; the zero State: nothing.
	Previous State
	// Now is the clock by which answers are judged.
	Now func() time.Time
	// Asked is told how each look-up went, by the goroutine of the Keeper. The Members are those
	// to be used from now on.
	Asked func(Result)
}

// Result is how a look-up went.
type Result struct {
	// Members are the newest known; nil: none. Before are those until now.
	Members, Before *acl.Members
	// Renewed says that the members are the same as before and only hold for longer.
	Renewed bool
	Err     error // nil: it has succeeded
	Took    time.Duration
	RetryIn time.Duration // after an error
}

// State is what is known of the look-ups of a Keeper.
type State struct {
	Members                  *acl.Members // nil: none
	LastSuccess, LastFailure time.Time    // zero: none yet
	Err                      error        // of the last look-up; nil: it has succeeded, or there was none
}

// Keeper asks for members again and again, one look-up at a time, and has the last answer. Make it
// with Keep, and end it with Stop. Its methods are safe for concurrent use.
type Keeper struct {
	Options
	stop  context.CancelFunc
	done  chan struct{}
	first chan struct{}

	mu    sync.Mutex
	state State
}

// Keep begins to ask, at once.
func Keep(o Options) *Keeper {
	ctx, stop := context.WithCancel(context.Background())
	k := &Keeper{Options: o, stop: stop, done: make(chan struct{}), first: make(chan struct{}), state: o.Previous}
	go k.run(ctx)
	return k
}

// Stop ends the look-ups, and returns when none is under way.
func (k *Keeper) Stop() {
	k.stop()
	<-k.done
}

// First is closed when the first look-up is over, however it went.
func (k *Keeper) First() <-chan struct{} { return k.first }

// State returns what is known now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Members returns those to be used now; nil: none is known.
func (k *Keeper) Members() *acl.Members { return k.State().Members }

// firstRetry is the wait after the first failed look-up; each further failure doubles it, up to
// Refresh.
const firstRetry = time.Second

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	retry := firstRetry
	for i := 0; ; i++ {
		r := k.ask(ctx, retry)
		if ctx.Err() != nil {
			return
		}
		k.Asked(r)
		if i == 0 {
			close(k.first)
		}
		wait := jitter(k.Refresh)
		if retry = firstRetry; r.Err != nil {
			wait, retry = r.RetryIn, min(2*r.RetryIn, k.Refresh)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// jitter shortens a wait by up to a tenth, so that many gates do not ask at the same time.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) } //nolint:gosec // no secret

// ask asks once. An answer is as old as its question.
func (k *Keeper) ask(ctx context.Context, retry time.Duration) Result {
	began, at := time.Now(), k.Now()
	answer, err := k.Lookup.Ask(ctx)
	r := Result{Err: err, Took: time.Since(began)}
	k.mu.Lock()
	defer k.mu.Unlock()
	r.Before, r.Members = k.state.Members, k.state.Members
	k.state.Err = err
	if err != nil {
		k.state.LastFailure, r.RetryIn = k.Now(), min(jitter(retry), k.Refresh)
		return r
	}
	r.Members = acl.NewMembers(answer, at.Add(k.MaxAge))
	if r.Members.Same(r.Before) { // one copy is enough
		r.Renewed = r.Before.KnownAt(k.Now())
		r.Members = r.Before.KeptUntil(r.Members.Until())
	}
	k.state.Members, k.state.LastSuccess = r.Members, at
	return r
}
