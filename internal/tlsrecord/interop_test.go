package tlsrecord

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

const testTimeout = 30 * time.Second

// program runs another implementation, with its standard input and output.
func program(t *testing.T, name string, args ...string) (in io.Writer, out *bufio.Reader) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("no", name, "in PATH")
	}
	cmd := exec.Command(path, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(testTimeout, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		timeout.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return stdin, bufio.NewReader(stdout)
}

// until reads lines up to one that holds the text.
func until(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		all.WriteString(line)
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("%q never came (%v):\n%s", text, err, all.String())
		}
	}
}

// converse has lines go both ways, with the commands in between that change the keys of
// openssl (K with a request for ours, k without).
func converse(t *testing.T, ours net.Conn, in io.Writer, out *bufio.Reader, commands ...string) {
	t.Helper()
	_ = ours.SetDeadline(time.Now().Add(testTimeout))
	lines := bufio.NewReader(ours)
	for i, command := range append([]string{""}, commands...) {
		if command != "" {
			_, _ = io.WriteString(in, command+"\n")
			if command == "K" || command == "k" {
				until(t, out, "KEYUPDATE")
			}
		}
		text := fmt.Sprintf("line %d %s", i, strings.Repeat("x", 900))
		_, _ = io.WriteString(in, text+"\n")
		if got, err := lines.ReadString('\n'); got != text+"\n" {
			t.Fatalf("the line is %q (%v)", got, err)
		}
		if _, err := io.WriteString(ours, text+"\n"); err != nil {
			t.Fatal(err)
		}
		until(t, out, text)
	}
}

// args are what openssl or GnuTLS is told to have one suite.
func (k kind) args(name string) []string {
	suite := map[uint16]string{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	}[k.suite]
	switch {
	case name == "openssl" && k.version == tls.VersionTLS13:
		return []string{"-tls1_3", "-ciphersuites", tls.CipherSuiteName(k.suite)}
	case name == "openssl":
		return []string{"-tls1_2", "-cipher", suite}
	}
	ciphers := map[bool]string{true: "AES-128-GCM"}[strings.Contains(tls.CipherSuiteName(k.suite), "AES_128")]
	switch {
	case strings.Contains(tls.CipherSuiteName(k.suite), "AES_256"):
		ciphers = "AES-256-GCM"
	case strings.Contains(tls.CipherSuiteName(k.suite), "CHACHA"):
		ciphers = "CHACHA20-POLY1305"
	}
	version := map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}[k.version]
	return []string{"--priority", "NORMAL:-VERS-ALL:+VERS-TLS" + version + ":-CIPHER-ALL:+" + ciphers}
}

// Clients of OpenSSL and GnuTLS talk with a server of ours.
func TestClients(t *testing.T) {
	for _, k := range kinds[:6] {
		for _, name := range []string{"openssl", "gnutls-cli"} {
			t.Run(name+" "+k.String(), func(t *testing.T) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				host, port, _ := net.SplitHostPort(ln.Addr().String())
				args := append([]string{"s_client", "-connect", ln.Addr().String()}, k.args(name)...)
				commands := []string{"K", "k", "K", "K"}
				if name != "openssl" {
					args = append([]string{"--insecure", "--port", port, host}, k.args(name)...)
				}
				if name != "openssl" || k.version != tls.VersionTLS13 {
					commands = []string{"", ""}
				}
				in, out := program(t, name, args...)
				under, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer under.Close()
				config, _ := k.configs()
				config.MinVersion = tls.VersionTLS12
				h := Server(&wire{Conn: under}, config)
				if err := h.Handshake(); err != nil {
					t.Fatal(err)
				}
				converse(t, taken(t, h, k), in, out, commands...)
			})
		}
	}
}

func taken(t *testing.T, h *Handshake, k kind) *Conn {
	t.Helper()
	if s := h.ConnectionState(); s.Version != k.version || s.CipherSuite != k.suite {
		t.Fatalf("the suite is %s", kind{s.Version, s.CipherSuite})
	}
	c, ok := h.Conn().(*Conn)
	if !ok {
		t.Fatal("not taken over")
	}
	return c
}

// A client of ours talks with a server of OpenSSL, which sends it tickets.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	if err := tlstest.NewCA("record root").Server("localhost").WriteFiles(cert, key); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds[:6] {
		t.Run(k.String(), func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
			if err != nil {
				t.Fatal(err)
			}
			address := ln.Addr().String()
			_ = ln.Close()
			in, out := program(t, "openssl", append([]string{"s_server", "-accept", address, "-cert", cert, "-key", key}, k.args("openssl")...)...)
			until(t, out, "ACCEPT")
			under, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer under.Close()
			_, config := k.configs()
			config.CurvePreferences = nil // with TLS 1.2, OpenSSL wants that of its certificate
			h := Client(&wire{Conn: under}, config)
			if err := h.Handshake(); err != nil {
				t.Fatal(err)
			}
			converse(t, taken(t, h, k), in, out, "", "")
		})
	}
}
