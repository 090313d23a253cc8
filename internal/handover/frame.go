// Package handover is the protocol by which a new process of a gate takes over the sockets, the
// state and the sessions of the old one. docs/design.md has the steps.
//
// The package knows frames, descriptors and the kernel's credentials. What the frames mean is for
// internal/gate and proxy. Only Linux has the channel; the frames are the same everywhere.
package handover

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version is the one version of the format that this release writes and reads. It changes whenever
// what a frame holds does.
const Version = 1

// Kind is what a frame says.
type Kind uint8

// The kinds, in the order of the steps.
const (
	Hello    Kind = iota + 1 // new: who it is
	Welcome                  // old: who it is, and what it has
	Socket                   // old: a listening socket, or its standard error
	Prepared                 // new: it can serve
	State                    // old: a part of its state
	Go                       // old: it has stopped accepting
	Serving                  // new: it accepts
	Session                  // old: a frozen session, with its sockets
	Batch                    // old: that was the last session of a batch
	Accepted                 // new: which sessions of the batch it can take
	Commit                   // old: they are the new process's
	Abort                    // old: they are not
	Rest                     // old: all sessions that can go have gone
	Counters                 // old: its counters
	Ended                    // old: sessions that had stayed have ended
	End                      // old: it has no session any more; new: it has been told to stop
	Signal                   // old: which signal has come for the gate while the new process took over
	Failed                   // both: why the upgrade ends here
	kinds
)

func (k Kind) String() string {
	names := [...]string{
		Hello: "hello", Welcome: "welcome", Socket: "socket", Prepared: "prepared", State: "state", Go: "go", Serving: "serving", Session: "session",
		Batch: "batch", Accepted: "accepted", Commit: "commit", Abort: "abort", Rest: "rest", Counters: "counters", Ended: "ended", End: "end", Signal: "signal", Failed: "failed",
	}
	if k == 0 || k >= kinds {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return names[k] //nolint:gosec // it has one for each kind
}

// MaxFrame bounds the text and the data of a frame together. The longest frame is a session with
// full queues, or a part of the state, which its sender cuts to fit.
const MaxFrame = 4 << 20

// maxFiles is how many descriptors a frame may bring: a session has two sockets, and Go has a claim and a mark.
const maxFiles = 2

const headerLen = 9

// Frame is one message. The receiver owns Files: it takes them out, or Close closes them.
type Frame struct {
	Kind  Kind
	Text  []byte // JSON; empty: none
	Data  []byte // may hold secrets; Wipe clears it
	Files []int  // descriptors
}

// Decode reads the text into v, and only what v has: another field is from a format that is not
// this one.
func (f *Frame) Decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(f.Text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%v: %w", f.Kind, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%v: there is something behind the text", f.Kind)
	}
	return nil
}

// Wipe clears the data.
func (f *Frame) Wipe() { clear(f.Data) }

// ErrFormat is of what no frame can be, ErrTooLarge of what does not fit into one.
var (
	ErrFormat   = errors.New("not a frame of an upgrade")
	ErrTooLarge = errors.New("too much for a frame")
)

// putHeader returns the header of a frame.
func putHeader(k Kind, text, data int) (h [headerLen]byte) {
	binary.BigEndian.PutUint32(h[:], uint32(text+data))
	binary.BigEndian.PutUint32(h[4:], uint32(text))
	h[8] = byte(k)
	return h
}

// parseHeader returns what the header of a frame says.
func parseHeader(h [headerLen]byte) (k Kind, text, data int, err error) {
	all, first := binary.BigEndian.Uint32(h[:]), binary.BigEndian.Uint32(h[4:])
	k = Kind(h[8])
	if all > MaxFrame || first > all || k == 0 || k >= kinds {
		return 0, 0, 0, ErrFormat
	}
	return k, int(first), int(all - first), nil
}

// read reads a frame. receive is io.ReadFull with the descriptors that came with the bytes.
func read(receive func(p []byte) (files []int, err error)) (f Frame, err error) {
	defer func() {
		if err != nil {
			f.Wipe()
			f.Close()
			f = Frame{}
		}
	}()
	var h [headerLen]byte
	if f.Files, err = receive(h[:]); err != nil {
		return f, err
	}
	var text, data int
	if f.Kind, text, data, err = parseHeader(h); err != nil {
		return f, err
	}
	if len(f.Files) > maxFiles {
		return f, ErrFormat
	}
	body := make([]byte, text+data)
	f.Text, f.Data = body[:text:text], body[text:]
	more, err := receive(body)
	f.Files = append(f.Files, more...)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && len(more) > 0 {
		err = ErrFormat
	}
	return f, err
}
