package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ClientCert is what is asked of a client in the way of a certificate.
type ClientCert string

// What can be asked.
const (
	ClientCertRequire  ClientCert = "require"
	ClientCertOptional ClientCert = "optional" // none is fine, a bad one is not
	ClientCertNone     ClientCert = "none"     // one that is sent anyway is not looked at
)

// clientChainLimit is how many certificates a client may send. crypto/tls lets through 256 KiB of them, and the
// intermediates among them are tried in every order that their names allow.
const clientChainLimit = 16

// verifier decides whether a client's certificate is good at a given time. It may be used by many sessions at once.
//
// It is not left to crypto/tls: there every certificate of the CA file is an anchor, which ends the chain below the
// root, so that with the usual file of root and intermediate the root's CRL is never asked and a revoked intermediate
// is let in.
type verifier struct {
	mode          ClientCert
	ca            []*x509.Certificate
	roots         *x509.CertPool // never nil, which x509 would take as the system's
	intermediates *x509.CertPool
	anchors       map[string]bool // by their DER: whether they are self-signed
	crls          *crlSet         // nil: no revocation checking
	chains        *chains
}

// newVerifier takes the certificates of the CA file. The self-signed ones are anchors, and with partialChain
// (OpenSSL's X509_V_FLAG_PARTIAL_CHAIN) all of them are.
func newVerifier(mode ClientCert, ca []*x509.Certificate, partialChain bool, crls *crlSet) *verifier {
	v := &verifier{
		mode:          mode,
		ca:            ca,
		roots:         x509.NewCertPool(),
		intermediates: x509.NewCertPool(),
		anchors:       map[string]bool{},
		crls:          crls,
		chains:        new(chains),
	}
	for _, c := range ca {
		if self := isSelfSigned(c); self || partialChain {
			v.roots.AddCert(c)
			v.anchors[string(c.Raw)] = self
		} else {
			v.intermediates.AddCert(c)
		}
	}
	return v
}

// verify returns nil or a *CertificateError. The peer's certificates are as crypto/tls gives them: the client's own
// first, whose key it has proved to hold, then what else it sent. It takes the time because a session is judged again
// for as long as it lives.
func (v *verifier) verify(peer []*x509.Certificate, at time.Time) error {
	if _, refused := v.judge(peer, at); refused != nil {
		return refused
	}
	return nil
}

// judge also returns the chain that decides: of those that x509 finds the first that is good, or else the one that is
// refused. It is nil where x509 finds none or is not asked.
func (v *verifier) judge(peer []*x509.Certificate, at time.Time) ([]*x509.Certificate, *CertificateError) {
	switch {
	case v.mode == ClientCertNone || v.mode == ClientCertOptional && len(peer) == 0:
		return nil, nil
	case len(peer) == 0:
		return nil, noCertificate()
	case len(peer) > clientChainLimit:
		return nil, refuse(ReasonInvalid, peer[0], peer[0], fmt.Sprintf("came with %d others, more than %d", len(peer)-1, clientChainLimit-1))
	}

	key := sentBy(peer)
	for _, chain := range v.chains.inDate(key, peer[0], at) {
		if v.checkChain(chain, at) == nil {
			return chain, nil
		}
	}
	intermediates := v.intermediates
	if len(peer) > 1 {
		intermediates = intermediates.Clone()
		for _, c := range peer[1:] {
			intermediates.AddCert(c)
		}
	}
	found, err := peer[0].Verify(x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, v.explain(peer, at, err)
	}
	var decides []*x509.Certificate
	var refused *CertificateError
	for _, chain := range found {
		e := v.checkChain(chain, at)
		if e == nil {
			v.chains.remember(key, found)
			return chain, nil
		}
		if refused == nil || e.Reason == ReasonRevoked && refused.Reason != ReasonRevoked {
			decides, refused = chain, e
		}
	}
	return decides, refused
}

