package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// crlSet is every list of one configuration. It does not change once loaded, and may be used by many sessions at once.
type crlSet struct {
	policy   crlPolicy
	lists    []*crl
	byIssuer map[string][]*crl // by the DER of the name; several CAs may have the same
}

// CRLInfo describes a list for metrics.
type CRLInfo struct {
	File       string
	Issuer     string
	ThisUpdate time.Time
	NextUpdate time.Time // zero: none, the list is good forever
	Number     *big.Int  // nil: none, as in every version 1 list
	Entries    int
	Kept       bool // no longer in its file: the list that is there now is older
}

func (s *crlSet) infos() []CRLInfo {
	if s == nil {
		return nil
	}
	infos := make([]CRLInfo, 0, len(s.lists))
	for _, l := range s.lists {
		infos = append(infos, CRLInfo{
			File:       l.file,
			Issuer:     nameText(l.issuer),
			ThisUpdate: l.thisUpdate,
			NextUpdate: l.nextUpdate,
			Number:     l.number,
			Entries:    l.revoked.count,
			Kept:       l.kept,
		})
	}
	return infos
}

func (s *crlSet) add(l *crl) {
	s.lists = append(s.lists, l)
	s.byIssuer[string(l.issuer)] = append(s.byIssuer[string(l.issuer)], l)
}

// supersedes says whether the set has a newer list of the same CA.
func (s *crlSet) supersedes(old *crl) bool {
	return slices.ContainsFunc(s.lists, func(l *crl) bool { return l.succeeds(old) && l.compare(old) > 0 })
}

// finding is what the lists say of one certificate.
type finding struct {
	reason  Reason            // why it does not pass; empty: it does
	list    *crl              // that decides; nil: there is none
	entry   revocation        // of that list, if it revokes
	issuer  *x509.Certificate // that has no list, if there is none
	unasked string            // why no list was asked; empty: the lists were
}

// check asks the lists about a certificate. At least one list must be signed by the issuer, speak of such certificates
// and be in date, and none of those that are may revoke it: OpenSSL picks one of several, but a CA that splits its list
// over two files must not have half of it ignored. Where all are past their next update, what they revoke is revoked
// still; so is what a kept list revokes, for as long as it is kept. A list that is not yet in force says nothing at all.
//
// The caller has made sure that the issuer is one we trust: verifying a list of a stranger's choice would be work done
// for anybody who asks.
func (s *crlSet) check(c, issuer *x509.Certificate, at time.Time) finding {
	var good, past, future *crl
	var late finding
	if mayUseKey(issuer, x509.KeyUsageCRLSign) {
		serial := serialOf(c)
		for _, l := range s.byIssuer[string(issuer.RawSubject)] {
			if !l.covers(c) || !l.signedBy(issuer) {
				continue
			}
			entry, revoked := l.revoked.find(serial)
			switch {
			case at.Before(l.thisUpdate):
				future = newer(future, l)
			case revoked && (l.kept || l.inDate(at, s.policy.grace)):
				return finding{reason: ReasonRevoked, list: l, entry: entry}
			case l.inDate(at, s.policy.grace):
				good = newer(good, l)
			case revoked:
				late = finding{reason: ReasonRevoked, list: l, entry: entry}
			default:
				past = newer(past, l)
			}
		}
	}
	switch {
	case good != nil:
		return finding{list: good}
	case late.list != nil:
		return late
	case past != nil && s.policy.allowStale:
		return finding{list: past}
	case past != nil || future != nil:
		return finding{reason: ReasonCRLStale, list: newer(past, future)}
	case s.policy.allowMissing:
		return finding{issuer: issuer}
	default:
		return finding{reason: ReasonCRLMissing, issuer: issuer}
	}
}

// newer returns the later of two lists, of which either may be nil.
func newer(a, b *crl) *crl {
	if a == nil || b != nil && b.thisUpdate.After(a.thisUpdate) {
		return b
	}
	return a
}

