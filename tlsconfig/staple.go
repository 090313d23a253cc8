package tlsconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"pgwicket/internal/crl"
)

// staple is an OCSP response for a certificate of the gate, which is sent with it to clients that request one (RFC 6066
// section 8). libpq does not; drivers and proxies with other TLS libraries may.
type staple struct {
	der         []byte
	from, until time.Time // until is zero: without end
	endless     bool      // the response has no nextUpdate
}

// stapleLimit is far above any response with the certificates in it.
const stapleLimit = 1 << 20

// readStaple reads a response and checks that a client would accept it, except for the date. The operator must fetch a new
// one before the old one ends: the gate itself opens no connection to a responder.
func readStaple(name string, chain []*x509.Certificate) (*staple, error) {
	data, err := readFile(name, stapleLimit, nil)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("%q is PEM: give the response in DER, as openssl ocsp -respout writes it", name)
	}
	if len(chain) < 2 {
		return nil, fmt.Errorf("%q cannot be checked, since cert_file has no chain: add the certificate of the CA behind the gate's own", name)
	}
	s, err := parseStaple(data, chain[0], chain[1])
	if err != nil {
		return nil, fmt.Errorf("%q %w", name, err)
	}
	return s, nil
}

// parseStaple judges the signer with isResponder. ocsp.ParseResponseForCert, if it has the issuer, accepts any certificate of
// the CA as a responder's, and refuses a response with the certificate of the CA that has signed it, unless that one is
// self-signed.
func parseStaple(der []byte, leaf, issuer *x509.Certificate) (*staple, error) {
	r, err := ocsp.ParseResponseForCert(der, leaf, nil)
	var failure ocsp.ResponseError
	switch {
	case errors.As(err, &failure):
		return nil, fmt.Errorf("holds an error of the responder (%v): fetch it again", failure.Status)
	case err != nil:
		return nil, fmt.Errorf("is not an OCSP response for the certificate in cert_file (%s): fetch it again", quoted(err))
	}
	s := &staple{der: der, from: r.ThisUpdate, until: r.NextUpdate, endless: r.NextUpdate.IsZero()}
	switch signer := r.Certificate; {
	case signer == nil:
		if err := r.CheckSignatureFrom(issuer); err != nil {
			return nil, fmt.Errorf("is not signed by the CA whose certificate is second in cert_file (%s): fetch it again", quoted(err))
		}
	case bytes.Equal(signer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo): // with its own key
	case !isResponder(signer, issuer):
		return nil, fmt.Errorf("is signed by %q, which is not a responder of the CA whose certificate is second in cert_file: fetch it again",
			nameText(signer.RawSubject))
	default:
		s.from = latest(s.from, signer.NotBefore)
		if s.endless || signer.NotAfter.Before(s.until) {
			s.until = signer.NotAfter
		}
	}
	switch r.Status {
	case ocsp.Good:
		return s, nil
	case ocsp.Revoked:
		return nil, fmt.Errorf("says that the gate's own certificate was revoked on %s (%s): get a new one", dateText(r.RevokedAt), crl.ReasonName(r.RevocationReason))
	default:
		return nil, errors.New("says that the CA does not know the gate's own certificate: ask the CA, or get a new one")
	}
}

// isResponder reports whether the CA has issued a certificate for its OCSP responder (RFC 6960 section 4.2.2.2).
func isResponder(signer, issuer *x509.Certificate) bool {
	return slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && signer.CheckSignatureFrom(issuer) == nil
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (s *staple) inDate(at time.Time) bool {
	return !at.Before(s.from) && (s.until.IsZero() || !at.After(s.until))
}

// staleness says why a response is not in date.
func (s *staple) staleness(at time.Time) string {
	if at.Before(s.from) {
		return "is not valid before " + timeText(s.from)
	}
	return "is out of date since " + timeText(s.until)
}

// loadStaple reads the response of a pair, if it has one, and warns if clients may not accept it, or need one.
func loadStaple(prefix string, p Pair, chain []*x509.Certificate, now time.Time, r *report) *staple {
	var s *staple
	if p.OCSPFile != "" {
		var err error
		if s, err = readStaple(p.OCSPFile, chain); err != nil {
			r.errorf(prefix+"ocsp_file", "%v", err)
			return nil
		}
		switch {
		case !s.inDate(now):
			r.warnf(prefix+"ocsp_file", "%q %s, so it is not stapled: fetch a new one from the CA's responder", p.OCSPFile, s.staleness(now))
		case s.endless:
			r.warnf(prefix+"ocsp_file", "%q has no next update, so clients may take it as out of date at any time: configure one in the responder", p.OCSPFile)
		}
	}
	if mustStaple(chain[0]) && (s == nil || !s.inDate(now)) {
		r.warnf(prefix+"cert_file", "the certificate in %q requires a stapled OCSP response (Must-Staple), and there is none in date: "+
			"clients that check this refuse the gate (libpq does not): set ocsp_file", p.CertFile)
	}
	return s
}

var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// mustStaple reports whether a certificate has the TLS feature status_request (RFC 7633).
func mustStaple(c *x509.Certificate) bool {
	const statusRequest = 5
	for _, x := range c.Extensions {
		var features []int
		if x.Id.Equal(oidTLSFeature) {
			_, err := asn1.Unmarshal(x.Value, &features)
			return err == nil && slices.Contains(features, statusRequest)
		}
	}
	return false
}

// served is a certificate of the gate as it is sent. The response is sent with it only while it is in date: a client that
// receives one out of date must refuse.
type served struct {
	bare, stapled tls.Certificate
	staple        *staple // nil: none
}

func newServed(cert tls.Certificate, s *staple) *served {
	c := &served{bare: cert, stapled: cert, staple: s}
	if s != nil {
		c.stapled.OCSPStaple = s.der
	}
	return c
}

func (c *served) at(now time.Time) *tls.Certificate {
	if c.staple != nil && c.staple.inDate(now) {
		return &c.stapled
	}
	return &c.bare
}
