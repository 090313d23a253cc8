package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pgwicket/internal/statefile"
)

// keptAfter is how long a lock stays in the file after its end. A clock that was ahead,
// and is set back, must not have lost it.
const keptAfter = 24 * time.Hour

// Table is the locks of a gate and the file that keeps them. Two gates may share a state
// directory, as in an upgrade: each change reads the file first. Make one with Open. Its
// methods are safe for concurrent use; Set waits for nothing.
type Table struct {
	path string // empty: no file, and the locks end with the process
	set  atomic.Pointer[Set]

	mu   sync.Mutex  // of changes
	seen os.FileInfo // the file that set is from; nil: there was none
}

// lockName is the file in the state directory by which gates lock each other out.
const lockName = ".locks.lock"

// lockDirectory keeps other gates from changing the file.
func (t *Table) lockDirectory(wait time.Duration) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(filepath.Dir(t.path), lockName), wait)
}

// Open reads the locks of a state directory; an empty dir is none. It fails if the file
// cannot be read, or is not exactly what a gate writes: then some lock may be lost, and a
// person must decide.
func Open(dir string) (*Table, error) {
	t := &Table{}
	t.set.Store(newSet(nil))
	if dir == "" {
		return t, nil
	}
	t.path = filepath.Join(dir, FileName)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("state_dir: %w; make the directory, and give it to the account of the gate", err)
	}
	switch err := t.read(); {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("state_dir: %w; give the directory, and the files in it, to the account of the gate", err)
	case err != nil:
		return nil, fmt.Errorf("state_dir: %w; some lock may be lost, so the gate does not start: restore the file from a backup, "+
			"or move it away and lock again what must stay locked (the log has every lock)", err)
	}
	return t, nil
}

// Persistent reports whether the locks survive the process.
func (t *Table) Persistent() bool { return t.path != "" }

// CheckWritable returns an error if a lock could not be kept now. It removes what a gate
// that was killed has left in the directory.
func (t *Table) CheckWritable() error {
	if t.path == "" {
		return nil
	}
	unlock, err := t.lockDirectory(statefile.MaxWait)
	if err != nil {
		return fmt.Errorf("state_dir: %w%s", err, unlessHeld(err))
	}
	defer unlock()
	statefile.RemoveTemporary(t.path)
	f, err := statefile.CreateTemporary(t.path)
	if err != nil {
		return fmt.Errorf("state_dir: %w; give the directory to the account of the gate", err)
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	return nil
}

// unlessHeld returns the advice for an error of lockDirectory.
func unlessHeld(err error) string {
	if errors.Is(err, statefile.ErrHeld) {
		return ""
	}
	return "; give the directory to the account of the gate"
}

// Set returns the locks.
func (t *Table) Set() *Set { return t.set.Load() }

// Add completes a lock with an id and its creation, unless it has them from another process, keeps it, and returns it
// with the new set. One that is there already stays as it is. After an error other than ErrNotSynced nothing has changed.
func (t *Table) Add(l Lock, now time.Time) (Lock, *Set, error) {
	if err := checkReason(l.Reason); err != nil {
		return l, nil, err
	}
	if l.Created.IsZero() {
		l.Created = now.UTC().Truncate(time.Millisecond)
	}
	if l.Until != nil {
		until := wholeSecond(*l.Until)
		if l.Until = &until; !l.HoldsAt(now) {
			return l, nil, fmt.Errorf("the end of the lock, %s, is not in the future", until.Format(time.RFC3339))
		}
	}
	set, err := t.change(func(all []Lock) ([]Lock, error) {
		if i := slices.IndexFunc(all, func(old Lock) bool { return old.ID == l.ID }); i >= 0 {
			l = all[i]
			return nil, errUnchanged
		}
		all = slices.DeleteFunc(all, func(old Lock) bool { return !old.HoldsAt(now.Add(-keptAfter)) })
		if len(all) >= MaxLocks {
			all = slices.DeleteFunc(all, func(old Lock) bool { return !old.HoldsAt(now) })
		}
		if len(all) >= MaxLocks {
			return nil, fmt.Errorf("there are %d locks already, which is the most that are possible; unlock some, or lock a network or an issuer", len(all))
		}
		if l.ID == "" {
			l.ID = newID()
			for slices.ContainsFunc(all, func(old Lock) bool { return old.ID == l.ID }) {
				l.ID = newID()
			}
		}
		if err := l.check(); err != nil {
			return nil, err
		}
		return append(all, l), nil
	})
	if errors.Is(err, errUnchanged) {
		return l, t.Set(), nil
	}
	return l, set, err
}

// errUnchanged says that there is nothing to change.
var errUnchanged = errors.New("it is there already")

// ErrNoLock says that there is no lock with that id.
var ErrNoLock = errors.New("there is no lock with this id; \"pgwicket locks\" lists them")

// Remove ends a lock at once, and returns it with the new set. An error other than
// ErrNoLock and ErrNotSynced means that the lock is still there.
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
		all, err := edit(slices.Clone(t.Set().all))
		if err != nil {
			return nil, err
		}
		t.set.Store(newSet(sorted(all)))
		return t.Set(), nil
	}
	unlock, err := t.lockDirectory(statefile.MaxWait)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := t.read(); err != nil && !errors.Is(err, errGone) {
		return nil, err
	}
	all, err := edit(slices.Clone(t.Set().all))
	if err != nil {
		return nil, err
	}
	return t.write(all)
}

