package acl

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"pgwicket/internal/dn"
)

// Identity holds the names in a client certificate. Build it only from the leaf of
// a verified chain, and only after the handshake has proved that the client has the
// private key.
type Identity struct {
	CN     string // the only common name; empty if there are several, if it is ambiguous, or if no role can have it
	CNText string // the only common name where CN is empty for what it would be as a role: it has over 63 bytes, or is a T61String
	DN     string // the subject as PostgreSQL prints it for clientname=DN (RFC 2253); empty if it is malformed
	Issuer string // the issuer, in the form of DN
	Serial string // in hexadecimal, as openssl prints it
	SHA256 string // SHA-256 of the certificate, in hexadecimal
	SPKI   string // SHA-256 of the SubjectPublicKeyInfo, in hexadecimal

	// Lifetime is the time from its beginning to its end, as RFC 5280 counts it: both
	// seconds included.
	Lifetime time.Duration

	// Subject alternative names by kind, without ambiguous ones. DNS is in lower
	// case.
	DNS, Email, URI, IP []string
}

// IdentityOf returns the identity in leaf.
func IdentityOf(leaf *x509.Certificate) Identity {
	sum, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	id := Identity{
		CN:     commonName(leaf.RawSubject),
		DN:     distinguishedName(leaf.RawSubject),
		Issuer: distinguishedName(leaf.RawIssuer),
		Serial: fmt.Sprintf("%X", leaf.SerialNumber.Bytes()),
		SHA256: hex.EncodeToString(sum[:]),
		SPKI:   hex.EncodeToString(key[:]),
		// Section 4.1.2.5.
		Lifetime: leaf.NotAfter.Sub(leaf.NotBefore) + time.Second,

		DNS:   slices.DeleteFunc(slices.Clone(leaf.DNSNames), ambiguous),
		Email: slices.DeleteFunc(slices.Clone(leaf.EmailAddresses), ambiguous),
	}
	if id.CN == "" {
		id.CNText = dn.CommonNameText(leaf.RawSubject)
	}
	for i, name := range id.DNS {
		id.DNS[i] = lower(name)
	}
	if len(leaf.URIs) == 1 || !slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" }) {
		id.URI = uris(leaf) // a SPIFFE ID must be the only URI (X509-SVID, section 2; square/keywhiz#697)
	}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			id.IP = append(id.IP, addr.String())
		}
	}
	return id
}

const maxCN = 63 // NAMEDATALEN-1, the longest name of a PostgreSQL role

func commonName(subject []byte) string {
	cn := dn.CommonName(subject)
	if len(cn) > maxCN {
		return ""
	}
	return cn
}

// distinguishedName returns an empty string for a name that crypto/x509 reads
// differently: a prefix of it could be the whole name of another client.
func distinguishedName(der []byte) string {
	if _, ok := dn.Parse(der); !ok {
		return ""
	}
	return dn.Format(der)
}

const oidSubjectAltName = "2.5.29.17"

// uris returns the URIs with their exact bytes. crypto/x509 keeps only a url.URL,
// which drops an empty fragment and changes the case of a scheme.
func uris(leaf *x509.Certificate) (found []string) {
	const uniformResourceIdentifier = asn1.Tag(6)
	for _, e := range leaf.Extensions {
		names := cryptobyte.String(e.Value)
		if e.Id.String() != oidSubjectAltName || !names.ReadASN1(&names, asn1.SEQUENCE) {
			continue
		}
		for !names.Empty() {
			var name cryptobyte.String
			var kind asn1.Tag
			if !names.ReadAnyASN1(&name, &kind) {
				return nil
			}
			if kind == uniformResourceIdentifier.ContextSpecific() && !ambiguous(string(name)) {
				found = append(found, string(name))
			}
		}
	}
	return found
}

// ambiguous reports whether two programs could read the name differently.
func ambiguous(name string) bool {
	return name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) })
}
