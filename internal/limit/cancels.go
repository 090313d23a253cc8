package limit

import (
	"net/netip"
	"sync"
)

// Cancels counts the CancelRequests that are in flight. Those with the key of a session have
// a budget of their own, which no stranger can use up: he would have to know a key. The zero
// value counts none. Its methods may be called concurrently.
type Cancels struct {
	mu      sync.Mutex
	known   int // requests in flight
	unknown int
	sources map[netip.Prefix]int // of the unknown
}

// Of the CancelRequests with a key that is not known, a quarter of the limit may be in
// flight, and a few from one source.
const (
	unknownCancels   = 4 // one in so many
	unknownPerSource = 4
)

// Begin counts a CancelRequest, unless there are as many as there may be. End must follow
// if it reports true.
func (c *Cancels) Begin(known bool, source netip.Prefix, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known {
		if c.known >= limit {
			return false
		}
		c.known++
		return true
	}
	if c.unknown*unknownCancels >= limit || c.sources[source] >= unknownPerSource {
		return false
	}
	if c.sources == nil {
		c.sources = make(map[netip.Prefix]int)
	}
	c.unknown++
	c.sources[source]++
	return true
}

// End takes a CancelRequest back that Begin has counted, with the same arguments.
func (c *Cancels) End(known bool, source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known {
		c.known--
		return
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
