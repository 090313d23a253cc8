package certs

import (
	"errors"
	"fmt"
	"strconv"

	"pgwicket/internal/signature"
)

var errAuthoritySerial = errors.New("its own issuer and serial number are not those that the certificate names")

// refusal explains why no path was found.
func (s *search) refusal() *Error {
	f := s.failure
	e := &Error{Reason: UnknownCA, Cert: f.cert, Depth: f.depth, Purpose: s.options.Purpose, Path: s.path}
	switch f.kind {
	case tooLong:
		e.Reason = Invalid
		e.Problem = fmt.Sprintf("has a chain of more than %d certificates", maxDepth)
		e.Remedy = "send its intermediates only"
	case distrustedIssuer:
		e.Problem = "has trust settings (openssl x509 -trustout) that do not allow this use"
		e.Remedy = "put the certificate into " + s.pool.name + " without trust settings (openssl x509)"
	case otherIssuer:
		s.otherIssuer(e)
	default:
		s.missing(e)
	}
	return e
}

// otherIssuer explains that there is a certificate of the issuer's name, which is
// not meant or cannot be used.
func (s *search) otherIssuer(e *Error) {
	f := s.failure
	var malformed malformedError
	var unsupported signature.UnsupportedError
	switch {
	case errors.As(f.err, &malformed):
		e.Reason, e.Cert, e.Problem, e.Rule = Invalid, f.issuer, f.issuer.ext.malformed, "RFC 5280 section 4.2"
		e.Depth++
		e.Remedy = "issue it anew without that fault"
	case errors.As(f.err, &unsupported):
		e.Problem = fmt.Sprintf("cannot be checked by the CA certificate %s (%q): %v", f.issuer.Serial(), text(f.issuer.Subject), f.err)
		e.Remedy = fmt.Sprintf("add the certificate of the CA that has signed it to %s, for the name was used for another key", s.pool.name)
	default:
		e.Problem = fmt.Sprintf("is not of the CA certificate %s (%q), though that has the name of its issuer: %v", f.issuer.Serial(), text(f.issuer.Subject), f.err)
		e.Rule = "RFC 5280 section 4.2.1.1"
		e.Remedy = "add the CA certificate that it names to " + s.pool.name
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
		e.Problem = "is of a CA whose certificate is neither in " + s.pool.name + " nor was sent"
		e.Remedy = "add " + strconv.Quote(text(c.Issuer)) + " to " + s.pool.name + ", or let the intermediate be sent with the certificate"
	}
}

// weakness is a key or a signature below the minimum.
type weakness struct {
	problem, remedy string
}

// WeakKey says that the key of the certificate is weaker than a minimum, as a
// sentence that goes on from its name; empty if it is not.
func (c *Certificate) WeakKey(minimum int) string {
	if w := weakKey(c, minimum); w != nil {
		return w.problem
	}
	return ""
}

func weakKey(c *Certificate, minimum int) *weakness {
	if minimum < 0 || c.Key.Bits >= minimum && c.Key.Known() {
		return nil
	}
	w := &weakness{}
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
	w := &weakness{remedy: "issue it anew with SHA-256"}
	if c.Algorithm.Bits < 0 {
		w.problem = fmt.Sprintf("is signed with %s, whose strength is not known", c.Algorithm.Name)
	} else {
		w.problem = fmt.Sprintf("is signed with %s, which gives %d bits of security, and at least %d are asked for", c.Algorithm.Name, c.Algorithm.Bits, minimum)
	}
	return w
}
