package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pgwicket/internal/statefile"
)

// FileName is the file in the state directory.
const FileName = "locks.json"

// fileVersion is the one version of the file that this release reads and writes.
const fileVersion = 1

// maxFile is far above MaxLocks locks with the longest texts.
const maxFile = 32 << 20

// contents is the file.
type contents struct {
	Version int    `json:"version"`
	Locks   []Lock `json:"locks"`
}

// parse reads the file, and only what write could have written: whatever else is there
// may be a lock that was lost.
func parse(text []byte) ([]Lock, error) {
	if err := checkKeys(text); err != nil {
		return nil, err
	}
	var c contents
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, explainJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the locks")
	}
	switch {
	case c.Version != fileVersion:
		return nil, fmt.Errorf("it has version %d, and this release reads version %d", c.Version, fileVersion)
	case c.Locks == nil:
		return nil, errors.New("it has no locks; no lock at all is written []")
	case len(c.Locks) > MaxLocks:
		return nil, fmt.Errorf("it has %d locks, and at most %d are possible", len(c.Locks), MaxLocks)
	}
	ids := make(map[string]bool, len(c.Locks))
	for i := range c.Locks {
		l := &c.Locks[i]
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("lock %d (%q): %w", i+1, l.ID, err)
		}
		if ids[l.ID] {
			return nil, fmt.Errorf("lock %d has the id %s of an earlier lock", i+1, l.ID)
		}
		ids[l.ID] = true
	}
	return c.Locks, nil
}

// checkKeys refuses an object with a key twice, or in another case, of which
// encoding/json would take the last without a word.
func checkKeys(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	var objects []map[string]bool // that are open; nil is a list
	isKey := false                // the next text of an object
	for {
		token, err := d.Token()
		if err != nil {
			return nil //nolint:nilerr // the decoder of the contents says it better
		}
		inObject := len(objects) > 0 && objects[len(objects)-1] != nil
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{':
				objects = append(objects, map[string]bool{})
			case '[':
				objects = append(objects, nil)
			default:
				objects = objects[:len(objects)-1]
			}
			isKey = len(objects) > 0 && objects[len(objects)-1] != nil
			continue
		case string:
			if inObject && isKey {
				keys, name := objects[len(objects)-1], strings.ToLower(strings.ToUpper(token)) // as encoding/json folds it
				if keys[name] {
					return fmt.Errorf("the key %q is there twice", token)
				}
				keys[name], isKey = true, false
				continue
			}
		}
		isKey = inObject
	}
}

func explainJSON(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("it ends in the middle, so it was cut off")
	}
	return fmt.Errorf("it is not as the gate writes it: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// check checks a lock as the command line does, and completes its filter.
func (l *Lock) check() error {
	if !isID(l.ID) {
		return errors.New("its id is not one of the gate's")
	}
	f, err := ParseFilter(l.Values())
	switch {
	case err != nil:
		return err
	case f.IsZero():
		return errors.New("it has no condition")
	}
	for _, c := range conditions {
		if *c.of(&f) != *c.of(&l.Filter) {
			return fmt.Errorf("its %s is not in the form of the gate", c.name)
		}
	}
	l.Filter = f
	if l.Created.IsZero() || l.Until != nil && l.Until.IsZero() {
		return errors.New("it lacks a time")
	}
	if l.Until != nil && l.Until.Nanosecond() != 0 {
		return errors.New("its end is not a whole second")
	}
	if err := checkReason(l.Reason); err != nil {
		return err
	}
	return nil
}

func isID(text string) bool {
	return len(text) == 2*4 && strings.Trim(text, "0123456789abcdef") == ""
}

func checkReason(text string) error {
	switch {
	case len(text) > maxText:
		return fmt.Errorf("the reason is longer than %d bytes", maxText)
	case strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) }):
		return errors.New("the reason has a control character, or is not UTF-8")
	}
	return nil
}

// readFile reads the locks of a file. A file that does not exist has none.
func readFile(path string) ([]Lock, error) {
	f, err := statefile.Open(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s is longer than %d bytes, so it is not the gate's", path, maxFile)
	}
	locks, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return locks, nil
}

// writeFile replaces the file, once the parser that will read it after a crash has read the new one. After an error
// other than ErrNotSynced the old file is as it was.
func writeFile(path string, locks []Lock) error {
	if locks == nil {
		locks = []Lock{}
	}
	text, err := json.MarshalIndent(contents{fileVersion, locks}, "", " ")
	if err != nil {
		return err
	}
	return statefile.Replace(path, append(text, '\n'), 0o600, func(temporary string) error {
		_, err := readFile(temporary)
		return err
	})
}

// ErrNotSynced says that a change is in force, and may be lost if the machine stops now.
var ErrNotSynced = statefile.ErrNotSynced

// wholeSecond returns the end of a lock, which is kept to the second.
func wholeSecond(at time.Time) time.Time { return at.UTC().Truncate(time.Second) }
