// Package certs reads X.509 certificates leniently and builds and judges their
// chains as OpenSSL 3.0 does, and so PostgreSQL and libpq, for client and for
// server certificates. Where RFC 5280 and OpenSSL differ, OpenSSL is followed.
//
// What is done, and the source that it follows:
//
//   - Parse follows d2i_X509 (crypto/x509/x_x509.c) for the definite form of
//     BER, which internal/der reads: a negative serial number, a TRUE that is not
//     0xFF, a length with leading zeros and any bytes in a string are read. The
//     indefinite form and constructed strings are not.
//   - Names are compared by OpenSSL's canonical encoding (x509_name_canon in
//     crypto/x509/x_name.c), which is RFC 5280 section 7.1 for ASCII.
//   - Paths are built as build_chain in crypto/x509/x509_vfy.c does: trusted
//     certificates first, those in date before the others. The first issuer that
//     fits is taken, and there is no way back.
//   - The chain that was found is judged by check_extensions, check_auth_level,
//     internal_verify and check_name_constraints of the same file, the purposes
//     of crypto/x509/v3_purp.c and the name constraints of
//     crypto/x509/v3_ncons.c. No other chain is tried when it fails.
//   - Policies are not processed: OpenSSL does so only when
//     X509_V_FLAG_POLICY_CHECK is set, and PostgreSQL does not set it.
//
// Revocation is not looked at here; internal/crl asks its lists about the chain
// that Verify returns.
//
// It is stricter than OpenSSL where a signature or a form cannot be checked:
// testdata/differences.txt has the list, which the tests keep complete.
//
// Certificates and pools do not change, and may be used by many goroutines at
// once.
package certs
