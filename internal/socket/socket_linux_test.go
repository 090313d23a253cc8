//go:build linux

package socket

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// What has connected but has not been accepted is not lost when a listener
// closes, be it interrupted before or not.
func TestAcceptQueued(t *testing.T) {
	ln, err := ListenShared(context.Background(), "127.0.0.1:0", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	second, err := ListenShared(context.Background(), ln.Addr().String(), 0)
	if err != nil {
		t.Fatal("the address cannot be shared: ", err)
	}
	_ = second.Close()
	waiting := make(map[string]net.Conn)
	for range 50 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting[c.LocalAddr().String()] = c
	}
	if err := ln.(*net.TCPListener).SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); err == nil {
		t.Fatal("it was not interrupted")
	}
	AcceptQueued(ln, func(conn *net.TCPConn) {
		defer conn.Close()
		if _, err := conn.Write([]byte{'x'}); err != nil {
			t.Error(err)
		}
	})
	_ = ln.Close()
	for name, c := range waiting {
		if got, err := io.ReadAll(c); err != nil || string(got) != "x" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
