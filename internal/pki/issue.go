package pki

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/statefile"
)

// Kind is what a certificate is for.
type Kind string

// The kinds of certificates.
const (
	Server Kind = "server"
	Client Kind = "client"
)

// Request is a certificate to be issued. ServerRequest, ClientRequest and SigningRequest
// make one.
type Request struct {
	Kind       Kind
	Name       string // of its files
	CommonName string
	DNS        []string
	IPs        []netip.Addr
	Emails     []string
	URIs       []*url.URL

	KeyType string           // of the new key; see InitOptions
	Public  crypto.PublicKey // of a key that is elsewhere; nil: a new key is made
	Days    int              // 0: DefaultDays
	Again   bool             // also if a certificate of this name is valid

	rawSubject []byte // of a certificate that is renewed; nil: the common name alone
	subject    string // the same in index.txt
}

// Names returns the names and addresses of the certificate.
func (r *Request) Names() (names []string) {
	for _, ip := range r.IPs {
		names = append(names, ip.String())
	}
	names = append(r.DNS[:len(r.DNS):len(r.DNS)], names...)
	if !slices.Contains(names, r.CommonName) {
		names = slices.Insert(names, 0, r.CommonName)
	}
	return names
}

const (
	// DefaultDays is less than the 398 days that browsers and some clients accept.
	DefaultDays = 397
	// maxServerDays is the most that Apple's clients accept, of a private CA too
	// (support.apple.com/en-us/103769).
	maxServerDays = 825
	maxDays       = 3650
)

// Issued is a certificate that was issued.
type Issued struct {
	Name, Serial      string
	CertFile, KeyFile string // KeyFile is empty if the key is elsewhere
	Expires           time.Time
	Shortened         bool // it ends with its CA, before the days that were asked for
}

// IssuedError says that a certificate of the name is valid already.
type IssuedError struct {
	Name, Serial string
	Expires      time.Time
}

func (e *IssuedError) Error() string {
	return fmt.Sprintf("%s has a valid certificate already, %s until %s: give --again to issue another beside it, or see \"pgwicket ca renew\"",
		e.Name, e.Serial, e.Expires.UTC().Format(time.DateOnly))
}

// Issue issues a certificate. It is entered in index.txt before anybody can use it.
func (c *CA) Issue(r Request) (*Issued, error) {
	if err := checkFileName(r.Name); err != nil {
		return nil, err
	}
	limit := maxDays
	if r.Kind == Server {
		limit = maxServerDays
	}
	if r.Days == 0 {
		r.Days = DefaultDays
	}
	if r.Days < 1 || r.Days > limit {
		return nil, fmt.Errorf("--days: a certificate for a %s lasts 1 to %d days, because some programs refuse longer ones", r.Kind, limit)
	}
	for _, row := range c.rowsOf(r.Name) {
		if e := c.describe(row); !r.Again && e.Status == StatusValid {
			return nil, &IssuedError{r.Name, e.Serial, e.Expires}
		}
	}
	if err := c.checkNameIsFree(r.Name); err != nil {
		return nil, err
	}
	p := pending{name: r.Name}
	public := r.Public
	if public != nil {
		if err := c.checkKeyIsFree(public); err != nil {
			return nil, err
		}
	} else {
		key, err := newKey(r.KeyType)
		if err != nil {
			return nil, err
		}
		if p.key, err = encodeKey(key, nil); err != nil {
			return nil, err
		}
		public = key.Public()
	}
	template, err := c.template(r, public)
	if err != nil {
		return nil, err
	}
	asked := template.NotBefore.Add(time.Duration(r.Days) * day)
	if p.cert, err = c.ca.sign(template, public); err != nil {
		return nil, err
	}
	p.serial = serialText(template.SerialNumber)
	if err := c.commit(p, template.NotAfter, cmp.Or(r.subject, oneLine(r.CommonName))); err != nil {
		return nil, err
	}
	issued := &Issued{r.Name, p.serial, c.CertFile(r.Name), c.KeyFile(r.Name), template.NotAfter, template.NotAfter.Before(asked)}
	if p.key == nil {
		issued.KeyFile = ""
	}
	return issued, nil
}

// checkNameIsFree refuses a name that is taken for another one: its files are those of
// another name, or it is a serial number, which revoke would take for this name.
func (c *CA) checkNameIsFree(name string) error {
	for _, row := range c.ca.index.rows {
		if other := c.nameOf(row); other != name && fileOf(other) == fileOf(name) {
			return fmt.Errorf("%s would have the files of %s, %s: choose another name", name, other, c.CertFile(other))
		}
	}
	if row := c.ca.index.find(normalSerial(name)); row != nil && c.nameOf(row) != name {
		return fmt.Errorf("%s is the serial number of a certificate: choose another name, and give the role with --user", name)
	}
	return nil
}

