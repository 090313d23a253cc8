package tlsconfig

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

// A remembered verdict is the one that a verifier without memory gives: whatever is sent, whatever the clock does, and
// whatever a reload changes. What is kept for the session is the same, too.
func TestVerdictsAsWithoutMemory(t *testing.T) {
	t.Parallel()
	steps := 10000
	if testing.Short() {
		steps = 2000
	}
	seed := mathrand.Uint64()
	m := newVerdictModel(t, seed)
	remembered, admitted := 0, 0
	for step := range steps {
		if m.IntN(40) == 0 {
			m.reload()
		}
		m.passTime()
		sent, v := m.clients[m.IntN(len(m.clients))], m.live[m.IntN(len(m.live))]
		if m.IntN(4) == 0 && m.kept != nil { // a session is judged again
			sent = m.kept
		}
		if v.chains.facts.Find(sent).Admitted(v.epoch, m.now) {
			remembered++
		}
		keep, err := withoutChains(m.fresh[v]).verify(sent, m.now)
		for what, v := range map[string]*verifier{"by facts": withFacts(v), "by chains": v} {
			got, gotErr := v.verify(sent, m.now)
			if fmt.Sprint(gotErr) != fmt.Sprint(err) || !slices.EqualFunc(got, keep, bytes.Equal) {
				t.Fatalf("seed %d, step %d, %v after the start, %s: %v, %d are kept; without memory: %v, %d",
					seed, step, m.now.Sub(m.start), what, gotErr, len(got), err, len(keep))
			}
		}
		if err == nil && keep != nil {
			admitted++
			m.kept = keep
		}
	}
	if remembered < steps/200 || admitted-remembered < steps/100 || admitted > steps*9/10 {
		t.Errorf("seed %d: of %d clients %d are admitted, and %d by a verdict that is remembered", seed, steps, admitted, remembered)
	}
}

// verdictModel has certificates and lists whose dates are within a minute, and verifiers that have the same memory.
type verdictModel struct {
	*mathrand.Rand
	t          *testing.T
	start, now time.Time
	clients    [][][]byte
	pools      [][]*x509.Certificate
	lists      [][]byte // in PEM
	live       []*verifier
	fresh      map[*verifier]*verifier // as it was loaded, before it took anything over
	pool       int                     // of the last one
	kept       [][]byte
}

func newVerdictModel(t *testing.T, seed uint64) *verdictModel {
	m := &verdictModel{Rand: mathrand.New(mathrand.NewPCG(seed, 0)), t: t, start: time.Now().Truncate(time.Second), fresh: map[*verifier]*verifier{}}
	m.now = m.start
	root := tlstest.NewCA("root", m.dates)
	// One key, one name, several certificates.
	inter := root.Intermediate("intermediate", m.dates)
	sameCA := []*tlstest.CA{inter}
	for range 2 {
		again := *inter
		again.Cert = m.renewed(inter, root)
		sameCA = append(sameCA, &again)
	}
	// It passes for the intermediate until its signatures are verified.
	stranger := tlstest.NewCA("intermediate", m.dates, func(c *x509.Certificate) { c.SubjectKeyId = inter.Cert.SubjectKeyId })
	all := []*x509.Certificate{sameCA[0].Cert, sameCA[1].Cert, sameCA[2].Cert, root.Cert, stranger.Cert}
	var leaves []*x509.Certificate
	for i := range 6 {
		leaves = append(leaves, sameCA[i%3].Client(fmt.Sprint("client ", i), m.dates).Leaf())
	}
	for range 40 {
		sent := [][]byte{leaves[m.IntN(len(leaves))].Raw}
		for range m.IntN(4) {
			sent = append(sent, all[m.IntN(len(all))].Raw)
		}
		m.clients = append(m.clients, sent)
	}
	m.pools = [][]*x509.Certificate{
		{root.Cert}, {root.Cert, all[0]}, {root.Cert, all[1], all[2]}, {root.Cert, all[2], all[1]}, {leaves[0], leaves[1]},
	}
	for i := range 24 {
		ca := []*tlstest.CA{root, inter, inter}[i%3]
		m.lists = append(m.lists, ca.CRL(func(l *tlstest.CRL) {
			l.Number = big.NewInt(int64(i))
			l.ThisUpdate, l.NextUpdate = m.within(-20, 30), m.within(10, 90)
			if m.IntN(3) == 0 {
				l.Revoke(slices.Concat(leaves, all[:3])[m.IntN(9)])
			}
			if m.IntN(8) == 0 {
				l.Extensions = append(l.Extensions, deltaCRL)
			}
		}))
	}
	m.reload()
	return m
}

