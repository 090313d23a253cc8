// Package crl reads certificate revocation lists, verifies them, holds them and looks certificates up in them. It judges
// as OpenSSL does with X509_V_FLAG_CRL_CHECK, which is what PostgreSQL sets, unless a Policy says otherwise. It opens no
// file, reads no clock and writes no log.
//
// # What a list must be
//
// Parse (list.go, entries.go, algorithm.go) reads a list to its last octet and refuses what cannot be applied in full:
//
//   - a list that is not DER, or whose inner and outer signature algorithms differ (RFC 5280 sections 5.1.1.2, 5.1.2.2);
//   - a version other than 1 and 2, and a version 1 list with extensions (section 5.1.2.1);
//   - a delta CRL (section 5.2.4), an indirect CRL (sections 5.2.5, 5.3.3), a list of some reasons only, of attribute
//     certificates, or of one distribution point (section 5.2.5);
//   - an unknown critical extension of the list or of any entry (sections 5.2, 5.3);
//   - a signature with MD2, MD5 or SHA-1, or by an algorithm other than RSA, RSA-PSS, ECDSA and Ed25519 (RFC 4055,
//     RFC 5758, RFC 8410).
//
// A Builder (builder.go) finds the CA that has signed a list, by its key and not only by its name (RFC 5280 section
// 6.3.3 (f), (g)). A list that names a configured CA and is signed by another key is an error, and so is one of a CA that
// may not sign CRLs (section 4.2.1.3). If a list is older than the one before a reload, by its number (section 5.2.3) or
// else by thisUpdate, the newer one stays in use beside it.
//
// # What a certificate is judged by
//
// Set.Check (set.go) takes the lists of the certificate's issuer that cover it (section 6.3.3 (b)(2)) and are signed by
// the issuer. A certificate passes if one of them is in date (sections 5.1.2.4, 5.1.2.5) and none of those revokes it.
// All entries but removeFromCRL revoke (section 5.3.1), whatever their date. Without such a list the certificate is Missing
// or Stale, and the Policy decides.
//
// # Where a list is kept
//
// The files are read by tlsconfig, which hands their contents to a Builder and holds the Set. A list keeps the DER that it
// came in and an index of some ten bytes for each entry (entries.go); a lookup reads the DER. Which keys have signed a
// list is remembered with it (signatures.go), so that a large list is hashed once.
//
// The package imports internal/dn, for names in messages, and nothing else of pgwicket.
package crl
