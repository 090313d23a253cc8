//go:build unix

package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"os"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// TestTerminate: after the client's Terminate the outcome is client_closed, even if
// PostgreSQL closes its side first. That depends on the load of the machine, so this
// client does not close at all. An operator takes the outcome backend_closed for a
// crash or a pg_terminate_backend.
func TestTerminate(t *testing.T) {
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	g := startGate(t, db.SocketDir, nil, onlyECDSA)
	conn, err := dialGate(g, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	startup := "\x00\x03\x00\x00user\x00" + pgtest.Superuser + "\x00\x00"
	send := func(s string) {
		if _, err := io.WriteString(conn, s); err != nil {
			t.Fatal(err)
		}
	}
	send("\x00\x00\x00" + string(rune(4+len(startup))) + startup)
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(got, []byte("Z\x00\x00\x00\x05I")) { // ReadyForQuery
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, buf[:n]...)
	}
	send("X\x00\x00\x00\x04")
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Fatalf("after Terminate: %q, %v", rest, err)
	}
	_ = conn.Close()

	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		log, err := os.ReadFile(g.log)
		switch {
		case err != nil:
			t.Fatal(err)
		case bytes.Contains(log, []byte(`"msg":"session ended"`)):
			if !bytes.Contains(log, []byte(`"outcome":"client_closed"`)) {
				t.Error("the session has not ended as client_closed")
			}
			return
		case time.Now().After(end):
			t.Fatal("no line about the session in the log")
		}
	}
}
