package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"pgwicket/internal/dn"
)

// CertificateError says why a client certificate was refused: in Public for the client, in Detail for the log.
type CertificateError struct {
	Reason Reason
	Cert   *x509.Certificate // the one at fault, which may be a CA's; nil if there is none
	Public string
	Detail string
}

func (e *CertificateError) Error() string { return e.Detail }

// Reason is why a client certificate was refused. The values are log attributes and metric labels.
type Reason string

// The reasons.
const (
	ReasonMissing      Reason = "missing"
	ReasonExpired      Reason = "expired"
	ReasonNotYetValid  Reason = "not_yet_valid"
	ReasonRevoked      Reason = "revoked"
	ReasonUnknownCA    Reason = "unknown_ca"
	ReasonWrongPurpose Reason = "wrong_purpose"
	ReasonInvalid      Reason = "invalid"
	ReasonCRLMissing   Reason = "crl_missing"
	ReasonCRLStale     Reason = "crl_stale"
)

// What the client is told where no date belongs to it. Which list is missing or stale is nobody's business outside.
var publicTexts = map[Reason]string{
	ReasonMissing:      "connection requires a valid client certificate",
	ReasonUnknownCA:    "client certificate is signed by an unknown authority",
	ReasonWrongPurpose: "client certificate is not meant for client authentication",
	ReasonInvalid:      "client certificate is not valid",
	ReasonCRLMissing:   "client certificate could not be checked for revocation",
	ReasonCRLStale:     "client certificate could not be checked for revocation",
}

func noCertificate() *CertificateError {
	return &CertificateError{Reason: ReasonMissing, Public: publicTexts[ReasonMissing], Detail: "client sent no certificate"}
}

// refuse makes the error for a client whose chain fails at the certificate c. The detail goes on from its name.
func refuse(reason Reason, client, c *x509.Certificate, detail string) *CertificateError {
	whose := "client certificate"
	if c != client {
		whose = "CA certificate"
	}
	return &CertificateError{
		Reason: reason,
		Cert:   c,
		Public: publicTexts[reason],
		Detail: fmt.Sprintf("%s %s (%q, issued by %q) %s", whose, serialText(c), nameText(c.RawSubject), nameText(c.RawIssuer), detail),
	}
}

func revoked(client, c *x509.Certificate, f finding, at time.Time) *CertificateError {
	e := refuse(ReasonRevoked, client, c, f.detail(at))
	e.Public = publicly(client, c) + " was revoked on " + dateText(f.entry.date)
	return e
}

func notInDate(client, c *x509.Certificate, at time.Time) *CertificateError {
	if at.Before(c.NotBefore) {
		e := refuse(ReasonNotYetValid, client, c, "is not valid before "+timeText(c.NotBefore))
		e.Public = publicly(client, c) + " is not valid before " + dateText(c.NotBefore)
		return e
	}
	e := refuse(ReasonExpired, client, c, "expired on "+timeText(c.NotAfter))
	e.Public = publicly(client, c) + " expired on " + dateText(c.NotAfter)
	return e
}

func publicly(client, c *x509.Certificate) string {
	if c == client {
		return "client certificate"
	}
	return "a CA of the client certificate"
}

// nameText writes a DER name as PostgreSQL does. It may hold anything at all, so it is to be quoted.
func nameText(der []byte) string { return clip(dn.Format(der)) }

// serialText writes a serial as "openssl x509 -serial" does.
func serialText(c *x509.Certificate) string {
	serial := serialOf(c)
	if len(serial) > 1 && serial[0] == 0 {
		serial = serial[1:]
	}
	return clip(fmt.Sprintf("%X", serial))
}

// quoted keeps what a stranger has written into a certificate from looking like our own words.
func quoted(err error) string { return fmt.Sprintf("%q", clip(err.Error())) }

// clip keeps a certificate of a quarter of a megabyte out of the log.
func clip(s string) string {
	const limit = 256
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func dateText(t time.Time) string { return t.UTC().Format(time.DateOnly) }
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
