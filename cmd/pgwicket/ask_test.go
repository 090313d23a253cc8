package main

import (
	"net/netip"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/internal/status"
	"pgwicket/proxy"
)

func TestReachable(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:10432": "127.0.0.1:10432", "10.0.0.5:1": "10.0.0.5:1", "0.0.0.0:10432": "127.0.0.1:10432", "[::]:10432": "[::1]:10432", "[fd00::5]:1": "[fd00::5]:1",
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1024.0 PiB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

// The words of check and of the page name what there is.
func TestPolicyInWords(t *testing.T) {
	allow, deny := networks(t, "10.0.0.0/8", "192.0.2.7"), networks(t, "10.9.0.0/16")
	for _, c := range []struct {
		p    proxy.Policy
		want string
	}{
		{proxy.Policy{Networks: acl.NewNetworks(nil, nil)}, "from nowhere; others are closed without a word"},
		{proxy.Policy{Networks: acl.NewNetworks(allow, deny), SourceRefusal: proxy.Reset}, "from 10.0.0.0/8, 192.0.2.7, but not from 10.9.0.0/16; others are reset"},
		{proxy.Policy{Networks: acl.NewNetworks(allow, nil), SourceRefusal: proxy.Explain}, "from 10.0.0.0/8, 192.0.2.7; others are told so, inside TLS"},
	} {
		if got := sourcesOf(&c.p); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for recheck, want := range map[proxy.Recheck]string{proxy.Immediate: "ended at once", proxy.WhenIdle: "when they are idle", proxy.Off: "only counted"} {
		if got := recheckOf(&proxy.Policy{Recheck: recheck}); !strings.HasPrefix(got, "judged again after each reload,") || !strings.Contains(got, want) {
			t.Errorf("%d: %q", recheck, got)
		}
	}
	limits := limitsOf(&proxy.Policy{Limits: proxy.Limits{Connections: 5, PerSource: 4, PerAccount: 3}, MaxCancelRequests: 2}, proxy.Usage{Connections: 1, PerSource: 2, PerAccount: 3, CancelRequests: 4})
	for i, want := range [][2]int{{1, 5}, {2, 4}, {3, 3}, {4, 2}} {
		if l := limits[i]; l.Used != want[0] || l.Of != want[1] {
			t.Errorf("%+v", l)
		}
	}
	if got := sorted(map[string]uint64{"b": 1, "a": 1, "c": 2}); got[0] != (status.Count{Name: "c", Count: 2}) || got[1].Name != "a" {
		t.Errorf("%v", got)
	}
}

func networks(t *testing.T, texts ...string) (all []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		p, err := acl.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}
