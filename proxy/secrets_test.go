package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The gate has the secrets of its sessions from crypto/tls's key log. They are in no line
// of its own log and in no variable of the environment.
func TestSecretsAreNotLogged(t *testing.T) {
	b := newBackend(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		g := newGate(t, b.SocketDir)
		var keys bytes.Buffer
		conn := session(t, g, withVersion(version), func(config *tls.Config) { config.KeyLogWriter = &keys })
		_ = conn.Close()
		g.expect(t, "client_closed")
		searched := strings.ToLower(fmt.Sprint(g.Log.all(), os.Environ()))
		if !strings.Contains(searched, "client_closed") {
			t.Fatal("the log is empty")
		}
		for line := range strings.Lines(keys.String()) {
			f := strings.Fields(line)
			raw, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range []string{f[2], string(bytes.ToLower(raw)), fmt.Sprintf("%d", raw)} {
				if strings.Contains(searched, form) {
					t.Errorf("%s: the %s of a session is in the log or the environment", tls.VersionName(version), f[0])
				}
			}
		}
	}
}
