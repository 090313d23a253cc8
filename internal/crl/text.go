package crl

import (
	"fmt"
	"math/big"
	"strings"
	"time"

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
	case f.Issuer != nil && !maySign(f.Issuer):
		return fmt.Sprintf("has an issuer, %q, that may not sign CRLs", nameText(f.Issuer.RawSubject))
	case f.Issuer != nil:
		return fmt.Sprintf("is not covered by any CRL: there is none from %q", nameText(f.Issuer.RawSubject))
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
	if l.issuer != nil {
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

// nameText returns a name in DER as PostgreSQL prints it. A stranger may have chosen it, so messages quote it.
func nameText(der []byte) string { return dn.Abbreviate(dn.Format(der)) }

func numberText(n *big.Int) string { return dn.Abbreviate(n.String()) }

func dateText(t time.Time) string { return t.UTC().Format(time.DateOnly) }
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
