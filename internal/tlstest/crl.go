package tlstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	_ "crypto/md5" // a list signed like this must be refused
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // and like this
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"time"
)

// CRL is a certificate revocation list before it is signed. Fields may be set to what RFC 5280 forbids, for the tests of a
// parser.
type CRL struct {
	Version    int      // 1 or 2
	Number     *big.Int // nil: none; only written into version 2
	ThisUpdate time.Time
	NextUpdate time.Time // zero: none
	Revoked    []Revoked
	Extensions []pkix.Extension // after the key identifier and the number
	Issuer     []byte           // DER name; nil: the CA's
	Key        crypto.Signer    // nil: the CA's
	Algorithm  x509.SignatureAlgorithm
}

// Revoked is one entry of a list.
type Revoked struct {
	Serial     *big.Int
	Date       time.Time
	Reason     int // RFC 5280 section 5.3.1; 0 writes no reason
	Extensions []pkix.Extension
}

// Revoke adds certificates, revoked as of the list's ThisUpdate.
func (l *CRL) Revoke(certs ...*x509.Certificate) {
	for _, c := range certs {
		l.Revoked = append(l.Revoked, Revoked{Serial: c.SerialNumber, Date: l.ThisUpdate})
	}
}

// CRL returns a list in PEM. Without an edit it is an empty version 2 list, valid from the NotBefore of its CA until thirty
// days from now. All lists of one CA have the same thisUpdate, so none is older than another.
func (ca *CA) CRL(edit func(*CRL)) []byte {
	l := &CRL{
		Version:    2,
		Number:     big.NewInt(1),
		ThisUpdate: ca.Cert.NotBefore,
		NextUpdate: time.Now().AddDate(0, 0, 30),
		Issuer:     ca.Cert.RawSubject,
		Key:        ca.Key,
	}
	if edit != nil {
		edit(l)
	}
	der := l.sign(ca.Cert.SubjectKeyId)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

type (
	tbsList struct {
		Version    int `asn1:"optional,default:0"`
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		ThisUpdate time.Time
		NextUpdate time.Time        `asn1:"optional"`
		Revoked    []entry          `asn1:"optional"`
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:0"`
	}
	entry struct {
		Serial     *big.Int
		Date       time.Time
		Extensions []pkix.Extension `asn1:"optional"`
	}
	signedList struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	keyIdentifier struct {
		ID []byte `asn1:"tag:0"`
	}
)

func (l *CRL) sign(keyID []byte) []byte {
	how := algorithm(l.Algorithm, l.Key)
	tbs := tbsList{
		Version:    l.Version - 1,
		Algorithm:  how.identifier(),
		Issuer:     asn1.RawValue{FullBytes: l.Issuer},
		ThisUpdate: l.ThisUpdate.UTC(),
	}
	if !l.NextUpdate.IsZero() {
		tbs.NextUpdate = l.NextUpdate.UTC()
	}
	for _, r := range l.Revoked {
		e := entry{Serial: r.Serial, Date: r.Date.UTC()}
		if r.Reason != 0 {
			e.Extensions = append(e.Extensions, Extension(idReasonCode, false, asn1.Enumerated(r.Reason)))
		}
		e.Extensions = append(e.Extensions, r.Extensions...)
		tbs.Revoked = append(tbs.Revoked, e)
	}
	if l.Version == 2 {
		tbs.Extensions = append(tbs.Extensions, Extension(idAuthorityKeyID, false, keyIdentifier{keyID}))
		if l.Number != nil {
			tbs.Extensions = append(tbs.Extensions, Extension(idCRLNumber, false, l.Number))
		}
	}
	tbs.Extensions = append(tbs.Extensions, l.Extensions...)

	raw := must(asn1.Marshal(tbs))
	sig := how.sign(l.Key, raw)
	return must(asn1.Marshal(signedList{
		TBS:       asn1.RawValue{FullBytes: raw},
		Algorithm: how.identifier(),
		Signature: asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)},
	}))
}

// Extension returns an extension of a certificate, a list or an entry. encoding/asn1 encodes the value.
func Extension(id asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	return pkix.Extension{Id: id, Critical: critical, Value: must(asn1.Marshal(value))}
}

// RFC 5280 sections 4.2.1.1, 5.2.3, 5.3.1 and 5.2.5.
var (
	idAuthorityKeyID = asn1.ObjectIdentifier{2, 5, 29, 35}
	idCRLNumber      = asn1.ObjectIdentifier{2, 5, 29, 20}
	idReasonCode     = asn1.ObjectIdentifier{2, 5, 29, 21}

	idIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// scheme is a signature algorithm as RFC 4055, RFC 5758 and RFC 8410 write it.
type scheme struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
	pss  bool
}

