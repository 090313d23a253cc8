package certs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"pgwicket/internal/signature"
)

// maxDepth is how many certificates a chain may have above its leaf
// (X509_VERIFY_PARAM_set_depth: OpenSSL's default).
const maxDepth = 100

// search looks for a path from a leaf to an anchor as build_chain in
// crypto/x509/x509_vfy.c does with X509_V_FLAG_TRUSTED_FIRST. It takes the first
// issuer that fits and never goes back, and it looks at no signature: which key
// has signed is checked when the chain is complete, from the anchor down, so that
// a stranger who sends a thousand certificates costs one signature.
type search struct {
	pool    *Pool
	sent    []*Certificate
	options Options
	failure failure
	path    []*Certificate // as far as it went
	pinned  bool           // it led nowhere, but the leaf itself is an anchor
}

// failure is why there is no path: the certificate at which it ends.
type failure struct {
	kind   failureKind
	depth  int
	cert   *Certificate
	issuer *Certificate // the candidate that was not taken
	err    error        // why it was not
}

type failureKind int

const (
	noIssuer    failureKind = iota
	otherIssuer             // of the same name, but it is not the one that is meant
	distrustedIssuer
	tooLong
)

// find returns the path, or nil.
func (s *search) find(leaf *Certificate) []*Certificate {
	chain := append(make([]*Certificate, 0, 4), leaf)
	fromPool := false
	for {
		c := chain[len(chain)-1]
		if len(chain) > maxDepth {
			s.failure, s.path = failure{kind: tooLong, cert: leaf}, chain
			return nil
		}
		own := s.pick(c, s.pool.bySubject[c.Issuer.canonical], nil)
		if own != nil && !fromPool && c.SelfSigned() {
			// A self-signed certificate must be the one of the pool to the last byte.
			if own.Equal(c) {
				chain = chain[:len(chain)-1]
			} else {
				own = nil
			}
		}
		if own != nil && !slices.Contains(chain, own) {
			chain, fromPool = append(chain, own), true
			switch s.pool.judge(own, s.options.Purpose) {
			case trusted:
				return chain
			case distrusted:
				s.path = chain
				s.failure = failure{distrustedIssuer, len(chain) - 1, own, own, nil}
				return nil
			}
			continue
		}
		if !fromPool && !c.SelfSigned() {
			if next := s.pick(c, s.sent, chain); next != nil {
				chain = append(chain, next)
				continue
			}
		}
		s.path = chain
		s.explain(c, len(chain)-1)
		return s.leafItself(leaf, fromPool)
	}
}

// leafItself ends the chain with its first certificate, if that is an anchor and
// no other certificate of the pool is above it.
func (s *search) leafItself(leaf *Certificate, fromPool bool) []*Certificate {
	if !s.pool.partialChain || fromPool {
		return nil
	}
	if own := s.pool.Find(leaf); own != nil && s.pool.judge(own, s.options.Purpose) == trusted {
		s.pinned = true
		return []*Certificate{own}
	}
	return nil
}

// pick is find_issuer of crypto/x509/x509_vfy.c: the first issuer in date, or else
// the one that ends last.
func (s *search) pick(c *Certificate, candidates, chain []*Certificate) (best *Certificate) {
	for _, k := range candidates {
		switch {
		case k.mayHaveIssued(c) != nil, slices.ContainsFunc(chain, k.Equal):
		case k.inDate(s.options.Time):
			return k
		case best == nil || k.NotAfter.After(best.NotAfter):
			best = k
		}
	}
	return best
}

var errNotItsName = errors.New("it has another name")

// mayHaveIssued is ossl_x509_likely_issued of crypto/x509/v3_purp.c.
func (c *Certificate) mayHaveIssued(child *Certificate) error {
	if c.Subject.canonical != child.Issuer.canonical {
		return errNotItsName
	}
	if c.ext.malformed != "" {
		return malformedError{c}
	}
	if err := c.MatchesAuthority(child.ext.authority); err != nil {
		return err
	}
	if !c.Key.CanCheck(child.Algorithm) {
		return signature.Mismatch(child.Algorithm, c.Key)
	}
	return nil
}

// malformedError is a CA certificate that has the right name and cannot be used.
type malformedError struct{ cert *Certificate }

func (e malformedError) Error() string { return "it " + e.cert.ext.malformed }

// explain finds out why c has no issuer.
func (s *search) explain(c *Certificate, depth int) {
	s.failure = failure{kind: noIssuer, depth: depth, cert: c}
	for _, candidates := range [...][]*Certificate{s.pool.bySubject[c.Issuer.canonical], s.sent} {
		for _, k := range candidates {
			if err := k.mayHaveIssued(c); err != nil && !errors.Is(err, errNotItsName) && !k.Equal(c) {
				s.failure.kind, s.failure.issuer, s.failure.err = otherIssuer, k, err
				return
			}
		}
	}
}

// MatchesAuthority is X509_check_akid in crypto/x509/v3_purp.c: whether this may
// be the issuer that an authority key identifier names; nil stands for yes.
func (c *Certificate) MatchesAuthority(a *AuthorityKeyID) error {
	switch {
	case a == nil:
		return nil
	case a.keyID != nil && c.ext.keyID != nil && !bytes.Equal(a.keyID, c.ext.keyID):
		return keyIDError{a.keyID, c.ext.keyID}
	case a.serial != nil && !bytes.Equal(a.serial, c.RawSerial), a.named && !a.issuer.Equal(c.Issuer):
		return errAuthoritySerial
	}
	return nil
}

// keyIDError holds the identifiers as they are: most of these errors are never
// written out.
type keyIDError struct{ wanted, has []byte }

func (e keyIDError) Error() string {
	return fmt.Sprintf("its key identifier is %s and not %s", clip(fmt.Sprintf("%X", e.has)), clip(fmt.Sprintf("%X", e.wanted)))
}
