package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
)

// Link is one certificate of a client's chain, as Explain shows it. A stranger may have chosen the subject, so it must be
// quoted.
type Link struct {
	Subject  string
	Serial   string // as "openssl x509 -serial" prints it
	NotAfter time.Time
	Status   string // what the revocation lists say: "revoked on 2026-11-23 (keyCompromise) by ..."
}

// Explain judges the certificates of a client as Verify would at that time, and returns the chain that decides, the
// client's own certificate first, with what the revocation lists say about each. If there is no chain to a trusted CA, it
// ends where no further issuer is found. The verdict is nil or a *VerifyError.
func (s *Server) Explain(peer []*x509.Certificate, at time.Time) (chain []Link, verdict error) {
	return s.verifier.links(certs.DER(peer), at)
}

func (v *verifier) links(sent [][]byte, at time.Time) (links []Link, verdict error) {
	chain, anchored, refused := v.judge(sent, at)
	if refused != nil {
		verdict = refused
	}
	if chain == nil && len(sent) > 0 {
		if p, refused := v.chains.read(sent[:1]); refused == nil {
			chain = []*certs.Certificate{p.leaf}
		}
	}
	for i, c := range chain {
		var f crl.Finding
		var exempt string
		switch {
		case v.mode == ClientCertNone:
			exempt = "client_cert: none"
		case !anchored:
			exempt = "its chain does not end in ca_file"
		default:
			f, exempt = v.revocation(chain, i, at)
		}
		status := "not checked: " + exempt
		if exempt == "" {
			status = v.statusText(f, at)
		}
		links = append(links, Link{nameText(c.Subject.Raw), c.Serial(), c.NotAfter, status})
	}
	return links, verdict
}

// statusText says what the lists say about a certificate, and by which option it passes.
func (v *verifier) statusText(f crl.Finding, at time.Time) string {
	switch {
	case f.Status == crl.Revoked:
		return f.Revocation()
	case !f.OK():
		return f.Detail(at)
	case f.Status == crl.Missing && f.Why != "":
		return "not known: " + f.Why + ", which is allowed (crl_missing: allow)"
	case f.Status == crl.Missing:
		return fmt.Sprintf("not known: there is no list from %q, which is allowed (crl_missing: allow)", nameText(f.Issuer.Subject.Raw))
	}
	text := "not revoked by " + f.List.Describe()
	switch {
	case f.List.InDate(at, 0):
		return text
	case v.crls.Policy().AllowStale:
		return text + ", which is out of date and is used all the same (crl_stale: allow)"
	default:
		return text + ", which is out of date and in its grace period (crl_grace)"
	}
}