var schemes = map[x509.SignatureAlgorithm]scheme{
	x509.MD5WithRSA:       {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, crypto.MD5, false},
	x509.SHA1WithRSA:      {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, crypto.SHA1, false},
	x509.SHA256WithRSA:    {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, crypto.SHA256, false},
	x509.SHA384WithRSA:    {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, crypto.SHA384, false},
	x509.SHA512WithRSA:    {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, crypto.SHA512, false},
	x509.SHA256WithRSAPSS: {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, crypto.SHA256, true},
	x509.SHA384WithRSAPSS: {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, crypto.SHA384, true},
	x509.SHA512WithRSAPSS: {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, crypto.SHA512, true},
	x509.ECDSAWithSHA1:    {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, crypto.SHA1, false},
	x509.ECDSAWithSHA256:  {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, crypto.SHA256, false},
	x509.ECDSAWithSHA384:  {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, crypto.SHA384, false},
	x509.ECDSAWithSHA512:  {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, crypto.SHA512, false},
	x509.PureEd25519:      {asn1.ObjectIdentifier{1, 3, 101, 112}, 0, false},
}

func algorithm(a x509.SignatureAlgorithm, key crypto.Signer) scheme {
	if a == x509.UnknownSignatureAlgorithm {
		switch key.Public().(type) {
		case *rsa.PublicKey:
			a = x509.SHA256WithRSA
		case *ecdsa.PublicKey:
			a = x509.ECDSAWithSHA256
		case ed25519.PublicKey:
			a = x509.PureEd25519
		}
	}
	s, ok := schemes[a]
	if !ok {
		panic("tlstest: no scheme for " + a.String())
	}
	return s
}

func (s scheme) identifier() pkix.AlgorithmIdentifier {
	id := pkix.AlgorithmIdentifier{Algorithm: s.oid}
	switch {
	case s.pss:
		id.Parameters = asn1.RawValue{FullBytes: s.pssParameters()}
	case s.oid[1] == 2 && s.oid[3] == 113549: // RSA: NULL, the others: absent
		id.Parameters = asn1.NullRawValue
	}
	return id
}

func (s scheme) pssParameters() []byte {
	type parameters struct {
		Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
		Salt int                      `asn1:"explicit,tag:2"`
	}
	last := map[crypto.Hash]int{crypto.SHA256: 1, crypto.SHA384: 2, crypto.SHA512: 3}[s.hash]
	hash := pkix.AlgorithmIdentifier{
		Algorithm:  asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, last},
		Parameters: asn1.NullRawValue,
	}
	return must(asn1.Marshal(parameters{
		Hash: hash,
		MGF: pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8},
			Parameters: asn1.RawValue{FullBytes: must(asn1.Marshal(hash))},
		},
		Salt: s.hash.Size(),
	}))
}

func (s scheme) sign(key crypto.Signer, message []byte) []byte {
	digest := message
	var opts crypto.SignerOpts = s.hash
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	if s.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
	}
	return must(key.Sign(rand.Reader, digest, opts))
}

// IssuingDistributionPoint returns that extension of a list (RFC 5280 section 5.2.5), with fields that have a tag and a
// value.
func IssuingDistributionPoint(fields ...asn1.RawValue) pkix.Extension {
	var content []byte
	for _, f := range fields {
		f.Class = asn1.ClassContextSpecific
		content = append(content, must(asn1.Marshal(f))...)
	}
	return Extension(idIssuingDistributionPoint, true, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
}

// Flag returns a field of an IssuingDistributionPoint that is true.
func Flag(tag int) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte{0xff}} }

// PointName returns the field of an IssuingDistributionPoint that names a partition by its URL.
func PointName(url string) asn1.RawValue {
	full := append([]byte{0x86, byte(len(url))}, url...) // must be short
	return asn1.RawValue{Tag: 0, IsCompound: true, Bytes: append([]byte{0xa0, byte(len(full))}, full...)}
}

// BigCRL returns a list in PEM with n random serials of 20 octets, and the last of them. It is made without
// encoding/asn1, which would take longer than the tests that need it, and so has version 1. The key must be ECDSA.
func (ca *CA) BigCRL(n int) (list, serial []byte) {
	serials := make([]byte, 20*n)
	rand.Read(serials) // never fails
	date, next := must(asn1.Marshal(time.Now().UTC().Add(-time.Hour))), must(asn1.Marshal(time.Now().UTC().AddDate(0, 0, 30)))
	entries := make([]byte, 0, n*(4+20+len(date)))
	for i := range n {
		serial = serials[20*i : 20*i+20]
		serial[0] = serial[0]&0x3f | 0x40
		entries = append(entries, 0x30, byte(2+20+len(date)), 2, 20)
		entries = append(append(entries, serial...), date...)
	}
	sequence := func(parts ...[]byte) []byte {
		return must(asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)}))
	}
	how := schemes[x509.ECDSAWithSHA256]
	identifier := must(asn1.Marshal(how.identifier()))
	tbs := sequence(identifier, ca.Cert.RawSubject, date, next, sequence(entries))
	signature := how.sign(ca.Key, tbs)
	der := sequence(tbs, identifier, must(asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})))
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), serial
}
