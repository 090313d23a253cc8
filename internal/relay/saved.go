package relay

import (
	"encoding/binary"
	"errors"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/tlsrecord"
)

// Saved is a session outside of its process: everything but its two sockets. It holds keys: whoever has one
// calls Wipe.
type Saved struct {
	FromClient int64               `json:"from_client"`
	ToClient   int64               `json:"to_client"`
	Client     SavedLeg            `json:"client"`
	Backend    SavedLeg            `json:"backend"`
	Tracker    pgwire.TrackerState `json:"tracker"`
	Login      pgwire.Login        `json:"login"`
	Guard      SavedGuard          `json:"guard"`
	Caused     bool                `json:"caused"` // the session has begun to end, for Cause
	Cause      Cause               `json:"cause"`
	Err        string              `json:"err"`
}

// SavedLeg is one side of a Saved.
type SavedLeg struct {
	Ended    bool             `json:"ended"`
	Shut     bool             `json:"shut"`
	Notified bool             `json:"notified"`
	TLS      *tlsrecord.State `json:"tls"` // without its bytes; nil: in clear
	Queue    []byte           `json:"-"`   // what the socket has not taken yet
}

// SavedGuard is how many bytes a client has sent for how much data.
type SavedGuard struct {
	Read     int   `json:"read"`
	Data     int64 `json:"data"`
	LowYield bool  `json:"low_yield"`
}

// maxSaved is the longest of the byte strings of a session.
const maxSaved = 1 << 20

var errSaved = errors.New("not the bytes of a session")

// secrets returns the byte strings that are not in the JSON of a Saved.
func (s *Saved) secrets() []*[]byte {
	var all []*[]byte
	for _, l := range []*SavedLeg{&s.Client, &s.Backend} {
		all = append(all, &l.Queue)
		if t := l.TLS; t != nil {
			all = append(all, &t.In.Secret, &t.In.Key, &t.In.IV, &t.Out.Secret, &t.Out.Key, &t.Out.IV, &t.Partial, &t.Message)
		}
	}
	return all
}

// Split takes the byte strings out of the Saved, and returns them in one. The caller wipes it.
func (s *Saved) Split() (data []byte) {
	size := 0
	for _, one := range s.secrets() {
		size += 4 + len(*one)
	}
	data = make([]byte, 0, size) // so that no copy is left behind
	for _, one := range s.secrets() {
		data = binary.BigEndian.AppendUint32(data, uint32(len(*one)))
		data = append(data, *one...)
		clear(*one)
		*one = nil
	}
	return data
}

// Join puts the byte strings back that Split has returned. They are copies.
func (s *Saved) Join(data []byte) error {
	for _, one := range s.secrets() {
		if len(data) < 4 {
			return errSaved
		}
		n := binary.BigEndian.Uint32(data)
		data = data[4:]
		if n > maxSaved || int(n) > len(data) {
			return errSaved
		}
		if n > 0 {
			*one = append([]byte(nil), data[:n]...)
		}
		data = data[n:]
	}
	if len(data) > 0 {
		return errSaved
	}
	return nil
}

// Wipe clears the keys and what waits to be sent.
func (s *Saved) Wipe() {
	for _, one := range s.secrets() {
		clear(*one)
	}
}

// Frozen is a session that its relay has stopped: nobody reads or writes its sockets. Exactly one of Thaw and
// Forget must follow.
type Frozen struct {
	Saved           *Saved
	Client, Backend int // descriptors, which stay the relay's
	// Thaw lets the relay go on with the session.
	Thaw func()
	// Forget closes the descriptors, without a word to the peers, since another process has them.
	Forget func()
}
