package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/dn"
)

// VerifyError is why Server.Verify refuses a handshake. What the client is told of it is for the caller to decide.
type VerifyError struct {
	Reason Reason
	CA     bool      // a CA above the client's certificate is at fault, not that certificate
	Date   time.Time // when the certificate expired, begins to be valid or was revoked; zero for every other reason
	Detail string    // for the log: it names certificates, lists and files
}

func (e *VerifyError) Error() string { return e.Detail }

// Reason is why a handshake was refused.
type Reason string

// The reasons. The set is closed.
const (
	ReasonVersion Reason = "version" // the TLS version is outside of the configured range
	ReasonCipher  Reason = "cipher"  // the cipher suite is not in the configured list, or there is none yet

	ReasonMissing      Reason = "missing" // there is no certificate
	ReasonExpired      Reason = "expired"
	ReasonNotYetValid  Reason = "not_yet_valid"
	ReasonRevoked      Reason = "revoked"
	ReasonUnknownCA    Reason = "unknown_ca"    // no chain to a trusted CA
	ReasonWrongPurpose Reason = "wrong_purpose" // not for clientAuth
	ReasonInvalid      Reason = "invalid"       // anything else that is wrong with a certificate
	ReasonCRLMissing   Reason = "crl_missing"   // no revocation list covers a certificate of the chain
	ReasonCRLStale     Reason = "crl_stale"     // and those that do are out of date
)

// refuse makes the error for a client whose chain fails at the certificate c. The detail completes a sentence that begins
// with that certificate.
func refuse(reason Reason, client, c *x509.Certificate, detail string) *VerifyError {
	isCA := c != client
	whose := "client certificate"
	if isCA {
		whose = "CA certificate"
	}
	return &VerifyError{
		Reason: reason,
		CA:     isCA,
		Detail: fmt.Sprintf("%s %s (%q, issued by %q) %s", whose, serialText(c), nameText(c.RawSubject), nameText(c.RawIssuer), detail),
	}
}

// refuseByCRL makes the error for a client whose chain has a certificate that the lists do not pass.
func refuseByCRL(client, c *x509.Certificate, f crl.Finding, at time.Time) *VerifyError {
	reason := ReasonCRLMissing
	switch f.Status {
	case crl.Revoked:
		reason = ReasonRevoked
	case crl.Stale:
		reason = ReasonCRLStale
	}
	e := refuse(reason, client, c, f.Detail(at))
	if reason == ReasonRevoked {
		e.Date = f.Entry.Date
	}
	return e
}

func refuseByDate(client, c *x509.Certificate, at time.Time) *VerifyError {
	reason, date, detail := ReasonExpired, c.NotAfter, "expired on "
	if at.Before(c.NotBefore) {
		reason, date, detail = ReasonNotYetValid, c.NotBefore, "is not valid before "
	}
	e := refuse(reason, client, c, detail+timeText(date))
	e.Date = date
	return e
}

// nameText returns a name in DER as PostgreSQL prints it. A stranger may have chosen it, so messages quote it.
func nameText(der []byte) string { return dn.Abbreviate(dn.Format(der)) }

// serialText returns a serial number as "openssl x509 -serial" prints it.
func serialText(c *x509.Certificate) string {
	serial := crl.SerialOf(c)
	if len(serial) > 1 && serial[0] == 0 {
		serial = serial[1:]
	}
	return dn.Abbreviate(fmt.Sprintf("%X", serial))
}

// quoted returns the text of an error that may hold parts of a certificate, so that they cannot pass for our own words.
func quoted(err error) string { return fmt.Sprintf("%q", dn.Abbreviate(err.Error())) }

func dateText(t time.Time) string { return t.UTC().Format(time.DateOnly) }
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
