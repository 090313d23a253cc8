// Package limit bounds what clients may take of a gate: connections, sessions, cancel requests and attempts to authenticate.
package limit

import (
	"time"
)

// Limits bound what clients may take of a gate. Zero is no limit but where it says
// otherwise.
type Limits struct {
	// Startups is how many connections may be in each Stage at once. Most are unproved: their
	// certificate has not been verified and, where none is asked for or sent, they
	// have not got as far as PostgreSQL's first ReadyForQuery. When they are so
	// many, one of the network that holds most of them is closed for the next.
	Startups int
	// HandshakeBytes is how much a client may send for its TLS handshake, its
	// certificates included. 0 is proxy.DefaultHandshakeBytes.
	HandshakeBytes int

	Sessions   int     // at once; of those that are unproved, one gives way for another connection
	PerSource  int     // connections at once from one source, those in their startup included
	PerAccount int     // sessions of one user in one database, as PostgreSQL sees it
	Rate       float64 // new connections a second from one source
	Burst      int     // how many may come at once before Rate counts

	// AuthFailures is how often in a row PostgreSQL may refuse the
	// authentication of a user from one source, with one certificate, before it
	// is not asked any more for AuthRefusal. Each failure makes the next attempt
	// wait longer.
	AuthFailures int
	AuthRefusal  time.Duration

	// IdleTimeout ends a session in which nothing has moved for so long, either
	// way, while no query was under way. SessionLifetime ends one that is older,
	// as soon as it is outside of a transaction, and an eighth later in any case.
	// Both may be late by an eighth, or 5 seconds if that is less.
	//
	// IdleInTransaction is IdleTimeout for a session inside of a transaction; 0: the
	// same. The rule that admits a session may have its own limit for both.
	IdleTimeout       time.Duration
	IdleInTransaction time.Duration
	SessionLifetime   time.Duration
	// UnfinishedTimeout ends a session whose client has begun a request and then,
	// with no byte either way, does not send the rest of it for so long: PostgreSQL
	// waits for it, and the session is not idle. It may be late as the others.
	UnfinishedTimeout time.Duration
}

// sourcesKnown bounds the memory of a limiter: a million sources cost no more.
// The source that was not seen for longest is forgotten first.
const sourcesKnown = 1 << 16

// perNetwork is how many times as many connections, new connections a second and failed
// authentications as a source a whole network of IPv6 (a /48, which one customer can have of
// 65,536 sources) may have.
const perNetwork = 4

// The reserve is for connections over a limit: each may still say what it wants,
// so that a CancelRequest is forwarded and a client is told in words why it is
// refused. It is bounded in number (an eighth of Limits.Startups, 16 at least), for
// each source, in rate and, by OverLimitTimeout, in time. Beyond it a connection
// is closed at once.
const (
	reserveShare     = 8
	minReserve       = 16
	reservePerSource = 8
	reserveRate      = 100 // a second, in all
	reserveBurst     = 200
)

// OverLimitTimeout is how long a connection in the reserve may take for its startup.
const OverLimitTimeout = 5 * time.Second

// Kind is the kind of limit that has been reached.
type Kind uint8

// The kinds.
const (
	OverRate     Kind = iota // Limits.Rate
	OverSource               // Limits.PerSource
	OverSessions             // Limits.Sessions
	OverStartups             // Limits.Startups, and those that gave way are not closed yet
	OverAccount              // Limits.PerAccount
	BackedOff                // Limits.AuthFailures
	OverRule                 // what Rules.Admit is given
	Interrupted              // none: the context of the caller was canceled
)

// Error says which limit refuses a client.
type Error struct {
	Kind   Kind
	Public string // what the client may be told; empty: no more than the kind
	Detail string // for the log; may name what the client must not learn
}

func (e *Error) Error() string { return e.Detail }
