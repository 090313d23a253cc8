package crl

import (
	"sync"
	"sync/atomic"

	"pgwicket/internal/certs"
)

// signatures remembers which keys have signed a list and which have not: to hash a list of twenty megabytes takes longer
// than the rest of a handshake.
type signatures struct {
	mu       sync.Mutex
	verified map[string]func() bool // by SubjectPublicKeyInfo

	last atomic.Pointer[certs.Certificate] // that has signed: nearly always the only one that is asked about
}

// signaturesLimit bounds what is remembered, since a CA can have any number of CAs of one name below it.
const signaturesLimit = 64

// SignedBy reports whether the key of a certificate has signed the list. It looks at nothing else: neither at the name of
// the certificate nor at whether that CA may sign lists. The result is remembered by the key.
func (l *List) SignedBy(issuer *certs.Certificate) bool {
	if l.signatures.last.Load() == issuer {
		return true
	}
	l.signatures.mu.Lock()
	verified, ok := l.signatures.verified[string(issuer.RawSPKI)]
	if !ok {
		if len(l.signatures.verified) == signaturesLimit {
			clear(l.signatures.verified)
		}
		if l.signatures.verified == nil {
			l.signatures.verified = map[string]func() bool{}
		}
		verified = sync.OnceValue(func() bool { return issuer.Key.Check(l.algorithm, l.tbs, l.signature) == nil })
		l.signatures.verified[string(issuer.RawSPKI)] = verified
	}
	l.signatures.mu.Unlock()
	good := verified() // callers with this key wait for each other here, callers with another key do not
	if good {
		l.signatures.last.Store(issuer)
	}
	return good
}
