package proxy

import (
	"strings"
	"time"
)

// RefuseCertificate returns the refusal of a client for a certificate. The client is told the words of the outcome, with
// the date if there is one: when the certificate expired, begins to be valid or was revoked. isCA means that the date is
// that of a CA above the client's certificate. The detail is for the log.
func RefuseCertificate(o Outcome, isCA bool, date time.Time, detail string) *Refusal {
	r := &Refusal{Outcome: o, Detail: detail}
	if date.IsZero() {
		return r
	}
	day := date.UTC().Format(time.DateOnly)
	r.Public = outcomes[o].public + " on " + day
	if o == CertNotYetValid { // "is not valid yet"
		r.Public = strings.TrimSuffix(outcomes[o].public, " yet") + " before " + day
	}
	if isCA {
		r.Public = "a CA of the " + r.Public
	}
	return r
}
