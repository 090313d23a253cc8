package config

import (
	"fmt"
	"slices"
	"strings"

	"pgwicket/tlsconfig"
)

// inForce returns the defaults that stand for an empty text or list, by key. They are
// shown in comments, because as values some of them would be mistakes: crl_stale is one
// without a revocation list.
func (s *settings) inForce() map[string]string {
	m := map[string]string{"acl.on_expiry": s.ACL.OnRecheck + ", as on_recheck"}
	ofTLS := func(section string, o tlsconfig.Options) {
		m[section+".max_protocol_version"] = "TLSv1.3"
		m[section+".ciphers"] = strings.Join(tlsconfig.DefaultCiphers(), ", ")
		m[section+".groups"] = strings.Join(tlsconfig.DefaultGroups(), ", ")
		if o.CRLFile != "" || o.CRLDir != "" {
			m[section+".crl_check"], m[section+".crl_missing"] = string(tlsconfig.CRLCheckChain), string(tlsconfig.CRLMissingReject)
			m[section+".crl_stale"] = string(tlsconfig.CRLStaleReject)
		}
	}
	ofTLS("tls", s.TLS)
	ofTLS("admin.tls", s.Admin.TLS)
	m["admin.tls.min_protocol_version"], m["admin.tls.client_cert"] = "TLSv1.2", string(tlsconfig.ClientCertRequire)
	ofBackend := func(section string, b backend) {
		m[section+".sslmode"], m[section+".sslnegotiation"] = "none on a Unix socket", "none on a Unix socket"
		if slices.ContainsFunc(b.hosts(), func(host string) bool { return !isSocket(host) }) {
			m[section+".sslmode"], m[section+".sslnegotiation"] = string(tlsconfig.SSLVerifyFull), "postgres"
		}
	}
	ofBackend("backend", s.Backend)
	for i, b := range s.Backends {
		ofBackend(fmt.Sprintf("backends[%d]", i), b.backend)
	}
	return m
}
