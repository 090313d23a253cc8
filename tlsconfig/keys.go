package tlsconfig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/youmark/pkcs8"
)

// usableKeys are the kinds of keys that crypto/tls can sign a handshake with.
const usableKeys = "RSA, ECDSA on P-256, P-384 or P-521, or Ed25519"

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// keyFileRule is check_ssl_key_file_permissions of PostgreSQL (be-secure-common.c), for a process that may run as root. The
// server never does, but libpq may: root's file may then be readable by its group, as in libpq's fe-secure-openssl.c. Group
// read is how Debian's group ssl-cert and fsGroup of Kubernetes provide keys. PostgreSQL has no such rule for Windows.
//
// reader is the account that reads the file. becomes says that it is that of the key user, and not that of this process.
func keyFileRule(name string, st fs.FileInfo, reader int, becomes bool) error {
	owner, ok := fileOwner(st)
	if !ok {
		return nil
	}
	mode := st.Mode().Perm()
	switch {
	case owner != reader && owner != 0 && becomes:
		return fmt.Errorf("%q belongs to %s: it must belong to %s, the account in user, or to root: chown %s %[1]q",
			name, accountText(owner), accountText(reader), nameOf(reader))
	case owner != reader && owner != 0:
		return fmt.Errorf("%q belongs to %s, and this process runs as %s: run it as the account of the gate, to which the key must belong, unless root owns it",
			name, accountText(owner), accountText(reader))
	case owner == 0 && mode&0o037 != 0:
		return fmt.Errorf("%q has mode %04o: only root may write it and only its group may read it: chmod 0640 %[1]q", name, mode)
	case owner != 0 && mode&0o077 != 0:
		return fmt.Errorf("%q has mode %04o: only its owner may have access: chmod 0600 %[1]q", name, mode)
	}
	return nil
}

// accountText names an account with its number.
func accountText(uid int) string {
	if name, number := nameOf(uid), strconv.Itoa(uid); name != number {
		return name + " (" + number + ")"
	}
	return "user " + strconv.Itoa(uid)
}

// nameOf returns the name of an account, or its number.
func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// readKey returns the first private key of a PEM file.
func readKey(file string, secrets passphrases) (crypto.Signer, error) {
	reader := os.Geteuid()
	if secrets.owner != 0 {
		reader = secrets.owner
	}
	var rule error
	data, err := readFile(file, fileLimit, func(st fs.FileInfo) error {
		if owner, _ := fileOwner(st); owner == os.Geteuid() { // who only checks a configuration may own it
			rule = keyFileRule(file, st, owner, false)
			return nil
		}
		rule = keyFileRule(file, st, reader, secrets.owner != 0)
		return nil
	})
	switch {
	case err == nil && !bytes.Contains(data, []byte("PRIVATE KEY-----")):
		// Owner and mode of such a file are right for what it is.
		return nil, &noKeyError{file, kindOf(data)}
	case rule != nil:
		clear(data)
		return nil, rule
	case err != nil:
		return nil, err
	}
	defer clear(data)
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%q holds no private key that can be read: its PEM is damaged", file)
		}
		// "openssl ecparam -genkey" writes the curve first, and a combined file has certificates too.
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		defer clear(block.Bytes)
		key, err := parseKey(file, block, secrets)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok || keyName(signer.Public()) == "" {
			return nil, fmt.Errorf("%q holds a key that crypto/tls cannot use: create one of %s, and its certificate", file, usableKeys)
		}
		return signer, nil
	}
}

// noKeyError means that a file has something else in place of a private key.
type noKeyError struct{ file, kind string }

func (e *noKeyError) Error() string {
	advice := e.kind
	if advice == "" {
		advice = "write one in PEM"
	}
	return fmt.Sprintf("%q holds no private key in PEM: %s", e.file, advice)
}

const onlyCertificates = "it holds a certificate alone"

