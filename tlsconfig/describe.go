package tlsconfig

import (
	"crypto/tls"
	"strings"
)

// Describe says in a line what a client is offered, for a person to compare with what was meant.
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

// DescribeClients says in a line what a client must show.
func (s *Server) DescribeClients() string {
	v := s.verifier
	if v.mode == ClientCertNone {
		return "no certificate asked for"
	}
	text := "certificate required"
	if v.mode == ClientCertOptional {
		text = "certificate optional, a bad one refused"
	}
	if v.crls == nil {
		return text + ", not checked for revocation"
	}
	return text + ", checked for revocation" + v.crls.policy.describe()
}

// ClientCert is what is asked of clients.
func (s *Server) ClientCert() ClientCert { return s.verifier.mode }

// DescribeHandshake names what a handshake has agreed on, and says what is weak about it; "" for what is not.
func DescribeHandshake(version, id uint16) (name, weakness string) {
	name = versionName(version) + " with " + suiteName(id)
	if version < tls.VersionTLS12 {
		return name, versionName(version) + " is out of use (RFC 8996)"
	}
	for _, s := range suites {
		if s.id == id {
			return name, s.weakness()
		}
	}
	return name, "it is not known to pgwicket"
}
