package certs

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
)

// Bundle is what a file of certificates holds.
type Bundle struct {
	Certificates []*Certificate
	Problems     []error // of certificates that were left out, each with its place
}

var beginCertificate = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----`)

// ReadBundle reads the certificates of a file in PEM: blocks of the types
// CERTIFICATE, X509 CERTIFICATE and TRUSTED CERTIFICATE, with any other text
// around them. A block whose certificate cannot be read is left out and becomes a
// problem. A block that is damaged fails all, since pem.Decode steps over it
// without a word; so does a file that holds no certificate, or none that can be read.
// The name of the file is for messages.
func ReadBundle(file string, data []byte) (Bundle, error) {
	data = ASCII(data)
	begun := len(beginCertificate.FindAll(data, -1))
	var b Bundle
	blocks := 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		read := Parse
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
		case "TRUSTED CERTIFICATE":
			read = ParseTrusted
		default:
			continue
		}
		blocks++
		origin := fmt.Sprintf("certificate %d of %q", blocks, file)
		c, err := read(block.Bytes)
		if err != nil {
			b.Problems = append(b.Problems, fmt.Errorf("%s (SHA-256 %x): %w", origin, sha256.Sum256(block.Bytes), err))
			continue
		}
		c.Origin = origin
		b.Certificates = append(b.Certificates, c)
	}
	switch {
	case begun == 0:
		return Bundle{}, fmt.Errorf("%q holds no certificate in PEM: %s", file, bundleAdvice[KindOf(data)])
	case blocks != begun:
		return Bundle{}, fmt.Errorf("only %d of the %d certificates in %q can be read: the PEM of the others is damaged, or a line break before it is missing", blocks, begun, file)
	case len(b.Certificates) == 0:
		return Bundle{Problems: b.Problems}, errors.Join(b.Problems...)
	}
	return b, nil
}

// bundleAdvice says what to do with a file that holds no certificate in PEM.
var bundleAdvice = map[FileKind]string{
	FileEmpty:          "it is empty",
	FileCertificateDER: "convert it with openssl x509 -inform DER",
	FileList:           "it holds a revocation list",
	FileKey:            "it holds a private key alone",
	FileKeyDER:         "it holds a private key alone",
	FilePublicKey:      "it holds a public key, without the certificate that names it",
	FileRequest:        "it holds a request, for which a CA has to issue the certificate",
	FilePKCS7:          "convert it with openssl pkcs7 -print_certs",
	FilePKCS7DER:       "convert it with openssl pkcs7 -inform DER -print_certs",
	FilePKCS12:         "convert it with openssl pkcs12 -nokeys",
	FileOther:          "write its certificates in PEM",
}
