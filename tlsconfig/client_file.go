package tlsconfig

import (
	"crypto/x509"
	"math/big"
	"os"

	"pgwicket/internal/certs"
)

// ClientFile is what a client with a certificate file sends.
type ClientFile struct {
	// Certificates are those of the file, the client's own first. One that Go cannot read has its names, its serial number
	// and its encoding, and no alternative names. There are none if OpenSSL could not read one of them either.
	Certificates []*x509.Certificate
	// Unreadable says of each certificate that Go cannot read which it is, why, and what to do. If there is one, crypto/tls
	// fails the handshake, and nothing else about the client counts.
	Unreadable []error
}

// ReadClientFile reads a file with a client's certificate and intermediates in PEM. It fails if there is no such file, or no
// certificate in it.
func ReadClientFile(name string) (*ClientFile, error) {
	data, err := os.ReadFile(name) // which may be a pipe
	if err != nil {
		return nil, err
	}
	bundle, err := certs.ReadBundle(name, data)
	switch {
	case len(bundle.Problems) > 0:
		return &ClientFile{Unreadable: bundle.Problems}, nil
	case err != nil:
		return nil, err
	}
	f := &ClientFile{}
	for _, c := range bundle.Certificates {
		x, err := x509.ParseCertificate(c.Raw)
		if err != nil {
			x = bare(c)
			if e := certs.GoProblem(c.Origin, c.Raw); e != nil {
				f.Unreadable = append(f.Unreadable, e)
			}
		}
		f.Certificates = append(f.Certificates, x)
	}
	return f, nil
}

// bare makes what the verifier and the log need of a certificate that crypto/x509 cannot read.
func bare(c *certs.Certificate) *x509.Certificate {
	serial := new(big.Int).SetBytes(c.RawSerial)
	if len(c.RawSerial) > 0 && c.RawSerial[0] >= 0x80 { // two's complement
		serial.Sub(serial, new(big.Int).Lsh(big.NewInt(1), uint(8*len(c.RawSerial))))
	}
	return &x509.Certificate{
		Raw: c.Raw, RawTBSCertificate: c.RawTBS, RawSubjectPublicKeyInfo: c.RawSPKI, RawSubject: c.Subject.Raw, RawIssuer: c.Issuer.Raw,
		SerialNumber: serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}
