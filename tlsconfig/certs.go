package tlsconfig

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/privkey"
)

// fileLimit is far above the size of any certificate, key or CA file, and bounds what is read for a wrong path.
const fileLimit = 16 << 20

// namesLimit is the room for names in a CertificateRequest, less a margin: its list of CAs is a vector of 2^16-1 bytes
// (RFC 8446, section 4.2.4), and crypto/tls fails every handshake that would need more.
const namesLimit = 60_000

// CertificateInfo describes a certificate of the gate.
type CertificateInfo struct {
	File, KeyFile       string
	Subject             string
	NotBefore, NotAfter time.Time
	Key                 string    // "RSA 2048", "ECDSA P-256", "Ed25519"
	StapledUntil        time.Time // when its OCSP response ends; zero: it has none, or one without an end

	Chain []*x509.Certificate // as it is sent, its own first
}

// readFile returns the content of a regular file. Anything else is refused before it is opened: a FIFO without a writer
// would block a reload. rule may refuse the file; nil: none.
func readFile(name string, limit int64, rule func(fs.FileInfo) error) ([]byte, error) {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, cannotRead(name, err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%q is not a regular file", name)
	case st.Size() > limit:
		return nil, fmt.Errorf("%q has %d bytes: the limit is %d", name, st.Size(), limit)
	case rule != nil:
		if err := rule(st); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, cannotRead(name, err)
	}
	return data, nil
}

// cannotRead removes the path of a PathError, which is not quoted there.
func cannotRead(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("cannot read %q: %w", name, err)
}

// readCertificates returns every certificate of a PEM file, for crypto/tls, or an error. A chain must not become shorter
// by a block that is damaged.
func readCertificates(name string) ([]*x509.Certificate, error) {
	data, err := readFile(name, fileLimit, nil)
	if err != nil {
		return nil, err
	}
	bundle, err := certs.ReadBundle(name, data)
	if err == nil {
		err = errors.Join(bundle.Problems...)
	}
	if err != nil {
		return nil, err
	}
	list := make([]*x509.Certificate, 0, len(bundle.Certificates))
	for _, c := range bundle.Certificates {
		if e := certs.GoProblem(c.Origin, c.Raw); e != nil {
			return nil, e
		}
		x, err := x509.ParseCertificate(c.Raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Origin, err)
		}
		list = append(list, x)
	}
	return list, nil
}

// loadPairs reads the gate's own certificates with their keys.
func loadPairs(o Options, secrets passphrases, now time.Time, r *report) ([]*served, []CertificateInfo) {
	single := o.CertFile != "" || o.KeyFile != ""
	if o.OCSPFile != "" && len(o.Certificates) > 0 {
		r.errorf("ocsp_file", "cannot be set together with certificates: move it into the entry of its certificate")
	}
	switch {
	case single && len(o.Certificates) > 0:
		r.errorf("certificates", "cannot be set together with cert_file and key_file: move that pair into the list")
		return nil, nil
	case !single && len(o.Certificates) == 0:
		r.errorf("cert_file", "is missing: the gate needs a certificate, and its key_file")
		return nil, nil
	case single:
		o.Certificates = []Pair{{o.CertFile, o.KeyFile, o.OCSPFile}}
	}
	var certs []*served
	var infos []CertificateInfo
	for i, p := range o.Certificates {
		prefix := ""
		if !single {
			prefix = fmt.Sprintf("certificates[%d].", i)
		}
		cert, chain, ok := loadPair(prefix, p, secrets, r)
		if !ok {
			continue
		}
		checkLeaf(prefix, p, cert.Leaf, now, r)
		info := CertificateInfo{
			File: p.CertFile, KeyFile: p.KeyFile, Chain: chain, Subject: nameText(cert.Leaf.RawSubject),
			NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter, Key: privkey.Name(cert.Leaf.PublicKey),
		}
		s := loadStaple(prefix, p, chain, now, r)
		if s != nil {
			info.StapledUntil = s.until
		}
		certs = append(certs, newServed(cert, s))
		infos = append(infos, info)
	}
	return certs, infos
}

