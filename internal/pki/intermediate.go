package pki

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
)

// caExtensions is how many extensions caTemplate leads to: key usage, basic constraints and
// two key identifiers.
const caExtensions = 4

// HasIntermediate reports whether an intermediate signs, and not the root itself.
func (c *CA) HasIntermediate() bool { return c.root != nil }

// RenewIntermediate has the root issue the certificate of the intermediate again, for the
// same name and key. What it has issued stays valid, and its list goes on. The copies of
// TrustFile must be replaced before the old certificate ends. It needs the root's key.
func (c *CA) RenewIntermediate() (*Issued, error) {
	from := c.now().UTC().Truncate(time.Second).Add(-backdate)
	asked := from.AddDate(intermediateYears, 0, 0)
	until := asked
	if c.root != nil && until.After(c.root.cert.NotAfter) {
		until = c.root.cert.NotAfter
	}
	if err := c.checkRenewal(from, until); err != nil {
		return nil, err
	}
	serial, err := c.root.newSerial()
	if err != nil {
		return nil, err
	}
	template := caTemplate("", serial, c.ca.cert.SubjectKeyId, from, until, 0)
	template.RawSubject = c.ca.cert.RawSubject
	text, err := c.root.sign(template, c.ca.cert.PublicKey)
	if err != nil {
		return nil, err
	}
	cert, _, err := firstCertificate(text)
	if err != nil {
		return nil, err
	}
	// The root may have issued a certificate that is never used, if this is interrupted. The
	// next command completes root.crt.
	number := serialText(serial)
	if err := write(c.root.files.certOf(number), text); err != nil {
		return nil, fmt.Errorf("nothing was renewed: %w", err)
	}
	c.root.index.add(until, number, oneLine(cert.Subject.CommonName))
	if err := c.root.saveIndex(); err != nil {
		_ = os.Remove(c.root.files.certOf(number))
		return nil, fmt.Errorf("nothing was renewed: %w", err)
	}
	if err := writeKeepingOld(c.ca.files.cert, text); err != nil {
		return nil, fmt.Errorf("nothing was renewed: %w", err)
	}
	c.ca.cert, c.ca.certPEM = cert, text
	return &Issued{Serial: number, CertFile: c.ca.files.cert, Expires: until, Shortened: until.Before(asked)}, c.writeBundles()
}

// checkRenewal refuses what a new certificate would not help, and an intermediate of another
// program: its certificate may have extensions that it needs, and those that it has issued
// may name its serial number.
func (c *CA) checkRenewal(from, until time.Time) error {
	if c.root == nil {
		return fmt.Errorf("%s has no intermediate: when it ends, make a new CA", c.ca.files.cert)
	}
	id, err := keyID(c.ca.cert.PublicKey)
	if err != nil {
		return err
	}
	if !bytes.Equal(id, c.ca.cert.SubjectKeyId) || len(c.ca.cert.Extensions) != caExtensions {
		return fmt.Errorf("%s is not of pgwicket ca: have its root issue it again with the program that has made it, for the same name and key", c.ca.files.cert)
	}
	row := c.root.index.find(serialText(c.ca.cert.SerialNumber))
	switch {
	case row != nil && row[fieldStatus] == "R":
		return fmt.Errorf("%s was revoked, and is not renewed: make a new CA", c.ca.files.cert)
	case !c.ca.hasKey():
		return fmt.Errorf("the key of the intermediate is not in %s, and its certificate is renewed for the same key: if it is lost, make a new CA", c.ca.files.key)
	case !c.root.hasKey():
		return fmt.Errorf("the key of the root is not in %s: put it there for this command", c.root.files.key)
	case from.Before(c.root.cert.NotBefore):
		return fmt.Errorf("%s is valid from %s, and this machine's clock has %s", c.root.files.cert,
			c.root.cert.NotBefore.UTC().Format(time.RFC3339), c.now().UTC().Format(time.RFC3339))
	case until.After(c.ca.cert.NotAfter) && until.After(c.now()):
		return nil
	case until.Before(c.root.cert.NotAfter):
		return fmt.Errorf("%s is valid until %s already", c.ca.files.cert, c.ca.cert.NotAfter.Format(time.DateOnly))
	default:
		return fmt.Errorf("the root ends on %s, so no certificate of the intermediate can be valid for longer: make a new CA", c.root.cert.NotAfter.Format(time.DateOnly))
	}
}

// intermediate is its name in Authorities.
const intermediate = "(intermediate)"

// Authorities returns the certificates of the CA itself.
func (c *CA) Authorities() []Entry {
	if c.root == nil {
		return []Entry{c.describeCA(c.ca, "(root)")}
	}
	return []Entry{c.describeCA(c.root, "(root)"), c.describeCA(c.ca, intermediate)}
}

func (c *CA) describeCA(a *authority, name string) Entry {
	e := Entry{Serial: serialText(a.cert.SerialNumber), Name: name, Subject: oneLine(a.cert.Subject.CommonName), Status: StatusValid, Expires: a.cert.NotAfter}
	if !c.now().Before(e.Expires) {
		e.Status = StatusExpired
	}
	return e
}

// ErrEnds says that a certificate of the CA ends soon.
var ErrEnds = errors.New("ends soon")

// CheckEnds returns an ErrEnds if less than 30 days are left of a certificate of the CA.
func (c *CA) CheckEnds() error {
	for _, e := range c.Authorities() {
		if e.Expires.After(c.now().Add(30 * day)) {
			continue
		}
		remedy := "make a new CA"
		if e.Name == intermediate {
			remedy = `run "pgwicket ca renew --intermediate"`
		}
		return fmt.Errorf("the certificate %s %w, on %s: %s", e.Subject, ErrEnds, e.Expires.Format(time.DateOnly), remedy)
	}
	return nil
}
