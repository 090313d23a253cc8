package crl

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"pgwicket/internal/certs"
	"pgwicket/internal/signature"
)

// List is one certificate revocation list. Make it with Parse. It may be used by many goroutines at once.
//
// x509.ParseRevocationList is not used: it refuses version 1, which "openssl ca -gencrl" writes by default, and accepts
// the extensions that make a list incomplete.
type List struct {
	source                 source
	kept                   bool      // from the Set before: see Builder.keepOlder
	until                  time.Time // when the newer list begins for which this one is kept; zero: never
	issuer                 certs.Name
	authority              *certs.AuthorityKeyID // nil: none
	rawAuthority           []byte
	thisUpdate, nextUpdate time.Time
	number                 *big.Int // nil: none
	scope                  scope
	entries                entries

	algorithm      *signature.Algorithm
	tbs, signature []byte
	signer         *certs.Certificate // among the configured CAs; nil: the list is from another CA
	signatures     *signatures
	problem        string // why the list cannot be used; empty: it can
	delta          bool   // it lists changes only
	foreign        bool   // an entry may be of a certificate that the issuer has not issued
}

// source is where a list was read, for messages.
type source struct {
	option string // that names the file
	file   string
	block  int // of a PEM file, from 1; 0 in DER
}

// scope is which certificates of the issuer a list covers: its issuingDistributionPoint (RFC 5280 section 5.2.5).
type scope struct {
	users, cas bool                        // onlyContainsUserCerts, onlyContainsCACerts
	point      certs.DistributionPointName // the partition
	key        string                      // of the partition, in DER
}

// The extensions that this package reads, all below 2.5.29 (id-ce), in DER: RFC 5280 sections 4.2.1.1, 5.2 and 5.3.
const (
	idCRLNumber         = "\x55\x1d\x14"
	idReasonCode        = "\x55\x1d\x15"
	idDeltaCRLIndicator = "\x55\x1d\x1b"
	idIssuingDistPoint  = "\x55\x1d\x1c"
	idCertificateIssuer = "\x55\x1d\x1d"
	idAuthorityKeyID    = "\x55\x1d\x23"
)

// errDelta is a list that is left aside, as by OpenSSL without X509_V_FLAG_USE_DELTAS.
var errDelta = errors.New("is a delta CRL (extension 2.5.29.27), which only lists changes, and is left aside but for what it revokes: the CA's complete CRL is needed, and enough")

var errMalformed = errors.New("is not a well-formed CRL: fetch it again from the CA")

var errNoList = errors.New("holds no CRL, neither in DER nor in PEM (" + beginCRL + ")")

// otherKinds say what to do with a file that holds something else than a list.
var otherKinds = map[certs.FileKind]string{
	certs.FileEmpty:          "it is empty",
	certs.FileCertificate:    "it holds a certificate",
	certs.FileCertificateDER: "it holds a certificate",
	certs.FileKey:            "it holds a private key",
	certs.FileKeyDER:         "it holds a private key",
	certs.FilePKCS7:          "convert it with openssl pkcs7 -print_certs, which prints the lists as well",
	certs.FilePKCS7DER:       "convert it with openssl pkcs7 -inform DER -print_certs, which prints the lists as well",
	certs.FilePKCS12:         "a PKCS #12 file has no lists",
}

const (
	beginCRL = "-----BEGIN X509 CRL-----"
	endCRL   = "-----END X509 CRL-----"
)

// Split returns the lists of a file in DER. A file is either one list in DER or any number of PEM blocks, with any other
// text or PEM between them, as OpenSSL reads it. A file without a list and a damaged block are errors, which complete a
// sentence that begins with the name of the file.
func Split(data []byte) (lists [][]byte, isPEM bool, err error) {
	data = certs.ASCII(data)
	if len(data) > 0 && data[0] == 0x30 && otherKinds[certs.KindOf(data)] == "" {
		return [][]byte{data}, false, nil
	}
	// pem.Decode skips a damaged block without an error, and a list that is skipped revokes nothing. Either line may be
	// what is damaged.
	begun := max(bytes.Count(data, []byte(beginCRL)), bytes.Count(data, []byte(endCRL)))
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	switch {
	case begun == 0:
		if text := otherKinds[certs.KindOf(data)]; text != "" {
			return nil, true, fmt.Errorf("%w: %s", errNoList, text)
		}
		return nil, true, errNoList
	case len(lists) != begun:
		return nil, true, fmt.Errorf("holds %d CRLs of which only %d can be read: the PEM of the others is damaged", begun, len(lists))
	}
	return lists, true, nil
}