// loadPair reads one pair; prefix is put before its keys in messages. The whole chain is sent, since a client has the root
// only.
func loadPair(prefix string, p Pair, secrets passphrases, r *report) (cert tls.Certificate, chain []*x509.Certificate, ok bool) {
	for _, f := range [][2]string{{"cert_file", p.CertFile}, {"key_file", p.KeyFile}} {
		if f[1] == "" {
			r.errorf(prefix+f[0], "is missing: a certificate and its key go together (one file may hold both)")
			return cert, nil, false
		}
	}
	chain, err := readCertificates(p.CertFile)
	key, keyErr := readKey(p.KeyFile, secrets)
	var command *passphraseError
	var noKey *noKeyError
	swapped := err != nil && errors.As(keyErr, &noKey) && noKey.kind == certs.FileCertificate && holdsKey(p.CertFile)
	switch {
	case swapped:
		r.errorf(prefix+"cert_file", "%q holds the private key and %q the certificate: exchange the two paths", p.CertFile, p.KeyFile)
	case err != nil:
		r.errorf(prefix+"cert_file", "%v", err)
	}
	switch {
	case swapped:
	case errors.As(keyErr, &command):
		r.errorf("passphrase_command", "%v", keyErr)
	case keyErr != nil:
		r.errorf(prefix+"key_file", "%v", keyErr)
	}
	if err != nil || keyErr != nil {
		return cert, nil, false
	}
	public := key.Public().(interface{ Equal(crypto.PublicKey) bool }) // every type has it: see crypto.PublicKey
	place := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	switch {
	case place < 0:
		r.errorf(prefix+"key_file", "%q is not the key of the certificate in %q: use the key that the certificate was issued for", p.KeyFile, p.CertFile)
		return cert, nil, false
	case place > 0:
		r.errorf(prefix+"cert_file", "%q has the gate's own certificate in position %d: put it first, then its chain", p.CertFile, place+1)
		return cert, nil, false
	}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	cert.PrivateKey, cert.Leaf = key, chain[0]
	return cert, chain, true
}

// holdsKey reports whether a file has a private key in PEM.
func holdsKey(file string) bool {
	data, _ := readFile(file, fileLimit, nil)
	defer clear(data)
	return bytes.Contains(data, []byte("PRIVATE KEY-----"))
}

// checkLeaf warns of what PostgreSQL accepts as well, and clients refuse.
func checkLeaf(prefix string, p Pair, leaf *x509.Certificate, now time.Time, r *report) {
	if text := dateProblem(leaf, now); text != "" {
		r.warnf(prefix+"cert_file", "%s %s: clients with sslmode=verify-ca or verify-full refuse it, renew it", firstOf(p.CertFile, leaf), text)
	}
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok || key.N.BitLen() >= 2048:
	case key.N.BitLen() < 1024: // crypto/rsa signs with no such key (GODEBUG rsa1024min)
		r.errorf(prefix+"key_file", "%q has %d bits and Go uses no RSA key below 1024: make one of 2048 or more", p.KeyFile, key.N.BitLen())
	default:
		r.warnf(prefix+"key_file", "%q has %d bits: make an RSA key of 2048 or more", p.KeyFile, key.N.BitLen())
	}
}

// firstOf names the certificate that comes first in a file.
func firstOf(file string, c *x509.Certificate) string {
	return certificateName(fmt.Sprintf("certificate 1 of %q", file), fmt.Sprintf("%X", c.SerialNumber), c.RawSubject)
}

func dateProblem(c *x509.Certificate, now time.Time) string {
	return validity(c.NotBefore, c.NotAfter, now)
}

func validity(from, to, now time.Time) string {
	switch {
	case now.Before(from):
		return "is not valid before " + timeText(from)
	case now.After(to):
		return "expired on " + timeText(to)
	}
	return ""
}

// setCertificates gives the certificates to crypto/tls. With an OCSP response they are not put into Certificates, from which
// a client that sends no server name would get one without a call of GetCertificate.
func setCertificates(config *tls.Config, certs []*served) {
	stapled := slices.ContainsFunc(certs, func(c *served) bool { return c.staple != nil })
	if stapled || len(certs) > 1 {
		config.GetCertificate = choose(certs)
	}
	for _, c := range certs {
		if !stapled {
			config.Certificates = append(config.Certificates, c.bare)
		}
	}
}

// choose returns the first certificate that is for the name in the client's SNI and that the client can verify, or else the
// first that it can verify. crypto/tls alone stops at the name: a client that uses another name for the gate gets the first
// of the list even if it does not support that kind of key. OpenSSL looks at the kind of key only.
func choose(certs []*served) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		now := time.Now()
		if len(certs) == 1 {
			return certs[0].at(now), nil
		}
		nameless := *hello
		nameless.ServerName = ""
		for _, h := range []*tls.ClientHelloInfo{hello, &nameless} {
			for _, c := range certs {
				if h.SupportsCertificate(&c.bare) == nil {
					return c.at(now), nil
				}
			}
		}
		return certs[0].at(now), nil
	}
}

// poolOptions say where trusted certificates are read from.
type poolOptions struct {
	option, file string
	partialChain bool
	minBits      int
}

