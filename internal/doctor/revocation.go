package doctor

import (
	"fmt"
	"time"

	"pgwicket/internal/phrase"
	"pgwicket/tlsconfig"
)

func (t tlsFiles) checkClientCert() []Finding {
	switch t.clientCert {
	case tlsconfig.ClientCertRequire:
		return []Finding{pass("clients must send a certificate")}
	case tlsconfig.ClientCertOptional:
		return []Finding{finding(Warn, "tls.client_cert", "is optional: a client without a certificate reaches the rules and the password prompt of PostgreSQL", "set require")}
	}
	return []Finding{finding(Fail, "tls.client_cert", "is none: no certificate is requested, and only passwords protect PostgreSQL", "set require, and ca_file")}
}

// staleSoon is how much of the validity of a list is left, in percent, when the next
// one is late.
const staleSoon = 10

func (t tlsFiles) checkCRL() (out []Finding) {
	if t.clientCert == tlsconfig.ClientCertNone {
		return []Finding{{Status: Skip, Reason: "no client certificates are requested", Where: "tls.client_cert", Fix: "set require"}}
	}
	if len(t.crls) == 0 {
		return []Finding{finding(Warn, "tls.crl_file", "there is no revocation list: a stolen client certificate cannot be revoked", "set crl_file or crl_dir")}
	}
	least := 100
	for _, l := range t.crls {
		fresh := freshness(l, t.now)
		least = min(least, fresh)
		const fix = "have the CA publish lists more often than they expire, and fetch them"
		switch {
		case l.Problem != "":
			out = append(out, finding(Fail, l.File, l.Problem, "have the CA publish a complete list, signed by its current key"))
		case l.NextUpdate.IsZero():
			out = append(out, finding(Warn, l.File, fmt.Sprintf("the list of %q has no next update, so a missing new list goes unnoticed", l.Issuer), "openssl ca -gencrl -crldays 30"))
		case !t.now.Before(l.NextUpdate):
			out = append(out, finding(Fail, l.File, fmt.Sprintf("the list of %q expired on %s", l.Issuer, l.NextUpdate.UTC().Format(time.RFC3339)), fix))
		case fresh < staleSoon:
			out = append(out, finding(Warn, l.File, fmt.Sprintf("the list of %q has %d%% of its validity left, until %s", l.Issuer, fresh, phrase.Until(l.NextUpdate, t.now)), fix))
		}
	}
	return orPass(out, "every list is valid, with %d%% of its validity left or more", least)
}

// freshness returns how much of the validity of a list is left, in percent.
func freshness(l tlsconfig.CRLInfo, now time.Time) int {
	whole, left := l.NextUpdate.Sub(l.ThisUpdate), l.NextUpdate.Sub(now)
	if whole <= 0 || left <= 0 {
		return 0
	}
	return min(int(100*left.Seconds()/whole.Seconds()), 100)
}
