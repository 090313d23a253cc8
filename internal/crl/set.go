package crl

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"pgwicket/internal/certs"
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
	byIssuer map[string][]*List // by the canonical form of the name; several CAs may have the same
	unusable map[string][]*List // likewise: those that are not among lists, since they cannot be used
	unread   string             // why a file that may hold any CA's list is not used; empty: there is none

	// onlyRevoke are lists that are not relied on, by the canonical form of the name: those that cannot be used, and deltas.
	onlyRevoke map[string][]*List
}

// Policy returns the policy that Check follows.
func (s *Set) Policy() Policy { return s.policy }

// Info describes a list.
type Info struct {
	File       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the list has none and never expires
	Number     *big.Int  // nil: none, as in every version 1 list
	Entries    int
	Kept       bool   // from before a reload: the file now has an older list, or one that cannot be used
	Problem    string // why the list cannot be used, as a sentence; empty: it is in use
}

// Infos describes every list. A nil set has none.
func (s *Set) Infos() []Info {
	if s == nil {
		return nil
	}
	infos := make([]Info, 0, len(s.lists))
	for _, l := range s.lists {
		infos = append(infos, l.info())
	}
	for _, issuer := range slices.Sorted(maps.Keys(s.unusable)) {
		for _, l := range s.unusable[issuer] {
			infos = append(infos, l.info())
		}
	}
	return infos
}

func (l *List) info() Info {
	info := Info{
		File:       l.source.file,
		Issuer:     nameText(l.issuer),
		ThisUpdate: l.thisUpdate,
		NextUpdate: l.nextUpdate,
		Number:     l.number,
		Entries:    l.entries.count,
		Kept:       l.kept,
	}
	if l.problem != "" {
		info.Problem = fmt.Sprintf("%s %s", l, l.problem)
	}
	return info
}

func (s *Set) add(l *List) {
	key := l.issuer.Canonical()
	if l.problem != "" {
		s.addOnlyRevoke(l)
		s.unusable[key] = append(s.unusable[key], l)
		return
	}
	s.lists = append(s.lists, l)
	s.byIssuer[key] = append(s.byIssuer[key], l)
}

// addOnlyRevoke adds a list that can do no more than revoke, if it can: an indirect one names certificates of other CAs.
func (s *Set) addOnlyRevoke(l *List) {
	key := l.issuer.Canonical()
	if l.algorithm != nil && l.algorithm.Supported() && !l.foreign && l.entries.count > 0 && !slices.Contains(s.onlyRevoke[key], l) {
		s.onlyRevoke[key] = append(s.onlyRevoke[key], l)
	}
}

// allOnlyRevoke returns every list of onlyRevoke, those of one issuer in a fixed order.
func (s *Set) allOnlyRevoke() (all []*List) {
	for _, issuer := range slices.Sorted(maps.Keys(s.onlyRevoke)) {
		all = append(all, s.onlyRevoke[issuer]...)
	}
	return all
}

// Dates returns the times at which a finding may change: it is the same at two times with none of these between them.
// The end of a list's grace is one.
func (s *Set) Dates() (all []time.Time) {
	for _, l := range append(slices.Clone(s.lists), s.allOnlyRevoke()...) {
		all = append(all, l.thisUpdate, l.nextUpdate, l.until)
		if !l.nextUpdate.IsZero() && s.policy.Grace > 0 {
			all = append(all, l.nextUpdate.Add(s.policy.Grace))
		}
	}
	return all
}

// hasNewer reports whether the set has a newer list of the same CA.
func (s *Set) hasNewer(old *List) bool {
	return slices.ContainsFunc(s.lists, func(l *List) bool { return l.replaces(old) && l.compare(old) > 0 })
}

// Status is what the lists say about a certificate.
type Status uint8

// The statuses.
const (
	Missing Status = iota // no list of the issuer that can be relied on covers the certificate
	Stale                 // every list that covers it is past its next update or not yet in force, and none revokes it
	Good                  // a list in date covers it, and none revokes it
	Revoked
)

// Finding is the answer to the question about one certificate. The zero value does not pass.
type Finding struct {
	Status  Status
	Allowed bool               // Missing or Stale, and the policy allows it
	List    *List              // that decides; nil if Missing
	Entry   Entry              // of that list, if Revoked
	Issuer  *certs.Certificate // whose list is Missing
	Why     string             // why Issuer's lists do not count, as a sentence; empty: there is none
}

// OK reports whether the certificate passes.
func (f Finding) OK() bool { return f.Status == Good || f.Allowed }

