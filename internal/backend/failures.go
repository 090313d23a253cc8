package backend

import (
	"slices"
	"sync"
	"time"
)

const (
	// remembered is how long an address that has failed goes last. Each time that it is
	// over, one client waits for the address again, if it is still dead.
	remembered = 5 * time.Minute
	// maxFailures bounds the memory for names whose addresses always change.
	maxFailures = 1000
)

// Failures are the addresses that have failed lately. The zero value has none. It is safe
// for concurrent use.
type Failures struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Note records how an attempt to use an address has ended.
func (f *Failures) Note(address string, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !failed {
		delete(f.at, address)
		return
	}
	if f.at == nil {
		f.at = make(map[string]time.Time)
	}
	now := time.Now()
	if _, known := f.at[address]; !known && len(f.at) >= maxFailures {
		f.forget(now)
	}
	f.at[address] = now
}

// forget removes what is too old, or else the oldest.
func (f *Failures) forget(now time.Time) {
	oldest, since := "", now
	for a, t := range f.at {
		if now.Sub(t) >= remembered {
			delete(f.at, a)
		} else if !t.After(since) {
			oldest, since = a, t
		}
	}
	if len(f.at) >= maxFailures {
		delete(f.at, oldest)
	}
}

// Sort puts the addresses that have failed lately behind the others, the latest failure last. Both
// keep their order otherwise.
func (f *Failures) Sort(addresses []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	failed := func(a string) time.Time {
		if t, ok := f.at[a]; ok && now.Sub(t) < remembered {
			return t
		}
		return time.Time{}
	}
	slices.SortStableFunc(addresses, func(a, b string) int { return failed(a).Compare(failed(b)) })
}