// Parse reads a list of version 1 or 2 to the last octet of its last entry, and refuses every kind of list that cannot be
// applied in full. It does not verify the signature: see SignedBy. The list shares its memory with der, which must not
// change. With an error the list holds what was read so far, and is good for String and for what it revokes; the error
// completes a sentence that begins with the list.
func Parse(der []byte) (*List, error) {
	l := &List{signatures: &signatures{}}
	var list, tbs, inner, outer, name cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() ||
		!list.ReadASN1Element(&tbs, asn1.SEQUENCE) ||
		!list.ReadASN1Element(&outer, asn1.SEQUENCE) ||
		!list.ReadASN1BitStringAsBytes(&l.signature) || !list.Empty() {
		return l, errMalformed
	}
	l.tbs = tbs

	version := 1 // RFC 5280 section 5.1.2.1: a list without the field has version 1
	if !tbs.ReadASN1(&tbs, asn1.SEQUENCE) || !readVersion(&tbs, &version) ||
		!tbs.ReadASN1Element(&inner, asn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&name, asn1.SEQUENCE) {
		return l, errMalformed
	}
	var ok bool
	if l.issuer, ok = certs.ParseName(name); !ok || !readUpdate(&tbs, &l.thisUpdate) {
		return l, errMalformed
	}
	if tbs.PeekASN1Tag(asn1.UTCTime) || tbs.PeekASN1Tag(asn1.GeneralizedTime) {
		if !readUpdate(&tbs, &l.nextUpdate) {
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
	if l.algorithm, ok = signature.ParseAlgorithm(inner); !ok {
		return l, errMalformed
	}
	if !l.algorithm.Supported() {
		return l, fmt.Errorf("is signed with %s, which cannot be checked: have the CA sign it with RSA and SHA-256, ECDSA or Ed25519", l.algorithm.Name)
	}
	return l, l.parseBody(tbs, version)
}

// parseBody reads what follows the dates: the entries and the extensions.
func (l *List) parseBody(tbs cryptobyte.String, version int) error {
	var entries, extensions cryptobyte.String
	var extended bool
	if !tbs.ReadOptionalASN1(&entries, nil, asn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &extended, asn1.Tag(0).ContextSpecific().Constructed()) || !tbs.Empty() {
		return errMalformed
	}
	// Extensions are read before the entries, for the better error: an indirect list is reported as such, and not for
	// the certificateIssuer extension of an entry. The entries are read in any case, for what they revoke.
	err := l.parseExtensions(extensions, extended, version)
	read, entriesErr := readEntries(entries, version)
	l.entries = read
	l.foreign = l.foreign || errors.Is(entriesErr, errForeignEntry)
	return cmp.Or(err, entriesErr)
}

// Find returns the entry of the list that revokes a serial number, given as the content of its INTEGER.
func (l *List) Find(serial []byte) (Entry, bool) { return l.entries.find(serial) }

// covers is crl_crldp_check in OpenSSL's crypto/x509/x509_vfy.c: whether the list is about a certificate, and for which
// reasons of revocation. A list for one distribution point covers the certificates that name that point.
func (l *List) covers(c *certs.Certificate) (reasons uint16, ok bool) {
	if c.IsCA() && l.scope.users || !c.IsCA() && l.scope.cas {
		return 0, false
	}
	points := c.DistributionPoints()
	for i := range points {
		p := &points[i]
		if l.isOf(p) && p.Name.Matches(l.scope.point) {
			return p.Reasons, true
		}
	}
	return certs.AllReasons, !l.scope.point.Present()
}

// isOf is crldp_check_crlissuer: whether the lists of a distribution point are of this list's issuer.
func (l *List) isOf(p *certs.DistributionPoint) bool {
	return len(p.Issuer) == 0 || slices.ContainsFunc(p.Issuer, func(g certs.GeneralName) bool {
		return g.Kind == certs.DirectoryName && g.Name.Equal(l.issuer)
	})
}

// InDate reports whether the list is in force at a time, with a grace after its next update. A list without nextUpdate
// never expires, and the second of nextUpdate is not part of it, both as in OpenSSL.
func (l *List) InDate(at time.Time, grace time.Duration) bool {
	next := l.nextUpdate
	if grace > 0 {
		next = next.Add(grace)
	}
	return !at.Before(l.thisUpdate) && (l.nextUpdate.IsZero() || at.Before(next))
}

// all reports whether a list covers every certificate of its issuer.
func (s scope) all() bool { return !s.users && !s.cas && !s.point.Present() }

func (s scope) equal(other scope) bool {
	return s.users == other.users && s.cas == other.cas && s.key == other.key
}

// replaces reports whether two lists are of one CA and cover the same certificates, so that the newer one replaces the
// older.
func (l *List) replaces(old *List) bool { return l.scope.equal(old.scope) && l.sameCA(old) }

// sameCA reports whether two lists are of one CA. The issuer's name is not enough, since two CAs may have the same one.
func (l *List) sameCA(old *List) bool {
	switch {
	case !l.issuer.Equal(old.issuer):
		return false
	case l.signer != nil:
		return old.SignedBy(l.signer)
	case old.signer != nil:
		return l.SignedBy(old.signer)
	default: // only clients send the certificate of this CA
		return bytes.Equal(l.rawAuthority, old.rawAuthority)
	}
}

// compare orders two lists of one CA by age: by number, or by date if one of them has no number or both have the same
// one, since some CAs never raise it.
func (l *List) compare(other *List) int {
	if l.numbersDiffer(other) {
		return l.number.Cmp(other.number)
	}
	return l.thisUpdate.Compare(other.thisUpdate)
}

func (l *List) numbersDiffer(other *List) bool {
	return l.number != nil && other.number != nil && l.number.Cmp(other.number) != 0
}

// age returns what compare goes by, for messages.
func (l *List) age(other *List) string {
	if l.numbersDiffer(other) {
		return "number " + numberText(l.number)
	}
	return "thisUpdate " + timeText(l.thisUpdate)
}
