// Package statefile opens and locks the files that a gate keeps: the locks and the audit
// trail. Two gates may share them, as in an upgrade.
package statefile

import (
	"errors"
	"fmt"
	"time"
)

// MaxWait is how long a gate that changes a file waits for another one. A change takes
// milliseconds.
const MaxWait = 5 * time.Second

// retryPause is the time between two attempts to lock.
const retryPause = 10 * time.Millisecond

// ErrHeld says that another process holds a lock, and has not given it back in time.
var ErrHeld = errors.New("another process holds it")

// Lock locks the file of that path, and makes it if it is missing, until the function
// that it returns is called or the process ends. The error is ErrHeld if another process
// holds the lock for all of wait; 0 is one attempt.
//
// The file is only for the lock, and has mode 0600. An account that can open a file can
// lock it (flock(2) needs no right to write), so a lock on a directory or on a file that
// others may read would be one that any account could hold forever.
func Lock(path string, wait time.Duration) (unlock func(), err error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(retryPause) {
		err = tryLock(f)
		if !errors.Is(err, ErrHeld) || !time.Now().Before(end) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
