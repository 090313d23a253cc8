package tlsconfig

import "strings"

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
