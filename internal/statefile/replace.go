package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNotSynced says that a change is in the file, but may be lost if the machine, not only the program, stops
// now.
var ErrNotSynced = errors.New("the change is in force, but its directory could not be synced, so the change may be lost if the machine stops now")

// Replace writes a file as a whole: a new one beside it is written, synced, read by check (nil:
// it is not), and renamed. After an error other than ErrNotSynced the old file is as it was; after a crash there
// is the old one or the new one, and RemoveTemporary removes what else there is. A symbolic link is
// replaced, not followed.
func Replace(path string, data []byte, mode os.FileMode, check func(path string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := CreateTemporary(path)
	if err != nil {
		return err
	}
	temporary := f.Name()
	defer func() {
		if err != nil && !errors.Is(err, ErrNotSynced) {
			_ = os.Remove(temporary)
		}
	}()
	_, err = f.Write(data)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close} {
		if stepErr := step(); err == nil {
			err = stepErr
		}
	}
	if err == nil && check != nil {
		err = check(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return err
	}
	if err := SyncDirectory(dir); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSynced, err)
	}
	return nil
}

// CreateTemporary creates a file beside another one, which RemoveTemporary will remove if the caller does not.
func CreateTemporary(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), temporaryPattern(path))
}

func temporaryPattern(path string) string { return "." + filepath.Base(path) + "-*" }

// RemoveTemporary removes what processes that were killed in Replace have left beside a file. No other process
// may be replacing it.
func RemoveTemporary(path string) {
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if is, _ := filepath.Match(temporaryPattern(path), e.Name()); is && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// SyncDirectory makes what was renamed or removed in a directory last.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
