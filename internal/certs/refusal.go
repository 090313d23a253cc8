package certs

import (
	"errors"
	"fmt"
)

var (
	errDistrusted      = errors.New("has trust settings (openssl x509 -trustout) that do not allow this use")
	errMalformed       = errors.New("the CA certificate is malformed")
	errAuthoritySerial = errors.New("its own issuer and serial number are not those that the certificate names")
	errExhausted       = fmt.Errorf("%d signatures were checked, or %d of certificates that were sent did not verify", maxChecks, maxFailed)
)

// refusal explains why no path was found.
func (s *search) refusal(leaf *Certificate) *Error {
	f := s.failure
	e := &Error{Reason: UnknownCA, Cert: f.cert, Depth: f.depth, Purpose: s.options.Purpose}
	if f.cert == nil {
		e.Cert = leaf
	}
	switch f.rank {
	case rankWeak:
		var weak *weakness
		errors.As(f.err, &weak)
		e.Reason, e.Cert, e.Problem, e.Remedy = WeakKey, weak.cert, weak.problem, weak.remedy
		if weak.cert == f.issuer {
			e.Depth++
		}
	case rankExhausted:
		e.Reason, e.Cert, e.Depth = Invalid, leaf, 0
		e.Problem = "came with too many others that may have issued it: " + f.err.Error()
		e.Remedy = "send its intermediates only"
	case rankSignature:
		e.Problem = fmt.Sprintf("was not signed by the CA certificate %s (%q), though that has the name of its issuer", f.issuer.Serial(), text(f.issuer.Subject))
		e.Remedy = "add the certificate of the CA that has signed it to " + s.pool.name + ", for the name was used for another key"
	case rankUnusable:
		s.unusable(e)
	case rankOtherKey:
		e.Problem = fmt.Sprintf("is not of the CA certificate %s (%q), though that has the name of its issuer: %v", f.issuer.Serial(), text(f.issuer.Subject), f.err)
		e.Rule = "RFC 5280 section 4.2.1.1"
		e.Remedy = "add the CA certificate that it names to " + s.pool.name
	default:
		s.missing(e)
	}
	return e
}

// unusable explains that a signature was not even checked.
func (s *search) unusable(e *Error) {
	f := s.failure
	switch {
	case errors.Is(f.err, errMalformed):
		e.Reason, e.Cert, e.Problem, e.Rule = Invalid, f.issuer, f.issuer.ext.malformed, "RFC 5280 section 4.2"
		e.Depth++
		e.Remedy = "issue it anew without that fault"
	case errors.Is(f.err, errAlgorithms):
		e.Reason, e.Problem, e.Rule = Invalid, f.err.Error(), "RFC 5280 section 4.1.1.2"
		e.Remedy = "issue it anew"
	case errors.Is(f.err, errDistrusted):
		e.Problem = f.err.Error()
		e.Remedy = "put the certificate into " + s.pool.name + " without trust settings (openssl x509)"
	default:
		e.Problem = fmt.Sprintf("cannot be checked by the CA certificate %s (%q): %v", f.issuer.Serial(), text(f.issuer.Subject), f.err)
		e.Remedy = "issue it anew by a CA with an RSA key, ECDSA on a NIST curve, or Ed25519"
	}
}

// missing explains that there is no certificate of an issuer at all.
func (s *search) missing(e *Error) {
	c := e.Cert
	switch {
	case c.SelfSigned():
		e.Problem = "is self-signed and not in " + s.pool.name
		e.Remedy = "add it there if it is to be trusted"
	case s.pool.Find(c) != nil:
		e.Problem = fmt.Sprintf("ends in no root: %s has no certificate of its issuer", s.pool.name)
		e.Remedy = fmt.Sprintf("add the root %q to %s", text(c.Issuer), s.pool.name)
	default:
		e.Problem = fmt.Sprintf("is of a CA whose certificate is neither in %s nor was sent", s.pool.name)
		e.Remedy = fmt.Sprintf("add %q to %s, or let the intermediate be sent with the certificate", text(c.Issuer), s.pool.name)
	}
}

// weakness is a key or a signature below the minimum.
type weakness struct {
	cert            *Certificate
	problem, remedy string
}

func (w *weakness) Error() string { return w.problem }

// tooWeak is check_auth_level in crypto/x509/x509_vfy.c for one link of a chain.
func tooWeak(c, issuer *Certificate, minimum int) error {
	if w := weakKey(issuer, minimum); w != nil {
		return w
	}
	if w := weakSignature(c, minimum); w != nil {
		return w
	}
	return nil
}

func weakKey(c *Certificate, minimum int) *weakness {
	if minimum < 0 || c.Key.Bits >= minimum && c.Key.Known() {
		return nil
	}
	w := &weakness{cert: c}
	if !c.Key.Known() {
		w.problem = "has " + c.Key.Name
		w.remedy = "issue it anew with an RSA key of 2048 bits or more, ECDSA or Ed25519"
		return w
	}
	w.problem = fmt.Sprintf("has a key (%s) of %d bits of security, and at least %d are asked for", c.Key.Name, c.Key.Bits, minimum)
	w.remedy = "issue it anew with a stronger key, or lower the minimum"
	return w
}

func weakSignature(c *Certificate, minimum int) *weakness {
	if minimum < 0 || c.Algorithm.Bits >= minimum {
		return nil
	}
	w := &weakness{cert: c, remedy: "issue it anew with SHA-256"}
	if c.Algorithm.Bits < 0 {
		w.problem = fmt.Sprintf("is signed with %s, whose strength is not known", c.Algorithm.Name)
	} else {
		w.problem = fmt.Sprintf("is signed with %s, which gives %d bits of security, and at least %d are asked for", c.Algorithm.Name, c.Algorithm.Bits, minimum)
	}
	return w
}
