package crl

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgwicket/internal/certs"
)

// Why lists must not replace a file; see Replacement.
var (
	ErrNoList  = errors.New("it is no revocation list that can be used")
	ErrForeign = errors.New("it is not signed by a CA of that name in ca_file")
	ErrOlder   = errors.New("it is older than the list in use")
	ErrNotNow  = errors.New("it is out of date or not yet in force")
)

// Replacement judges the content of a file of lists that comes from elsewhere and shall
// replace another one, old, which may be nil or damaged. Each list must be complete, in
// force at that time, and signed by one of the CAs. None may be older than the old list
// that it replaces, and none of the old lists that are still in force may be missing. It
// returns the earliest next update; the zero time if no list has one.
func Replacement(data, old []byte, cas []*certs.Certificate, at time.Time) (next time.Time, err error) {
	lists, err := parseAll(data)
	if err != nil {
		return next, fmt.Errorf("%w: %w", ErrNoList, err)
	}
	for _, l := range lists {
		signer := slices.IndexFunc(cas, func(c *certs.Certificate) bool {
			return c.MaySignLists() && c.Subject.Equal(l.issuer) && l.SignedBy(c)
		})
		if signer < 0 {
			return next, fmt.Errorf("%w: %s", ErrForeign, nameText(l.issuer))
		}
		l.signer = cas[signer]
		if !l.InDate(at, 0) {
			return next, fmt.Errorf("%w: from %s to %s", ErrNotNow, timeText(l.thisUpdate), timeText(l.nextUpdate))
		}
		if !l.nextUpdate.IsZero() && (next.IsZero() || l.nextUpdate.Before(next)) {
			next = l.nextUpdate
		}
	}
	inUse, err := parseAll(old)
	if err != nil {
		return next, nil //nolint:nilerr // anything is better than a file without a list
	}
	for _, was := range inUse {
		i := slices.IndexFunc(lists, func(l *List) bool { return l.replaces(was) })
		switch {
		case i >= 0 && lists[i].compare(was) < 0:
			return next, fmt.Errorf("%w: %s, and %s is in use", ErrOlder, lists[i].age(was), was.age(lists[i]))
		case i < 0 && was.InDate(at, 0) && slices.ContainsFunc(cas, was.SignedBy):
			return next, fmt.Errorf("%w: the list of %s is missing", ErrOlder, nameText(was.issuer))
		}
	}
	return next, nil
}

// parseAll parses every list of a file, one that is there again once: a server can send a list as
// often as it likes.
func parseAll(data []byte) (lists []*List, err error) {
	all, _, err := Split(data)
	if err != nil {
		return nil, err
	}
	seen := make(map[[sha256.Size]byte]bool)
	for _, der := range all {
		sum := sha256.Sum256(der)
		if seen[sum] {
			continue
		}
		seen[sum] = true
		l, err := Parse(der)
		if err != nil {
			return nil, err
		}
		lists = append(lists, l)
	}
	return lists, nil
}