// within returns a second of so many after the start.
func (m *verdictModel) within(from, until int) time.Time {
	return m.start.Add(time.Duration(from+m.IntN(until-from)) * time.Second)
}

func (m *verdictModel) dates(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = m.within(-20, 10), m.within(30, 90)
}

// renewed returns another certificate of a CA, for the same key.
func (m *verdictModel) renewed(ca, issuer *tlstest.CA) *x509.Certificate {
	template := *ca.Cert
	template.SerialNumber = big.NewInt(m.Int64())
	m.dates(&template)
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer.Cert, ca.Key.Public(), issuer.Key)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// passTime is mostly a moment within one second, or goes to the next one. Now and then the clock is set.
func (m *verdictModel) passTime() {
	switch m.IntN(20) {
	case 0:
		m.now = m.within(-25, 95)
	case 1, 2:
		m.now = m.now.Add(time.Second)
	case 3:
		m.now = m.now.Add(-time.Second)
	}
	fraction := []time.Duration{0, 1, 499 * time.Millisecond, 500 * time.Millisecond, 501 * time.Millisecond, time.Second - 1}
	m.now = m.now.Truncate(time.Second).Add(fraction[m.IntN(len(fraction))])
}

// reload makes a verifier that takes over the memory of one before, if their CAs are the same. Some that were in use before
// stay so.
func (m *verdictModel) reload() {
	pool := m.pool
	if m.IntN(6) == 0 {
		pool = m.IntN(len(m.pools))
	}
	m.pool = pool
	partial := pool == len(m.pools)-1
	v := newVerifier([]ClientCert{ClientCertRequire, ClientCertOptional}[m.IntN(2)], m.pools[pool], partial, m.set(m.pools[pool], partial))
	if m.IntN(12) == 0 {
		v.minBits = 192 // more than the keys have
	}
	m.fresh[v] = withoutChains(v)
	for _, before := range m.live {
		v.inherit(before)
	}
	v.steps = v.stepsOf()
	m.live = append(m.live, v)
	m.live = m.live[max(0, len(m.live)-4):]
}

// set returns some of the lists with some policy, at times with those that are kept from the set before.
func (m *verdictModel) set(ca []*x509.Certificate, partialChain bool) *crl.Set {
	if m.IntN(8) == 0 {
		return nil
	}
	policy := crl.Policy{
		LeafOnly: m.IntN(3) == 0, AllowMissing: m.IntN(3) > 0, AllowStale: m.IntN(4) == 0,
		Grace: time.Duration(m.IntN(5)) * 500 * time.Millisecond,
	}
	b := &crl.Builder{
		Policy: policy, CAs: poolOf(ca, partialChain).Certificates(), Now: m.now, MinSecurityBits: certs.DefaultSecurityBits,
		KeepGone: m.IntN(2) == 0, CAOption: "ca_file", Peers: "clients",
	}
	if len(m.live) > 0 && m.IntN(2) == 0 {
		b.Previous = m.live[len(m.live)-1].crls
	}
	for range m.IntN(5) {
		i := m.IntN(len(m.lists))
		b.Add("crl_file", fmt.Sprint("list ", i), m.lists[i])
	}
	set, _ := b.Set("crl_file")
	return set
}
