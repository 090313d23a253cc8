package handover

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzRead reads what another process might send: a frame, or an error. What was read is written the
// same way again.
func FuzzRead(f *testing.F) {
	add := func(k Kind, text, data string) {
		h := putHeader(k, len(text), len(data))
		f.Add(append(h[:], text+data...))
	}
	add(Hello, `{"format":1}`, "")
	add(Session, `{"id":"a-1"}`, "\x00secret")
	add(Commit, "", "")
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 2, 1})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		frame, err := read(func(p []byte) ([]int, error) {
			_, err := io.ReadFull(r, p)
			return nil, err
		})
		if err != nil {
			if frame.Kind != 0 || frame.Text != nil || frame.Data != nil {
				t.Errorf("%+v with %v", frame, err)
			}
			return
		}
		h := putHeader(frame.Kind, len(frame.Text), len(frame.Data))
		again := append(append(h[:], frame.Text...), frame.Data...)
		if !bytes.Equal(again, stream[:len(again)]) {
			t.Errorf("%x was read, %x is written", stream, again)
		}
		var v struct {
			Format int `json:"format"`
		}
		_ = frame.Decode(&v)
	})
}

func TestFramesThatCannotBe(t *testing.T) {
	t.Parallel()
	long := putHeader(Session, 0, MaxFrame+1)
	for name, stream := range map[string][]byte{
		"too long":           long[:],
		"text beyond frame":  {0, 0, 0, 1, 0, 0, 0, 2, 1},
		"no kind":            {0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a kind of no frame": {0, 0, 0, 0, 0, 0, 0, 0, byte(kinds)},
	} {
		r := bytes.NewReader(stream)
		_, err := read(func(p []byte) ([]int, error) {
			_, err := io.ReadFull(r, p)
			return nil, err
		})
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	t.Parallel()
	var v struct {
		A int `json:"a"`
	}
	for text, good := range map[string]bool{`{"a":1}`: true, `{"a":1,"b":2}`: false, `{"a":1} {}`: false, `{"a":`: false, ``: false} {
		f := Frame{Kind: State, Text: []byte(text)}
		if err := f.Decode(&v); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}
