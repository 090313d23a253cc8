// Package chains makes certificate chains, usual and unusual ones, byte by byte
// and by the openssl command. The tests compare the verdicts of the gate, of
// OpenSSL and of PostgreSQL on them. None is made by crypto/x509, which cannot
// read many of them.
package chains

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Case is a leaf certificate with what is needed to judge it. Certificates are
// in DER.
type Case struct {
	Name    string
	Server  bool      // the leaf is shown by a server; else by a client
	Leaf    []byte    // may be unreadable
	Key     []byte    // the private key of the leaf in PEM; nil for none
	Sent    [][]byte  // shown with it
	CA      [][]byte  // the trusted file
	Trusted []byte    // a PEM block "TRUSTED CERTIFICATE" at the end of that file
	Level   int       // OpenSSL's security level
	Partial bool      // every certificate of the trusted file is an anchor
	Lists   [][]byte  // revocation lists; nil: nothing is asked about revocation
	At      time.Time // when it is verified; zero: now

	// Stricter says why the gate refuses what OpenSSL admits; empty where they must
	// agree. Laxer says why the gate admits what OpenSSL refuses, which there is for
	// revocation lists alone.
	Stricter, Laxer string
}

// DefaultLevel is Debian's.
const DefaultLevel = 2

// Purpose is the name of OpenSSL's purpose.
func (c Case) Purpose() string {
	if c.Server {
		return "sslserver"
	}
	return "sslclient"
}

// Write puts leaf.pem, sent.pem, ca.pem and, where there is one, leaf.key into a
// directory.
func (c Case) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files := map[string][]byte{
		"leaf.pem": encode(c.Leaf),
		"sent.pem": encode(c.Sent...),
		"ca.pem":   append(encode(c.CA...), c.Trusted...),
	}
	if c.Lists != nil {
		files["crl.pem"] = encodeAs("X509 CRL", c.Lists...)
	}
	if c.Key != nil {
		files["leaf.key"] = c.Key
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func encode(certs ...[]byte) []byte { return encodeAs("CERTIFICATE", certs...) }

func encodeAs(kind string, list ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range list {
		if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// node is a certificate and its key.
type node struct {
	der  []byte
	name []byte // the subject
	key  *key
}

// spec is a certificate to be made.
type spec struct {
	version    int // as encoded: 2 is v3; below 0: none
	serial     []byte
	inner      []byte // algorithm identifiers; nil: as the key signs
	outer      []byte
	issuer     []byte
	validity   []byte
	subject    []byte
	public     []byte
	uniqueIDs  []byte
	extensions [][]byte
	unused     byte // bits of the signature
	noSKI      bool
	noAKI      bool
	hash       crypto.Hash
}

type option func(*spec)

// serials counts the certificates of a process, so that each has a serial number
// of two bytes that is easy to find in a test's output.
var serials atomic.Uint32

// issue makes a certificate signed by "by", or a self-signed one if that is nil.
func issue(by *node, k *key, subject []byte, options ...option) *node {
	n := 0x1000 + serials.Add(1)%0x7000
	s := &spec{
		version: 2, serial: []byte{byte(n >> 8), byte(n)},
		subject: subject, issuer: subject, public: k.spki,
		validity: validity(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)),
		hash:     crypto.SHA256,
	}
	signer := k
	if by != nil {
		s.issuer, signer = by.name, by.key
	}
	for _, o := range options {
		o(s)
	}
	if !s.noSKI {
		s.extensions = append(s.extensions, ext("2.5.29.14", false, tlv(0x04, k.id)))
	}
	if !s.noAKI {
		s.extensions = append(s.extensions, ext("2.5.29.35", false, seq(tlv(0x80, signer.id))))
	}
	if s.inner == nil {
		s.inner = signer.algorithm(s.hash)
	}
	if s.outer == nil {
		s.outer = s.inner
	}
	var version, extensions []byte
	if s.version >= 0 {
		version = tlv(0xa0, tlv(0x02, []byte{byte(s.version)}))
	}
	if len(s.extensions) > 0 {
		extensions = tlv(0xa3, seq(s.extensions...))
	}
	tbs := seq(version, tlv(0x02, s.serial), s.inner, s.issuer, s.validity, s.subject, s.public, s.uniqueIDs, extensions)
	signature := signer.sign(s.hash, tbs)
	return &node{seq(tbs, s.outer, tlv(0x03, []byte{s.unused}, signature)), subject, k}
}

// ca and leaf are the usual extensions.
func ca(s *spec) {
	s.extensions = append(s.extensions, basic(true), ext("2.5.29.15", true, bits(0x06, 1)))
}

func leaf(s *spec) {
	s.extensions = append(s.extensions, ext("2.5.29.15", true, bits(0x80, 7)), usage(clientAuth))
}

func with(extensions ...[]byte) option {
	return func(s *spec) { s.extensions = append(s.extensions, extensions...) }
}

func plain(s *spec) { s.noSKI, s.noAKI = true, true }
func noAKI(s *spec) { s.noAKI = true }

func version(v int) option           { return func(s *spec) { s.version = v } }
func serial(b ...byte) option        { return func(s *spec) { s.serial = b } }
func issuedBy(name []byte) option    { return func(s *spec) { s.issuer = name } }
func valid(raw []byte) option        { return func(s *spec) { s.validity = raw } }
func digest(h crypto.Hash) option    { return func(s *spec) { s.hash = h } }
func public(spki []byte) option      { return func(s *spec) { s.public = spki } }
func algorithms(in, o []byte) option { return func(s *spec) { s.inner, s.outer = in, o } }

func expired(s *spec) {
	s.validity = validity(time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, -1))
}

func future(s *spec) {
	s.validity = validity(time.Now().AddDate(0, 0, 1), time.Now().AddDate(1, 0, 0))
}

// All makes every case. The directory is for the files of the openssl command,
// which must be installed.
func All(dir string) ([]Case, error) {
	k, err := makeKeys(dir)
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, group := range []func(*keys) []Case{
		paths, pinned, searches, names, encodings, brokenExtensions, criticals, dates, purposes, authorities, pathLengths,
		strengths, keyForms, nameConstraintForms, nameConstraintKinds,
	} {
		all = append(all, group(k)...)
	}
	made, err := byOpenSSL(dir, k)
	if err != nil {
		return nil, err
	}
	all = append(all, made...)
	seen := map[string]bool{}
	for i := range all {
		if all[i].Level == 0 {
			all[i].Level = DefaultLevel
		}
		if seen[all[i].Name] {
			return nil, fmt.Errorf("two cases are called %q", all[i].Name)
		}
		seen[all[i].Name] = true
	}
	return all, nil
}

// chain makes a case of a leaf, what is between, and the root as the last one.
func chain(name string, nodes ...*node) Case {
	c := Case{Name: name, Leaf: nodes[0].der, Key: nodes[0].key.pem, CA: [][]byte{nodes[len(nodes)-1].der}}
	for _, n := range nodes[1 : len(nodes)-1] {
		c.Sent = append(c.Sent, n.der)
	}
	return c
}

func (c Case) server() Case             { c.Name, c.Server = c.Name+" (server)", true; return c }
func (c Case) level(n int) Case         { c.Level = n; return c }
func (c Case) partial() Case            { c.Partial = true; return c }
func (c Case) stricter(why string) Case { c.Stricter = why; return c }

func (c Case) trust(more ...*node) Case {
	for _, n := range more {
		c.CA = append(c.CA, n.der)
	}
	return c
}
