package certs

import (
	"errors"
	"slices"

	"pgwicket/internal/der"
)

// trust is what X509_CERT_AUX says a certificate may be trusted for.
type trust struct {
	explicit bool // there is a list of uses; without a match the certificate is refused
	accepted []der.OID
	rejected []der.OID
}

const oidAnyUsage der.OID = "\x55\x1d\x25\x00"

var errTrust = errors.New("malformed trust settings")

// parseTrust is the template X509_CERT_AUX of crypto/x509/x_x509a.c.
func parseTrust(in der.Input) (*trust, error) {
	content, ok := in.Read(der.Sequence)
	if !ok || !in.Empty() {
		return nil, errTrust
	}
	t := &trust{}
	accepted, present, ok := content.Optional(der.Sequence)
	t.explicit = present
	if ok {
		t.accepted, ok = readOIDs(accepted)
	}
	if !ok {
		return nil, errTrust
	}
	rejected, _, ok := content.Optional(der.Explicit(0))
	if ok {
		t.rejected, ok = readOIDs(rejected)
	}
	if !ok {
		return nil, errTrust
	}
	for !content.Empty() { // alias, key identifier, others
		if _, ok := content.Next(); !ok {
			return nil, errTrust
		}
	}
	return t, nil
}

func readOIDs(in der.Input) (list []der.OID, ok bool) {
	for !in.Empty() {
		o, ok := in.ReadOID()
		if !ok {
			return nil, false
		}
		list = append(list, der.OID(o))
	}
	return list, true
}

// verdict of the settings for one purpose.
type trustVerdict int

const (
	noTrustSettings trustVerdict = iota
	trusted
	distrusted
)

// judge is obj_trust in crypto/x509/x509_trust.c with X509_TRUST_OK_ANY_EKU.
func (t *trust) judge(p Purpose) trustVerdict {
	if t == nil {
		return noTrustSettings
	}
	matches := func(o der.OID) bool { return o == p.usage() || o == oidAnyUsage }
	switch {
	case slices.ContainsFunc(t.rejected, matches):
		return distrusted
	case !t.explicit:
		return noTrustSettings
	case slices.ContainsFunc(t.accepted, matches):
		return trusted
	}
	return distrusted
}
