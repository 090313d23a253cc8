// Package sessionid gives connections ids that no other connection has.
package sessionid

import (
	"crypto/rand"
	"encoding/base32"
	"strconv"
	"strings"
	"sync/atomic"
)

// Sequence gives each connection of a server an id, which it keeps as a session. Make it with
// New.
type Sequence struct {
	instance string // begins each of them
	last     *atomic.Uint64
}

// New returns the ids of a server. 64 random bits begin them, so that no other gate,
// and not this one after a restart, gives one of them again.
func New() Sequence {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	text := base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
	return Sequence{strings.ToLower(text), new(atomic.Uint64)}
}

// Next returns an id. Any goroutine may call it.
func (i Sequence) Next() string { return i.instance + "-" + strconv.FormatUint(i.last.Add(1), 10) }
