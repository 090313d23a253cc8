package certs

import (
	"errors"
	"slices"
)

// trust is what X509_CERT_AUX says a certificate may be trusted for.
type trust struct {
	explicit bool // there is a list of uses; without a match the certificate is refused
	accepted []oid
	rejected []oid
}

const oidAnyUsage oid = "\x55\x1d\x25\x00"

var errTrust = errors.New("malformed trust settings")

// parseTrust is the template X509_CERT_AUX of crypto/x509/x_x509a.c.
func parseTrust(in input) (*trust, error) {
	content, ok := in.read(idSequence)
	if !ok || !in.empty() {
		return nil, errTrust
	}
	t := &trust{}
	accepted, present, ok := content.optional(idSequence)
	t.explicit = present
	if ok {
		t.accepted, ok = readOIDs(accepted)
	}
	if !ok {
		return nil, errTrust
	}
	rejected, _, ok := content.optional(explicit(0))
	if ok {
		t.rejected, ok = readOIDs(rejected)
	}
	if !ok {
		return nil, errTrust
	}
	for !content.empty() { // alias, key identifier, others
		if _, ok := content.next(); !ok {
			return nil, errTrust
		}
	}
	return t, nil
}

func readOIDs(in input) (list []oid, ok bool) {
	for !in.empty() {
		o, ok := in.readOID()
		if !ok {
			return nil, false
		}
		list = append(list, o)
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
	matches := func(o oid) bool { return o == p.usage() || o == oidAnyUsage }
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
