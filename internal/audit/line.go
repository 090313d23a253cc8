// Package audit writes the audit trail: one line of JSON for each decision of the gate,
// each with a sequence number and the SHA-256 of the line before it, so that a line that
// was changed, removed or moved is found (Verify).
//
// A Writer never makes its caller wait. Two gates may write to one file.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"
)

// Head is the newest line of a trail. The zero Head is that of a trail without lines.
type Head struct {
	Sequence uint64
	Hash     string // SHA-256 of the line without its newline, in hexadecimal
}

// noHash is what the first line of a trail has for the hash of the line before.
var noHash = hex.EncodeToString(make([]byte, sha256.Size))

// maxLine is far above the longest line, in bytes.
const maxLine = 64 << 10

// linked is what each line begins with.
type linked struct {
	Sequence uint64 `json:"seq"`
	Previous string `json:"prev"`
	Event    string `json:"event"`
}

// encode returns the part of a line that does not depend on its place.
func encode(at time.Time, event string, attrs []slog.Attr) []byte {
	var b bytes.Buffer
	b.WriteString(`,"time":`)
	b.WriteString(strconv.Quote(at.UTC().Format(time.RFC3339Nano)))
	b.WriteString(`,"event":`)
	b.WriteString(strconv.Quote(event))
	for _, a := range attrs {
		value, err := json.Marshal(a.Value.Resolve().Any())
		if err != nil {
			value = []byte(`"?"`)
		}
		name, _ := json.Marshal(a.Key)
		b.WriteByte(',')
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	if b.Len() > maxLine/2 && len(attrs) > 0 { // the log has bounds for each text, so it is a mistake of ours
		return encode(at, event, []slog.Attr{slog.Bool("cut", true)})
	}
	return b.Bytes()
}

// next returns the line that follows h, with its newline, and the head with it.
func (h Head) next(rest []byte) ([]byte, Head) {
	previous := h.Hash
	if previous == "" {
		previous = noHash
	}
	line := append([]byte(nil), `{"seq":`...)
	line = strconv.AppendUint(line, h.Sequence+1, 10)
	line = append(line, `,"prev":"`+previous+`"`...)
	line = append(line, rest...)
	return append(line, '\n'), Head{h.Sequence + 1, hash(line)}
}

// hash returns the SHA-256 of a line without its newline.
func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// parse reads the beginning of a line.
func parse(line []byte) (l linked, err error) {
	if err := json.Unmarshal(line, &l); err != nil {
		return l, errors.New("is not a line of an audit trail")
	}
	if l.Sequence == 0 || len(l.Previous) != 2*sha256.Size || l.Event == "" {
		return l, errors.New("lacks its sequence number, event or hash")
	}
	return l, nil
}

// tail returns the head of a file and the length of its whole lines. What follows the
// last newline was being written when the machine or the gate stopped.
func tail(f *os.File, size int64) (h Head, whole int64, err error) {
	from := max(size-2*maxLine, 0)
	text := make([]byte, size-from)
	if _, err := f.ReadAt(text, from); err != nil && !errors.Is(err, io.EOF) {
		return h, 0, err
	}
	end := bytes.LastIndexByte(text, '\n')
	if end < 0 {
		if from > 0 {
			return h, 0, fmt.Errorf("%s has no line in its last %d bytes, so it is no audit trail", f.Name(), len(text))
		}
		return h, 0, nil
	}
	line := text[:end]
	if at := bytes.LastIndexByte(line, '\n'); at >= 0 || from == 0 {
		line = line[at+1:]
	}
	l, err := parse(line)
	if err != nil {
		return h, 0, fmt.Errorf("the last line of %s %w", f.Name(), err)
	}
	return Head{l.Sequence, hash(line)}, from + int64(end) + 1, nil
}
