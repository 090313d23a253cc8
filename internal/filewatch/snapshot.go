package filewatch

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDigested is how much of a file is read. tlsconfig refuses larger ones.
const maxDigested = 1 << 30

// Snapshot holds a digest of each file at some paths, and of each file in the
// directories among them. The zero value equals the snapshot of no path.
type Snapshot struct {
	// Paths are those that Take was given.
	Paths []string
	// Unsettled tells that the files were still being written when the Watcher
	// stopped waiting for them.
	Unsettled bool

	digests map[string][sha256.Size]byte
}

// Take reads the files at paths. A file that cannot be read has the digest of the
// error.
func Take(paths []string) Snapshot {
	s := Snapshot{Paths: paths, digests: make(map[string][sha256.Size]byte)}
	buf := make([]byte, 64<<10)
	defer clear(buf) // private keys have passed through it
	for _, p := range paths {
		s.digests[p] = digest(p, buf)
		entries, err := Entries(p)
		if err != nil {
			s.digests[p] = sha256.Sum256([]byte(err.Error()))
		}
		for _, e := range entries {
			name := filepath.Join(p, e.Name())
			s.digests[name] = digest(name, buf)
		}
	}
	return s
}

// Equal reports whether both have the same files with the same digests.
func (s Snapshot) Equal(other Snapshot) bool { return maps.Equal(s.digests, other.digests) }

// ChangedSince returns the files that differ from those of old, sorted and never
// nil. A file that only one of the two has counts if the other has its directory;
// otherwise the list of paths has changed and not the file.
func (s Snapshot) ChangedSince(old Snapshot) []string {
	names := []string{} // the log shows none as [], not as null
	for name, sum := range s.digests {
		if was, ok := old.digests[name]; ok && was != sum || !ok && slices.Contains(old.Paths, filepath.Dir(name)) {
			names = append(names, name)
		}
	}
	for name := range old.digests {
		if _, ok := s.digests[name]; !ok && slices.Contains(s.Paths, filepath.Dir(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Entries returns the entries of a directory whose names do not begin with a dot,
// which are those that tlsconfig reads. Anything else than a directory has none.
func Entries(name string) ([]os.DirEntry, error) {
	if st, err := os.Stat(name); err != nil || !st.IsDir() {
		return nil, nil //nolint:nilerr // digest has the error
	}
	entries, err := os.ReadDir(name)
	return slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }), err
}

// digest covers all that loading a file depends on: its content, or the error of
// reading it, and its mode and owner. A key that others may read is refused, and
// chmod alone must cause another attempt.
func digest(name string, buf []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	if err := hashFile(h, name, buf); err != nil {
		h.Reset()
		fmt.Fprintf(h, "error %v", err)
	}
	h.Sum(sum[:0])
	return sum
}

func hashFile(h io.Writer, name string, buf []byte) error {
	f, err := os.OpenFile(name, os.O_RDONLY|nonblock, 0) // opening a FIFO would block
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		_, err := fmt.Fprintf(h, "no file %v", st.Mode().Type())
		return err
	}
	fmt.Fprintf(h, "file %v %d %d\n", st.Mode(), owner(st), st.Size())
	// Not until EOF: a file that grows as fast as it is read has none.
	_, err = io.CopyBuffer(h, io.LimitReader(f, min(st.Size(), maxDigested)), buf)
	return err
}
