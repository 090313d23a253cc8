package limit

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Cancels bounds CancelRequests. Those with the key of a session have
// a budget of their own, which no stranger can use up: he would have to know a key. Each key has
// a small part of it, so that no client uses it up with the key of its own session. Make it with
// NewCancels. Its methods may be called concurrently.
type Cancels struct {
	mu      sync.Mutex
	known   int // requests in flight
	unknown int
	sources map[netip.Prefix]int // of the unknown
	rates   *simplelru.LRU[netip.Prefix, *rate.Limiter]
	all     *rate.Limiter
}

// Of the CancelRequests with a key that is not known, a quarter of the limit may be in
// flight, and a few from one source. They have a rate, too, since each costs PostgreSQL a process
// for a moment.
const (
	unknownCancels   = 4 // one in so many
	unknownPerSource = 4

	unknownRate        = 50 // a second, in all
	unknownBurst       = 100
	unknownSourceRate  = 10 // of a source
	unknownSourceBurst = 50
)

// Of the CancelRequests with one key of a session: more at the same time cancel nothing more.
const (
	perKey   = 2  // in flight
	keyRate  = 10 // a second
	keyBurst = 20
)

// KeyCancels is what Cancels knows of the key of one session, and goes with it. The zero value is ready
// to use; it must not be copied, and is guarded by the Cancels.
type KeyCancels struct {
	inFlight int
	rate     *rate.Limiter // nil: there was none yet
}

// NewCancels returns the limiter of CancelRequests.
func NewCancels() *Cancels {
	c := &Cancels{sources: make(map[netip.Prefix]int), all: rate.NewLimiter(unknownRate, unknownBurst)}
	// The error is for a size that is not positive.
	c.rates, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](networksKnown, nil)
	return c
}

// Begin counts a CancelRequest, unless there are as many as there may be: of its key, nil for one
// of no session, or in all. End must follow if it reports true.
func (c *Cancels) Begin(key *KeyCancels, source netip.Prefix, limit int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key != nil {
		if key.rate == nil {
			key.rate = rate.NewLimiter(keyRate, keyBurst)
		}
		if c.known >= limit || key.inFlight >= perKey || !key.rate.AllowN(now, 1) {
			return false
		}
		c.known++
		key.inFlight++
		return true
	}
	network := source
	if source.Addr().Is6() {
		network = networkOf(source)
	}
	if c.unknown*unknownCancels >= limit || c.sources[network] >= unknownPerSource ||
		!take(c.rates, network, networksKnown, unknownSourceRate, unknownSourceBurst, now) || !c.all.AllowN(now, 1) {
		return false
	}
	c.unknown++
	c.sources[network]++
	return true
}

// End takes a CancelRequest back that Begin has counted, with the same arguments.
func (c *Cancels) End(key *KeyCancels, source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key != nil {
		c.known--
		key.inFlight--
		return
	}
	if source.Addr().Is6() {
		source = networkOf(source)
	}
	c.unknown--
	if c.sources[source]--; c.sources[source] == 0 {
		delete(c.sources, source)
	}
}

// InFlight counts them.
func (c *Cancels) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known + c.unknown
}
