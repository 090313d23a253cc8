package certs

import (
	"reflect"
	"slices"
)

// Pool is what a party trusts: roots, and intermediates that it need not be
// sent.
type Pool struct {
	name         string
	certificates []*Certificate
	bySubject    map[string][]*Certificate
	byRaw        map[string]*Certificate
	partialChain bool
}

// NewPool makes a pool of the certificates of a file. The name of the option
// that names the file is used in messages. Self-signed certificates are anchors;
// with partialChain all are, which is OpenSSL's X509_V_FLAG_PARTIAL_CHAIN.
func NewPool(name string, certificates []*Certificate, partialChain bool) *Pool {
	p := &Pool{
		name:         name,
		bySubject:    map[string][]*Certificate{},
		byRaw:        map[string]*Certificate{},
		partialChain: partialChain,
	}
	for _, c := range certificates {
		if p.byRaw[string(c.Raw)] != nil {
			continue
		}
		p.byRaw[string(c.Raw)] = c
		p.bySubject[c.Subject.canonical] = append(p.bySubject[c.Subject.canonical], c)
		p.certificates = append(p.certificates, c)
	}
	return p
}

// Certificates returns what is in the pool, each once, in the order of the file.
func (p *Pool) Certificates() []*Certificate { return p.certificates }

// Equal reports whether both pools have the same certificates in the same order.
func (p *Pool) Equal(other *Pool) bool {
	return slices.EqualFunc(p.certificates, other.certificates, func(a, b *Certificate) bool {
		return a.Equal(b) && reflect.DeepEqual(a.aux, b.aux)
	})
}

// Find returns the pool's own copy of a certificate, and nil if it has none.
func (p *Pool) Find(c *Certificate) *Certificate { return p.byRaw[string(c.Raw)] }

// BySubject returns the certificates of the pool that have this subject.
func (p *Pool) BySubject(n Name) []*Certificate { return p.bySubject[n.canonical] }

// IsAnchor reports whether a chain for this purpose may end in a certificate of
// the pool.
func (p *Pool) IsAnchor(c *Certificate, purpose Purpose) bool {
	own := p.Find(c)
	return own != nil && p.judge(own, purpose) == trusted
}

// judge is X509_check_trust for a certificate of the pool.
func (p *Pool) judge(own *Certificate, purpose Purpose) trustVerdict {
	if v := own.aux.judge(purpose); v != noTrustSettings {
		return v
	}
	if p.partialChain || own.SelfSigned() {
		return trusted
	}
	return noTrustSettings
}
