package lock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// keptAfter is how long a lock stays in the file after its end. A clock that was ahead,
// and is set back, must not have lost it.
const keptAfter = 24 * time.Hour

// Table is the locks of a gate and the file that keeps them. Two gates may share a state
// directory, as in an upgrade: each change reads the file first. Make one with Open. Its
// methods are safe for concurrent use.
type Table struct {
	path string // empty: no file, and the locks end with the process

	mu   sync.Mutex
	set  *Set
	seen os.FileInfo // the file that set is from; nil: there was none
}

// Open reads the locks of a state directory; an empty dir is none. It fails if the file
// cannot be read, or is not exactly what a gate writes: then some lock may be lost, and a
// person must decide.
func Open(dir string) (*Table, error) {
	t := &Table{set: newSet(nil)}
	if dir == "" {
		return t, nil
	}
	t.path = filepath.Join(dir, FileName)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("state_dir: %w; make the directory, and give it to the account of the gate", err)
	}
	if err := t.read(); err != nil {
		return nil, fmt.Errorf("state_dir: %w; some lock may be lost, so the gate does not start: restore the file from a backup, "+
			"or move it away and lock again what must stay locked (the log has every lock)", err)
	}
	return t, nil
}

// Persistent reports whether the locks survive the process.
func (t *Table) Persistent() bool { return t.path != "" }

// CheckWritable returns an error if a lock could not be kept now.
func (t *Table) CheckWritable() error {
	if t.path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(t.path), "."+FileName+"-*")
	if err != nil {
		return fmt.Errorf("state_dir: %w; give the directory to the account of the gate", err)
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	return nil
}

// Set returns the locks.
func (t *Table) Set() *Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set
}

// Add completes a lock with an id and its creation, keeps it, and returns it with the new
// set. After an error nothing has changed.
func (t *Table) Add(l Lock, now time.Time) (Lock, *Set, error) {
	if err := checkReason(l.Reason); err != nil {
		return l, nil, err
	}
	l.Created = now.UTC().Truncate(time.Millisecond)
	if l.Until != nil {
		until := wholeSecond(*l.Until)
		if l.Until = &until; !l.HoldsAt(now) {
			return l, nil, fmt.Errorf("the end of the lock, %s, is not in the future", until.Format(time.RFC3339))
		}
	}
	set, err := t.change(func(all []Lock) ([]Lock, error) {
		all = slices.DeleteFunc(all, func(old Lock) bool { return !old.HoldsAt(now.Add(-keptAfter)) })
		if len(all) >= MaxLocks {
			all = slices.DeleteFunc(all, func(old Lock) bool { return !old.HoldsAt(now) })
		}
		if len(all) >= MaxLocks {
			return nil, fmt.Errorf("there are %d locks already, which is the most that are possible; unlock some, or lock a network or an issuer", len(all))
		}
		l.ID = newID()
		for slices.ContainsFunc(all, func(old Lock) bool { return old.ID == l.ID }) {
			l.ID = newID()
		}
		if err := l.check(); err != nil {
			return nil, err
		}
		return append(all, l), nil
	})
	return l, set, err
}

// ErrNoLock says that there is no lock with that id.
var ErrNoLock = errors.New("there is no lock with this id; \"pgwicket locks\" lists them")

// Remove ends a lock at once, and returns it with the new set. An error other than
// ErrNoLock means that the lock is still there.
func (t *Table) Remove(id string) (l Lock, set *Set, err error) {
	set, err = t.change(func(all []Lock) ([]Lock, error) {
		i := slices.IndexFunc(all, func(old Lock) bool { return old.ID == strings.ToLower(id) })
		if i < 0 {
			return nil, ErrNoLock
		}
		l = all[i]
		return slices.Delete(all, i, i+1), nil
	})
	return l, set, err
}

// change replaces the locks by what edit makes of those in the file. edit may change its
// argument.
func (t *Table) change(edit func([]Lock) ([]Lock, error)) (*Set, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		all, err := edit(slices.Clone(t.set.all))
		if err != nil {
			return nil, err
		}
		t.set = newSet(sorted(all))
		return t.set, nil
	}
	unlock, err := lockDirectory(filepath.Dir(t.path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := t.read(); err != nil && !errors.Is(err, errGone) {
		return nil, err
	}
	all, err := edit(slices.Clone(t.set.all))
	if err != nil {
		return nil, err
	}
	if err := writeFile(t.path, sorted(all)); err != nil {
		return nil, err
	}
	if err := t.read(); err != nil {
		return nil, err
	}
	return t.set, nil
}

// read reads the file. The caller holds mu, or nobody else has the table yet.
func (t *Table) read() error {
	seen, _ := os.Stat(t.path) // before the read: a change in between is seen the next time
	all, err := readFile(t.path)
	if err != nil {
		return err
	}
	if t.seen = seen; seen == nil && t.set.Len() > 0 {
		return fmt.Errorf("%s %w; its %d locks stay in force, and the next lock or unlock writes it again", t.path, errGone, t.set.Len())
	}
	t.set = newSet(all)
	return nil
}

// errGone is of a file that somebody has removed while its locks were in force.
var errGone = errors.New("is gone")

// Refresh reads the file again if another process has replaced it. It returns nil and no
// error if nothing has changed. After an error the locks stay as they are.
func (t *Table) Refresh() (*Set, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		return nil, nil //nolint:nilnil // nothing has changed
	}
	now, err := os.Stat(t.path)
	if err != nil && t.seen == nil || err == nil && t.seen != nil && os.SameFile(now, t.seen) && now.ModTime().Equal(t.seen.ModTime()) && now.Size() == t.seen.Size() {
		return nil, nil //nolint:nilnil // likewise
	}
	if err := t.read(); err != nil {
		return nil, err
	}
	return t.set, nil
}
