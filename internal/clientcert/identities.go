package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"pgwicket/acl"
)

// The limits of what is remembered: identities, of half a KiB each, and names of CAs.
const (
	identitiesLimit = 512
	issuersLimit    = 64
)

// Identities returns the same identity for the same certificate as long as few others have come
// since, and the same memory for the name of a CA: the sessions of a pool have one. It may be used by many goroutines at once.
type Identities struct {
	recent  *lru.Cache[[sha256.Size]byte, *acl.Identity]
	issuers *lru.Cache[string, string]
}

// NewIdentities returns one that remembers nothing yet.
func NewIdentities() Identities {
	// The errors are for limits that are not positive.
	recent, _ := lru.New[[sha256.Size]byte, *acl.Identity](identitiesLimit)
	issuers, _ := lru.New[string, string](issuersLimit)
	return Identities{recent, issuers}
}

// Of returns the identity in the leaf of a verified chain. It must not be changed.
func (s Identities) Of(leaf *x509.Certificate) *acl.Identity {
	digest := sha256.Sum256(leaf.Raw)
	if known, ok := s.recent.Get(digest); ok {
		return known
	}
	id := acl.IdentityOf(leaf)
	if same, ok := s.issuers.Get(id.Issuer); ok {
		id.Issuer = same
	} else {
		s.issuers.Add(id.Issuer, id.Issuer)
	}
	compact(&id)
	s.recent.Add(digest, &id)
	return &id
}

// Parse is Of for a certificate in DER.
func (s Identities) Parse(der []byte) (*acl.Identity, error) {
	if known, ok := s.recent.Get(sha256.Sum256(der)); ok {
		return known, nil
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return s.Of(leaf), nil
}

// compact puts the texts of an identity, but the name of its CA, into one piece of memory. In pieces
// of their own they would lie among the garbage of many handshakes, which could not be given back for them.
func compact(id *acl.Identity) {
	texts := []*string{&id.CN, &id.CNText, &id.DN, &id.Serial, &id.SHA256, &id.SPKI}
	for _, list := range [][]string{id.DNS, id.Email, id.URI, id.IP} {
		for i := range list {
			texts = append(texts, &list[i])
		}
	}
	var all strings.Builder
	for _, text := range texts {
		all.WriteString(*text)
	}
	rest := strings.Clone(all.String())
	for _, text := range texts {
		*text, rest = rest[:len(*text)], rest[len(*text):]
	}
}
