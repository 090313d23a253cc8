package crl

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"pgwicket/internal/certs"
)

// parseExtensions reads every extension, and returns the first error.
func (l *List) parseExtensions(field cryptobyte.String, extended bool, version int) (first error) {
	if !extended {
		return nil
	}
	if version == 1 {
		first = errors.New("is a CRL of version 1 with extensions, which only version 2 has: have the CA write it again")
	}
	var list cryptobyte.String
	if !field.ReadASN1(&list, asn1.SEQUENCE) || !field.Empty() {
		return cmp.Or(first, errMalformed)
	}
	seen := map[string]bool{}
	for !list.Empty() {
		x, ok := readExtension(&list)
		if !ok {
			return cmp.Or(first, errMalformed)
		}
		err := l.parseExtension(x)
		if seen[string(x.id)] && isRead(x.id) {
			err = errMalformed
		}
		seen[string(x.id)] = true
		first = cmp.Or(first, err)
	}
	return first
}

// isRead reports whether parseExtension reads this extension.
func isRead(id cryptobyte.String) bool {
	switch string(id) {
	case idDeltaCRLIndicator, idIssuingDistPoint, idCRLNumber, idAuthorityKeyID:
		return true
	}
	return false
}

func (l *List) parseExtension(x extension) (err error) {
	ok := true
	switch string(x.id) {
	case idDeltaCRLIndicator:
		return errDelta
	case idIssuingDistPoint:
		if err = l.parseDistributionPoint(x.value); err != nil {
			l.scope = scope{} // what the list revokes counts for every certificate
		}
		return err
	case idAuthorityKeyID: // only a hint: the issuer is the CA whose key verifies the signature
		l.authority, ok = certs.ParseAuthorityKeyID(x.value)
		l.rawAuthority = x.value
	case idCRLNumber:
		l.number = new(big.Int)
		if ok = x.value.ReadASN1Integer(l.number) && x.value.Empty(); !ok {
			l.number = nil
		}
		err = x.unknownIfCritical()
	default:
		err = x.unknownIfCritical()
	}
	if !ok {
		return errMalformed
	}
	return err
}

// unknownIfCritical is RFC 5280 section 5.2: a list with an unknown critical extension must not be used to determine the
// status of certificates. OpenSSL does not know a critical cRLNumber (crl_cb in crypto/x509/x_crl.c).
func (x extension) unknownIfCritical() error {
	if !x.critical {
		return nil
	}
	return fmt.Errorf("has the unknown critical extension %s: use a CRL without it", x.name())
}

// parseDistributionPoint reads issuingDistributionPoint (RFC 5280 section 5.2.5). Its name and two of its flags limit the
// scope of the list, which covers respects. What else it may say OpenSSL does not support without
// X509_V_FLAG_EXTENDED_CRL_SUPPORT either.
func (l *List) parseDistributionPoint(der cryptobyte.String) error {
	var point, name, ignored cryptobyte.String
	if !der.ReadASN1(&point, asn1.SEQUENCE) || !der.Empty() {
		return errMalformed
	}
	var partitioned, someReasons bool
	var indirect, attributes bool
	if !point.ReadOptionalASN1(&name, &partitioned, asn1.Tag(0).ContextSpecific().Constructed()) ||
		!readFlag(&point, &l.scope.users, asn1.Tag(1).ContextSpecific()) || !readFlag(&point, &l.scope.cas, asn1.Tag(2).ContextSpecific()) ||
		!point.ReadOptionalASN1(&ignored, &someReasons, asn1.Tag(3).ContextSpecific()) ||
		!readFlag(&point, &indirect, asn1.Tag(4).ContextSpecific()) || !readFlag(&point, &attributes, asn1.Tag(5).ContextSpecific()) || !point.Empty() {
		return errMalformed
	}
	const instead = " (extension 2.5.29.28): use the CA's complete CRL instead"
	l.foreign = l.foreign || indirect || attributes
	switch {
	case indirect:
		return errors.New("is an indirect CRL, which lists certificates of several CAs" + instead)
	case someReasons:
		return errors.New("only lists certificates revoked for some reasons" + instead)
	case attributes:
		return errors.New("only lists attribute certificates" + instead)
	case l.scope.users && l.scope.cas:
		return errors.New("contradicts itself: it covers only user certificates and only CA certificates" + instead)
	case partitioned:
		parsed, ok := certs.ParseDistributionPointName(name)
		if !ok {
			return errMalformed
		}
		l.scope.point, l.scope.key = parsed.Below(l.issuer), string(name)
	}
	return nil
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
		ok = readFlag(&s, &x.critical, asn1.BOOLEAN)
	}
	return x, ok && s.ReadASN1(&x.value, asn1.OCTET_STRING) && s.Empty()
}

// readVersion reads a version, which counts from 0 in DER. The sum cannot overflow into 1 or 2.
func readVersion(s *cryptobyte.String, version *int) bool {
	if !s.PeekASN1Tag(asn1.INTEGER) {
		return true
	}
	ok := s.ReadASN1Integer(version)
	*version++
	return ok
}

// readFlag reads a BOOLEAN DEFAULT FALSE that has this tag, in BER: some CAs write TRUE as 1.
func readFlag(s *cryptobyte.String, flag *bool, tag asn1.Tag) bool {
	var b cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&b, &present, tag) {
		return false
	}
	*flag = present && len(b) == 1 && b[0] != 0
	return !present || len(b) == 1
}

// readUpdate reads thisUpdate or nextUpdate, in the two forms that X509_cmp_time in crypto/x509/x509_vfy.c allows.
func readUpdate(s *cryptobyte.String, t *time.Time) bool {
	var text cryptobyte.String
	var tag asn1.Tag
	again := *s
	if !again.ReadAnyASN1(&text, &tag) || len(text) == 0 || text[len(text)-1] != 'Z' {
		return false
	}
	long := tag == asn1.UTCTime && len(text) == 13 || tag == asn1.GeneralizedTime && len(text) == 15
	return long && readTime(s, t)
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(asn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}
