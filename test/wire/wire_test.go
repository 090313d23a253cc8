package wire

import (
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ got, want string }{
		"SSLRequest":    {Request(SSLRequest), "0000000804d2162f"},
		"Query":         {Query("select 1"), "510000000d73656c656374203100"},
		"Terminate":     {Terminate, "5800000004"},
		"CancelRequest": {Cancel([]byte{0, 0, 0, 1, 0, 0, 0, 2}), "0000001004d2162e0000000100000002"},
		"startup":       {Startup(Protocol30, "user", "a"), "0000001000030000" + hex.EncodeToString([]byte("user\x00a\x00\x00"))},
	} {
		if got := hex.EncodeToString([]byte(c.got)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestConn reads from a peer that writes all of it, and then what it gets.
func TestConn(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_, _ = io.ReadFull(theirs, make([]byte, 8))
		_, _ = io.WriteString(theirs, "S"+Message('R', "\x00\x00\x00\x00")+Message('D', "0123456789")+Message('Z', "I")+
			Message('E', "SERROR\x00C42P01\x00Mno such table\x00\x00"))
		_, _ = theirs.Write([]byte{'D', 0, 0, 0, 1}) // no message is so short
		_ = theirs.Close()
	}()
	c := New(ours)
	if err := c.RequestTLS(); err != nil {
		t.Fatal(err)
	}
	if body, err := c.Await('D'); string(body) != "0123456789" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	if n, err := c.Skip('Z'); n != 6 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	var refused *Error
	if _, err := c.Skip('Z'); !errors.As(err, &refused) || refused.Code != "42P01" || refused.Message != "no such table" {
		t.Fatalf("%v", err)
	}
	if kind, _, err := c.ReadMessage(); err == nil {
		t.Fatalf("a message %c of no length", kind)
	}
}
