package tlsconfig

import "crypto/tls"

// Finished returns a handshake that Verify has nothing against but the client, who has shown nothing yet: what
// somebody would have come with who wants to know whether Verify would let him in.
func (s *Server) Finished() tls.ConnectionState {
	state := tls.ConnectionState{HandshakeComplete: true, Version: s.Config.MaxVersion}
	if state.Version == 0 {
		state.Version = tls.VersionTLS13
	}
	if suites := s.suites(state.Version); len(suites) > 0 {
		state.CipherSuite = suites[0]
	}
	return state
}
