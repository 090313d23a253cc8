package handshake

import "crypto/tls"

// ServesName reports whether a client that asks for a server name gets a certificate
// that has it.
func ServesName(config *tls.Config, name string) bool {
	for i := range config.Certificates {
		if leaf := config.Certificates[i].Leaf; leaf != nil && leaf.VerifyHostname(name) == nil {
			return true
		}
	}
	if config.GetCertificate == nil {
		return false
	}
	cert, err := config.GetCertificate(&tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.Ed25519},
	})
	return err == nil && cert != nil && cert.Leaf != nil && cert.Leaf.VerifyHostname(name) == nil
}
