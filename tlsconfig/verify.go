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

	"pgwicket/internal/crl"
)

// ClientCert is whether a client must present a certificate.
type ClientCert string

// The values of client_cert.
const (
	ClientCertRequire  ClientCert = "require"
	ClientCertOptional ClientCert = "optional" // a client without one passes, a client with a bad one does not
	ClientCertNone     ClientCert = "none"     // no certificate is requested, and none is verified
)

// clientChainLimit is how many certificates a client may send. crypto/tls accepts 256 KiB of them, and x509 tries the
// intermediates among them in every order that their names allow.
const clientChainLimit = 16

// verifier decides whether a client's certificate is good at a given time. It may be used by many sessions at once.
//
// crypto/tls does not do it, since it takes every certificate of the CA file as a trust anchor. With the usual file of
// root and intermediate the chain then ends at the intermediate, the root's CRL is never used, and a client of a revoked
// intermediate is admitted.
type verifier struct {
	mode          ClientCert
	ca            []*x509.Certificate
	roots         *x509.CertPool // never nil, which x509 would take as the system's
	intermediates *x509.CertPool
	anchors       map[string]bool // by their DER: whether they are self-signed
	crls          *crl.Set        // nil: no revocation checking
	chains        *chains
}

// newVerifier takes the certificates of the CA file. The self-signed ones are trust anchors, and with partialChain
// (OpenSSL's X509_V_FLAG_PARTIAL_CHAIN) all of them are.
func newVerifier(mode ClientCert, ca []*x509.Certificate, partialChain bool, crls *crl.Set) *verifier {
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

// verify returns nil or a *VerifyError. The peer's certificates are as crypto/tls gives them: the client's own first,
// whose key it has proved to hold, then what else it sent. The time is a parameter because live sessions are judged
// again.
func (v *verifier) verify(peer []*x509.Certificate, at time.Time) error {
	if _, refused := v.judge(peer, at); refused != nil {
		return refused
	}
	return nil
}

// judge also returns the chain that decides: of those that x509 finds the first that is good, or else the one that is
// refused. It is nil if x509 finds none or is not used.
func (v *verifier) judge(peer []*x509.Certificate, at time.Time) ([]*x509.Certificate, *VerifyError) {
	switch {
	case v.mode == ClientCertNone || v.mode == ClientCertOptional && len(peer) == 0:
		return nil, nil
	case len(peer) == 0:
		return nil, &VerifyError{Reason: ReasonMissing, Detail: "client sent no certificate"}
	case len(peer) > clientChainLimit:
		return nil, refuse(ReasonInvalid, peer[0], peer[0], fmt.Sprintf("was sent with %d others, and the limit is %d", len(peer)-1, clientChainLimit-1))
	}

	key := chainKey(peer)
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
	var refused *VerifyError
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

// checkChain checks what x509 does not: the purposes as OpenSSL understands them, and the revocation lists.
func (v *verifier) checkChain(chain []*x509.Certificate, at time.Time) *VerifyError {
	client := chain[0]
	if !mayUseKey(client, x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement) {
		return refuse(ReasonWrongPurpose, client, client, "has a keyUsage with neither digitalSignature nor keyAgreement")
	}
	for _, c := range chain {
		// OpenSSL does not accept anyExtendedKeyUsage for clientAuth, in any certificate of the chain.
		if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			return refuse(ReasonWrongPurpose, client, c, "has an extendedKeyUsage with anyExtendedKeyUsage but not clientAuth")
		}
	}
	var refused *VerifyError
	for i, c := range chain {
		f, exempt := v.revocation(chain, i, at)
		switch {
		case exempt != "" || f.OK():
		case f.Status == crl.Revoked:
			return refuseByCRL(client, c, f, at)
		case refused == nil:
			refused = refuseByCRL(client, c, f, at)
		}
	}
	return refused
}

// revocation asks the lists about one certificate of a chain that ends in an anchor. Every certificate is checked, the
// root too (X509_V_FLAG_CRL_CHECK_ALL), unless exempt says why the lists do not count for it.
func (v *verifier) revocation(chain []*x509.Certificate, i int, at time.Time) (f crl.Finding, exempt string) {
	c := chain[i]
	switch {
	case v.crls == nil:
		return f, "there is neither crl_file nor crl_dir"
	case v.crls.Policy().LeafOnly && i > 0:
		return f, "crl_check: leaf"
	case i+1 < len(chain):
		return v.crls.Check(c, chain[i+1], at), ""
	case v.anchors[string(c.Raw)]:
		return v.crls.Check(c, c, at), ""
	}
	// An anchor of a partial chain, whose issuer is not in the chain.
	f, revoked := v.crls.CheckAnchor(c, at)
	if !revoked {
		exempt = "it is a trust anchor itself (partial_chain), and no list revokes it"
	}
	return f, exempt
}

// explain turns an error of x509 into a reason.
func (v *verifier) explain(peer []*x509.Certificate, at time.Time, err error) *VerifyError {
	client := peer[0]
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refuseByDate(client, invalid.Cert, at)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return refuse(ReasonWrongPurpose, client, client, "is not for clientAuth, by its own extendedKeyUsage or that of one of its CAs")
	case errors.As(err, &unknown):
		if c := v.outOfDateCA(peer, at); c != nil {
			return refuseByDate(client, c, at)
		}
		return refuse(ReasonUnknownCA, client, client, "does not chain to ca_file: "+quoted(err))
	default:
		return refuse(ReasonInvalid, client, client, "is invalid: "+quoted(err))
	}
}

// outOfDateCA returns the CA that is the reason why x509 finds no chain, if its dates are. The error of x509 has that in
// its text only. When an intermediate expires all its clients are refused at once, and "unknown authority" would mislead
// the operator.
func (v *verifier) outOfDateCA(peer []*x509.Certificate, at time.Time) *x509.Certificate {
	chain, anchored := v.climb(peer)
	if !anchored {
		return nil
	}
	above := chain[1:]
	if i := slices.IndexFunc(above, func(c *x509.Certificate) bool { return at.Before(c.NotBefore) || at.After(c.NotAfter) }); i >= 0 {
		return above[i]
	}
	return nil
}

// climb follows the signatures up from the certificate of a client for which x509 has found no chain, and reports whether
// they end in an anchor.
func (v *verifier) climb(peer []*x509.Certificate) (chain []*x509.Certificate, anchored bool) {
	above := slices.Concat(v.ca, peer[1:])
	budget := clientChainLimit // of signatures to verify: the client is not trusted
	for c := peer[0]; ; {
		chain = append(chain, c)
		if _, anchored = v.anchors[string(c.Raw)]; anchored || len(chain) > clientChainLimit {
			return chain, anchored
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

// isSelfSigned reports whether a certificate is signed with its own key. A subject that equals the issuer is not enough:
// that is also the case where a CA has signed its new key with the old one (RFC 5280 section 3.2).
func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// mayUseKey reports whether a certificate allows at least one of some key usages. Without the extension everything is
// allowed (RFC 5280 section 4.2.1.3). With one that has no bit set, for which x509 has the same value, nothing is.
func mayUseKey(c *x509.Certificate, usage x509.KeyUsage) bool {
	return c.KeyUsage&usage != 0 ||
		!slices.ContainsFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidKeyUsage) })
}