// listed asks about a certificate that is trusted for itself, so that no list has to speak for it. One that was signed
// by a CA of the CA file and revokes it is still heard.
func (s *crlSet) listed(c *x509.Certificate, at time.Time) finding {
	serial := serialOf(c)
	for _, l := range s.byIssuer[string(c.RawIssuer)] {
		if l.signer == nil {
			continue
		}
		if _, ok := l.revoked.find(serial); ok && c.CheckSignatureFrom(l.signer) == nil {
			if f := s.check(c, l.signer, at); f.reason == ReasonRevoked {
				return f
			}
		}
	}
	return finding{unasked: "it is trusted for itself (partial_chain), and no list revokes it"}
}

// detail says why a certificate does not pass, and goes on from its name.
func (f finding) detail(at time.Time) string {
	switch {
	case f.reason == ReasonRevoked:
		return "was " + f.revoked()
	case f.list != nil:
		return "cannot be checked: " + f.list.stale(at)
	case !mayUseKey(f.issuer, x509.KeyUsageCRLSign):
		return fmt.Sprintf("has an issuer, %q, that may not sign CRLs", nameText(f.issuer.RawSubject))
	default:
		return fmt.Sprintf("is not covered by any CRL: there is none from %q", nameText(f.issuer.RawSubject))
	}
}

func (f finding) revoked() string {
	return fmt.Sprintf("revoked on %s (%s), says %s", dateText(f.entry.date), f.entry.reasonName(), f.list.where())
}

// stale says why a list is not in date.
func (l *crl) stale(at time.Time) string {
	if at.Before(l.thisUpdate) {
		return fmt.Sprintf("%s is not valid before %s", l.where(), timeText(l.thisUpdate))
	}
	return fmt.Sprintf("%s is out of date since %s", l.where(), timeText(l.nextUpdate))
}

// where names a list in a message, with what else is to be said of it.
func (l *crl) where(more ...string) string {
	var about []string
	if l.block > 0 {
		about = append(about, fmt.Sprintf("block %d", l.block))
	}
	if l.issuer != nil {
		about = append(about, fmt.Sprintf("from %q", nameText(l.issuer)))
	}
	if l.kept {
		about = append(about, "as it was before a reload")
	}
	if about = append(about, more...); len(about) == 0 {
		return fmt.Sprintf("%q", l.file)
	}
	return fmt.Sprintf("%q (%s)", l.file, strings.Join(about, ", "))
}

// signers remembers which keys signed a list and which did not, because to hash twenty megabytes takes longer than all
// the rest of a handshake.
type signers struct {
	mu    sync.Mutex
	known map[string]func() bool // by SubjectPublicKeyInfo
}

// A CA can have any number of CAs of one name below it, so what is remembered needs a bound.
const signersLimit = 64

// signedBy goes by the key alone; whether that CA may sign lists is another question.
func (l *crl) signedBy(issuer *x509.Certificate) bool {
	l.signers.mu.Lock()
	verified, ok := l.signers.known[string(issuer.RawSubjectPublicKeyInfo)]
	if !ok {
		if len(l.signers.known) == signersLimit {
			clear(l.signers.known)
		}
		if l.signers.known == nil {
			l.signers.known = map[string]func() bool{}
		}
		verified = sync.OnceValue(func() bool { return issuer.CheckSignature(l.algorithm, l.tbs, l.signature) == nil })
		l.signers.known[string(issuer.RawSubjectPublicKeyInfo)] = verified
	}
	l.signers.mu.Unlock()
	return verified() // others who ask for this key wait here, those who ask for another do not
}

// serialOf returns the contents of the serial's INTEGER as they stand in the certificate, which is how lists have it.
func serialOf(c *x509.Certificate) []byte {
	var tbs, serial cryptobyte.String
	raw := cryptobyte.String(c.RawTBSCertificate)
	if raw.ReadASN1(&tbs, asn1.SEQUENCE) && tbs.SkipOptionalASN1(asn1.Tag(0).ContextSpecific().Constructed()) {
		tbs.ReadASN1(&serial, asn1.INTEGER)
	}
	return serial
}
