package crl

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/dn"
)

// Detail says why a certificate does not pass, and completes a sentence that begins with the certificate. It names files:
// it is for the log and not for the peer.
func (f Finding) Detail(at time.Time) string {
	switch {
	case f.Status == Revoked:
		return "was " + f.Revocation()
	case f.List != nil:
		return "cannot be checked: " + f.List.staleness(at)
	case f.Why != "":
		return "cannot be checked: " + f.Why
	case f.Issuer != nil:
		return fmt.Sprintf("is not covered by any CRL: there is none from %q", nameText(f.Issuer.Subject))
	default:
		return "is not covered by any CRL"
	}
}

// Revocation says when and why a certificate was revoked, and which list says so.
func (f Finding) Revocation() string {
	return fmt.Sprintf("revoked on %s (%s) by %s", dateText(f.Entry.Date), ReasonName(f.Entry.Reason), f.List)
}

// staleness says why a list is not in date.
func (l *List) staleness(at time.Time) string {
	if at.Before(l.thisUpdate) {
		return fmt.Sprintf("%s is not valid before %s", l, timeText(l.thisUpdate))
	}
	return fmt.Sprintf("%s is out of date since %s", l, timeText(l.nextUpdate))
}

// String names the list in a message: its file, its place there, and its issuer.
func (l *List) String() string { return l.describe() }

// Describe names the list as String does, with its number and next update.
func (l *List) Describe() string {
	var more []string
	if l.number != nil {
		more = append(more, "number "+numberText(l.number))
	}
	next := "no next update"
	if !l.nextUpdate.IsZero() {
		next = "next update " + timeText(l.nextUpdate)
	}
	return l.describe(append(more, next)...)
}

func (l *List) describe(more ...string) string {
	var about []string
	if l.source.block > 0 {
		about = append(about, fmt.Sprintf("block %d", l.source.block))
	}
	if l.issuer.Raw != nil {
		about = append(about, fmt.Sprintf("from %q", nameText(l.issuer)))
	}
	if l.kept {
		about = append(about, "kept from before a reload")
	}
	if about = append(about, more...); len(about) == 0 {
		return fmt.Sprintf("%q", l.source.file)
	}
	return fmt.Sprintf("%q (%s)", l.source.file, strings.Join(about, ", "))
}

// why says why the list does not cover a certificate of its issuer.
func (l *List) why(c *certs.Certificate) string {
	switch {
	case l.scope.users || l.scope.cas:
		return fmt.Sprintf("%s is not about it (onlyContainsUserCerts or onlyContainsCACerts, RFC 5280 section 5.2.5): have the CA publish a list for the other kind as well", l)
	case len(c.DistributionPoints()) == 0:
		return fmt.Sprintf("%s is for the distribution point %q, and the certificate names none: "+
			"have the CA issue certificates with this cRLDistributionPoints (step-ca: in the template), or publish a list without issuingDistributionPoint", l, l.scope.text())
	default:
		return fmt.Sprintf("%s is for the distribution point %q, and the certificate names %q: install the list of that point", l, l.scope.text(), pointText(c.DistributionPoints()[0].Name))
	}
}

func (s scope) text() string { return pointText(s.point) }

func pointText(n certs.DistributionPointName) string {
	for _, g := range n.Full {
		return dn.Abbreviate(g.String())
	}
	return "relative to the issuer"
}

// nameText returns a name as PostgreSQL prints it. A stranger may have chosen it, so messages quote it.
func nameText(n certs.Name) string { return dn.Abbreviate(n.String()) }

func numberText(n *big.Int) string { return dn.Abbreviate(n.String()) }

func dateText(t time.Time) string { return t.UTC().Format(time.DateOnly) }
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
