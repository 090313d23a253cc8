package tlsconfig

import "time"

// Authority is a certificate of ca_file: a root, or an intermediate that clients need not send.
type Authority struct {
	Origin        string // its file and its place there
	Subject       string
	Serial        string // as "openssl x509 -serial" prints it
	Key           string // "RSA 2048"
	KeyBits       int    // of security, as OpenSSL counts them
	Signature     string // the algorithm
	SignatureBits int    // likewise; -1: not known to OpenSSL
	NotAfter      time.Time
	Root          bool // it is trusted for its key, and its signature does not count
}

// Authorities returns the certificates of ca_file, in its order; nil if clients need no certificate.
func (s *Server) Authorities() (all []Authority) {
	if s.verifier.pool == nil {
		return nil
	}
	for _, c := range s.verifier.pool.Certificates() {
		all = append(all, Authority{
			Origin: c.Origin, Subject: nameText(c.Subject.Raw), Serial: c.Serial(), Root: c.SelfSigned(), NotAfter: c.NotAfter,
			Key: c.Key.Name, KeyBits: c.Key.Bits, Signature: c.Algorithm.Name, SignatureBits: c.Algorithm.Bits,
		})
	}
	return all
}
