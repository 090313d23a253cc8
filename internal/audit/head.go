package audit

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"pgwicket/internal/statefile"
)

// beside returns the path of a file that belongs to a trail.
func beside(path, kind string) string {
	dir, name := filepath.Split(path)
	return dir + "." + name + "." + kind
}

// headFile keeps the newest line of a trail apart from it. An empty file of the trail, after a rotation, goes on
// from there: its gate may have started since, or another gate may have filled the file before.
type headFile struct{ *os.File }

func openHeads(path string) (headFile, error) {
	f, err := statefile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	return headFile{f}, err
}

// text always has the same size, so that one write replaces it.
func (h Head) text() []byte { return fmt.Appendf(nil, "%020d %s\n", h.Sequence, h.Hash) }

// write replaces the head. If it cannot, there is none: with an old one the trail would fork.
func (f headFile) write(h Head) {
	if _, err := f.WriteAt(h.text(), 0); err != nil {
		_ = f.Truncate(0)
	}
}

// read returns the head, or the zero Head if there is none.
func (f headFile) read() (h Head) {
	text := make([]byte, len(Head{Hash: noHash}.text()))
	if _, err := f.ReadAt(text, 0); err != nil {
		return Head{}
	}
	if _, err := fmt.Sscanf(string(text), "%d %s\n", &h.Sequence, &h.Hash); err != nil {
		return Head{}
	}
	if _, err := hex.DecodeString(h.Hash); err != nil || !bytes.Equal(h.text(), text) {
		return Head{}
	}
	return h
}
