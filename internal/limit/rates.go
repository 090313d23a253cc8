package limit

import (
	"net/netip"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// rates bound the new connections a second of sources, and of the networks of IPv6. Their
// memory is bounded: the one that was not seen for longest is forgotten. While those that are
// forgotten have not come to rest, as in a flood of sources, one that is new, or comes
// again, has a single connection instead of its burst, so that nobody gains by being forgotten.
type rates struct {
	sources, networks *simplelru.LRU[netip.Prefix, *rate.Limiter]
}

func newRates() *rates {
	r := new(rates)
	// The errors are for sizes that are not positive.
	r.sources, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](sourcesKnown, nil)
	r.networks, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](networksKnown, nil)
	return r
}

// networksKnown is sourcesKnown for networks.
const networksKnown = sourcesKnown / 4

// allow counts a new connection. If its source, or its network, has too many, it returns
// that.
func (r *rates) allow(limits Limits, source netip.Prefix, now time.Time) (over netip.Prefix) {
	if limits.Rate <= 0 {
		return over
	}
	if network := networkOf(source); source.Addr().Is6() && !take(r.networks, network, networksKnown, perNetwork*limits.Rate, perNetwork*limits.Burst, now) {
		return network
	}
	if !take(r.sources, source, sourcesKnown, limits.Rate, limits.Burst, now) {
		return source
	}
	return over
}

// take takes one connection of those that a second may have, from the limiter of a key. known
// is how many keys there may be.
func take(of *simplelru.LRU[netip.Prefix, *rate.Limiter], key netip.Prefix, known int, perSecond float64, burst int, now time.Time) bool {
	one, ok := of.Get(key)
	switch {
	case !ok:
		one = rate.NewLimiter(rate.Limit(perSecond), burst)
		if _, oldest, full := of.GetOldest(); full && of.Len() >= known && oldest.TokensAt(now) < float64(oldest.Burst()) {
			one.AllowN(now, burst-1)
		}
		of.Add(key, one)
	case one.Limit() != rate.Limit(perSecond) || one.Burst() != burst: // a reload
		one.SetLimitAt(now, rate.Limit(perSecond))
		one.SetBurstAt(now, burst)
	}
	return one.AllowN(now, 1)
}
