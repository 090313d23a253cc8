package pki

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/statefile"
)

// Options say which CA to open.
type Options struct {
	Dir     string
	Secrets Secrets
	Now     func() time.Time // nil: time.Now
}

// CA is an open directory, which no other process of pgwicket can open at the same time.
// It is for one goroutine. Close it.
type CA struct {
	dir    string
	ca     *authority
	root   *authority // nil: ca is the root
	names  map[string]string
	now    func() time.Time
	unlock func()

	// Recovered says what an interrupted command had left, one sentence each.
	Recovered []string
}

// backdate is how far certificates and lists reach into the past, for clocks that differ.
const backdate = time.Hour

// lockWait is how long a command waits for another one, which may wait for a passphrase.
const lockWait = 2 * time.Second

// Open opens a CA, and finishes or undoes what an interrupted command has left.
func Open(o Options) (*CA, error) {
	if _, err := os.Stat(layoutOf(o.Dir).cert); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no CA in %s: make one with \"pgwicket ca init\", or name its directory with --dir", o.Dir)
	}
	if err := checkPrivate(o.Dir, filepath.Join(o.Dir, "private"), filepath.Join(o.Dir, "root"), filepath.Join(o.Dir, "root", "private")); err != nil {
		return nil, err
	}
	c := &CA{dir: o.Dir, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	var err error
	if c.unlock, err = lock(o.Dir); err != nil {
		return nil, err
	}
	if err := c.load(o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *CA) load(o Options) (err error) {
	if c.ca, err = openAuthority(o.Dir, o.Secrets); err != nil {
		return err
	}
	if !c.ca.selfSigned() {
		if c.root, err = openAuthority(filepath.Join(o.Dir, "root"), o.Secrets); err != nil {
			return fmt.Errorf("%s is an intermediate, and its root cannot be read: %w", c.ca.files.cert, err)
		}
	}
	if c.names, err = readNames(o.Dir); err != nil {
		return err
	}
	return c.recover()
}

func lock(dir string) (unlock func(), err error) {
	unlock, err = statefile.Lock(filepath.Join(dir, ".lock"), lockWait)
	if errors.Is(err, statefile.ErrHeld) {
		return nil, fmt.Errorf("another pgwicket ca works in %s: wait until it has ended", dir)
	}
	return unlock, err
}

// Close gives the directory back.
func (c *CA) Close() { c.unlock() }

// chain is what a server or client sends behind its certificate.
func (c *CA) chain() []byte {
	if c.root == nil {
		return nil
	}
	return c.ca.certPEM
}

// trust is the file for ca_file and sslrootcert.
func (c *CA) trust() []byte {
	if c.root == nil {
		return c.ca.certPEM
	}
	return slices.Concat(c.root.certPEM, c.ca.certPEM)
}

// TrustFile is the file with the certificates of the CA, for ca_file and sslrootcert.
func (c *CA) TrustFile() string { return filepath.Join(c.dir, "root.crt") }

// ListFile is the file with its lists, for crl_file.
func (c *CA) ListFile() string { return filepath.Join(c.dir, "root.crl") }

// CertFile and KeyFile are what was issued last under a name.
func (c *CA) CertFile(name string) string { return filepath.Join(c.dir, "issued", fileOf(name)+".crt") }

// KeyFile is the key of CertFile.
func (c *CA) KeyFile(name string) string { return filepath.Join(c.dir, "private", fileOf(name)+".key") }

// Unlisted returns how many certificates are revoked in index.txt and not in the list.
func (c *CA) Unlisted() (n int) {
	list := c.ca.parsedList()
	for _, row := range c.ca.index.rows {
		if row[fieldStatus] == "R" && (list == nil || !listed(list, row[fieldSerial])) {
			n++
		}
	}
	return n
}

// writeBundles writes root.crt and root.crl, and the copies that publish names, if they
// are not as they should be.
func (c *CA) writeBundles() error {
	lists, err := c.ca.listPEM()
	if err != nil {
		return err
	}
	if c.root != nil {
		of, err := c.root.listPEM()
		if err != nil {
			return err
		}
		lists = append(lists, of...)
	}
	if err := writeIfOther(c.TrustFile(), c.trust(), privateFile); err != nil || len(lists) == 0 {
		return err
	}
	if err := writeIfOther(c.ListFile(), lists, privateFile); err != nil {
		return err
	}
	published, err := c.Published()
	if err != nil {
		return err
	}
	for _, path := range published {
		if err := checkPublished(path); err != nil {
			return err
		}
		mode := os.FileMode(0o644) // a list is public, and the gate has another account
		if st, err := os.Stat(path); err == nil {
			mode = st.Mode().Perm()
		}
		if err := writeIfOther(path, lists, mode); err != nil {
			return fmt.Errorf("the list is in %s, and could not be copied: %w", c.ListFile(), err)
		}
	}
	return nil
}

func writeIfOther(path string, data []byte, mode os.FileMode) error {
	if old, err := readFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return statefile.Replace(path, data, mode, nil)
}

// checkPublished refuses to replace a file that is not one of lists.
func checkPublished(path string) error {
	data, err := readIfThere(path)
	if err != nil || len(data) == 0 {
		return err
	}
	if _, _, err := crl.Split(data); err != nil {
		return fmt.Errorf("%s holds no list, and is not replaced: remove it, or remove the line from the file publish of the CA", path)
	}
	return nil
}

// Published returns the further files that hold the lists.
func (c *CA) Published() (paths []string, err error) {
	text, err := readIfThere(filepath.Join(c.dir, "publish"))
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !filepath.IsAbs(line) {
			return nil, fmt.Errorf("%s: %q is not an absolute path", filepath.Join(c.dir, "publish"), line)
		}
		paths = append(paths, line)
	}
	return paths, err
}

// Publish has every list copied to a file from now on, and the present one at once.
func (c *CA) Publish(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	paths, err := c.Published()
	if err != nil {
		return err
	}
	if err := checkPublished(path); err != nil {
		return err
	}
	if !slices.Contains(paths, path) {
		text := strings.Join(append(paths, path), "\n") + "\n"
		if err := write(filepath.Join(c.dir, "publish"), []byte(text)); err != nil {
			return err
		}
	}
	return c.writeBundles()
}

// errBadList says that crl.pem is not what a CA has signed.
var errBadList = errors.New("it is no list that this CA has signed")

// listPEM returns the list in crl.pem; nil if there is none. Nothing else gets into the
// copies, which may be files of root.
func (a *authority) listPEM() ([]byte, error) {
	data, err := readIfThere(a.files.list())
	if data == nil || err != nil {
		return nil, err
	}
	lists, _, err := crl.Split(data)
	if err != nil || len(lists) != 1 {
		return nil, inFile(a.files.list(), errBadList)
	}
	ca, err := certs.Parse(a.cert.Raw)
	if err != nil {
		return nil, inFile(a.files.cert, err)
	}
	if list, err := crl.Parse(lists[0]); err != nil || !list.SignedBy(ca) {
		return nil, inFile(a.files.list(), errBadList)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: lists[0]}), nil
}

// parsedList reads crl.pem as the gate does, version 1 too; nil if it cannot be read.
func (a *authority) parsedList() *crl.List {
	data, err := readFile(a.files.list())
	if err != nil {
		return nil
	}
	lists, _, err := crl.Split(data)
	if err != nil || len(lists) != 1 {
		return nil
	}
	list, err := crl.Parse(lists[0])
	if err != nil {
		return nil
	}
	return list
}
