package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/internal/clientcert"
	"pgwicket/internal/outcome"
)

// Whatever a client sends, its line in the log has a bound, and says what was cut.
func TestLogLineIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\U0001f512\\\"\x00", 20_000)
	many := make([]string, 5_000)
	for i := range many {
		many[i] = long
	}
	id := acl.Identity{CN: long, DN: long, Issuer: long, Serial: long, SHA256: strings.Repeat("a", 64), DNS: many, Email: many, URI: many, IP: many}
	p := &peer{
		source: netip.MustParseAddrPort("[2001:db8::1]:65535"), version: 3 << 16, application: long,
		tls:     tlsFacts{version: tls.VersionTLS13, protocol: alpn},
		request: acl.Request{Listener: "[::]:5432", SNI: long, User: long, Database: long, Certificate: &id},
	}
	for _, cutBefore := range []bool{false, true} {
		if cutBefore {
			clientcert.Shorten(&id)
			if n := len(id.DN) + len(id.CN) + len(strings.Join(id.DNS, "")); n > 10*maxText {
				t.Errorf("a refused certificate's identity has %d bytes", n)
			}
		}
		var line bytes.Buffer
		e := end{peer: p, outcome: outcome.CertUnknownCA, refusal: &Refusal{Outcome: outcome.CertUnknownCA, Detail: long}}
		slog.New(slog.NewJSONHandler(&line, nil)).LogAttrs(t.Context(), slog.LevelWarn, "connection refused", e.logAttrs()...)
		if line.Len() > 8<<10 {
			t.Errorf("the line has %d bytes", line.Len())
		}
		var parsed map[string]any
		if err := json.Unmarshal(line.Bytes(), &parsed); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"cert_subject", "user", "reason", "sni"} {
			if s, _ := parsed[key].(string); !strings.HasSuffix(s, "bytes)") {
				t.Errorf("%s does not say that it was cut: %.80q", key, s)
			}
		}
	}
}