// Check asks the lists about a certificate. above is the chain from its issuer to the anchor, or a self-signed certificate
// itself. A list is relied on if it covers the certificate (see List.covers), and the issuer, or another certificate of
// its name above, has signed it and may do so. Such lists must cover every reason of revocation between them.
//
// At least one must be in date, and none in date may revoke the certificate: OpenSSL picks one of several, but a CA may
// split its list over two files, and neither half may be ignored. A list past its next update still revokes while no list
// is in date; one kept from before a reload (see Builder) and one from the future always do. To revoke, it is enough that
// the key of the issuer has signed a list: whatever else is missing is no reason to admit what a CA has revoked. A list
// that cannot be used, or a delta, revokes until a newer list that can be relied on does not.
//
// The caller must trust the certificates above: Check verifies the signature of a list with their keys, and a client must
// not be able to choose that work.
func (s *Set) Check(c *certs.Certificate, above []*certs.Certificate, at time.Time) Finding {
	issuer := above[0]
	t := tally{issuer: issuer}
	for _, l := range s.byIssuer[c.Issuer.Canonical()] {
		if !l.until.IsZero() && !at.Before(l.until) {
			continue
		}
		signer, relied := l.signerOf(above)
		if signer == nil {
			continue
		}
		reasons, covered := l.covers(c)
		entry, revoked := l.Find(c.RawSerial)
		inDate := l.InDate(at, s.policy.Grace)
		switch {
		case revoked && covered && (l.kept || inDate || at.Before(l.thisUpdate)):
			return Finding{Status: Revoked, List: l, Entry: entry}
		case revoked:
			t.weak = Finding{Status: Revoked, List: l, Entry: entry}
		case !covered:
			t.uncovered = l
		case !relied:
			t.mayNotSign = signer
		case at.Before(l.thisUpdate):
			t.future = newer(t.future, l)
		case inDate:
			t.reasons |= reasons
			t.good = newer(t.good, l)
		default:
			t.stale = newer(t.stale, l)
		}
	}
	s.tallyRevoking(&t, c, above)
	return s.decide(c, &t, at)
}

// tallyRevoking asks the lists that can do no more than revoke.
func (s *Set) tallyRevoking(t *tally, c *certs.Certificate, above []*certs.Certificate) {
	for _, l := range s.onlyRevoke[c.Issuer.Canonical()] {
		entry, revoked := l.Find(c.RawSerial)
		if _, covered := l.covers(c); !revoked || !covered {
			continue
		}
		if signer, _ := l.signerOf(above); signer == nil {
			continue
		}
		// Its next update is not looked at: what it revokes is in no complete list yet.
		f := Finding{Status: Revoked, List: l, Entry: entry}
		switch {
		case t.good != nil && l.thisUpdate.Before(t.good.thisUpdate):
			t.weak = f
		case t.last.List == nil || l.thisUpdate.After(t.last.List.thisUpdate):
			t.last = f
		}
	}
}

// tally is what the lists of one issuer say about a certificate, unless one revokes it for certain.
type tally struct {
	issuer              *certs.Certificate
	good, stale, future *List // the newest of each kind
	reasons             uint16
	weak                Finding            // by a list that is out of date or older than the good one, or does not cover the certificate
	last                Finding            // by a list that cannot be used or a delta, and is not older than the good one
	mayNotSign          *certs.Certificate // has signed a list
	uncovered           *List
}

func (s *Set) decide(c *certs.Certificate, t *tally, at time.Time) Finding {
	var unusable *List
	if list := s.unusable[c.Issuer.Canonical()]; len(list) > 0 {
		unusable = list[0]
	}
	switch {
	case t.last.List != nil:
		return t.last
	case t.good != nil && t.reasons == certs.AllReasons:
		return Finding{Status: Good, List: t.good}
	case t.weak.List != nil:
		return t.weak
	case unusable != nil:
		f := Finding{Issuer: t.issuer, Why: fmt.Sprintf("%s %s", unusable, unusable.problem)}
		if t.stale != nil {
			f.Status = Stale
			f.Why += "; and " + t.stale.staleness(at)
		}
		return f
	case t.stale != nil && s.policy.AllowStale:
		return Finding{Status: Stale, Allowed: true, List: t.stale}
	case t.stale != nil || t.future != nil:
		return Finding{Status: Stale, List: newer(t.stale, t.future)}
	}
	// The file that is not used may hold the list that is missing, whatever else the issuer has.
	f := Finding{Status: Missing, Issuer: t.issuer, Allowed: s.policy.AllowMissing && s.unread == ""}
	switch {
	case t.mayNotSign != nil:
		f.Why = fmt.Sprintf("its issuer %q has signed a list, but may not sign CRLs (keyUsage without cRLSign), or the list names another certificate as its authority", nameText(t.mayNotSign.Subject))
	case t.good != nil:
		f.Why = fmt.Sprintf("the lists of %q cover only some reasons of revocation for its distribution points", nameText(t.issuer.Subject))
	case t.uncovered != nil:
		f.Why = t.uncovered.why(c)
	case s.unread != "":
		f.Why = s.unread
	}
	return f
}

// signerOf returns which of the certificates has signed the list, and whether the list can be relied on for it: the
// issuer, or above it another certificate of the CA, as after a change of its key (RFC 5280 section 6.3.3 (f)).
func (l *List) signerOf(above []*certs.Certificate) (signer *certs.Certificate, relied bool) {
	for _, k := range above {
		if !k.Subject.Equal(l.issuer) || !l.SignedBy(k) {
			continue
		}
		if k.MaySignLists() && k.MatchesAuthority(l.authority) == nil {
			return k, true
		}
		if signer == nil {
			signer = k
		}
	}
	return signer, false
}

// CheckAnchor asks about a certificate that is a trust anchor without being self-signed, so that no list needs to cover
// it. It still is revoked if its issuer is among the configured CAs and has revoked it.
func (s *Set) CheckAnchor(c *certs.Certificate, at time.Time) (f Finding, revoked bool) {
	key := c.Issuer.Canonical()
	for _, l := range slices.Concat(s.byIssuer[key], s.onlyRevoke[key]) {
		if l.signer == nil {
			continue
		}
		if _, ok := l.Find(c.RawSerial); ok && l.signer.CheckSigned(c) == nil {
			if f := s.Check(c, []*certs.Certificate{l.signer}, at); f.Status == Revoked {
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