// write replaces the file, and reads it. The caller holds mu and the lock of the
// directory.
func (t *Table) write(all []Lock) (*Set, error) {
	unsynced := writeFile(t.path, sorted(all))
	if unsynced != nil && !errors.Is(unsynced, ErrNotSynced) {
		return nil, unsynced
	}
	if err := t.read(); err != nil {
		return nil, err
	}
	return t.Set(), unsynced
}

// read reads the file. The caller holds mu, or nobody else has the table yet.
func (t *Table) read() error {
	seen, _ := os.Lstat(t.path) // before the read: a change in between is seen the next time
	all, err := readFile(t.path)
	if err != nil {
		return err
	}
	if t.seen = seen; seen == nil && t.Set().Len() > 0 {
		return errGone
	}
	t.set.Store(newSet(all))
	return nil
}

// errGone is of a file that somebody has removed while its locks were in force.
var errGone = errors.New("is gone")

// Refresh reads the file again if another process has replaced it. It returns nil and no
// error if nothing has changed. After an error the locks stay as they are. If the file
// was removed, it is written again, or a gate that starts would have none of the locks;
// the error says so. Refresh does not wait for a change that is under way, here or in
// another process: the next call sees it.
func (t *Table) Refresh() (*Set, error) {
	if !t.mu.TryLock() {
		return nil, nil //nolint:nilnil // the change puts its result into force
	}
	defer t.mu.Unlock()
	if t.path == "" {
		return nil, nil //nolint:nilnil // nothing has changed
	}
	now, err := os.Lstat(t.path)
	lost := errors.Is(err, fs.ErrNotExist) && t.Set().Len() > 0
	if !lost && (err != nil && t.seen == nil || err == nil && t.seen != nil && os.SameFile(now, t.seen) && now.ModTime().Equal(t.seen.ModTime()) && now.Size() == t.seen.Size()) {
		return nil, nil //nolint:nilnil // likewise
	}
	if err := t.read(); errors.Is(err, errGone) {
		return nil, t.restore()
	} else if err != nil {
		return nil, err
	}
	return t.Set(), nil
}

// restore writes the locks in force into a new file. Its error says what has happened.
func (t *Table) restore() error {
	gone := fmt.Errorf("%s %w; its %d locks stay in force", t.path, errGone, t.Set().Len())
	unlock, err := t.lockDirectory(0)
	if err != nil {
		return fmt.Errorf("%w, but the file cannot be written again: %w", gone, err)
	}
	defer unlock()
	if _, err := os.Lstat(t.path); err == nil {
		return nil // another gate was faster; the next Refresh reads it
	}
	if _, err := t.write(slices.Clone(t.Set().all)); err != nil {
		return fmt.Errorf("%w, but the file cannot be written again: %w", gone, err)
	}
	return fmt.Errorf("%w, and the file was written again", gone)
}
