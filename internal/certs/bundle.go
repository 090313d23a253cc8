package certs

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf16"

	"pgwicket/internal/der"
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
	data = toASCII(data)
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
			b.Problems = append(b.Problems, fmt.Errorf("%s (SHA-256 %X): %w", origin, sha256.Sum256(block.Bytes), err))
			continue
		}
		c.Origin = origin
		b.Certificates = append(b.Certificates, c)
	}
	switch {
	case begun == 0:
		return Bundle{}, fmt.Errorf("%q holds no certificate in PEM: %s", file, advice(data))
	case blocks != begun:
		return Bundle{}, fmt.Errorf("only %d of the %d certificates in %q can be read: the PEM of the others is damaged, or a line break before it is missing", blocks, begun, file)
	case len(b.Certificates) == 0:
		return Bundle{Problems: b.Problems}, errors.Join(b.Problems...)
	}
	return b, nil
}

// toASCII drops a byte order mark and turns UTF-16 into what it was written from.
func toASCII(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		units := make([]uint16, 0, len(data)/2)
		for i := 2; i+1 < len(data); i += 2 {
			low, high := data[i], data[i+1]
			if data[0] == 0xfe {
				low, high = high, low
			}
			units = append(units, uint16(high)<<8|uint16(low))
		}
		return []byte(string(utf16.Decode(units)))
	}
	return data
}

// advice says how to make PEM of what a file holds instead.
func advice(data []byte) string {
	in := der.Input(data)
	switch e, ok := in.Next(); {
	case len(bytes.TrimSpace(data)) == 0:
		return "it is empty"
	case bytes.Contains(data, []byte("-----BEGIN PKCS7-----")):
		return "convert it with openssl pkcs7 -print_certs"
	case bytes.Contains(data, []byte("PRIVATE KEY-----")):
		return "it holds a private key alone"
	case bytes.Contains(data, []byte("-----BEGIN X509 CRL-----")):
		return "it holds a revocation list"
	case bytes.Contains(data, []byte("-----BEGIN CERTIFICATE REQUEST-----")), bytes.Contains(data, []byte("-----BEGIN NEW CERTIFICATE REQUEST-----")):
		return "it holds a request, for which a CA has to issue the certificate"
	case !ok || e.ID != der.Sequence:
		return "write its certificates in PEM"
	case bytes.HasPrefix(e.Content, []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")):
		return "convert it with openssl pkcs7 -inform DER -print_certs"
	case bytes.HasPrefix(e.Content, []byte("\x02\x01\x03\x30")):
		return "convert it with openssl pkcs12 -nokeys"
	}
	return "convert it with openssl x509 -inform DER"
}
