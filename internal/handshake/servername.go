package handshake

import (
	"crypto/tls"
	"fmt"
)

// RejectsName reports of a client that has closed right after the handshake whether it
// has asked for a name that no certificate of the gate has: libpq with
// sslmode=verify-full finds that out when the handshake is over, and sends no alert.
func RejectsName(config *tls.Config, name string) bool {
	return name != "" && !servesName(config, name)
}

// NameRejected says so for the log, which cuts it.
func NameRejected(name string) string {
	return fmt.Sprintf("closed after the TLS handshake: the client asked for %q, and no certificate of the gate has that name, so sslmode=verify-full rejects it", name)
}

// servesName reports whether a client that asks for a server name gets a certificate
// that has it.
func servesName(config *tls.Config, name string) bool {
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
