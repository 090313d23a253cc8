package tlsconfig

import "crypto/tls"

// Finished returns the state of a handshake whose version, cipher suite and group Verify accepts, without a client certificate.
// It is for asking what Verify would say to a certificate without a connection.
func (s *Server) Finished() tls.ConnectionState {
	state := tls.ConnectionState{HandshakeComplete: true, Version: s.Config.MaxVersion}
	if state.Version == 0 {
		state.Version = tls.VersionTLS13
	}
	if suites := s.suites(state.Version); len(suites) > 0 {
		state.CipherSuite = suites[0]
	}
	if groups := s.Config.CurvePreferences; len(groups) > 0 {
		state.CurveID = groups[0]
	}
	return state
}
