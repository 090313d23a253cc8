// Package clientcert keeps what the gate needs of the certificates that a client has sent, and
// no more: they may be large, and those that are refused may be anything.
package clientcert

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"

	"pgwicket/acl"
	"pgwicket/internal/printable"
)

// maxName is the longest name, in DER, of a refused certificate that is read: a name
// of 28 KiB costs as much processor time as ten handshakes.
const maxName = 2 << 10

// maxExtensions is how many extensions of a refused certificate are searched for URIs.
const maxExtensions = 32

// Refused is the part of an identity that the log has of a refused
// certificate.
func Refused(leaf *x509.Certificate) acl.Identity {
	short := *leaf
	short.DNSNames, short.EmailAddresses = first(leaf.DNSNames), first(leaf.EmailAddresses)
	short.IPAddresses = first(leaf.IPAddresses)
	if len(leaf.URIs) > maxList || len(leaf.Extensions) > maxExtensions {
		short.URIs, short.Extensions = nil, nil
	}
	for _, name := range []*[]byte{&short.RawSubject, &short.RawIssuer} {
		if len(*name) > maxName {
			*name = nil
		}
	}
	id := acl.IdentityOf(&short)
	if short.RawSubject == nil {
		id.DN = fmt.Sprintf("... (%d bytes)", len(leaf.RawSubject))
	}
	if short.RawIssuer == nil {
		id.Issuer = fmt.Sprintf("... (%d bytes)", len(leaf.RawIssuer))
	}
	Shorten(&id)
	return id
}

func first[T any](list []T) []T { return list[:min(len(list), maxList)] }

// Bounds of what a refused certificate and a line of the log may hold of a client's
// own texts, as printed.
const (
	maxText     = 256
	maxList     = 3 // texts of a list
	maxListText = 128
)

// Shorten cuts the texts of an identity as the log has them.
func Shorten(id *acl.Identity) {
	for _, s := range []*string{&id.CN, &id.CNText, &id.DN, &id.Issuer, &id.Serial} {
		*s = printable.Clip(*s, maxText, len(*s))
	}
	for _, list := range []*[]string{&id.DNS, &id.Email, &id.URI, &id.IP} {
		*list = slices.Clone((*list)[:min(len(*list), maxList)])
		for i, s := range *list {
			(*list)[i] = printable.Clip(s, maxListText, len(s))
		}
	}
}

// Attrs are what the log has of an identity.
func Attrs(id *acl.Identity) []slog.Attr {
	return []slog.Attr{
		slog.String("cert_subject", printable.Clip(id.DN, maxText, len(id.DN))),
		slog.String("cert_issuer", printable.Clip(id.Issuer, maxText, len(id.Issuer))),
		slog.String("cert_serial", printable.Clip(id.Serial, maxText, len(id.Serial))),
		slog.String("cert_sha256", id.SHA256),
		slog.Any("cert_san_dns", printable.List(id.DNS, maxList, maxListText)),
		slog.Any("cert_san_email", printable.List(id.Email, maxList, maxListText)),
		slog.Any("cert_san_uri", printable.List(id.URI, maxList, maxListText)),
		slog.Any("cert_san_ip", printable.List(id.IP, maxList, maxListText)),
	}
}
