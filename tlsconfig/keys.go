package tlsconfig

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"pgwicket/internal/certs"
	"pgwicket/internal/privkey"
)

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
			name, ownerText(owner), ownerText(reader), nameOf(reader))
	case owner != reader && owner != 0:
		return fmt.Errorf("%q belongs to %s, and this process runs as %s: run it as the account of the gate; the key must belong to that account or to root",
			name, ownerText(owner), ownerText(reader))
	case owner == 0 && mode&0o037 != 0:
		return fmt.Errorf("%q has mode %04o: only root may write it and only its group may read it: chmod 0640 %[1]q", name, mode)
	case owner != 0 && mode&0o077 != 0:
		return fmt.Errorf("%q has mode %04o: only its owner may have access: chmod 0600 %[1]q", name, mode)
	}
	return nil
}

// ownerText names an account with its number.
func ownerText(uid int) string {
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
	text := certs.ASCII(data)
	defer clear(text)
	defer clear(data)
	switch {
	case err == nil && !bytes.Contains(text, []byte("PRIVATE KEY-----")):
		// Owner and mode of such a file are right for what it is.
		return nil, &noKeyError{file, certs.KindOf(text)}
	case rule != nil:
		return nil, rule
	case err != nil:
		return nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%q holds no private key that can be read: its PEM is damaged", file)
		}
		// "openssl ecparam -genkey" writes the curve first, and a combined file has certificates too.
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		defer clear(block.Bytes)
		return parseKey(file, block, secrets)
	}
}

// maxSecret is longer than any password that PostgreSQL takes.
const maxSecret = 4 << 10

// ReadSecret reads a file with a password, for which the rule about the owner and the mode of a key
// holds. owner is the account of the gate; 0: that of this process.
func ReadSecret(file string, owner int) ([]byte, error) {
	reader := os.Geteuid()
	if owner != 0 {
		reader = owner
	}
	return readFile(file, maxSecret, func(st fs.FileInfo) error {
		if has, _ := fileOwner(st); has == os.Geteuid() { // who only checks a configuration may own it
			return keyFileRule(file, st, has, false)
		}
		return keyFileRule(file, st, reader, owner != 0)
	})
}

// noKeyError means that a file has something else in place of a private key.
type noKeyError struct {
	file string
	kind certs.FileKind
}

func (e *noKeyError) Error() string {
	return fmt.Sprintf("%q holds no private key in PEM: %s", e.file, cmp.Or(noKey[e.kind], "write one in PEM"))
}

// noKey says what to do with a file that holds no private key in PEM, by what it holds.
var noKey = map[certs.FileKind]string{
	certs.FileEmpty:          "it is empty",
	certs.FileCertificate:    "it holds a certificate alone: name the file of its key",
	certs.FileCertificateDER: "it holds a certificate: name the file of its key",
	certs.FileKeyDER:         "convert it with openssl pkey -inform DER",
	certs.FilePublicKey:      "it holds the public key, and the private one is needed",
	certs.FileRequest:        "it holds a certificate request: name the file of the key that it was made with",
	certs.FileList:           "it holds a revocation list",
	certs.FilePKCS7:          "a PKCS #7 file has no keys: name the file of the key",
	certs.FilePKCS7DER:       "a PKCS #7 file has no keys: name the file of the key",
	certs.FilePKCS12:         "convert it with openssl pkcs12 -nocerts",
}

// parseKey parses a block, and decrypts it before if it is encrypted.
func parseKey(file string, block *pem.Block, secrets passphrases) (crypto.Signer, error) {
	var secret []byte
	if privkey.Encrypted(block) {
		var err error
		if secret, err = secrets.get(file); err != nil {
			return nil, err
		}
		defer clear(secret)
	}
	key, err := privkey.Parse(block, secret)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return key, nil
}
