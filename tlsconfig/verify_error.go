package tlsconfig

import (
	"fmt"
	"time"

	"pgwicket/internal/certs"
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
	ReasonGroup   Reason = "group"   // the key exchange group is not in the configured list
	ReasonCipher  Reason = "cipher"  // the cipher suite is not in the configured list, or there is none yet

	ReasonMissing      Reason = "missing" // there is no certificate
	ReasonExpired      Reason = "expired"
	ReasonNotYetValid  Reason = "not_yet_valid"
	ReasonRevoked      Reason = "revoked"
	ReasonUnknownCA    Reason = "unknown_ca"    // no chain to a trusted CA
	ReasonWrongPurpose Reason = "wrong_purpose" // not for clientAuth
	ReasonWeakKey      Reason = "weak_key"      // a key or a signature is below min_security_bits
	// ReasonNameConstraint means that a CA of the chain may not issue certificates with a name of one below it.
	ReasonNameConstraint Reason = "name_constraint"
	ReasonInvalid        Reason = "invalid"     // anything else that is wrong with a certificate
	ReasonCRLMissing     Reason = "crl_missing" // no revocation list covers a certificate of the chain
	ReasonCRLStale       Reason = "crl_stale"   // and those that do are out of date
)

// reasons are the reasons of the package certs, in the words of this one.
var reasons = map[certs.Reason]Reason{
	certs.UnknownCA: ReasonUnknownCA, certs.Expired: ReasonExpired, certs.NotYetValid: ReasonNotYetValid,
	certs.WrongPurpose: ReasonWrongPurpose, certs.NameConstraint: ReasonNameConstraint, certs.WeakKey: ReasonWeakKey,
	certs.Invalid: ReasonInvalid,
}

// refusal translates an error of the package certs.
func refusal(e *certs.Error) *VerifyError {
	refused := &VerifyError{Reason: reasons[e.Reason], CA: e.Depth > 0, Detail: e.Error()}
	switch refused.Reason {
	case ReasonExpired:
		refused.Date = e.Cert.NotAfter
	case ReasonNotYetValid:
		refused.Date = e.Cert.NotBefore
	}
	return refused
}

// refuse makes the error for a peer whose chain fails at the certificate that e names. The detail completes a sentence that
// begins with that certificate.
func refuse(reason Reason, e *certs.Error, detail string) *VerifyError {
	return &VerifyError{Reason: reason, CA: e.Depth > 0, Detail: e.Subject() + " " + detail}
}

func tooMuch(others, size int) string {
	return fmt.Sprintf("was sent with %d others, %d bytes in all, and the limit is %d: send its intermediates only", others, size, sentLimit)
}

// refuseByCRL makes the error for a peer whose chain has a certificate that the lists do not pass.
func (v *verifier) refuseByCRL(chain []*certs.Certificate, i int, f crl.Finding, at time.Time) *VerifyError {
	reason := ReasonCRLMissing
	switch f.Status {
	case crl.Revoked:
		reason = ReasonRevoked
	case crl.Stale:
		reason = ReasonCRLStale
	}
	e := refuse(reason, &certs.Error{Cert: chain[i], Depth: i, Purpose: v.purpose}, f.Detail(at))
	if reason == ReasonRevoked {
		e.Date = f.Entry.Date
	}
	return e
}

// nameText returns a name in DER as PostgreSQL prints it. A stranger may have chosen it, so messages quote it.
func nameText(der []byte) string { return dn.Abbreviate(dn.Format(der)) }

// quotedUnless returns the text of an error of the package certs, which quotes what a stranger has chosen.
func quotedUnless(err error) string {
	return "client sent a certificate that cannot be used: " + err.Error()
}

// quoted returns the text of an error that may hold parts of a certificate, so that they cannot pass for our own words.
func quoted(err error) string { return fmt.Sprintf("%q", dn.Abbreviate(err.Error())) }

func dateText(t time.Time) string { return t.UTC().Format(time.DateOnly) }
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