// checkChain looks at what x509 does not: the purposes as OpenSSL understands them, and the CRLs.
func (v *verifier) checkChain(chain []*x509.Certificate, at time.Time) *CertificateError {
	client := chain[0]
	if !mayUseKey(client, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement) {
		return refuse(ReasonWrongPurpose, client, client, "has a keyUsage with neither digitalSignature nor keyAgreement")
	}
	for _, c := range chain {
		// OpenSSL does not take anyExtendedKeyUsage for clientAuth, at no place in the chain.
		if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			return refuse(ReasonWrongPurpose, client, c, "has an extendedKeyUsage with anyExtendedKeyUsage but not clientAuth")
		}
	}
	var refused *CertificateError
	for i, c := range chain {
		switch f := v.revocation(chain, i, at); {
		case f.reason == "":
		case f.reason == ReasonRevoked:
			return revoked(client, c, f, at)
		case refused == nil:
			refused = refuse(f.reason, client, c, f.detail(at))
		}
	}
	return refused
}

// revocation asks the lists about one certificate of a chain that ends in an anchor. Unless the policy says otherwise
// each of them is asked about, the root included (X509_V_FLAG_CRL_CHECK_ALL).
func (v *verifier) revocation(chain []*x509.Certificate, i int, at time.Time) finding {
	c := chain[i]
	switch {
	case v.crls == nil:
		return finding{unasked: "there is neither crl_file nor crl_dir"}
	case v.crls.policy.leafOnly && i > 0:
		return finding{unasked: "crl_check: leaf"}
	case i+1 < len(chain):
		return v.crls.check(c, chain[i+1], at)
	case v.anchors[string(c.Raw)]:
		return v.crls.check(c, c, at)
	default: // an anchor of a partial chain, whose issuer is not there to ask
		return v.crls.listed(c, at)
	}
}

// explain turns an error of x509 into a reason.
func (v *verifier) explain(peer []*x509.Certificate, at time.Time, err error) *CertificateError {
	client := peer[0]
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return notInDate(client, invalid.Cert, at)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return refuse(ReasonWrongPurpose, client, client, "is, by its own extendedKeyUsage or that of one of its CAs, not for clientAuth")
	case errors.As(err, &unknown):
		if c := v.outOfDateCA(peer, at); c != nil {
			return notInDate(client, c, at)
		}
		return refuse(ReasonUnknownCA, client, client, "does not chain to ca_file: "+quoted(err))
	default:
		return refuse(ReasonInvalid, client, client, "is invalid: "+quoted(err))
	}
}

// outOfDateCA looks whether there is a chain but for the dates, which x509 only tells in prose. That is the day when
// every client of an intermediate is refused at once, and "unknown authority" would send its operator the wrong way.
func (v *verifier) outOfDateCA(peer []*x509.Certificate, at time.Time) *x509.Certificate {
	chain, ends := v.climb(peer)
	if !ends {
		return nil
	}
	above := chain[1:]
	if i := slices.IndexFunc(above, func(c *x509.Certificate) bool { return at.Before(c.NotBefore) || at.After(c.NotAfter) }); i >= 0 {
		return above[i]
	}
	return nil
}

// climb follows the signatures from a client that x509 has found no chain for, as far up as they lead, and says
// whether that is an anchor.
func (v *verifier) climb(peer []*x509.Certificate) (chain []*x509.Certificate, ends bool) {
	above := slices.Concat(v.ca, peer[1:])
	budget := clientChainLimit // of signatures: a stranger is not worth more
	for c := peer[0]; ; {
		chain = append(chain, c)
		if _, ends = v.anchors[string(c.Raw)]; ends || len(chain) > clientChainLimit {
			return chain, ends
		}
		i := slices.IndexFunc(above, func(p *x509.Certificate) bool {
			if budget == 0 || !bytes.Equal(c.RawIssuer, p.RawSubject) || slices.ContainsFunc(chain, p.Equal) {
				return false
			}
			budget--
			return c.CheckSignatureFrom(p) == nil
		})
		if i < 0 {
			return chain, false
		}
		c = above[i]
	}
}

// isSelfSigned is more than a subject that equals the issuer: so does the certificate of a CA that has signed its new
// key with the old one (RFC 5280 section 3.2).
func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// mayUseKey says whether a certificate allows at least one of some key usages. Without the extension everything is
// allowed (RFC 5280 section 4.2.1.3); with one that has no bit set, which x509 shows in the same way, nothing is.
func mayUseKey(c *x509.Certificate, usage x509.KeyUsage) bool {
	return c.KeyUsage&usage != 0 ||
		!slices.ContainsFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidKeyUsage) })
}
