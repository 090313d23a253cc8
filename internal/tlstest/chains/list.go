package chains

import (
	"crypto"
	"time"
)

// listSpec is a revocation list to be made.
type listSpec struct {
	version    int // as encoded: 1 is v2; below 0: none
	inner      []byte
	outer      []byte
	issuer     []byte
	this, next []byte // dates; nil: none
	entries    [][]byte
	empty      bool // revokedCertificates without an entry
	extensions [][]byte
	noAKI      bool
	key        *key
	hash       crypto.Hash
	unused     byte // bits of the signature
}

type listOption func(*listSpec)

// list makes a revocation list of a CA, which is in date and has number 1.
func list(by *node, options ...listOption) []byte {
	s := &listSpec{
		version: 1, issuer: by.name, key: by.key, hash: crypto.SHA256,
		this: date(time.Now().Add(-time.Hour)), next: date(time.Now().AddDate(0, 1, 0)),
	}
	for _, o := range options {
		o(s)
	}
	if s.version > 0 && !s.noAKI {
		s.extensions = append(s.extensions, ext("2.5.29.35", false, seq(tlv(0x80, by.key.id))))
	}
	if s.inner == nil {
		s.inner = s.key.algorithm(s.hash)
	}
	if s.outer == nil {
		s.outer = s.inner
	}
	var version, revoked, extensions []byte
	if s.version >= 0 {
		version = tlv(0x02, []byte{byte(s.version)})
	}
	if len(s.entries) > 0 || s.empty {
		revoked = seq(s.entries...)
	}
	if len(s.extensions) > 0 {
		extensions = tlv(0xa0, seq(s.extensions...))
	}
	tbs := seq(version, s.inner, s.issuer, s.this, s.next, revoked, extensions)
	return seq(tbs, s.outer, tlv(0x03, []byte{s.unused}, s.key.sign(s.hash, tbs)))
}

// entry is one of revokedCertificates.
func entry(serial []byte, extensions ...[]byte) []byte {
	parts := [][]byte{serial, date(time.Now().Add(-2 * time.Hour))}
	if len(extensions) > 0 {
		parts = append(parts, seq(extensions...))
	}
	return seq(parts...)
}

// revoke adds the certificates of nodes.
func revoke(nodes ...*node) listOption {
	return func(s *listSpec) {
		for _, n := range nodes {
			s.entries = append(s.entries, entry(tlv(0x02, n.serialNumber())))
		}
	}
}

// revokeWith adds one certificate with extensions of its entry.
func revokeWith(n *node, extensions ...[]byte) listOption {
	return func(s *listSpec) { s.entries = append(s.entries, entry(tlv(0x02, n.serialNumber()), extensions...)) }
}

func reasonCode(n byte) []byte { return ext("2.5.29.21", false, tlv(0x0a, []byte{n})) }

func extended(extensions ...[]byte) listOption {
	return func(s *listSpec) { s.extensions = append(s.extensions, extensions...) }
}

func dated(this, next time.Duration) listOption {
	return func(s *listSpec) { s.this, s.next = date(time.Now().Add(this)), date(time.Now().Add(next)) }
}

const day = 24 * time.Hour

// stale and early are out of date; older and newer are in date.
func stale(s *listSpec) { dated(-9*day, -2*day)(s) }
func early(s *listSpec) { dated(2*day, 9*day)(s) }
func older(s *listSpec) { dated(-2*day, 9*day)(s) }
func newer(s *listSpec) { dated(-time.Minute, 9*day)(s) }

func unnamed(s *listSpec)               { s.noAKI = true }
func signedBy(k *key) listOption        { return func(s *listSpec) { s.key = k } }
func listIssuer(n []byte) listOption    { return func(s *listSpec) { s.issuer = n } }
func listVersion(v int) listOption      { return func(s *listSpec) { s.version = v } }
func hashed(h crypto.Hash) listOption   { return func(s *listSpec) { s.hash = h } }
func between(a, b []byte) listOption    { return func(s *listSpec) { s.this, s.next = a, b } }
func listed(e ...[]byte) listOption     { return func(s *listSpec) { s.entries = append(s.entries, e...) } }
func listNumber(n ...byte) listOption   { return extended(ext("2.5.29.20", false, tlv(0x02, n))) }
func deltaOf(n ...byte) listOption      { return extended(ext("2.5.29.27", true, tlv(0x02, n))) }
func scope(fields ...[]byte) listOption { return extended(ext("2.5.29.28", true, seq(fields...))) }

// Fields of issuingDistributionPoint.
var (
	onlyUsers      = tlv(0x81, []byte{0xff})
	onlyCAs        = tlv(0x82, []byte{0xff})
	keyCompromise  = tlv(0x83, []byte{6, 0x40})
	indirect       = tlv(0x84, []byte{0xff})
	onlyAttributes = tlv(0x85, []byte{0xff})
)

// fullName is a DistributionPointName of general names; relative of one attribute.
func fullName(names ...[]byte) []byte { return tlv(0xa0, tlv(0xa0, names...)) }

func relative(value string) []byte {
	return tlv(0xa0, tlv(0xa1, attribute(commonName, utf8String, value)))
}

// points is cRLDistributionPoints of a certificate.
func points(list ...[]byte) option { return with(ext("2.5.29.31", false, seq(list...))) }