// loadPool reads the certificates that a chain may end in or pass through; nil after an error.
func loadPool(o poolOptions, now time.Time, r *report) *certs.Pool {
	data, err := readFile(o.file, fileLimit, nil)
	var bundle certs.Bundle
	if err == nil {
		bundle, err = certs.ReadBundle(o.file, data)
	}
	if err != nil {
		r.errorf(o.option, "%v", err)
		return nil
	}
	for _, p := range bundle.Problems {
		r.warnf(o.option, "%v: it is left out, and chains through it are refused", p)
	}
	pool := certs.NewPool(o.option, bundle.Certificates, o.partialChain)
	anchors := 0
	for _, c := range pool.Certificates() {
		if c.SelfSigned() || o.partialChain {
			anchors++
		}
		name := certificateName(c.Origin, c.Serial(), c.Subject.Raw)
		if text := validity(c.NotBefore, c.NotAfter, now); text != "" {
			r.warnf(o.option, "%s %s: certificates that it has issued are refused until the CA has a certificate in date here", name, text)
		}
		if text := c.WeakKey(bitsOf(o.minBits)); text != "" {
			r.warnf(o.option, "%s %s: certificates that it has issued are refused: have the CA use a stronger key, or lower tls.min_security_bits", name, text)
		}
		if e := certs.GoProblem(c.Origin, c.Raw); e != nil {
			r.warnf(o.option, "%v; it is trusted all the same, but the handshake of a peer that sends it fails", e)
		}
	}
	if anchors == 0 {
		r.errorf(o.option, "%s", noAnchor(o, pool.Certificates()[0]))
	}
	return pool
}

// warnNotRevocable names the certificates of clients in ca_file that no list can revoke: a list about one counts if the
// certificate of its issuer is in the file too.
func warnNotRevocable(ca *certs.Pool, r *report) {
	var first *certs.Certificate
	others := 0
	for _, c := range ca.Certificates() {
		issuedBy := func(k *certs.Certificate) bool { return k.CheckSigned(c) == nil }
		switch {
		case c.IsCA(), c.SelfSigned(), slices.ContainsFunc(ca.BySubject(c.Issuer), issuedBy):
		case first == nil:
			first = c
		default:
			others++
		}
	}
	if first == nil {
		return
	}
	more := ""
	if others > 0 {
		more = fmt.Sprintf(", and %d more like it", others)
	}
	r.warnf("ca_file", "%s is a client's own certificate, and the certificate of its issuer %q is not in the file, so no revocation list can revoke it%s: "+
		"to revoke it, remove it from the file (with the issuer's certificate lists count, but then all that it issues is trusted)",
		certificateName(first.Origin, first.Serial(), first.Subject.Raw), nameText(first.Issuer.Raw), more)
}

// noAnchor explains why no chain can end in a file without a root, by its first certificate.
func noAnchor(o poolOptions, first *certs.Certificate) string {
	advice := "add the root"
	name := certificateName(first.Origin, first.Serial(), first.Subject.Raw)
	if first.Subject.Equal(first.Issuer) {
		name += " has its own name as its issuer's, but its authority key identifier is not its own (RFC 5280 section 4.2.1.1), so it is no root to OpenSSL"
		advice = "have it issued anew without that identifier"
	} else {
		name += fmt.Sprintf(" is issued by %q", nameText(first.Issuer.Raw))
		advice += " of that name"
	}
	if o.option == "ca_file" {
		advice += ", or set partial_chain to trust what is in the file"
	}
	return fmt.Sprintf("%q has no self-signed certificate, so no chain can end in it; %s: %s", o.file, name, advice)
}

// certificateName names a certificate of a file: its place, its serial number and its subject.
func certificateName(origin, serial string, subject []byte) string {
	return fmt.Sprintf("%s (serial %s, %q)", origin, serial, nameText(subject))
}

// bitsOf returns min_security_bits, or its default.
func bitsOf(bits int) int { return cmp.Or(bits, certs.DefaultSecurityBits) }

// loadCA reads the certificates that a client's chain may end in or pass through.
func loadCA(o Options, now time.Time, r *report) *certs.Pool {
	if o.CAFile == "" {
		r.errorf("ca_file", "is missing: client certificates are checked against it (or set client_cert: none)")
		return nil
	}
	return loadPool(poolOptions{"ca_file", o.CAFile, o.PartialChain, o.MinSecurityBits}, now, r)
}

// advertisedCAs returns the CAs that a CertificateRequest names, so that a client with several certificates sends the right
// one. They have no part in the verification. The result is nil if there is no room for them.
func advertisedCAs(o Options, ca *certs.Pool, r *report) *x509.CertPool {
	pool, size := x509.NewCertPool(), 0
	for _, c := range ca.Certificates() {
		// crypto/tls uses the subject only, and x509 may not be able to read the rest.
		pool.AddCert(&x509.Certificate{Raw: c.Raw, RawSubject: c.Subject.Raw})
		size += 2 + len(c.Subject.Raw)
	}
	if size > namesLimit {
		r.warnf("ca_file", "the names of the %d certificates in %q do not fit into a TLS handshake, so clients are sent none: "+
			"keep only the CAs that issue client certificates", len(ca.Certificates()), o.CAFile)
		return nil
	}
	return pool
}
