package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
)

// Strangers can cause so many lines a second and no more, one of them a fifth; what
// is left out stands in a summary.
func TestRefusalLogRate(t *testing.T) {
	t.Parallel()
	const perSecond = 50
	r, now := newRefusals(nil), time.Now()
	one, all := 0, 0
	for i := range 10_000 {
		at := now.Add(time.Duration(i) * time.Millisecond) // ten seconds
		if r.allow(perSecond, TLSFailed, source4(1), at) {
			one++
		}
	}
	if want := perSecond / sourceShare * 10; one < want || one > want+refusalBurst*perSecond/sourceShare+1 {
		t.Errorf("%d lines of one source in ten seconds, want some %d", one, want)
	}
	if total, _ := r.summary(); total != 10_000-one {
		t.Errorf("the summary has %d, want %d", total, 10_000-one)
	}
	if total, attrs := r.summary(); total != 0 || len(attrs) != 0 {
		t.Errorf("the next summary has %d: %v", total, attrs)
	}
	r = newRefusals(nil)
	for i := range uint32(10_000) {
		if r.allow(perSecond, TLSFailed, source4(i), now.Add(time.Duration(i)*time.Millisecond)) {
			all++
		}
	}
	if want := perSecond * 10; all < want || all > want+refusalBurst*perSecond+1 {
		t.Errorf("%d lines in ten seconds, want some %d", all, want)
	}
	if n := r.sources.Len(); n > loggedSources {
		t.Errorf("%d sources are remembered", n)
	}
	if !r.allow(0, TLSFailed, source4(1), now) {
		t.Error("a rate of 0 is a limit")
	}
}

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
		tls:     tls.ConnectionState{Version: tls.VersionTLS13, ServerName: long, NegotiatedProtocol: alpn},
		request: acl.Request{Listener: "[::]:5432", User: long, Database: long, Certificate: &id},
	}
	for _, cutBefore := range []bool{false, true} {
		if cutBefore {
			cutIdentity(&id)
			if n := len(id.DN) + len(id.CN) + len(strings.Join(id.DNS, "")); n > 10*maxText {
				t.Errorf("a refused certificate's identity has %d bytes", n)
			}
		}
		var line bytes.Buffer
		e := end{peer: p, outcome: CertUnknownCA, refusal: &Refusal{Outcome: CertUnknownCA, Detail: long}}
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
