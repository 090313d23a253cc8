package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"pgwicket/acl"
)

// The limits of what is remembered: certificates, with an identity of half a KiB each, and names
// of CAs.
const (
	identitiesLimit = 128
	issuersLimit    = 64
)

// Identities returns the same memory for the same certificate as long as few others have come
// since, and for the name of a CA: the sessions of a pool have one. It may be used by many
// goroutines at once.
type Identities struct {
	recent  *lru.Cache[[sha256.Size]byte, known]
	issuers *lru.Cache[string, string]
}

type known struct {
	id  *acl.Identity
	der []byte
}

// NewIdentities returns one that remembers nothing yet.
func NewIdentities() Identities {
	// The errors are for limits that are not positive.
	recent, _ := lru.New[[sha256.Size]byte, known](identitiesLimit)
	issuers, _ := lru.New[string, string](issuersLimit)
	return Identities{recent, issuers}
}

// Of returns the identity in the leaf of a verified chain, and its DER. leaf is that DER as
// crypto/x509 has read it, or nil; der is kept. Neither must be changed.
func (s Identities) Of(leaf *x509.Certificate, der []byte) (*acl.Identity, []byte, error) {
	digest := sha256.Sum256(der)
	if k, ok := s.recent.Get(digest); ok {
		return k.id, k.der, nil
	}
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(der); err != nil {
			return nil, nil, err
		}
	}
	id := acl.IdentityOf(leaf)
	if same, ok := s.issuers.Get(id.Issuer); ok {
		id.Issuer = same
	} else {
		s.issuers.Add(id.Issuer, id.Issuer)
	}
	compact(&id)
	s.recent.Add(digest, known{&id, der})
	return &id, der, nil
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