// kindOf says what a file without a private key in PEM holds instead, or how to
// convert it; empty: nothing that is known.
func kindOf(data []byte) string {
	var outer asn1.RawValue
	switch _, err := asn1.Unmarshal(data, &outer); {
	case len(bytes.TrimSpace(data)) == 0:
		return "it is empty"
	case bytes.Contains(data, []byte("CERTIFICATE-----")):
		return onlyCertificates
	case bytes.Contains(data, []byte("PUBLIC KEY-----")):
		return "it holds a public key alone"
	case err != nil || outer.Tag != asn1.TagSequence:
		return ""
	case bytes.HasPrefix(outer.Bytes, []byte{asn1.TagInteger, 1, 3, 0x30}): // version 3 of PFX, RFC 7292 section 4
		return "convert it with openssl pkcs12 -nocerts"
	}
	return "convert it with openssl pkey -inform DER"
}

// parseKey parses a block, and decrypts it before if it is encrypted.
func parseKey(file string, block *pem.Block, secrets passphrases) (any, error) {
	_, legacy := block.Headers["DEK-Info"] // RFC 1421, section 4.6.1.3
	if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
		key, err := parsePlain(block.Type, block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", file, err)
		}
		return key, nil
	}
	secret, err := secrets.get(file)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	var key any
	if legacy {
		key, err = decryptLegacy(block, secret)
	} else {
		key, err = decryptPKCS8(block.Bytes, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return key, nil
}

// parsePlain parses a key by the type of its PEM block. The errors of crypto/x509 are left out: they are about ASN.1 or
// about other functions to call.
func parsePlain(kind string, der []byte) (any, error) {
	var key any
	var err error
	switch kind {
	case "PRIVATE KEY":
		if isRSAPSS(der) {
			return nil, fmt.Errorf("a key for RSA-PSS only (id-RSASSA-PSS) cannot be used by Go: create one of %s, and its certificate", usableKeys)
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default: // OPENSSH, DSA, ANY, …
		return nil, fmt.Errorf("a PEM block %q cannot be read by Go: convert it with openssl pkey, or ssh-keygen -p -m PKCS8", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the private key is damaged or of a kind that Go cannot use: create one of %s", usableKeys)
	}
	return key, nil
}

func isRSAPSS(der []byte) bool {
	var info struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	_, err := asn1.Unmarshal(der, &info)
	return err == nil && info.Algorithm.Algorithm.Equal(oidRSAPSS)
}

var errPassphrase = errors.New("the passphrase is wrong")

// decryptLegacy decrypts "Proc-Type: 4,ENCRYPTED". The padding is the only check of the passphrase, and one wrong
// passphrase in 256 passes it: then the key cannot be parsed.
func decryptLegacy(block *pem.Block, secret []byte) (any, error) {
	//nolint:staticcheck // deprecated because the format is weak, but openssl rsa -traditional still writes it
	der, err := x509.DecryptPEMBlock(block, secret)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errPassphrase
	}
	if err != nil {
		return nil, errors.New("the key is encrypted in a way that Go does not support: convert it with openssl pkcs8 -topk8 -v2 aes256")
	}
	defer clear(der)
	key, err := parsePlain(block.Type, der)
	if err != nil {
		return nil, errPassphrase
	}
	return key, nil
}

// decryptPKCS8 decrypts PBES2 with PBKDF2 or scrypt. The format does not tell a wrong passphrase from a key that cannot be
// parsed.
func decryptPKCS8(der, secret []byte) (key any, err error) {
	if len(secret) == 0 { // youmark/pkcs8 would parse the key as one that is not encrypted
		return nil, errPassphrase
	}
	// youmark/pkcs8 passes the lengths in a damaged file on to crypto/cipher, which panics; a reload must not end the
	// process.
	defer func() {
		if recover() != nil {
			key, err = nil, errors.New("the encrypted private key is damaged")
		}
	}()
	key, err = pkcs8.ParsePKCS8PrivateKey(der, secret)
	switch {
	case err == nil:
		return key, nil
	case strings.HasSuffix(err.Error(), "incorrect password"):
		return nil, fmt.Errorf("%w, or the key is not one of %s", errPassphrase, usableKeys)
	default: // PBES1 and PKCS#12 ciphers, other hashes than SHA-1 and SHA-256
		return nil, errors.New("the key is encrypted in a way that Go does not support: convert it with openssl pkcs8 -topk8 -v2 aes256 -v2prf hmacWithSHA256")
	}
}

// keyName returns the kind and size of a key; empty if crypto/tls cannot use it.
func keyName(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return "ECDSA " + k.Params().Name
		}
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return ""
}
