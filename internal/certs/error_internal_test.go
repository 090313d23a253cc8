package certs

import (
	"strings"
	"testing"
)

// A name that fills a handshake is not written into a message.
func TestLongNamesAreNotWritten(t *testing.T) {
	t.Parallel()
	e := &Error{Cert: &Certificate{Subject: Name{Raw: make([]byte, maxText+1)}}, Problem: "is not wanted"}
	if got, want := e.Error(), `"... (2049 bytes)"`; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s in it", got, want)
	}
}
