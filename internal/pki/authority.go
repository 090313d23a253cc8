package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// authority is one CA in a directory of openssl's layout.
type authority struct {
	files   layout
	cert    *x509.Certificate
	certPEM []byte
	index   *index
	secrets Secrets
	signer  crypto.Signer // nil: not needed yet
}

// openAuthority reads all but the key.
func openAuthority(dir string, s Secrets) (*authority, error) {
	a := &authority{files: layoutOf(dir), secrets: s}
	data, err := readFile(a.files.cert)
	if err != nil {
		return nil, err
	}
	if a.cert, a.certPEM, err = firstCertificate(data); err != nil {
		return nil, inFile(a.files.cert, err)
	}
	if !a.cert.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of a CA", a.files.cert)
	}
	return a, a.readIndex()
}

func (a *authority) readIndex() error {
	text, err := readFile(a.files.index())
	if err == nil {
		a.index, err = parseIndex(string(text))
	}
	return inFile(a.files.index(), err)
}

// firstCertificate returns the first certificate of a PEM file, which may have other text
// before and behind it, as openssl writes it.
func firstCertificate(data []byte) (*x509.Certificate, []byte, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), err
		}
	}
	return nil, nil, errors.New("it holds no certificate in PEM")
}

func (a *authority) selfSigned() bool { return bytes.Equal(a.cert.RawIssuer, a.cert.RawSubject) }

func (a *authority) hasKey() bool { return isThere(a.files.key) }

// key returns the private key, and asks for its passphrase the first time.
func (a *authority) key() (crypto.Signer, error) {
	if a.signer != nil {
		return a.signer, nil
	}
	key, err := readKey(a.files.key, a.secrets)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(key.Public(), a.cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", a.files.key, a.files.cert)
	}
	a.signer = key
	return key, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// parent is the certificate as x509.CreateCertificate and CreateRevocationList need it:
// one of openssl may lack the key identifier and the key usage.
func (a *authority) parent() (*x509.Certificate, error) {
	parent := *a.cert
	if len(parent.SubjectKeyId) == 0 {
		id, err := keyID(parent.PublicKey)
		if err != nil {
			return nil, err
		}
		parent.SubjectKeyId = id
	}
	if parent.KeyUsage == 0 {
		parent.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	return &parent, nil
}

// newSerial returns a random serial number of 16 bytes that index.txt does not have.
func (a *authority) newSerial() (*big.Int, error) {
	for {
		n, err := randomSerial()
		if err != nil || a.index == nil || a.index.find(serialText(n)) == nil {
			return n, err
		}
	}
}

func randomSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x3f | 0x40 // positive, and 16 bytes for every number
	return new(big.Int).SetBytes(b), nil
}

// sign issues a certificate.
func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey) (cert []byte, err error) {
	key, err := a.key()
	if err != nil {
		return nil, err
	}
	parent, err := a.parent()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// saveIndex writes index.txt. It is read back first by what reads it next time.
func (a *authority) saveIndex() error {
	text := a.index.String()
	if _, err := parseIndex(text); err != nil {
		return inFile(a.files.index(), err)
	}
	return writeKeepingOld(a.files.index(), []byte(text))
}

// writeList writes crl.pem with all that index.txt has revoked. Its number is taken before
// it is used, so that no two lists have the same.
func (a *authority) writeList(from, until time.Time) error {
	key, err := a.key()
	if err != nil {
		return err
	}
	parent, err := a.parent()
	if err != nil {
		return err
	}
	entries, err := a.revoked()
	if err != nil {
		return err
	}
	if err := a.checkNothingUnrevoked(); err != nil {
		return err
	}
	number, err := a.takeNumber()
	if err != nil {
		return err
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries, Number: number, ThisUpdate: from.UTC(), NextUpdate: until.UTC(),
	}, parent, key)
	if err != nil {
		return err
	}
	return write(a.files.list(), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// checkNothingUnrevoked refuses to make a list without a certificate that the last one has: index.txt
// may be an old copy. The end of certificateHold is meant, and those that have ended may go.
func (a *authority) checkNothingUnrevoked() error {
	last := a.readList()
	if last == nil || last.CheckSignatureFrom(a.cert) != nil {
		return nil
	}
	status := make(map[string]string, len(a.index.rows))
	for _, row := range a.index.rows {
		status[strings.TrimLeft(row[fieldSerial], "0")] = row[fieldStatus]
	}
	for _, e := range last.RevokedCertificateEntries {
		serial := serialText(e.SerialNumber)
		switch s := status[strings.TrimLeft(serial, "0")]; {
		case s == "R", s == "E", s == "V" && e.ReasonCode == reasons["certificateHold"]:
		case s == "V":
			return fmt.Errorf("%s has the certificate %s as valid, and the list in %s has it as revoked, so a new list would take that back: revoke it, or remove the old list if it is to be valid again",
				a.files.index(), serial, a.files.list())
		default:
			return fmt.Errorf("%s lacks the certificate %s, which the list in %s has as revoked, so a new list would take that back: put index.txt.old or another copy back, or remove the old list if the certificate has ended",
				a.files.index(), serial, a.files.list())
		}
	}
	return nil
}

// revoked returns the entries of a list in the order of openssl, by serial number.
func (a *authority) revoked() (entries []x509.RevocationListEntry, err error) {
	for _, row := range a.index.rows {
		if row[fieldStatus] != "R" {
			continue
		}
		r, err := parseRevocation(row[fieldRevoked])
		if err != nil {
			return nil, err
		}
		serial, _ := new(big.Int).SetString(row[fieldSerial], 16)
		entries = append(entries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: r.at, ReasonCode: r.code, ExtraExtensions: slices.Clone(r.more),
		})
	}
	slices.SortFunc(entries, func(a, b x509.RevocationListEntry) int { return a.SerialNumber.Cmp(b.SerialNumber) })
	return entries, nil
}

// takeNumber returns the number in crlnumber, and writes the next one.
func (a *authority) takeNumber() (*big.Int, error) {
	text, err := readFile(a.files.number())
	if err != nil {
		return nil, err
	}
	number, ok := new(big.Int).SetString(strings.TrimSpace(string(text)), 16)
	if !ok || number.Sign() < 0 {
		return nil, fmt.Errorf("%s holds no hexadecimal number", a.files.number())
	}
	if last := a.listNumber(); last != nil && number.Cmp(last) <= 0 {
		return nil, fmt.Errorf("%s has %s, and the list in %s has %s already: a list with a lower number would not be accepted; "+
			"write a larger number into crlnumber", a.files.number(), serialText(number), a.files.list(), serialText(last))
	}
	next := new(big.Int).Add(number, big.NewInt(1))
	return number, writeKeepingOld(a.files.number(), []byte(serialText(next)+"\n"))
}

// readList returns the list in crl.pem; nil if there is none that can be read.
func (a *authority) readList() *x509.RevocationList {
	data, err := readFile(a.files.list())
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return nil
	}
	return list
}

func (a *authority) listNumber() *big.Int {
	if list := a.readList(); list != nil {
		return list.Number
	}
	return nil
}

// caTemplate is the certificate of a CA.
func caTemplate(name string, serial *big.Int, id []byte, from, until time.Time, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: id,
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
	}
}
