package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestRefusalsKeepTheLast(t *testing.T) {
	var r refusals
	if got := r.last(); len(got) != 0 {
		t.Errorf("%d of none", len(got))
	}
	for i := range 250 {
		r.add(Refused{User: fmt.Sprint(i)})
		got := r.last()
		if want := min(i+1, 100); len(got) != want || got[0].User != fmt.Sprint(i) || got[want-1].User != fmt.Sprint(i-want+1) {
			t.Fatalf("after %d: %d from %s to %s", i, len(got), got[0].User, got[len(got)-1].User)
		}
	}
}

// Whatever clients send, a page stays short, and nothing in it is taken for more than text.
func TestRefusalsAreCut(t *testing.T) {
	var r refusals
	r.add(Refused{User: "a\x1b[2Jb\u202ec", Database: "plain", Subject: strings.Repeat("ü", 10_000), Reason: strings.Repeat("\x00", 10_000)})
	got := r.last()[0]
	if got.User != `a\x1b[2Jb\u202ec` || got.Database != "plain" {
		t.Errorf("%q, %q", got.User, got.Database)
	}
	for _, s := range []string{got.Subject, got.Reason} {
		if len(s) > textKept+len("…") || !utf8.ValidString(s) || !strings.HasSuffix(s, "…") {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	}
}

func TestRefusalsAtOnce(t *testing.T) {
	var r refusals
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				r.add(Refused{User: "u"})
				_ = r.last()
			}
		})
	}
	all.Wait()
	if len(r.last()) != 100 || r.n != 4000 {
		t.Errorf("%d of %d", len(r.last()), r.n)
	}
}

func BenchmarkRefusals(b *testing.B) {
	var r refusals
	b.ReportAllocs()
	for b.Loop() {
		r.add(Refused{User: "app", Database: "shop", Reason: "the address is in no network of acl.allow"})
	}
}
