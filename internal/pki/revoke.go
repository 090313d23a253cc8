package pki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgwicket/internal/crl"
)

// Entry is a certificate in index.txt.
type Entry struct {
	Serial  string     `json:"serial"`
	Name    string     `json:"name"`
	Subject string     `json:"subject"`
	Status  string     `json:"status"` // StatusValid, StatusRevoked or StatusExpired
	Expires time.Time  `json:"expires"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Reason  string     `json:"reason,omitempty"`
}

// List returns every certificate in the order of index.txt.
func (c *CA) List() (all []Entry) {
	for _, row := range c.ca.index.rows {
		all = append(all, c.describe(row))
	}
	return all
}

func (c *CA) describe(row []string) Entry {
	expires, _ := parseTime(row[fieldExpires])
	e := Entry{Serial: row[fieldSerial], Name: c.nameOf(row), Subject: row[fieldSubject], Status: statuses[row[fieldStatus]], Expires: expires}
	if e.Status == StatusValid && !c.now().Before(expires) {
		e.Status = StatusExpired // openssl enters that with -updatedb only
	}
	if r, err := parseRevocation(row[fieldRevoked]); err == nil {
		e.Revoked, e.Reason = &r.at, r.reason
	}
	return e
}

// Find returns the certificates of a name, or the one of a serial number.
func (c *CA) Find(text string) (all []Entry) {
	for _, row := range c.find(text) {
		all = append(all, c.describe(row))
	}
	return all
}

// rowsFor is find for what changes something: a text that is the name of some certificates and the serial number of
// another one is an error.
func (c *CA) rowsFor(text string) ([][]string, error) {
	rows := c.find(text)
	if len(rows) == 0 {
		return nil, fmt.Errorf("no certificate has the name or the serial number %q: \"pgwicket ca list\" shows them", text)
	}
	if other := c.ca.index.find(normalSerial(text)); other != nil && !slices.ContainsFunc(rows, func(row []string) bool { return row[fieldSerial] == other[fieldSerial] }) {
		return nil, fmt.Errorf("%q is the name of the certificate %s and the serial number of %s (%q): give %[2]s, or that name",
			text, rows[len(rows)-1][fieldSerial], other[fieldSerial], c.nameOf(other))
	}
	return rows, nil
}

func (c *CA) find(text string) [][]string {
	if rows := c.rowsOf(text); len(rows) > 0 {
		return rows
	}
	if row := c.ca.index.find(normalSerial(text)); row != nil {
		return [][]string{row}
	}
	return nil
}

// Revoke revokes every certificate of a name that is not expired, or the one of a serial
// number, and makes a new list of as many days (see WriteLists). Certificates that are revoked already stay
// as they are; the list is made if it lacks one of them.
func (c *CA) Revoke(text, reason string, days int) (revoked []Entry, err error) {
	if reason != "" && !slices.Contains(Reasons(), reason) {
		return nil, fmt.Errorf("the reason %q is unknown", reason)
	}
	rows, err := c.rowsFor(text)
	if err != nil {
		return nil, err
	}
	if _, err := c.ca.key(); err != nil { // before index.txt is changed
		return nil, err
	}
	at := c.now().UTC().Truncate(time.Second)
	for _, row := range rows {
		if c.describe(row).Status == StatusValid {
			revoke(row, at, reason)
			revoked = append(revoked, c.describe(row))
		}
	}
	if len(revoked) == 0 && c.Unlisted() == 0 {
		return nil, fmt.Errorf("%s has no valid certificate: %s", text, c.describe(rows[len(rows)-1]).state())
	}
	if len(revoked) > 0 {
		if err := c.ca.saveIndex(); err != nil {
			return nil, fmt.Errorf("nothing was revoked: %w", err)
		}
	}
	if err := c.WriteLists(days); err != nil {
		return revoked, fmt.Errorf("it is revoked in index.txt, and no list says it yet: run \"pgwicket ca crl\" when this is solved: %w", err)
	}
	return revoked, nil
}

// state says what a certificate is that is not valid.
func (e Entry) state() string {
	if e.Revoked != nil {
		return fmt.Sprintf("%s was revoked on %s", e.Serial, e.Revoked.Format(time.DateOnly))
	}
	return fmt.Sprintf("%s is expired since %s", e.Serial, e.Expires.Format(time.DateOnly))
}

const maxListDays = 3650

// WriteLists makes a new list that lasts as many days; 0 is as many as the last one. The
// root's list is made with it when half of its time is over and its key is there.
func (c *CA) WriteLists(days int) error {
	if days == 0 {
		days = c.listDays()
	}
	if days < 1 || days > maxListDays {
		return fmt.Errorf("--days: a list lasts 1 to %d days", maxListDays)
	}
	now := c.now().UTC().Truncate(time.Second)
	from := now.Add(-backdate)
	if err := c.ca.writeList(from, from.Add(time.Duration(days)*day)); err != nil {
		return err
	}
	if c.root != nil && c.root.hasKey() && c.rootListEnds().Before(now.Add(rootListDays*day/2)) {
		if err := c.root.writeList(from, from.Add(rootListDays*day)); err != nil {
			return fmt.Errorf("the list of the root: %w", err)
		}
	}
	return c.writeBundles()
}

// listDays is how long the last list was made for.
func (c *CA) listDays() int {
	if list := c.ca.readList(); list != nil && list.NextUpdate.After(list.ThisUpdate) {
		return min(maxListDays, max(1, int(list.NextUpdate.Sub(list.ThisUpdate)/day)))
	}
	return DefaultListDays
}

// ErrRootList says that the root's list ends soon, and that its key is needed.
var ErrRootList = errors.New("the list of the root ends soon: put its key back and run \"pgwicket ca crl\"")

// CheckRootList returns an ErrRootList if the root's key is elsewhere and less than 30
// days of its list are left.
func (c *CA) CheckRootList() error {
	if c.root == nil || c.root.hasKey() || c.rootListEnds().After(c.now().Add(30*day)) {
		return nil
	}
	return fmt.Errorf("%w (key %s, end %s)", ErrRootList, c.root.files.key, c.rootListEnds().Format(time.DateOnly))
}

// rootListEnds is the zero time if there is no list.
func (c *CA) rootListEnds() (end time.Time) {
	if list := c.root.readList(); list != nil {
		end = list.NextUpdate
	}
	return end
}

// ListAge returns how old the list is. ok is false if there is none, or if it lacks what
// index.txt has revoked.
func (c *CA) ListAge() (age time.Duration, ok bool) {
	list := c.ca.readList()
	if list == nil || c.Unlisted() > 0 {
		return 0, false
	}
	return c.now().Sub(list.ThisUpdate.Add(backdate)), true
}

// ListEnds returns when the list ends; the zero time if there is none.
func (c *CA) ListEnds() (end time.Time) {
	if list := c.ca.readList(); list != nil {
		end = list.NextUpdate
	}
	return end
}

// listed reports whether a list names a serial number of index.txt.
func listed(list *crl.List, serial string) bool {
	content, err := hex.DecodeString(serial)
	if err != nil {
		return false
	}
	for len(content) > 1 && content[0] == 0 {
		content = content[1:]
	}
	if content[0] >= 0x80 {
		content = append([]byte{0}, content...)
	}
	_, ok := list.Find(content)
	return ok
}
