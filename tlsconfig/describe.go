package tlsconfig

import (
	"crypto/tls"
	"strings"
)

// Describe returns a line with the TLS versions and cipher suites that clients are offered.
func (s *Server) Describe() string {
	var names []string
	for _, id := range s.TLS13 {
		names = append(names, suiteName(id))
	}
	for _, id := range s.Config.CipherSuites {
		names = append(names, suiteName(id))
	}
	return s.versions.String() + "; " + strings.Join(names, ", ")
}

// DescribeClients returns a line on which certificate a client must send, and how it is checked.
func (s *Server) DescribeClients() string {
	v := s.verifier
	if v.mode == ClientCertNone {
		return "no certificate requested"
	}
	text := "certificate required"
	if v.mode == ClientCertOptional {
		text = "certificate optional, but checked if sent"
	}
	if v.crls == nil {
		return text + ", not checked for revocation"
	}
	return text + ", checked for revocation" + describePolicy(v.crls.Policy())
}

// ClientCert returns whether clients must send a certificate.
func (s *Server) ClientCert() ClientCert { return s.verifier.mode }

// DescribeHandshake names what a handshake has negotiated, and says what is weak about it; weakness is empty if nothing
// is.
func DescribeHandshake(version, id uint16) (name, weakness string) {
	name = versionName(version) + " with " + suiteName(id)
	if version < tls.VersionTLS12 {
		return name, versionName(version) + " is deprecated (RFC 8996)"
	}
	for _, s := range suites {
		if s.id == id {
			return name, s.weakness()
		}
	}
	return name, "it is not known to pgwicket"
}
