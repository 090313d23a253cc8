package refusallog

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Outcome is why a connection was refused.
type Outcome interface {
	cmp.Ordered
	fmt.Stringer
}

// Rate bounds how many lines strangers can cause in the log: so many a second in all, and a
// share of that for one source. It counts what is left out. Its methods may be called
// concurrently.
type Rate[O Outcome] struct {
	mu      sync.Mutex
	all     *rate.Limiter
	sources *simplelru.LRU[netip.Prefix, *rate.Limiter]
	leftOut map[O]int
}

const (
	// sourceShare is how large a part of the rate one source may have:
	// one in so many.
	sourceShare = 5
	// refusalBurst is how many seconds' worth of lines may come at once.
	refusalBurst = 2
	// loggedSources bounds the memory.
	loggedSources = 1 << 12
)

// NewRate returns a Rate that has left nothing out.
func NewRate[O Outcome]() *Rate[O] {
	r := &Rate[O]{leftOut: make(map[O]int)}
	// The error is for a size that is not positive.
	r.sources, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](loggedSources, nil)
	return r
}

// Allow reports whether a line about a refusal may be written. A rate of 0 is no
// limit.
func (r *Rate[O]) Allow(perSecond float64, o O, source netip.Prefix, now time.Time) bool {
	if perSecond <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	own, _ := r.sources.Get(source)
	own = adjusted(own, perSecond/sourceShare, now)
	r.sources.Add(source, own)
	r.all = adjusted(r.all, perSecond, now)
	if own.AllowN(now, 1) && r.all.AllowN(now, 1) {
		return true
	}
	r.leftOut[o]++
	return false
}

// adjusted returns l with a rate that a reload may have changed, or a new limiter
// if l is nil.
func adjusted(l *rate.Limiter, perSecond float64, now time.Time) *rate.Limiter {
	limit, burst := rate.Limit(perSecond), max(1, int(refusalBurst*perSecond))
	if l == nil {
		return rate.NewLimiter(limit, burst)
	}
	if l.Limit() != limit {
		l.SetLimitAt(now, limit)
		l.SetBurstAt(now, burst)
	}
	return l
}

// Summary returns how many lines were left out since the last time, by outcome.
func (r *Rate[O]) Summary() (total int, attrs []slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range slices.Sorted(maps.Keys(r.leftOut)) {
		n := r.leftOut[o]
		total += n
		attrs = append(attrs, slog.Int(o.String(), n))
	}
	clear(r.leftOut)
	return total, attrs
}