// checkKeyIsFree refuses a key from another machine that is the CA's, or that somebody else
// has: one of a certificate that was revoked for that reason.
func (c *CA) checkKeyIsFree(public crypto.PublicKey) error {
	if samePublicKey(public, c.ca.cert.PublicKey) || c.root != nil && samePublicKey(public, c.root.cert.PublicKey) {
		return errors.New("its key is that of the CA: make another one")
	}
	for _, row := range c.ca.index.rows {
		if r, err := parseRevocation(row[fieldRevoked]); err != nil || row[fieldStatus] != "R" || r.code != reasons["keyCompromise"] {
			continue
		}
		e := c.describe(row)
		if cert, err := c.certificate(e); err == nil && samePublicKey(public, cert.PublicKey) {
			return fmt.Errorf("its key is that of %s, which was revoked with %s: make another one", e.Serial, e.Reason)
		}
	}
	return nil
}

// template is the certificate without its signature. It ends with its CA at the latest.
func (c *CA) template(r Request, public crypto.PublicKey) (*x509.Certificate, error) {
	now := c.now().UTC().Truncate(time.Second)
	if !now.Before(c.ca.cert.NotAfter) || now.Before(c.ca.cert.NotBefore) {
		remedy := ""
		if c.root != nil && !now.Before(c.ca.cert.NotAfter) {
			remedy = `; "pgwicket ca renew --intermediate" renews it`
		}
		return nil, fmt.Errorf("%s is valid from %s to %s, and this machine's clock has %s%s", c.ca.files.cert,
			c.ca.cert.NotBefore.UTC().Format(time.RFC3339), c.ca.cert.NotAfter.UTC().Format(time.RFC3339), now.Format(time.RFC3339), remedy)
	}
	from := now.Add(-backdate)
	until := from.Add(time.Duration(r.Days) * day)
	if until.After(c.ca.cert.NotAfter) {
		until = c.ca.cert.NotAfter
	}
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	serial, err := c.ca.newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.CommonName}, RawSubject: r.rawSubject, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, SubjectKeyId: id, DNSNames: r.DNS, EmailAddresses: r.Emails, URIs: r.URIs,
	}
	for _, ip := range r.IPs {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	if r.Kind == Server {
		t.ExtKeyUsage[0] = x509.ExtKeyUsageServerAuth
		if _, ok := public.(*rsa.PublicKey); ok {
			t.KeyUsage |= x509.KeyUsageKeyEncipherment // for RSA key exchange in TLS 1.2
		}
	}
	return t, nil
}

// pending is a certificate that is being issued, in a directory of its serial number.
type pending struct {
	serial, name string
	key, cert    []byte
}

func (c *CA) pendingDir(serial string) string { return filepath.Join(c.dir, "pending", serial) }

// commit puts the files aside, enters the certificate in index.txt, and moves the files to
// their places.
func (c *CA) commit(p pending, expires time.Time, subject string) error {
	dir := c.pendingDir(p.serial)
	if err := c.setAside(p, dir); err != nil {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("nothing was issued: %w", err)
	}
	rows := slices.Clone(c.ca.index.rows)
	c.ca.index.add(expires, p.serial, subject)
	if err := c.ca.saveIndex(); err != nil {
		if again := c.ca.readIndex(); again != nil || c.ca.index.find(p.serial) != nil {
			return fmt.Errorf("%w: \"pgwicket ca list\" shows whether it was issued", err)
		}
		c.ca.index.rows = rows
		_ = os.RemoveAll(dir)
		return fmt.Errorf("nothing was issued: %w", err)
	}
	if err := c.finish(p.serial); err != nil {
		return fmt.Errorf("the certificate %s is issued, and its files are in %s until the next command of pgwicket ca has moved them: %w", p.serial, dir, err)
	}
	return nil
}

func (c *CA) setAside(p pending, dir string) error {
	for _, d := range []string{dir, filepath.Join(c.dir, "issued"), filepath.Join(c.dir, "private")} {
		if err := os.MkdirAll(d, privateDir); err != nil {
			return err
		}
	}
	if p.key != nil {
		if err := write(filepath.Join(dir, "key"), p.key); err != nil {
			return err
		}
	}
	if err := write(filepath.Join(dir, "name"), []byte(p.name)); err != nil {
		return err
	}
	return write(filepath.Join(dir, "crt"), p.cert)
}

