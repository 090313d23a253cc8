package proxy

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever clients send, a page stays short, and nothing in it is taken for more than text.
func TestRefusalsAreCut(t *testing.T) {
	var r refusals
	r.add(Refused{User: "a\x1b[2Jb\u202ec", Database: "plain", Subject: strings.Repeat("ü", 10_000), Reason: strings.Repeat("\x00", 10_000)})
	got := r.kept.Last()[0]
	if got.User != `a\x1b[2Jb\u202ec` || got.Database != "plain" {
		t.Errorf("%q, %q", got.User, got.Database)
	}
	for _, s := range []string{got.Subject, got.Reason} {
		if len(s) > textKept+len("…") || !utf8.ValidString(s) || !strings.HasSuffix(s, "…") {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	}
}

func BenchmarkRefusals(b *testing.B) {
	var r refusals
	b.ReportAllocs()
	for b.Loop() {
		r.add(Refused{User: "app", Database: "shop", Reason: "the address is in no network of acl.allow"})
	}
}
