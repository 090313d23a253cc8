package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// crl is one certificate revocation list. x509.ParseRevocationList will not do: it refuses version 1, which is what
// "openssl ca -gencrl" writes unless told otherwise, and says nothing of the extensions that make a list incomplete.
type crl struct {
	option                 string // that named it: crl_file or crl_dir
	file                   string
	block                  int    // in a PEM file, from 1; 0 in DER
	kept                   bool   // from the configuration before: see crlLoader.keep
	issuer                 []byte // the name in DER
	authority              []byte // the authorityKeyIdentifier as it stands there; nil: none
	thisUpdate, nextUpdate time.Time
	number                 *big.Int // nil: none
	scope                  scope
	revoked                revocations

	algorithm      x509.SignatureAlgorithm
	tbs, signature []byte
	signer         *x509.Certificate // in the CA file; nil: the list is from another CA
	signers        *signers
}

// scope is which certificates of its issuer a list speaks of.
type scope uint8

const (
	everything scope = iota
	onlyLeaves
	onlyCAs
)

// The extensions that mean something here, all below 2.5.29 (id-ce), in DER: RFC 5280 sections 4.2.1.1, 5.2 and 5.3.
const (
	idCRLNumber         = "\x55\x1d\x14"
	idReasonCode        = "\x55\x1d\x15"
	idDeltaCRLIndicator = "\x55\x1d\x1b"
	idIssuingDistPoint  = "\x55\x1d\x1c"
	idCertificateIssuer = "\x55\x1d\x1d"
	idAuthorityKeyID    = "\x55\x1d\x23"
)

var errMalformed = errors.New("is not a well-formed CRL: fetch it again from the CA")

const beginCRL = "-----BEGIN X509 CRL-----"

// splitCRLs returns the lists of a file in DER. A file is either one list in DER or any number of PEM blocks, with
// anything between them that OpenSSL would pass over too.
func splitCRLs(data []byte) (lists [][]byte, isPEM bool, err error) {
	if len(data) > 0 && data[0] == 0x30 {
		return [][]byte{data}, false, nil
	}
	// pem.Decode steps over a damaged block in silence, and a list that is not seen is a list that revokes nobody.
	begun := bytes.Count(data, []byte(beginCRL))
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	switch {
	case begun == 0:
		return nil, true, errors.New("holds no CRL, neither in DER nor in PEM (" + beginCRL + ")")
	case len(lists) != begun:
		return nil, true, fmt.Errorf("holds %d CRLs of which only %d can be read: the PEM of the others is damaged", begun, len(lists))
	}
	return lists, true, nil
}

// parseCRL reads a list of version 1 or 2 to the last octet of its last entry, and refuses every kind of list that
// cannot be applied in full. The list shares its memory with der. With an error it holds what was read so far, to be
// named in a message.
func parseCRL(der []byte) (*crl, error) {
	l := &crl{signers: &signers{}}
	var list, tbs, inner, outer cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() ||
		!list.ReadASN1Element(&tbs, asn1.SEQUENCE) ||
		!list.ReadASN1Element(&outer, asn1.SEQUENCE) ||
		!list.ReadASN1BitStringAsBytes(&l.signature) || !list.Empty() {
		return l, errMalformed
	}
	l.tbs = tbs

	version := 1 // RFC 5280 section 5.1.2.1: what is not there is version 1
	if !tbs.ReadASN1(&tbs, asn1.SEQUENCE) || !readVersion(&tbs, &version) ||
		!tbs.ReadASN1Element(&inner, asn1.SEQUENCE) ||
		!tbs.ReadASN1Element((*cryptobyte.String)(&l.issuer), asn1.SEQUENCE) ||
		!readTime(&tbs, &l.thisUpdate) {
		return l, errMalformed
	}
	if tbs.PeekASN1Tag(asn1.UTCTime) || tbs.PeekASN1Tag(asn1.GeneralizedTime) {
		if !readTime(&tbs, &l.nextUpdate) {
			return l, errMalformed
		}
	}
	if version != 1 && version != 2 {
		return l, fmt.Errorf("is a CRL of version %d: only versions 1 and 2 are known", version)
	}
	// Section 5.1.1.2: only the inner identifier is signed, so the outer one must be the same.
	if !bytes.Equal(inner, outer) {
		return l, errMalformed
	}
	var err error
	if l.algorithm, err = signatureAlgorithm(inner); err != nil {
		return l, err
	}
	return l, l.parseBody(tbs, version)
}

