package certs

import (
	"errors"
	"fmt"
	"time"

	"pgwicket/internal/signature"
)

// checkLeaf finds what makes a search for a chain pointless.
func checkLeaf(leaf *Certificate, o Options) *Error {
	j := judgement{Options: o, chain: []*Certificate{leaf}}
	if leaf.ext.malformed != "" {
		return j.refuse(0, Invalid, leaf.ext.malformed, "RFC 5280 section 4.2", "issue it anew without that fault")
	}
	if w := weakKey(leaf, o.MinSecurityBits); w != nil {
		return j.refuse(0, WeakKey, w.problem, "", w.remedy)
	}
	return nil
}

// judgement looks at a chain that is complete.
type judgement struct {
	Options
	chain  []*Certificate
	signed bool // the signatures are known to be good
}

// checkChain judges a chain in OpenSSL's order; signed says that its signatures are
// known to be good.
func checkChain(chain []*Certificate, o Options, signed bool) *Error {
	j := judgement{o, chain, signed}
	if e := j.checkExtensions(); e != nil {
		return e
	}
	if e := j.checkStrength(); e != nil {
		return e
	}
	if e := j.checkLinks(); e != nil {
		return e
	}
	e := j.checkNameConstraints()
	if e != nil {
		e.Signed = true
	}
	return e
}

func (j judgement) refuse(depth int, reason Reason, problem, rule, remedy string) *Error {
	return &Error{
		Reason: reason, Cert: j.chain[depth], Depth: depth, Purpose: j.Purpose,
		Problem: problem, Rule: rule, Remedy: remedy,
	}
}

// checkExtensions is check_extensions in crypto/x509/x509_vfy.c.
func (j judgement) checkExtensions() *Error {
	below := 0 // CA certificates between this one and the leaf that are not self-issued
	for i, c := range j.chain {
		x := &c.ext
		switch {
		case x.malformed != "":
			return j.refuse(i, Invalid, x.malformed, "RFC 5280 section 4.2", "issue it anew without that fault")
		case x.unknown != "":
			return j.refuse(i, Invalid, fmt.Sprintf("has the critical extension %s, which neither the gate nor OpenSSL evaluates", extensionName(x.unknown)),
				"RFC 5280 section 4.2", "issue it without that extension, or with it not critical")
		case x.proxy:
			return j.refuse(i, Invalid, "is a proxy certificate", "RFC 3820", "show a certificate that a CA has issued")
		case c.Key.ExplicitCurve:
			return j.refuse(i, Invalid, "has a key with explicit curve parameters", "RFC 5480 section 2.1.1", "issue it anew with a named curve")
		}
		if e := j.checkCA(i); e != nil {
			return e
		}
		if e := j.checkPurpose(i); e != nil {
			return e
		}
		if i > 1 && x.pathLen >= 0 && below > x.pathLen {
			return j.refuse(i, Invalid, fmt.Sprintf("allows %d CA certificates below it (pathLenConstraint), and there are %d", x.pathLen, below),
				"RFC 5280 section 4.2.1.9", "issue it anew with a longer path, or the leaf by a CA nearer to the root")
		}
		if i > 0 && !x.selfIssued {
			below++
		}
	}
	return nil
}

// checkCA requires basicConstraints of an intermediate. For an anchor, version 1,
// keyUsage or nsCertType are enough, as in OpenSSL.
func (j judgement) checkCA(i int) *Error {
	if i == 0 {
		return nil
	}
	c := j.chain[i]
	kind := c.caKind()
	if kind == declaredCA || kind != notCA && i == len(j.chain)-1 {
		return nil
	}
	if c.rejects(keyCertSign) {
		return j.refuse(i, Invalid, "has a keyUsage without keyCertSign, and has issued a certificate",
			"RFC 5280 section 4.2.1.3", "issue it anew with keyCertSign")
	}
	return j.refuse(i, Invalid, "is not a CA by its basicConstraints, and has issued a certificate",
		"RFC 5280 section 4.2.1.9", "issue it anew with basicConstraints CA:TRUE")
}

// checkPurpose is check_purpose in crypto/x509/x509_vfy.c. Trust settings of a
// certificate in the pool go before its extensions.
func (j judgement) checkPurpose(i int) *Error {
	c := j.chain[i]
	if c.aux.judge(j.Purpose) == trusted {
		return nil
	}
	problem, rule := c.wrongPurpose(j.Purpose, i > 0)
	if problem == "" {
		return nil
	}
	remedy := "issue it anew for " + usageNames[j.Purpose.usage()]
	if i > 0 {
		remedy += ", or without the extension"
	}
	return j.refuse(i, WrongPurpose, problem, rule, remedy)
}

