package crl

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Policy is what to ask of the lists, and what a missing or stale list means. The zero value is what PostgreSQL does.
type Policy struct {
	LeafOnly     bool          // the caller asks about the peer's own certificate only, not about the CAs above it
	AllowMissing bool          // a certificate passes whose issuer has no list
	AllowStale   bool          // a certificate passes whose issuer has only lists past their next update, if none revokes it
	Grace        time.Duration // how long a list stays in date after its next update
}

// Set is all lists of one configuration. Make it with a Builder. It does not change afterwards, and may be used by many
// goroutines at once. The zero value has no list, and so no certificate passes.
type Set struct {
	policy   Policy
	lists    []*List
	byIssuer map[string][]*List // by the DER of the name; several CAs may have the same
}

// Policy returns the policy that Check follows.
func (s *Set) Policy() Policy { return s.policy }

// Lists returns the lists whose issuer has that name, in DER. It may be the name of several CAs: see List.SignedBy.
func (s *Set) Lists(issuer []byte) []*List { return s.byIssuer[string(issuer)] }

// Info describes a list.
type Info struct {
	File       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the list has none and never expires
	Number     *big.Int  // nil: none, as in every version 1 list
	Entries    int
	Kept       bool // from before a reload: the file now has an older list
}

// Infos describes every list. A nil set has none.
func (s *Set) Infos() []Info {
	if s == nil {
		return nil
	}
	infos := make([]Info, 0, len(s.lists))
	for _, l := range s.lists {
		infos = append(infos, Info{
			File:       l.source.file,
			Issuer:     nameText(l.issuer),
			ThisUpdate: l.thisUpdate,
			NextUpdate: l.nextUpdate,
			Number:     l.number,
			Entries:    l.entries.count,
			Kept:       l.kept,
		})
	}
	return infos
}

func (s *Set) add(l *List) {
	s.lists = append(s.lists, l)
	s.byIssuer[string(l.issuer)] = append(s.byIssuer[string(l.issuer)], l)
}

// hasNewer reports whether the set has a newer list of the same CA.
func (s *Set) hasNewer(old *List) bool {
	return slices.ContainsFunc(s.lists, func(l *List) bool { return l.replaces(old) && l.compare(old) > 0 })
}

// Status is what the lists say about a certificate.
type Status uint8

// The statuses.
const (
	Missing Status = iota // no list of the issuer covers the certificate
	Stale                 // every list that covers it is past its next update or not yet in force, and none revokes it
	Good                  // a list in date covers it, and none revokes it
	Revoked
)

// Finding is the answer to the question about one certificate. The zero value does not pass.
type Finding struct {
	Status  Status
	Allowed bool              // Missing or Stale, and the policy allows it
	List    *List             // that decides; nil if Missing
	Entry   Entry             // of that list, if Revoked
	Issuer  *x509.Certificate // whose list is Missing
}

// OK reports whether the certificate passes.
func (f Finding) OK() bool { return f.Status == Good || f.Allowed }

// Check asks the lists about a certificate. A list decides if it is signed by the issuer and covers the certificate. At
// least one such list must be in date, and none in date may revoke it: OpenSSL picks one of several, but a CA may split
// its list over two files, and neither half may be ignored. A list past its next update still revokes while no list is
// in date, and a list kept from before a reload (see Builder) always revokes. A list that is not yet in force decides
// nothing.
//
// The caller must trust the issuer: Check verifies the signature of a list with the issuer's key, and a client must not
// be able to choose that work.
func (s *Set) Check(c, issuer *x509.Certificate, at time.Time) Finding {
	var good, stale, future *List
	var staleRevoked Finding
	if maySign(issuer) {
		serial := SerialOf(c)
		for _, l := range s.byIssuer[string(issuer.RawSubject)] {
			if !l.Covers(isCA(c)) || !l.SignedBy(issuer) {
				continue
			}
			entry, revoked := l.Find(serial)
			switch {
			case at.Before(l.thisUpdate):
				future = newer(future, l)
			case revoked && (l.kept || l.InDate(at, s.policy.Grace)):
				return Finding{Status: Revoked, List: l, Entry: entry}
			case l.InDate(at, s.policy.Grace):
				good = newer(good, l)
			case revoked:
				staleRevoked = Finding{Status: Revoked, List: l, Entry: entry}
			default:
				stale = newer(stale, l)
			}
		}
	}
	switch {
	case good != nil:
		return Finding{Status: Good, List: good}
	case staleRevoked.List != nil:
		return staleRevoked
	case stale != nil && s.policy.AllowStale:
		return Finding{Status: Stale, Allowed: true, List: stale}
	case stale != nil || future != nil:
		return Finding{Status: Stale, List: newer(stale, future)}
	default:
		return Finding{Status: Missing, Allowed: s.policy.AllowMissing, Issuer: issuer}
	}
}

// CheckAnchor asks about a certificate that is a trust anchor without being self-signed, so that no list needs to cover
// it. It still is revoked if its issuer is among the configured CAs and has revoked it.
func (s *Set) CheckAnchor(c *x509.Certificate, at time.Time) (f Finding, revoked bool) {
	serial := SerialOf(c)
	for _, l := range s.byIssuer[string(c.RawIssuer)] {
		if l.signer == nil {
			continue
		}
		if _, ok := l.Find(serial); ok && c.CheckSignatureFrom(l.signer) == nil {
			if f := s.Check(c, l.signer, at); f.Status == Revoked {
				return f, true
			}
		}
	}
	return Finding{}, false
}

// newer returns the later of two lists, either of which may be nil.
func newer(a, b *List) *List {
	if a == nil || b != nil && b.thisUpdate.After(a.thisUpdate) {
		return b
	}
	return a
}

func isCA(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// maySign reports whether a certificate allows its key to sign CRLs. Without the extension everything is allowed (RFC 5280
// section 4.2.1.3). With one that has no bit set, for which x509 has the same value, nothing is.
func maySign(c *x509.Certificate) bool {
	return c.KeyUsage&x509.KeyUsageCRLSign != 0 ||
		!slices.ContainsFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidKeyUsage) })
}

// SerialOf returns the content of the INTEGER that is the serial number of a certificate, which is what Find takes.
func SerialOf(c *x509.Certificate) []byte {
	var tbs, serial cryptobyte.String
	raw := cryptobyte.String(c.RawTBSCertificate)
	if raw.ReadASN1(&tbs, casn1.SEQUENCE) && tbs.SkipOptionalASN1(casn1.Tag(0).ContextSpecific().Constructed()) {
		tbs.ReadASN1(&serial, casn1.INTEGER)
	}
	return serial
}
