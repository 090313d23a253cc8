package tlsconfig

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/verdicts"
)

// ClientCert is whether a client must present a certificate.
type ClientCert string

// The values of client_cert.
const (
	ClientCertRequire  ClientCert = "require"
	ClientCertOptional ClientCert = "optional" // a client without one passes, a client with a bad one does not
	ClientCertNone     ClientCert = "none"     // no certificate is requested, and none is verified
)

// sentLimit bounds the certificates of one client, in bytes: OpenSSL's SSL_MAX_CERT_LIST_DEFAULT. crypto/tls accepts 256 KiB.
const sentLimit = 100 << 10

// verifier decides whether a peer's certificate is good at a given time: a client's, or a server's. It may be used by many
// sessions at once.
//
// crypto/tls does not do it, since it takes every certificate of the CA file as a trust anchor. With the usual file of
// root and intermediate the chain then ends at the intermediate, the root's CRL is never used, and a client of a revoked
// intermediate is admitted.
type verifier struct {
	mode         ClientCert
	purpose      certs.Purpose
	minBits      int
	pool         *certs.Pool
	partialChain bool
	crls         *crl.Set // nil: no revocation checking
	chains       *chains
	epoch        uint32      // tells those apart that have had these chains
	steps        []time.Time // see stepsOf; nil: not known, and no verdict is remembered
}

// verify returns the certificates of the chain that the peer has sent, and nil or a *VerifyError. The peer's certificates
// are in DER: its own first, whose key it has proved to hold, then what else it sent. They are kept, so they must not be
// part of anything larger. The time is a parameter because live sessions are judged again.
func (v *verifier) verify(sent [][]byte, at time.Time) ([][]byte, error) {
	m := v.chains.recall(sent)
	if m.fact.Admitted(v.epoch, at) {
		return v.chains.shared.Replace(sent), nil
	}
	chain, p, _, refused := v.judgeRead(m, sent, at)
	switch {
	case refused != nil:
		return nil, refused
	case p == nil:
		return nil, nil
	}
	keep := p.keep(chain)
	if p != m.path {
		from, until := uint32(0), uint32(0)
		if v.steps != nil && slices.EqualFunc(keep, sent, bytes.Equal) { // else the session is judged again by something else
			from, until = verdicts.Between(at, v.steps, verdicts.AppendDates(nil, append(p.sent[:len(p.sent):len(p.sent)], p.leaf)))
		}
		v.chains.facts.Add(sent, p.chain, v.epoch, from, until)
	}
	return keep, nil
}

// stepsOf returns the times at which a verdict of the verifier may change, whatever the client. They are not nil.
func (v *verifier) stepsOf() []time.Time {
	steps := []time.Time{}
	if v.pool != nil {
		steps = verdicts.AppendDates(steps, v.pool.Certificates())
	}
	if v.crls != nil {
		steps = append(steps, v.crls.Dates()...)
	}
	return steps
}

// keep returns which certificates of a chain were sent, in the chain's order, and after them for each other certificate of
// the chain one that was sent in its place: with it the chain goes on once the configured one is removed.
func (p *path) keep(chain []*certs.Certificate) (keep [][]byte) {
	sent := append([]*certs.Certificate{p.leaf}, p.sent...)
	n := 0
	for n < len(chain) && n < len(sent) && chain[n].Equal(sent[n]) {
		keep = append(keep, sent[n].Raw)
		n++
	}
	var instead [][]byte
	for _, c := range chain[n:] {
		if i := slices.IndexFunc(sent[n:], c.Equal); i >= 0 {
			keep = append(keep, sent[n+i].Raw)
		} else if i := slices.IndexFunc(sent[n:], func(o *certs.Certificate) bool { return standsFor(o, c) }); i >= 0 {
			instead = append(instead, sent[n+i].Raw)
		}
	}
	return append(keep, instead...)
}

// standsFor reports whether a certificate that was sent is of the same CA and key as another. Its size is bounded, since
// nobody has checked who issued it and the session keeps it.
func standsFor(sent, c *certs.Certificate) bool {
	return bytes.Equal(sent.Subject.Raw, c.Subject.Raw) && bytes.Equal(sent.RawSPKI, c.RawSPKI) && len(sent.Raw) <= 2*len(c.Raw)
}

