//go:build unix

package main

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgwicket/internal/filewatch"
	"pgwicket/internal/tlstest"
)

// A renewal moves the certificate and the key into place one after the other. No
// client notices.
func TestRenewal(t *testing.T) {
	g := startGate(t, "", nil, onlyECDSA)
	ca := tlstest.NewCA("renewal CA")
	g.roots.AddCert(ca.Cert)
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(filepath.Dir(g.log), name) }

	done, ended := make(chan struct{}), make(chan error, 1)
	handshakes := 0
	go func() {
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			if _, err := goClient(g, &tls.Config{}); err != nil {
				ended <- err
				return
			}
			handshakes++
		}
	}()
	late := 0
	for range 5 {
		pair := ca.Server("localhost")
		check(pair.WriteFiles(path("next.crt"), path("next.key")))
		begin := time.Now()
		check(os.Rename(path("next.key"), path("ecdsa.key")))
		time.Sleep(filewatch.SettleTime / 3) // a program may take as long; after more the gate would report that the two do not match
		check(os.Rename(path("next.crt"), path("ecdsa.crt")))
		moved := time.Now()
		for end := moved.Add(deadline); ; time.Sleep(5 * time.Millisecond) {
			state, err := goClient(g, &tls.Config{})
			check(err)
			if state.PeerCertificates[0].Equal(pair.Leaf()) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the new certificate is not served")
			}
		}
		t.Logf("served %v after it was there", time.Since(moved).Round(time.Millisecond))
		log, err := os.ReadFile(g.log)
		check(err)
		if moved.Sub(begin) >= filewatch.SettleTime/2 {
			late++ // the machine is busy, and a reload between the two was due
		}
		if n := bytes.Count(log, []byte(reloadFailed)); n > late {
			t.Errorf("%d reloads between the two", n-late)
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Errorf("handshake %d has failed: %v", handshakes, err)
	}
	t.Logf("%d handshakes meanwhile", handshakes)
}
