package certs

import (
	"cmp"
	"time"
)

// DefaultSecurityBits is OpenSSL's security level 2, which is Debian's default:
// no RSA key below 2048 bits and no signature with SHA-1.
const DefaultSecurityBits = 112

// Options say what a chain must be good for.
type Options struct {
	Purpose Purpose
	Time    time.Time // zero: now

	// MinSecurityBits is the least strength of keys and signatures: 80, 112, 128,
	// 192 and 256 are OpenSSL's levels 1 to 5. Zero stands for
	// DefaultSecurityBits, and a negative number for no minimum.
	MinSecurityBits int
}

func (o Options) withDefaults() Options {
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	o.MinSecurityBits = cmp.Or(o.MinSecurityBits, DefaultSecurityBits)
	return o
}

// Verify finds a chain from a leaf certificate to an anchor of the pool, by way
// of the pool's other certificates and of those that were sent with the leaf,
// and judges it. The chain has the leaf first and the anchor last. The error is
// an *Error; the chain beside it is the one that was refused, and nil if there is
// none.
//
// What it costs is bounded whatever was sent: signatures are checked from the anchor
// down, and no further than the first that is wrong.
func Verify(leaf *Certificate, sent []*Certificate, pool *Pool, o Options) ([]*Certificate, error) {
	return VerifyAgain(func([]*Certificate) bool { return false }, leaf, sent, pool, o)
}

// VerifyAgain is Verify for a client that may have been verified before. signed reports
// whether the signatures of a chain have been found good by Verify: then they are not checked
// again. It is asked about what is judged. With a leaf that is an anchor itself that may be
// more than the chain.
func VerifyAgain(signed func(chain []*Certificate) bool, leaf *Certificate, sent []*Certificate, pool *Pool, o Options) ([]*Certificate, error) {
	o = o.withDefaults()
	if e := checkLeaf(leaf, o); e != nil {
		return nil, e
	}
	s := &search{pool: pool, sent: sent, options: o}
	chain := s.find(leaf)
	if chain == nil {
		return nil, s.refusal()
	}
	judged := chain
	if s.pinned { // check_trust in crypto/x509/x509_vfy.c leaves what is above the leaf in its chain
		judged = append([]*Certificate{chain[0]}, s.path[1:]...)
	}
	if e := checkChain(judged, o, signed(judged)); e != nil {
		return chain, e
	}
	return chain, nil
}
