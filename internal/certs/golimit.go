package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// GoError is a certificate that crypto/x509 cannot read. crypto/tls reads every
// certificate that a peer sends, and fails the handshake at the first that it cannot.
type GoError struct {
	Name    string // which certificate it is: "certificate 2 of "chain.crt" (serial 0A, "CN=app", SHA-256 ...)"
	Problem string // what crypto/x509 or, if Lenient is false, Parse says about it
	Lenient bool   // Parse reads it, so OpenSSL and PostgreSQL do as well
	Remedy  string
}

func (e *GoError) Error() string {
	if !e.Lenient {
		return fmt.Sprintf("%s cannot be read: %s: %s", e.Name, e.Problem, e.Remedy)
	}
	return fmt.Sprintf("%s cannot be read by Go: %q, a limit of Go that OpenSSL and PostgreSQL do not have: %s", e.Name, e.Problem, e.Remedy)
}

// GoProblem returns why crypto/x509 cannot read a certificate in DER, and nil if it
// can. The origin names the certificate's file and place.
func GoProblem(origin string, raw []byte) *GoError {
	_, err := x509.ParseCertificate(raw)
	if err == nil {
		return nil
	}
	c, parseErr := Parse(raw)
	if parseErr != nil {
		e := &GoError{Name: fmt.Sprintf("%s (SHA-256 %x)", origin, sha256.Sum256(raw)), Problem: parseErr.Error(), Remedy: "send a certificate as its CA has issued it"}
		var p *ParseError
		if errors.As(parseErr, &p) {
			e.Problem = "it " + p.Problem
			if p.Serial != "" {
				e.Name = describe(origin, p.Serial, p.Subject, raw)
			}
		}
		return e
	}
	problem := strings.TrimPrefix(err.Error(), "x509: ")
	return &GoError{Name: describe(origin, c.Serial(), text(c.Subject), raw), Problem: clip(problem), Lenient: true, Remedy: goRemedy(problem)}
}

func describe(origin, serial, subject string, raw []byte) string {
	return fmt.Sprintf("%s (serial %s, %q, SHA-256 %x)", origin, serial, subject, sha256.Sum256(raw))
}

// goRemedies are what to do about the errors of crypto/x509 (parser.go), by a part of
// their text.
var goRemedies = []struct{ problem, remedy string }{
	{"invalid PrintableString", `have it issued anew with its names in UTF8String (string_mask = utf8only in openssl.cnf)`},
	{"invalid IA5String", "have it issued anew without letters outside of ASCII in its e-mail addresses and domain components"},
	{"duplicate extension", "have it issued anew with each extension once"},
	{"SAN", "have it issued anew with alternative names that are ASCII, as RFC 5280 section 4.2.1.6 requires"},
	{"cannot parse URI", "have it issued anew with URIs that RFC 3986 allows among its alternative names"},
	{"cannot parse IP", "have it issued anew with IP addresses of 4 or 16 bytes among its alternative names"},
	{"elliptic curve", "have it issued anew with a key on P-256, P-384 or P-521"},
	{"incorrectly marked critical", "have it issued anew with that extension not critical"},
}

func goRemedy(problem string) string {
	for _, r := range goRemedies {
		if strings.Contains(problem, r.problem) {
			return r.remedy
		}
	}
	return "have it issued anew by a CA that writes it as RFC 5280 says (openssl asn1parse shows how it is written)"
}
