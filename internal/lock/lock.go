package lock

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"pgwicket/acl"
)

// MaxLocks is how many locks there may be.
const MaxLocks = 10_000

// Lock refuses the clients that its filter matches, and ends their sessions, until its
// time is over.
type Lock struct {
	ID string `json:"id"`
	Filter
	Reason  string     `json:"reason,omitempty"` // for the log; never for the client
	By      string     `json:"by"`               // who has made it, as the kernel says
	Created time.Time  `json:"created"`
	Until   *time.Time `json:"until,omitempty"` // to the second; nil: until it is removed
}

// HoldsAt reports whether the time of the lock is not over.
func (l *Lock) HoldsAt(at time.Time) bool { return l.Until == nil || at.Before(*l.Until) }

// Describe returns the lock in words for the log: its id, what it matches and its reason.
func (l *Lock) Describe() string {
	text := fmt.Sprintf("lock %s on %s", l.ID, l.Filter)
	if l.Reason != "" {
		text += ": " + l.Reason
	}
	return text
}

// Ends returns the end of the lock in words.
func (l *Lock) Ends() string {
	if l.Until == nil {
		return "until it is unlocked"
	}
	return "until " + l.Until.UTC().Format(time.RFC3339)
}

// newID returns an id that is easy to type, and that another gate will hardly give.
func newID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// Set is a set of locks, immutable. A nil Set has none.
type Set struct {
	all   []Lock // in the order of their creation
	index map[key][]int
	// networks are the lengths of the networks in index.
	networks []int
	// others are the locks that only an issuer leads to.
	others []int
}

// key is the condition under which a lock is found: its first one.
type key struct{ condition, value string }

// newSet indexes locks, whose order it keeps.
func newSet(all []Lock) *Set {
	s := &Set{all: all, index: make(map[key][]int)}
	for i := range all {
		l := &all[i]
		at := slices.IndexFunc(conditions, func(c condition) bool { return c.name != "issuer" && *c.of(&l.Filter) != "" })
		if at < 0 {
			s.others = append(s.others, i)
			continue
		}
		k := key{conditions[at].name, *conditions[at].of(&l.Filter)}
		if bits := l.network.Bits(); k.condition == "source" && !slices.Contains(s.networks, bits) {
			s.networks = append(s.networks, bits)
		}
		s.index[k] = append(s.index[k], i)
	}
	return s
}

// Len returns how many locks there are, those whose time is over included.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.all)
}

// At returns the locks that hold at a time, the oldest first.
func (s *Set) At(at time.Time) (held []Lock) {
	if s == nil {
		return nil
	}
	for i := range s.all {
		if s.all[i].HoldsAt(at) {
			held = append(held, s.all[i])
		}
	}
	return held
}

// Find returns a lock that holds and matches a client; nil: none. Its cost does not grow
// with the number of locks, but for those that name an issuer alone.
func (s *Set) Find(q *acl.Request, at time.Time) *Lock {
	if s.Len() == 0 {
		return nil
	}
	found := func(numbers []int) *Lock {
		for _, i := range numbers {
			if l := &s.all[i]; l.HoldsAt(at) && l.Matches(q) {
				return l
			}
		}
		return nil
	}
	keys := []key{{"session", q.Session}, {"user", q.User}, {"database", q.Database}}
	if id := q.Certificate; id != nil {
		keys = append(keys, key{"spki", id.SPKI}, key{"serial", shortSerial(id.Serial)}, key{"cn", id.CN})
	}
	source := q.Source.Unmap().WithZone("")
	for _, bits := range s.networks {
		if p, err := source.Prefix(bits); err == nil {
			keys = append(keys, key{"source", p.String()})
		}
	}
	for _, k := range keys {
		if l := found(s.index[k]); l != nil {
			return l
		}
	}
	return found(s.others)
}

// NextChange returns the first moment after a time at which a lock ends; the zero time:
// none does.
func (s *Set) NextChange(after time.Time) (next time.Time) {
	if s == nil {
		return next
	}
	for i := range s.all {
		if until := s.all[i].Until; until != nil && until.After(after) && (next.IsZero() || until.Before(next)) {
			next = *until
		}
	}
	return next
}

// sorted returns locks in the order of their creation.
func sorted(all []Lock) []Lock {
	slices.SortStableFunc(all, func(a, b Lock) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return all
}
