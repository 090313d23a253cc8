package relay

// A KeyUpdate costs its sender 27 bytes and us a new key, with an answer two
// (CVE-2026-56862; CVE-2026-32283 for the answers). One read could hold thousands,
// and every other session of the loop would wait meanwhile. So a client whose
// bytes carry less than a minYield-th of their number as data (a record of one
// byte carries more) is read in small pieces from then on, and one that asks for
// more answers at a time than an honest client in its life is ended.
const (
	minYield     = 32
	lowYieldRead = 2 << 10
	maxAnswers   = 1 << 10
	// A part of a record carries nothing yet, so it takes a few of the longest
	// to tell.
	observed = 64 << 10
)

// keyUpdateGuard compares what is read of a client with the data in it. The zero
// value is ready for use.
type keyUpdateGuard struct {
	read     int32 // bytes since it was last compared
	lowYield bool  // the client has sent many records for very few bytes
	data     int64 // all of the client's data, when it was last compared
}

// observe takes note of n bytes read, after which the client's data is so long in
// all.
func (g *keyUpdateGuard) observe(n int, data int64) {
	if g.read += int32(n); g.read < observed {
		return
	}
	g.lowYield = g.lowYield || data-g.data < int64(g.read/minYield)
	g.read, g.data = 0, data
}