// checkStrength is check_auth_level: not of the anchor's signature.
func (j judgement) checkStrength() *Error {
	for i, c := range j.chain {
		if w := weakKey(c, j.MinSecurityBits); w != nil && i > 0 {
			return j.refuse(i, WeakKey, w.problem, "", w.remedy)
		}
		if w := weakSignature(c, j.MinSecurityBits); w != nil && i < len(j.chain)-1 {
			return j.refuse(i, WeakKey, w.problem, "", w.remedy)
		}
	}
	return nil
}

// checkLinks is internal_verify in crypto/x509/x509_vfy.c: signatures, unless they
// are known, and dates, from the anchor down.
func (j judgement) checkLinks() *Error {
	for i := len(j.chain) - 1; i >= 0; i-- {
		if i < len(j.chain)-1 && !j.signed {
			if e := j.checkSignature(i); e != nil {
				return e
			}
		}
		if e := j.checkDates(i); e != nil {
			e.Signed = i == 0 || j.signed
			return e
		}
	}
	return nil
}

func (j judgement) checkDates(i int) *Error {
	c := j.chain[i]
	switch {
	case c.NotBefore.IsZero() || c.NotAfter.IsZero():
		return j.refuse(i, Invalid, "has a date that cannot be read", "RFC 5280 section 4.1.2.5", "issue it anew")
	case c.inDate(j.Time):
		return nil
	case j.Time.Unix() < c.NotBefore.Unix():
		return j.refuse(i, NotYetValid, "is not valid before "+c.NotBefore.Format(time.RFC3339),
			"RFC 5280 section 4.1.2.5", "check the clocks, or wait")
	}
	return j.refuse(i, Expired, "expired on "+c.NotAfter.Format(time.RFC3339), "RFC 5280 section 4.1.2.5", "renew it")
}

// checkSignature holds a certificate against the key of the one above it.
func (j judgement) checkSignature(i int) *Error {
	c, issuer := j.chain[i], j.chain[i+1]
	err := issuer.CheckSigned(c)
	var unsupported signature.UnsupportedError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errAlgorithms):
		return j.refuse(i, Invalid, err.Error(), "RFC 5280 section 4.1.1.2", "issue it anew")
	case errors.As(err, &unsupported):
		return j.refuse(i, Invalid, fmt.Sprintf("cannot be checked by the CA certificate %s (%q): %v", issuer.Serial(), text(issuer.Subject), err), "",
			"issue it anew by a CA with an RSA key, ECDSA on a NIST curve, or Ed25519")
	}
	return j.refuse(i, UnknownCA, fmt.Sprintf("was not signed by the CA certificate %s (%q), though that has the name of its issuer",
		issuer.Serial(), text(issuer.Subject)), "RFC 5280 section 4.1.1.3",
		"have the CA that has signed it use a name or a key identifier of its own: of several certificates of one name the first is taken, as in OpenSSL")
}

// checkNameConstraints is check_name_constraints: of every CA of the chain, the
// anchor among them, critical or not.
func (j judgement) checkNameConstraints() *Error {
	for i := len(j.chain) - 1; i >= 0; i-- {
		c := j.chain[i]
		if i > 0 && c.ext.selfIssued {
			continue
		}
		for above := len(j.chain) - 1; above > i; above-- {
			ca := j.chain[above]
			constraints := ca.nameConstraints()
			if constraints == nil {
				continue
			}
			v, name := constraints.check(c, i == 0)
			if v == noViolation {
				continue
			}
			whose := fmt.Sprintf("the CA certificate %s (%q)", ca.Serial(), text(ca.Subject))
			problem := fmt.Sprintf("has the %v %q, ", name.Kind, clip(name.String())) + fmt.Sprintf(violationTexts[v], whose)
			return j.refuse(i, NameConstraint, problem, "RFC 5280 section 4.2.1.10",
				"issue it with names that the CA may give, or by another CA")
		}
	}
	return nil
}

// errAlgorithms is a certificate that names two signature algorithms.
var errAlgorithms = errors.New("has a signature algorithm that is not the one of its signed part")

// CheckSigned checks that the key of this certificate has signed another one.
func (c *Certificate) CheckSigned(child *Certificate) error {
	switch {
	case !child.outer.same:
		return errAlgorithms
	case child.outer.unused != 0:
		return signature.ErrForged
	}
	return c.Key.Check(child.Algorithm, child.RawTBS, child.Signature)
}
