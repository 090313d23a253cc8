package gate

import (
	"net/netip"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/internal/policy"
	"pgwicket/internal/status"
	"pgwicket/proxy"
)

// The description has what the policy has.
func TestPolicyInWords(t *testing.T) {
	allow, deny := networks(t, "10.0.0.0/8", "192.0.2.7"), networks(t, "10.9.0.0/16")
	for _, c := range []struct {
		p    proxy.Policy
		want string
	}{
		{proxy.Policy{Networks: acl.NewNetworks(nil, nil)}, "from nowhere; others are closed without a word"},
		{proxy.Policy{Networks: acl.NewNetworks(allow, deny), SourceRefusal: policy.Reset}, "from 10.0.0.0/8, 192.0.2.7, but not from 10.9.0.0/16; others are reset"},
		{proxy.Policy{Networks: acl.NewNetworks(allow, nil), SourceRefusal: policy.Explain}, "from 10.0.0.0/8, 192.0.2.7; others are told so, inside TLS"},
	} {
		if got := sourcesOf(&c.p); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for recheck, want := range map[policy.Recheck]string{policy.Immediate: "ended at once", policy.WhenIdle: "when they are idle", policy.Off: "only counted"} {
		if got := recheckOf(&proxy.Policy{Recheck: recheck}); !strings.HasPrefix(got, "judged again after each reload,") || !strings.Contains(got, want) {
			t.Errorf("%d: %q", recheck, got)
		}
	}
	limits := limitsOf(&proxy.Policy{Limits: proxy.Limits{Startups: 6, Sessions: 5, PerSource: 4, PerAccount: 3}, MaxCancelRequests: 2}, proxy.Usage{Startups: 7, Sessions: 1, PerSource: 2, PerAccount: 3, CancelRequests: 4})
	for i, want := range [][2]int{{7, 6}, {1, 5}, {2, 4}, {3, 3}, {4, 2}} {
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
