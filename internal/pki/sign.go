package pki

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SigningRequest is a request for a key that stays on another machine, from its CSR in PEM
// or DER. Of a client only the common name is used, of a server also the names and
// addresses. Whatever else the CSR asks for is not copied, and returned in words.
func SigningRequest(kind Kind, csr []byte) (r Request, notCopied []string, err error) {
	der := csr
	if block, _ := pem.Decode(csr); block != nil {
		if !strings.HasSuffix(block.Type, "CERTIFICATE REQUEST") {
			return r, nil, fmt.Errorf("it holds a %q, not a CERTIFICATE REQUEST", block.Type)
		}
		der = block.Bytes
	}
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return r, nil, errors.New("it is no certificate request in PEM or DER that can be read")
	}
	if err := checkRequest(parsed); err != nil {
		return r, nil, err
	}
	names := parsed.DNSNames
	for _, ip := range parsed.IPAddresses {
		names = append(names, ip.String())
	}
	if kind == Server {
		if cn := parsed.Subject.CommonName; cn != "" && !slices.Contains(names, cn) {
			names = slices.Insert(names, 0, cn)
		}
		r, err = ServerRequest(names...)
	} else {
		r, err = ClientRequest(parsed.Subject.CommonName, "")
	}
	if err != nil {
		return r, nil, err
	}
	r.Public = parsed.PublicKey
	return r, left(kind, parsed), nil
}

// checkRequest checks that a request is signed with its own key, and that both are strong.
func checkRequest(parsed *x509.CertificateRequest) error {
	if err := checkStrength(parsed.PublicKey); err != nil {
		return err
	}
	switch parsed.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD2WithRSA, x509.DSAWithSHA1:
		return fmt.Errorf("it is signed with %v, which is too weak: make it again, with openssl req -sha256", parsed.SignatureAlgorithm)
	case x509.UnknownSignatureAlgorithm:
		return errors.New("it is signed with an algorithm that is not known")
	}
	if parsed.CheckSignature() != nil {
		return errors.New("its signature is not of its own key")
	}
	return nil
}

var extensionNames = map[string]string{
	"2.5.29.14": "subjectKeyIdentifier", "2.5.29.15": "keyUsage", "2.5.29.17": "subjectAltName", "2.5.29.19": "basicConstraints",
	"2.5.29.30": "nameConstraints", "2.5.29.31": "cRLDistributionPoints", "2.5.29.32": "certificatePolicies", "2.5.29.37": "extendedKeyUsage",
}

// left returns what is in a request and not in its certificate.
func left(kind Kind, parsed *x509.CertificateRequest) (all []string) {
	for _, x := range parsed.Extensions {
		switch isAltName := x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}); {
		case !isAltName:
			all = append(all, "extension "+cmp.Or(extensionNames[x.Id.String()], x.Id.String()))
		case kind == Client:
			all = append(all, "extension subjectAltName")
		case len(parsed.EmailAddresses)+len(parsed.URIs) > 0:
			all = append(all, "e-mail addresses and URIs in subjectAltName")
		}
	}
	if len(parsed.Subject.Names) > 1 {
		all = append(all, "all of the subject but its common name")
	}
	return all
}

// Renew issues the certificate of a name again, with a new key or, if its key is not
// here, for the same key. The old one stays valid until it ends or is revoked.
func (c *CA) Renew(name string, days int) (*Issued, error) {
	rows, err := c.rowsFor(name)
	if err != nil {
		return nil, err
	}
	newest := rows[len(rows)-1]
	e := c.describe(newest)
	if e.Status == StatusRevoked {
		return nil, fmt.Errorf("%s was revoked on %s and is not renewed: if its owner is to have another, issue one with --again",
			e.Name, e.Revoked.Format("2006-01-02"))
	}
	cert, err := c.certificate(e)
	if err != nil {
		return nil, err
	}
	r := Request{
		Kind: Client, Name: e.Name, CommonName: cert.Subject.CommonName, DNS: cert.DNSNames, Emails: cert.EmailAddresses, URIs: cert.URIs,
		Days: days, Again: true, rawSubject: cert.RawSubject, subject: e.Subject,
	}
	if slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		r.Kind = Server
	}
	for _, ip := range cert.IPAddresses {
		r.IPs = append(r.IPs, addrOf(ip))
	}
	if !isThere(c.KeyFile(e.Name)) {
		r.Public = cert.PublicKey
	}
	if _, ok := cert.PublicKey.(*rsa.PublicKey); ok {
		r.KeyType = RSA
	}
	return c.Issue(r)
}

// certificate reads a certificate in the directory.
func (c *CA) certificate(e Entry) (*x509.Certificate, error) {
	data, err := readFile(c.ca.files.certOf(e.Serial))
	if err != nil {
		if data, err = readFile(c.CertFile(e.Name)); err != nil {
			return nil, err
		}
	}
	cert, _, err := firstCertificate(data)
	if err == nil && serialText(cert.SerialNumber) != e.Serial {
		err = fmt.Errorf("%s is not the certificate %s", c.CertFile(e.Name), e.Serial)
	}
	return cert, err
}

// current returns the newest valid certificate of a name with what is behind it in its
// file, and its key.
func (c *CA) current(name string) (e Entry, cert *x509.Certificate, err error) {
	for _, row := range c.find(name) {
		if one := c.describe(row); one.Status == StatusValid {
			e = one
		}
	}
	if e.Serial == "" {
		return e, nil, fmt.Errorf("no valid certificate has the name or the serial number %q: \"pgwicket ca list\" shows them", name)
	}
	cert, err = c.certificate(e)
	if err == nil && !bytes.Equal(cert.RawIssuer, c.ca.cert.RawSubject) {
		err = fmt.Errorf("%s is of another CA", e.Serial)
	}
	return e, cert, err
}