// judge also returns the chain that decides, as far as there is one, and whether it ends in an anchor by good signatures.
func (v *verifier) judge(sent [][]byte, at time.Time) (chain []*certs.Certificate, anchored bool, refused *VerifyError) {
	chain, _, anchored, refused = v.judgeRead(v.chains.recall(sent), sent, at)
	return chain, anchored, refused
}

// judgeRead is judge with what is remembered of the peer. It also returns what has been read of it, nil if that was not asked
// for.
func (v *verifier) judgeRead(m memory, sent [][]byte, at time.Time) (chain []*certs.Certificate, p *path, anchored bool, refused *VerifyError) {
	switch {
	case v.mode == ClientCertNone || v.mode == ClientCertOptional && len(sent) == 0:
		return nil, nil, false, nil
	case len(sent) == 0:
		return nil, nil, false, &VerifyError{Reason: ReasonMissing, Detail: missingDetail}
	}
	if p = m.path; p == nil {
		if p, refused = v.chains.read(sent); refused != nil {
			return nil, nil, false, refused
		}
	}
	signed := func(chain []*certs.Certificate) bool {
		return slices.Equal(chain, p.chain) || m.fact.Signed(chain)
	}
	chain, err := certs.VerifyAgain(signed, p.leaf, p.sent, v.pool, certs.Options{Purpose: v.purpose, Time: at, MinSecurityBits: v.minBits})
	if err != nil {
		var e *certs.Error
		errors.As(err, &e) // it is always one
		switch {
		case m.path != nil:
		case e.Signed:
			v.chains.remember(m.key, &path{p.leaf, p.sent, chain})
		case chain == nil:
			v.chains.remember(m.key, p)
		}
		if chain == nil {
			chain = e.Path
		}
		return chain, p, e.Reason != certs.UnknownCA && len(chain) > 0 && v.pool.IsAnchor(chain[len(chain)-1], v.purpose), refusal(e)
	}
	if m.path == nil || !slices.Equal(chain, p.chain) {
		p = &path{p.leaf, p.sent, chain}
		if v.chains.shared.Add(p.chain, p.sent); m.path != nil || m.fact.Known {
			v.chains.remember(m.key, p)
		}
	}
	return chain, p, true, v.checkRevocation(chain, at)
}

const missingDetail = "client sent no certificate: it has none, or none that the handshake offers to verify " +
	"(Go offers RSA, ECDSA on P-256, P-384 and P-521, and Ed25519: no Ed448, no RSASSA-PSS keys, no SHA-224)"

// checkRevocation asks the lists about every certificate of a chain; one that is revoked goes before one that is not known.
func (v *verifier) checkRevocation(chain []*certs.Certificate, at time.Time) (refused *VerifyError) {
	for i := range chain {
		f, exempt := v.revocation(chain, i, at)
		switch {
		case exempt != "" || f.OK():
		case f.Status == crl.Revoked:
			return v.refuseByCRL(chain, i, f, at)
		case refused == nil:
			refused = v.refuseByCRL(chain, i, f, at)
		}
	}
	return refused
}

// revocation asks the lists about one certificate of a chain that ends in an anchor. Every certificate is checked, the
// root too (X509_V_FLAG_CRL_CHECK_ALL), unless exempt says why the lists do not count for it.
func (v *verifier) revocation(chain []*certs.Certificate, i int, at time.Time) (f crl.Finding, exempt string) {
	c := chain[i]
	switch {
	case v.crls == nil:
		return f, "there is neither crl_file nor crl_dir"
	case v.crls.Policy().LeafOnly && i > 0:
		return f, "crl_check: leaf"
	case i+1 < len(chain):
		return v.crls.Check(c, chain[i+1:], at), ""
	case c.SelfSigned():
		return v.crls.Check(c, chain[i:], at), ""
	}
	// An anchor whose issuer is not in the chain.
	f, revoked := v.crls.CheckAnchor(c, at)
	switch {
	case revoked:
	case v.partialChain:
		exempt = "it is a trust anchor itself (partial_chain), and no list revokes it"
	default:
		f = crl.Finding{Why: "its issuer is not in the chain, so no list can be verified", Allowed: v.crls.Policy().AllowMissing}
	}
	return f, exempt
}
