package tlsconfig

import (
	"crypto/tls"
	"slices"
	"strings"
)

// suite is a cipher suite that crypto/tls has. The table does not come from tls.CipherSuites(), so that a suite of a later
// Go is not accepted before it has been reviewed.
type suite struct {
	id      uint16
	iana    string
	openssl string // PostgreSQL's name (ssl_ciphers, pg_stat_ssl), which messages use
}

var suites = []suite{
	{tls.TLS_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"},
	{tls.TLS_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"},
	{tls.TLS_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256"},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"},
	{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"},
	{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, "TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, "TLS_RSA_WITH_AES_128_CBC_SHA256", "AES128-SHA256"},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA, "TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"},
	{tls.TLS_RSA_WITH_AES_256_CBC_SHA, "TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"},
	{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", "ECDHE-RSA-DES-CBC3-SHA"},
	{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "DES-CBC3-SHA"},
	{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "ECDHE-ECDSA-RC4-SHA"},
	{tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, "TLS_ECDHE_RSA_WITH_RC4_128_SHA", "ECDHE-RSA-RC4-SHA"},
	{tls.TLS_RSA_WITH_RC4_128_SHA, "TLS_RSA_WITH_RC4_128_SHA", "RC4-SHA"},
}

// defaultSuites is what an empty list means: Mozilla's "intermediate" in its order, without the DHE suites, which Go does
// not have.
var defaultSuites = suites[:9]

// DefaultCiphers returns the names that an empty list of ciphers stands for.
func DefaultCiphers() (names []string) {
	for _, s := range defaultSuites {
		names = append(names, s.openssl)
	}
	return names
}

// DefaultGroups returns the names that an empty list of groups stands for.
func DefaultGroups() (names []string) {
	for _, g := range groups {
		names = append(names, g.names[0])
	}
	return names
}

func (s suite) is13() bool { return s.id>>8 == 0x13 }

// versions are the protocol versions that can negotiate the suite: AEAD and SHA-256 came with TLS 1.2 (RFC 5246,
// section 1.2), and TLS 1.3 shares no suite with earlier versions (RFC 8446, appendix B.4).
func (s suite) versions() versions {
	switch {
	case s.is13():
		return versions{tls.VersionTLS13, tls.VersionTLS13}
	case strings.HasSuffix(s.iana, "_SHA"):
		return versions{tls.VersionTLS10, tls.VersionTLS12}
	default:
		return versions{tls.VersionTLS12, tls.VersionTLS12}
	}
}

// needsECDSA reports whether a server below TLS 1.3 needs an ECDSA key, rather than RSA. Ed25519 counts as ECDSA (RFC 8422,
// section 2.2).
func (s suite) needsECDSA() bool { return strings.Contains(s.iana, "_ECDSA_") }

// weakness says what is wrong with a suite that is not among the default ones; empty for those. The first four cases are
// tls.InsecureCipherSuites. Go still calls CBC with SHA-1 secure, and it has nothing else for TLS 1.0 and 1.1.
func (s suite) weakness() string {
	switch {
	case strings.Contains(s.iana, "_RC4_"):
		return "RC4 is broken and forbidden (RFC 7465)"
	case strings.Contains(s.iana, "_3DES_"):
		return "3DES leaks plaintext of long sessions (Sweet32, CVE-2016-2183)"
	case strings.HasPrefix(s.iana, "TLS_RSA_"):
		return "it has no forward secrecy: with the server's key every recorded session can be read"
	case strings.HasSuffix(s.iana, "_CBC_SHA256"):
		return "Go's CBC with SHA-256 has no defence against Lucky 13 (CVE-2013-0169)"
	case strings.HasSuffix(s.iana, "_CBC_SHA"):
		return "CBC with SHA-1 is only for clients that support neither AES-GCM nor ChaCha20"
	default:
		return ""
	}
}

// findSuite accepts both names, in any case. OpenSSL is strict about case, but no two names differ only in it.
func findSuite(name string) (suite, bool) {
	i := slices.IndexFunc(suites, func(s suite) bool {
		return strings.EqualFold(name, s.openssl) || strings.EqualFold(name, s.iana)
	})
	if i < 0 {
		return suite{}, false
	}
	return suites[i], true
}

// suiteName returns PostgreSQL's name of a suite, or Go's if the table does not have it.
func suiteName(id uint16) string {
	if i := slices.IndexFunc(suites, func(s suite) bool { return s.id == id }); i >= 0 {
		return suites[i].openssl
	}
	return tls.CipherSuiteName(id)
}

// group is a key exchange that crypto/tls has; names[0] is PostgreSQL's name (ssl_groups), which is OpenSSL's.
type group struct {
	id    tls.CurveID
	names []string
}

// groups is also what an empty list means: all that Go 1.26 has, without those that a later Go may add.
var groups = []group{
	{tls.X25519MLKEM768, []string{"X25519MLKEM768"}},
	{tls.SecP256r1MLKEM768, []string{"SecP256r1MLKEM768"}},
	{tls.SecP384r1MLKEM1024, []string{"SecP384r1MLKEM1024"}},
	{tls.X25519, []string{"X25519"}},
	{tls.CurveP256, []string{"prime256v1", "P-256", "secp256r1", "CurveP256"}},
	{tls.CurveP384, []string{"secp384r1", "P-384", "CurveP384"}},
	{tls.CurveP521, []string{"secp521r1", "P-521", "CurveP521"}},
}

// only13 reports whether a group is a hybrid with ML-KEM, which TLS 1.2 cannot negotiate.
func (g group) only13() bool { return strings.Contains(g.names[0], "MLKEM") }

func findGroup(name string) (group, bool) {
	i := slices.IndexFunc(groups, func(g group) bool {
		return slices.ContainsFunc(g.names, func(n string) bool { return strings.EqualFold(n, name) })
	})
	if i < 0 {
		return group{}, false
	}
	return groups[i], true
}

// groupName returns PostgreSQL's name of a group, or Go's if the table does not have it.
func groupName(id tls.CurveID) string {
	if i := slices.IndexFunc(groups, func(g group) bool { return g.id == id }); i >= 0 {
		return groups[i].names[0]
	}
	return id.String()
}

// versions is a closed range of protocol versions.
type versions struct{ min, max uint16 }

func (v versions) contains(version uint16) bool { return v.min <= version && version <= v.max }
func (v versions) overlaps(w versions) bool     { return v.min <= w.max && w.min <= v.max }

func (v versions) String() string {
	if v.min == v.max {
		return versionName(v.min)
	}
	return versionName(v.min) + " to " + versionName(v.max)
}

// versionNames are PostgreSQL's values of ssl_min_protocol_version, oldest first.
var versionNames = []string{"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}

func versionName(v uint16) string {
	if v < tls.VersionTLS10 || v > tls.VersionTLS13 {
		return tls.VersionName(v)
	}
	return versionNames[v-tls.VersionTLS10]
}

func findVersion(name string) (uint16, bool) {
	i := slices.IndexFunc(versionNames, func(n string) bool { return strings.EqualFold(n, name) })
	return tls.VersionTLS10 + uint16(max(i, 0)), i >= 0
}
