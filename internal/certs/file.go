package certs

import (
	"bytes"
	"unicode/utf16"

	"pgwicket/internal/der"
)

// ASCII drops the byte order mark of a text file and turns UTF-16 into what it was
// written from, so that PEM can be found in it. Other files, in DER too, are returned as
// they are.
func ASCII(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return fromUTF16(data[2:], 0)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return fromUTF16(data[2:], 1)
	case bytes.HasPrefix(data, []byte("-\x00-\x00")):
		return fromUTF16(data, 0)
	case bytes.HasPrefix(data, []byte("\x00-\x00-")):
		return fromUTF16(data, 1)
	}
	return data
}

// fromUTF16 decodes UTF-16; low is where the low byte of each unit stands.
func fromUTF16(data []byte, low int) []byte {
	units := make([]uint16, 0, len(data)/2)
	for ; len(data) > 1; data = data[2:] {
		units = append(units, uint16(data[1-low])<<8|uint16(data[low]))
	}
	return []byte(string(utf16.Decode(units)))
}

// FileKind is what a file holds that is in no use where it was named.
type FileKind string

// The kinds, as far as they can be told.
const (
	FileEmpty          FileKind = "empty"
	FileCertificate    FileKind = "certificate"
	FileCertificateDER FileKind = "certificate in DER"
	FileList           FileKind = "revocation list"
	FileKey            FileKind = "private key"
	FileKeyDER         FileKind = "private key in DER"
	FilePublicKey      FileKind = "public key"
	FileRequest        FileKind = "certificate request"
	FilePKCS7          FileKind = "PKCS #7"
	FilePKCS7DER       FileKind = "PKCS #7 in DER"
	FilePKCS12         FileKind = "PKCS #12"
	FileOther          FileKind = "other"
)

// pemKinds are ends of PEM labels. The first that a file has counts.
var pemKinds = []struct {
	label string
	kind  FileKind
}{
	{"CERTIFICATE REQUEST-----", FileRequest},
	{"PRIVATE KEY-----", FileKey},
	{"CERTIFICATE-----", FileCertificate},
	{"PKCS7-----", FilePKCS7},
	{"X509 CRL-----", FileList},
	{"PUBLIC KEY-----", FilePublicKey},
}

// KindOf looks at a file that ASCII has returned, for what to say about it.
func KindOf(data []byte) FileKind {
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		for _, k := range pemKinds {
			if bytes.Contains(data, []byte(k.label)) {
				return k.kind
			}
		}
	}
	in := der.Input(data)
	e, ok := in.Next()
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return FileEmpty
	case !ok || e.ID != der.Sequence:
		return FileOther
	case bytes.HasPrefix(e.Content, []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")):
		return FilePKCS7DER
	case bytes.HasPrefix(e.Content, []byte("\x02\x01\x03\x30")):
		return FilePKCS12
	case bytes.HasPrefix(e.Content, []byte("\x02\x01\x00")), bytes.HasPrefix(e.Content, []byte("\x02\x01\x01")):
		return FileKeyDER
	}
	if _, err := Parse(data); err == nil {
		return FileCertificateDER
	}
	return FileOther
}
