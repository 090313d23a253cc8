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
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"pgwicket/internal/statefile"
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
	Time     string `json:"time"`
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

// errNoTrail says what to do about a file that the gate must not touch.
var errNoTrail = errors.New("is no audit trail; name another file")

// begins reports whether a text is the beginning of a line, or as much of one as there
// is. Another program's text is not taken for a line that was cut off.
func begins(text []byte) bool {
	for digits := 1; digits <= maxDigits; digits++ {
		if fits(text, `{"seq":`+strings.Repeat("9", digits)+`,"prev":"`+strings.Repeat("f", 2*sha256.Size)+`","time":"`) {
			return true
		}
	}
	return false
}

// fits compares a text with a form, in which 9 is any digit and f any hexadecimal one, as
// far as both go.
func fits(text []byte, form string) bool {
	for i := range min(len(text), len(form)) {
		c := text[i]
		switch isDigit := c >= '0' && c <= '9'; {
		case c == form[i]:
		case isDigit && (form[i] == '9' || form[i] == 'f'):
		case c >= 'a' && c <= 'f' && form[i] == 'f':
		default:
			return false
		}
	}
	return true
}

// maxDigits is the length of the longest sequence number.
const maxDigits = 20

// tail returns the head of a file and the length of its whole lines. What follows the
// last newline was being written when the machine or the gate stopped, if it begins like
// a line. It is an error if any part of the file is not as a gate writes it, as far as
// its first and last lines show.
func tail(f *os.File, size int64) (h Head, whole int64, err error) {
	from := max(size-2*maxLine, 0)
	text, first := make([]byte, size-from), make([]byte, min(size, maxPrefix))
	if _, err := f.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, 0, err
	}
	if _, err := f.ReadAt(text, from); err != nil && !errors.Is(err, io.EOF) {
		return h, 0, err
	}
	end := bytes.LastIndexByte(text, '\n')
	// Some file systems fill what was not written before a power failure with zeros.
	rest := bytes.TrimRight(text[end+1:], "\x00")
	switch {
	case !begins(first), end < 0 && (size > maxLine || len(rest) == 0 && size > 0):
		return h, 0, fmt.Errorf("%s %w", f.Name(), errNoTrail)
	case !begins(rest):
		return h, 0, fmt.Errorf("the end of %s, after its last line, is not from a gate, so the file %w", f.Name(), errNoTrail)
	case end < 0:
		return h, 0, nil
	}
	line := text[:end]
	if at := bytes.LastIndexByte(line, '\n'); at >= 0 || from == 0 {
		line = line[at+1:]
	}
	l, err := parse(line)
	if err != nil {
		return h, 0, fmt.Errorf("the last line of %s %w, so the file %w", f.Name(), err, errNoTrail)
	}
	return Head{l.Sequence, hash(line)}, from + int64(end) + 1, nil
}

// maxPrefix is the length of the longest text that begins looks at.
const maxPrefix = int64(len(`{"seq":`) + maxDigits + len(`,"prev":"`) + 2*sha256.Size + len(`","time":"`))

// Check returns an error if a file is there and is no audit trail, so that a gate could
// not go on with it. It changes nothing. A file that cannot be read is no error.
func Check(path string) error {
	f, err := statefile.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	_, _, err = tail(f, st.Size())
	return err
}
