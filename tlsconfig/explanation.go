package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Link is one certificate of a client's chain, as Explain shows it. Its subject holds anything that somebody has
// written into it, so it is to be quoted.
type Link struct {
	Subject  string
	Serial   string // as "openssl x509 -serial" writes it
	NotAfter time.Time
	Status   string // what the revocation lists say: "revoked on 2026-11-23 (keyCompromise), says …"
}

// Explain judges the certificates of a client as Verify would at that time, and shows the chain that decides, the
// client's own certificate first, with what the revocation lists say of each. Where there is no chain to a trusted CA it
// goes as far up as there are signatures to follow. The verdict is nil or a *CertificateError.
func (s *Server) Explain(peer []*x509.Certificate, at time.Time) (chain []Link, verdict error) {
	return s.verifier.links(peer, at)
}

func (v *verifier) links(peer []*x509.Certificate, at time.Time) (links []Link, verdict error) {
	chain, refused := v.judge(peer, at)
	if refused != nil {
		verdict = refused
	}
	if len(peer) == 0 {
		return nil, verdict
	}
	ends := chain != nil
	if !ends {
		chain, ends = v.climb(peer)
	}
	for i, c := range chain {
		f := finding{unasked: "its chain does not end in ca_file"}
		switch {
		case v.mode == ClientCertNone:
			f.unasked = "client_cert: none"
		case ends:
			f = v.revocation(chain, i, at)
		}
		links = append(links, Link{nameText(c.RawSubject), serialText(c), c.NotAfter, v.words(f, at)})
	}
	return links, verdict
}

// words says what the lists have said, and on what terms.
func (v *verifier) words(f finding, at time.Time) string {
	switch {
	case f.unasked != "":
		return "not asked: " + f.unasked
	case f.reason == ReasonRevoked:
		return f.revoked()
	case f.reason != "":
		return f.detail(at)
	case f.list == nil:
		return fmt.Sprintf("not known, for there is no list from %q, which may be missing (crl_missing: allow)", nameText(f.issuer.RawSubject))
	}
	text := "not revoked, says " + f.list.inFull()
	switch {
	case f.list.inDate(at, 0):
		return text
	case v.crls.policy.allowStale:
		return text + ", which is out of date and counts all the same (crl_stale: allow)"
	default:
		return text + ", which is out of date and counts for a while (crl_grace)"
	}
}

// inFull names a list with what its CA says of its age.
func (l *crl) inFull() string {
	var more []string
	if l.number != nil {
		more = append(more, "number "+clip(l.number.String()))
	}
	next := "no next update"
	if !l.nextUpdate.IsZero() {
		next = "next update " + timeText(l.nextUpdate)
	}
	return l.where(slices.Concat(more, []string{next})...)
}