// parseBody reads what follows the dates: the entries and the extensions.
func (l *crl) parseBody(tbs cryptobyte.String, version int) error {
	var entries, extensions cryptobyte.String
	var extended bool
	if !tbs.ReadOptionalASN1(&entries, nil, asn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &extended, asn1.Tag(0).ContextSpecific().Constructed()) || !tbs.Empty() {
		return errMalformed
	}
	// The kind of list comes before its entries, whose own faults follow from it: a list with a certificateIssuer
	// entry is better called indirect.
	if extended {
		if version == 1 {
			return errors.New("is a CRL of version 1 with extensions, which only version 2 has: have the CA write it again")
		}
		var list cryptobyte.String
		if !extensions.ReadASN1(&list, asn1.SEQUENCE) || !extensions.Empty() {
			return errMalformed
		}
		if err := l.parseExtensions(list); err != nil {
			return err
		}
	}
	var err error
	l.revoked, err = readRevocations(entries, version)
	return err
}

func (l *crl) parseExtensions(list cryptobyte.String) error {
	seen := map[string]bool{}
	for !list.Empty() {
		x, ok := readExtension(&list)
		if !ok || seen[string(x.id)] {
			return errMalformed
		}
		seen[string(x.id)] = true
		switch string(x.id) {
		case idDeltaCRLIndicator:
			return errors.New("is a delta CRL (extension 2.5.29.27), which only lists changes: give the CA's complete CRL instead")
		case idIssuingDistPoint:
			if err := l.parseDistributionPoint(x.value); err != nil {
				return err
			}
		case idCRLNumber:
			l.number = new(big.Int)
			if !x.value.ReadASN1Integer(l.number) || !x.value.Empty() {
				return errMalformed
			}
		case idAuthorityKeyID: // a hint only: the issuer is found by the key that verifies the signature
			l.authority = x.value
		default:
			// Section 5.2: a list with a critical extension that is not understood must not be used to decide
			// that a certificate is good.
			if x.critical {
				return fmt.Errorf("has the critical extension %s, which is not known: give a CRL without it", x.name())
			}
		}
	}
	return nil
}

// parseDistributionPoint reads issuingDistributionPoint (RFC 5280 section 5.2.5). Two of its flags are a scope that
// can be kept to; all the rest makes the list a part of something that would have to be looked for elsewhere.
func (l *crl) parseDistributionPoint(der cryptobyte.String) error {
	var point, ignored cryptobyte.String
	if !der.ReadASN1(&point, asn1.SEQUENCE) || !der.Empty() {
		return errMalformed
	}
	var partitioned, someReasons bool
	var users, cas, indirect, attributes bool
	if !point.ReadOptionalASN1(&ignored, &partitioned, asn1.Tag(0).ContextSpecific().Constructed()) ||
		!readFlag(&point, &users, 1) || !readFlag(&point, &cas, 2) ||
		!point.ReadOptionalASN1(&ignored, &someReasons, asn1.Tag(3).ContextSpecific()) ||
		!readFlag(&point, &indirect, 4) || !readFlag(&point, &attributes, 5) || !point.Empty() {
		return errMalformed
	}
	const instead = " (extension 2.5.29.28): give the CA's complete CRL instead"
	switch {
	case indirect:
		return errors.New("is an indirect CRL, which lists certificates of several CAs" + instead)
	case someReasons:
		return errors.New("only lists certificates revoked for some reasons" + instead)
	case attributes:
		return errors.New("only lists attribute certificates" + instead)
	case partitioned:
		return errors.New("is one part of a CRL that the CA publishes in parts, by distribution point" + instead)
	case users && cas:
		return errors.New("contradicts itself: it holds only user certificates and only CA certificates" + instead)
	case users:
		l.scope = onlyLeaves
	case cas:
		l.scope = onlyCAs
	}
	return nil
}

