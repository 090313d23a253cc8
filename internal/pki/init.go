package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pgwicket/internal/statefile"
)

// InitOptions describe a new CA.
type InitOptions struct {
	Options
	Name        string // the common names are this, and " root" or " intermediate"
	KeyType     string // ECDSA or RSA
	OfflineRoot bool   // the root's key has another passphrase
}

// How long things last. The root's list names at most an intermediate, so it lasts long.
const (
	rootYears         = 10
	intermediateYears = 5
	day               = 24 * time.Hour
	rootListDays      = 365
	// DefaultListDays is how long a list of the intermediate lasts.
	DefaultListDays = 7
)

// Init makes a CA in a directory that does not exist or is empty: all of it or nothing.
func Init(o InitOptions) (err error) {
	if err := checkCommonName(o.Name+" intermediate", maxCommonName); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty, and nothing in it is changed: name another directory, or see \"pgwicket ca adopt\"", o.Dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, privateDir); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, ".pgwicket-ca-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	if err := fill(dir, o); err != nil {
		return err
	}
	if err := os.Remove(o.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // which fails if it is not empty any more
		return err
	}
	if err := os.Rename(dir, o.Dir); err != nil {
		return err
	}
	return statefile.SyncDirectory(parent)
}

// fill makes the CA in a temporary directory.
func fill(dir string, o InitOptions) error {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	from := now().UTC().Truncate(time.Second).Add(-backdate)
	rootSecret, err := o.Secrets.passphrase(filepath.Join(o.Dir, "root", "private", "ca.key"), true)
	if err != nil {
		return err
	}
	defer clear(rootSecret)
	secret := rootSecret
	if o.OfflineRoot {
		if secret, err = o.Secrets.passphrase(filepath.Join(o.Dir, "private", "ca.key"), true); err != nil {
			return err
		}
		defer clear(secret)
	}
	root, err := newAuthority(filepath.Join(dir, "root"), o, rootSecret)
	if err != nil {
		return err
	}
	if err := root.certify(root, o.Name+" root", from, from.AddDate(rootYears, 0, 0), 1); err != nil {
		return err
	}
	ca, err := newAuthority(dir, o, secret)
	if err != nil {
		return err
	}
	if err := ca.certify(root, o.Name+" intermediate", from, from.AddDate(intermediateYears, 0, 0), 0); err != nil {
		return err
	}
	if err := root.writeList(from, from.Add(rootListDays*day)); err != nil {
		return err
	}
	if err := ca.writeList(from, from.Add(DefaultListDays*day)); err != nil {
		return err
	}
	c := &CA{dir: dir, ca: ca, root: root, now: now}
	return c.writeBundles()
}

// newAuthority makes the files of a CA, but for its certificate.
func newAuthority(dir string, o InitOptions, secret []byte) (*authority, error) {
	a := &authority{files: layoutOf(dir), index: &index{}}
	for _, path := range []string{dir, filepath.Join(dir, "private"), a.files.certsDir, filepath.Join(dir, "issued")} {
		if err := os.MkdirAll(path, privateDir); err != nil {
			return nil, err
		}
	}
	key, err := newKey(o.KeyType)
	if err != nil {
		return nil, err
	}
	a.signer = key
	text, err := encodeKey(key, secret)
	if err != nil {
		return nil, err
	}
	next, err := randomSerial()
	if err != nil {
		return nil, err
	}
	for path, data := range map[string]string{
		a.files.key: string(text), a.files.index(): "", a.files.attributes(): "unique_subject = no\n", a.files.serial(): serialText(next) + "\n",
		a.files.number(): "01\n", filepath.Join(dir, "openssl.cnf"): opensslConfig,
	} {
		if err := write(path, []byte(data)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// certify gives an authority its certificate, by another one or itself, and enters it in
// the index of its issuer.
func (a *authority) certify(by *authority, name string, from, until time.Time, pathLen int) (err error) {
	id, err := keyID(a.signer.Public())
	if err != nil {
		return err
	}
	serial, err := by.newSerial()
	if err != nil {
		return err
	}
	template := caTemplate(name, serial, id, from, until, pathLen)
	if by == a {
		a.certPEM, err = selfSign(template, a.signer)
	} else {
		a.certPEM, err = by.sign(template, a.signer.Public())
	}
	if err != nil {
		return err
	}
	if a.cert, _, err = firstCertificate(a.certPEM); err != nil {
		return err
	}
	by.index.add(until, serialText(serial), oneLine(name))
	for path, data := range map[string][]byte{
		a.files.cert: a.certPEM, by.files.certOf(serialText(serial)): a.certPEM, by.files.index(): []byte(by.index.String()),
	} {
		if err := write(path, data); err != nil {
			return err
		}
	}
	return nil
}

func selfSign(template *x509.Certificate, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// opensslConfig is for openssl, which does in this directory what pgwicket does.
const opensslConfig = `# For "openssl ca -config openssl.cnf", run in this directory.
[ca]
default_ca = this
[this]
dir = .
certificate = $dir/ca.crt
private_key = $dir/private/ca.key
database = $dir/index.txt
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir/newcerts
default_md = sha256
default_days = 365
default_crl_days = 7
unique_subject = no
policy = names
x509_extensions = client
crl_extensions = list
[names]
commonName = supplied
[list]
authorityKeyIdentifier = keyid:always
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
`