// finish moves the files of a certificate in index.txt to their places. It may be called
// again after an error or a crash at any step.
func (c *CA) finish(serial string) error {
	dir := c.pendingDir(serial)
	cert, err := readFile(filepath.Join(dir, "crt"))
	if err != nil {
		return err
	}
	nameText, err := readFile(filepath.Join(dir, "name"))
	if err != nil {
		return err
	}
	name := string(nameText)
	if err := checkFileName(name); err != nil {
		return err
	}
	if err := write(c.ca.files.certOf(serial), cert); err != nil {
		return err
	}
	if err := c.addName(serial, name); err != nil {
		return err
	}
	key, err := readIfThere(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	if key != nil {
		if err := replaceKeepingOther(c.KeyFile(name), key); err != nil {
			return err
		}
	}
	if err := replaceKeepingOther(c.CertFile(name), slices.Concat(cert, c.chain())); err != nil {
		return err
	}
	return c.removePending(serial)
}

// finished begins the name of a directory of which all files are in their places. It is
// renamed first, for a process may be killed between the removal of two files.
const finished = ".finished-"

func (c *CA) removePending(serial string) error {
	dir := c.pendingDir(finished + serial)
	if err := os.Rename(c.pendingDir(serial), dir); err != nil {
		return err
	}
	if err := statefile.SyncDirectory(filepath.Dir(dir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// replaceKeepingOther is writeKeepingOld that does nothing if it was done before.
func replaceKeepingOther(path string, data []byte) error {
	if old, err := readFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	return writeKeepingOld(path, data)
}

// recover finishes what was issued and removes what was not.
func (c *CA) recover() error {
	c.removeTemporary()
	pending := filepath.Join(c.dir, "pending")
	if st, err := os.Lstat(pending); err == nil && !st.IsDir() {
		return fmt.Errorf("%s is not a directory: what it leads to could be removed", pending)
	}
	entries, err := os.ReadDir(pending)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		serial := e.Name()
		if strings.HasPrefix(serial, finished) {
			if err := os.RemoveAll(c.pendingDir(serial)); err != nil {
				return err
			}
			continue
		}
		name, _ := readFile(filepath.Join(c.pendingDir(serial), "name"))
		if c.ca.index.find(serial) == nil {
			if err := os.RemoveAll(c.pendingDir(serial)); err != nil {
				return err
			}
			c.Recovered = append(c.Recovered, fmt.Sprintf("an interrupted command had not issued the certificate for %q: run it again", name))
			continue
		}
		if err := c.finish(serial); err != nil {
			return fmt.Errorf("an interrupted command has issued the certificate %s for %q, and its files cannot be moved to their places: %w", serial, name, err)
		}
		c.Recovered = append(c.Recovered, fmt.Sprintf("an interrupted command had issued the certificate %s for %q, and it is complete now", serial, name))
	}
	err = c.writeBundles()
	if errors.Is(err, errBadList) { // "pgwicket ca crl" makes another one
		c.Recovered = append(c.Recovered, fmt.Sprintf("%v, so the copies of the list stay as they are: run \"pgwicket ca crl\"", err))
		return nil
	}
	return err
}

// removeTemporary removes what a killed process has left of the files that it was replacing, which may be keys.
func (c *CA) removeTemporary() {
	for _, dir := range []string{"", "private", "issued", "newcerts", "root", "root/private", "root/newcerts"} {
		dir = filepath.Join(c.dir, dir)
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if temporary.MatchString(e.Name()) && e.Type().IsRegular() {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// temporary are the names of statefile.CreateTemporary.
var temporary = regexp.MustCompile(`^\..+-[0-9]+$`)

// rowsOf returns the certificates that were issued under a name. Those that openssl has
// issued have their common name.
func (c *CA) rowsOf(name string) (rows [][]string) {
	for _, row := range c.ca.index.rows {
		if c.nameOf(row) == name {
			rows = append(rows, row)
		}
	}
	return rows
}

func (c *CA) nameOf(row []string) string {
	if name, ok := c.names[row[fieldSerial]]; ok {
		return name
	}
	return commonName(row[fieldSubject])
}

// normalSerial writes a serial number as in index.txt: openssl prints colons, others
// print small letters.
func normalSerial(text string) string {
	text = strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(text), "0x"), ":", ""))
	if len(text)%2 != 0 {
		text = "0" + text
	}
	return text
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
