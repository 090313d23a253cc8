package certs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"pgwicket/internal/signature"
)

// What a search may cost. OpenSSL allows chains of a hundred certificates, and
// crypto/x509 as many checks.
const (
	maxChecks = 100
	maxFailed = 16 // of certificates that were sent
)

// search looks for a path from a leaf to an anchor.
type search struct {
	pool    *Pool
	sent    []*Certificate
	options Options

	chain     []*Certificate
	anyDate   bool // certificates out of date are tried, too
	skipped   bool // one was not
	dead      map[*Certificate]bool
	verdicts  []signatureVerdict
	checks    int
	failed    int // of the sent ones
	exhausted bool
	failure   failure
}

type signatureVerdict struct {
	child, issuer *Certificate
	err           error
}

// failure is the best reason so far why there is no path.
type failure struct {
	rank   int
	depth  int
	cert   *Certificate // whose issuer is missing
	issuer *Certificate // the candidate that was not taken
	err    error
}

// The ranks: the higher, the nearer to a path.
const (
	rankNone = iota
	rankNoIssuer
	rankOtherKey
	rankUnusable
	rankSignature
	rankWeak
	rankExhausted
)

// find returns the first path, in OpenSSL's order of preference. One without a
// certificate that is out of date goes before all others.
func (s *search) find(leaf *Certificate) []*Certificate {
	for {
		s.chain = append(make([]*Certificate, 0, 4), leaf)
		if s.extend(false) {
			return s.chain
		}
		if s.anyDate || !s.skipped || s.exhausted {
			return nil
		}
		s.anyDate, s.dead = true, nil
	}
}

// extend goes on from the end of the chain. As in OpenSSL, above a certificate
// of the pool only others of the pool are looked for.
func (s *search) extend(fromPool bool) bool {
	last := len(s.chain) - 1
	c := s.chain[last]
	if fromPool {
		switch s.pool.judge(c, s.options.Purpose) {
		case trusted:
			return true
		case distrusted:
			s.note(rankUnusable, c, c, errDistrusted)
			return false
		}
	} else if c.SelfSigned() {
		return s.ownCopy(c)
	}
	for _, k := range s.candidates(s.pool.bySubject[c.Issuer.canonical]) {
		if s.try(c, k, true) {
			return true
		}
	}
	if !fromPool {
		for _, k := range s.candidates(s.sentIssuers(c)) {
			if s.try(c, k, false) {
				return true
			}
		}
	}
	if s.pool.partialChain && last == 0 {
		return s.ownCopy(c)
	}
	return false
}

// ownCopy ends the chain with the pool's copy of its last certificate.
func (s *search) ownCopy(c *Certificate) bool {
	own := s.pool.Find(c)
	if own == nil || s.pool.judge(own, s.options.Purpose) != trusted {
		s.note(rankNoIssuer, c, nil, nil)
		return false
	}
	s.chain[len(s.chain)-1] = own
	return true
}

// try takes a candidate as the issuer of c.
func (s *search) try(c, k *Certificate, fromPool bool) bool {
	if s.exhausted || s.dead[k] || slices.ContainsFunc(s.chain, k.Equal) {
		return false
	}
	if err := k.matchesAuthority(c.ext.authority); err != nil {
		s.note(rankOtherKey, c, k, err)
		return false
	}
	if k.ext.malformed != "" {
		s.note(rankUnusable, c, k, errMalformed)
		return false
	}
	if !s.anyDate && !k.inDate(s.options.Time) {
		s.skipped = true
		return false
	}
	if err := s.signed(c, k, fromPool); err != nil {
		return false
	}
	s.chain = append(s.chain, k)
	if s.extend(fromPool) {
		return true
	}
	s.chain = s.chain[:len(s.chain)-1]
	if s.dead == nil {
		s.dead = map[*Certificate]bool{}
	}
	s.dead[k] = true
	return false
}

// candidates puts those first that end last, where they are all out of date.
func (s *search) candidates(list []*Certificate) []*Certificate {
	if len(list) == 0 {
		last := len(s.chain) - 1
		s.note(rankNoIssuer, s.chain[last], nil, nil)
	}
	if !s.anyDate || len(list) < 2 {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *Certificate) int { return b.NotAfter.Compare(a.NotAfter) })
	return list
}

func (s *search) sentIssuers(c *Certificate) (list []*Certificate) {
	for _, k := range s.sent {
		if k.Subject.canonical == c.Issuer.canonical {
			list = append(list, k)
		}
	}
	return list
}

// signed checks each pair once, and what is too weak anyway not at all.
func (s *search) signed(c, k *Certificate, fromPool bool) error {
	for i := range s.verdicts {
		if v := &s.verdicts[i]; v.child == c && v.issuer == k {
			return v.err
		}
	}
	err := s.checkSignature(c, k)
	s.verdicts = append(s.verdicts, signatureVerdict{c, k, err})
	if err != nil && !fromPool {
		s.failed++
	}
	if s.checks >= maxChecks || s.failed >= maxFailed {
		s.exhausted = true
		s.note(rankExhausted, c, k, errExhausted)
	}
	return err
}

func (s *search) checkSignature(c, k *Certificate) error {
	rank := rankWeak
	var err error
	if !k.Key.CanCheck(c.Algorithm) {
		err = signature.Mismatch(c.Algorithm, k.Key)
	} else if err = tooWeak(c, k, s.options.MinSecurityBits); err == nil {
		s.checks++
		err = k.signed(c)
		rank = rankSignature
	}
	if unsupported := signature.UnsupportedError(""); errors.As(err, &unsupported) || errors.Is(err, errAlgorithms) {
		rank = rankUnusable
	}
	if err != nil {
		s.note(rank, c, k, err)
	}
	return err
}

func (s *search) note(rank int, c, issuer *Certificate, err error) {
	depth := len(s.chain) - 1
	if rank > s.failure.rank || rank == s.failure.rank && depth > s.failure.depth {
		s.failure = failure{rank, depth, c, issuer, err}
	}
}

// matchesAuthority is X509_check_akid in crypto/x509/v3_purp.c: whether this may
// be the issuer that an authority key identifier names.
func (c *Certificate) matchesAuthority(a *authorityKeyID) error {
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
