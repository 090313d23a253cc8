package tlsconfig

import (
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// No option admits what a list revokes, whatever else is wrong with the list, the CA or the options: PKIs made at random.
func TestNoOptionAdmitsTheRevoked(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(13, 2))
	coin := func() bool { return r.IntN(2) == 0 }
	now := time.Now()
	for i := range 150 {
		root := tlstest.NewCA("root")
		var edits []func(*x509.Certificate)
		if coin() {
			edits = append(edits, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }) // no cRLSign
		}
		inter := root.Intermediate("inter", edits...)
		alice, mallory := inter.Client("alice"), inter.Client("mallory")
		list := inter.CRL(func(l *tlstest.CRL) {
			l.Revoke(mallory.Leaf())
			switch r.IntN(6) {
			case 0:
				l.ThisUpdate = now.Add(time.Hour)
			case 1:
				l.ThisUpdate, l.NextUpdate = now.AddDate(0, 0, -9), now.AddDate(0, 0, -2)
			case 2:
				l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.PointName("http://ca.example/1.crl")))
			case 3:
				l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(2+2*r.IntN(2)))) // CAs, or indirect
			case 4:
				l.Extensions = append(l.Extensions, tlstest.Extension(unknownExt, true, 1))
			}
		})
		ca := []*x509.Certificate{root.Cert}
		if coin() {
			ca = append(ca, inter.Cert)
		}
		o := Options{CRLMissing: CRLMissingAllow}
		if coin() {
			o.CRLStale = CRLStaleAllow
		}
		if coin() {
			o.CRLCheck = CRLCheckLeaf
		}
		lists := [][]byte{list}
		if coin() {
			lists = append(lists, root.CRL(nil))
		}
		set, problems := loadLists(t, ca, o, nil, slices.Concat(lists...))
		v := newVerifier(ClientCertRequire, ca, coin(), set)
		if err := v.check(mallory.Chain, now); err == nil {
			t.Errorf("%d: the revoked client is admitted: %+v, %q", i, o, problems)
		}
		_ = v.check(alice.Chain, now) // an answer of the other kind before
		if err := v.check(mallory.Chain, now); err == nil {
			t.Errorf("%d: the revoked client is admitted the second time", i)
		}
	}
}
