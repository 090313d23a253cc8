// Package policy is what a reload may change, and the one predicate that admits a client and judges its session again.
// It does no I/O: proxy asks it, and config builds it.
package policy

import (
	"crypto/tls"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/backend"
	"pgwicket/internal/limit"
	"pgwicket/internal/lock"
)

// SourceRefusal says how a connection from a network that is not allowed is
// turned away.
type SourceRefusal uint8

// The ways to refuse a source. Close and Reset answer nothing and cost
// nothing; Explain leads the client through TLS to its startup packet, where
// it can be told in words.
const (
	Close SourceRefusal = iota
	Reset
	Explain
)

// Policy is all that a reload may change. It is immutable once a Server has it.
type Policy struct {
	// Networks is the source allowlist, which comes before the rules.
	Networks *acl.Networks
	// SourceRefusal says how others are turned away.
	SourceRefusal SourceRefusal
	// Proxies are, by the address of the listener, the load balancers that say
	// in a PROXY header for whom they speak. They must; others must not.
	Proxies map[string]*acl.Networks
	// ProxyHeaderTimeout is how long they may take to say so, within
	// StartupTimeout; 0: no less than that.
	ProxyHeaderTimeout time.Duration

	// TLS serves the handshakes. It must ask for client certificates where
	// Verify wants them, verify none itself, and list the ALPN protocol
	// "postgresql".
	TLS *tls.Config
	// Verify judges a finished handshake at a time: version, suite, group and the
	// certificates that the client has sent, in DER, its own first; state has none.
	// It may keep them. It returns the certificates of the verified chain that are
	// worth keeping to judge the session again, the client's own first; none if no
	// certificate was asked for or sent. Its error is an *outcome.Refusal. A nil
	// Verify refuses everybody.
	Verify func(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error)

	State
	// Rules decide on what the allowlist, Verify and the locks admit; nil admits all of it.
	Rules *acl.Rules

	// Recheck says what happens to live sessions that would not be admitted any
	// more. They are judged after each SetPolicy and every RecheckInterval (0:
	// only then).
	Recheck         Recheck
	RecheckInterval time.Duration
	// OnExpiry is Recheck for sessions whose only fault is that a certificate of their
	// chain has expired.
	OnExpiry Recheck
	// EndOnStaleCRL ends live sessions, too, whose revocation list goes stale.
	EndOnStaleCRL bool

	// Backend is where admitted sessions go, unless the rule that has admitted one
	// names another of Backends. It may be nil if every rule does.
	Backend  *backend.Backend
	Backends map[string]*backend.Backend

	// StartupTimeout is how long a connection may take from accept until it is
	// admitted, and AuthenticationTimeout how long from there until PostgreSQL is
	// ready for the first query; 0: as StartupTimeout.
	StartupTimeout        time.Duration
	AuthenticationTimeout time.Duration
	// Limits bound what clients may take.
	Limits limit.Limits
	Recording
	// MaxCancelRequests is how many CancelRequests may be under way at
	// once; they count for nothing else.
	MaxCancelRequests int
	// KnownCancelsOnly forwards only those that have the key of a session of
	// ours.
	KnownCancelsOnly bool
}

// State is what a policy has from elsewhere than the configuration.
type State struct {
	// Locks refuse clients whatever the rules say; nil: none.
	Locks *lock.Set
	// Groups are the members of the roles that Policy.Rules name; nil: none is known.
	Groups acl.Groups
}

// Recording is what is recorded of connections.
type Recording struct {
	// AuditRequired refuses new sessions while the audit trail cannot be written.
	AuditRequired bool
	// LogEndsOnly leaves out the line about each session that begins.
	LogEndsOnly bool
	// RefusalLogRate is how many lines a second about connections that were refused
	// are logged, a fifth of them at most for one source; 0: all. Of the others the
	// log has a summary.
	RefusalLogRate float64
}

// Recheck says what happens to a live session that the policy would no longer
// admit.
type Recheck uint8

// The values of Recheck.
const (
	Immediate Recheck = iota // it is ended, between two messages of the backend's
	WhenIdle                 // it is ended when its backend is idle, outside of a transaction
	Off                      // it is counted
)