// covers says whether the list speaks of a certificate: RFC 5280 section 6.3.3 (b)(2) goes by the certificate's basic
// constraints, not by its place in the chain, and so does OpenSSL.
func (l *crl) covers(c *x509.Certificate) bool {
	isCA := c.BasicConstraintsValid && c.IsCA
	return l.scope == everything || isCA == (l.scope == onlyCAs)
}

// inDate takes a list without nextUpdate as good forever, as OpenSSL does.
func (l *crl) inDate(at time.Time, grace time.Duration) bool {
	return !at.Before(l.thisUpdate) && (l.nextUpdate.IsZero() || !at.After(l.nextUpdate.Add(grace)))
}

// succeeds says whether two lists are of one CA and speak of the same certificates, so that the newer one is to replace
// the older. The name alone does not tell: two CAs may have the same.
func (l *crl) succeeds(old *crl) bool {
	switch {
	case !bytes.Equal(l.issuer, old.issuer) || l.scope != old.scope:
		return false
	case l.signer != nil:
		return old.signedBy(l.signer)
	case old.signer != nil:
		return l.signedBy(old.signer)
	default: // the CA is only known to clients
		return bytes.Equal(l.authority, old.authority)
	}
}

// compare orders two lists of one CA by age: by number, or by date if one of them has no number, or both have the same:
// there are CAs that never raise it.
func (l *crl) compare(other *crl) int {
	if l.numbered(other) {
		return l.number.Cmp(other.number)
	}
	return l.thisUpdate.Compare(other.thisUpdate)
}

// numbered says whether the numbers of two lists tell them apart.
func (l *crl) numbered(other *crl) bool {
	return l.number != nil && other.number != nil && l.number.Cmp(other.number) != 0
}

// age says what compare went by.
func (l *crl) age(other *crl) string {
	if l.numbered(other) {
		return "number " + clip(l.number.String())
	}
	return "thisUpdate " + timeText(l.thisUpdate)
}

// extension is one Extension of RFC 5280 section 4.1.
type extension struct {
	id       cryptobyte.String
	critical bool
	value    cryptobyte.String
}

func (x extension) name() string {
	var oid x509.OID
	if oid.UnmarshalBinary(x.id) != nil {
		return fmt.Sprintf("%x", []byte(x.id))
	}
	return oid.String()
}

func readExtension(list *cryptobyte.String) (x extension, ok bool) {
	var s cryptobyte.String
	ok = list.ReadASN1(&s, asn1.SEQUENCE) && s.ReadASN1(&x.id, asn1.OBJECT_IDENTIFIER)
	if ok && s.PeekASN1Tag(asn1.BOOLEAN) {
		ok = s.ReadASN1Boolean(&x.critical)
	}
	return x, ok && s.ReadASN1(&x.value, asn1.OCTET_STRING) && s.Empty()
}

// readVersion reads a version, which counts from 0 in DER. The sum cannot overflow into a version that is known.
func readVersion(s *cryptobyte.String, version *int) bool {
	if !s.PeekASN1Tag(asn1.INTEGER) {
		return true
	}
	ok := s.ReadASN1Integer(version)
	*version++
	return ok
}

// readFlag reads an implicitly tagged BOOLEAN DEFAULT FALSE.
func readFlag(s *cryptobyte.String, flag *bool, tag asn1.Tag) bool {
	var b cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&b, &present, tag.ContextSpecific()) {
		return false
	}
	*flag = present && len(b) == 1 && b[0] == 0xff
	return !present || len(b) == 1 && (b[0] == 0 || b[0] == 0xff)
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(asn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}
