package proxy_test

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/proxy"
)

// Members of roles are a part of the decision until they are too old, and that moment is one at which
// the sessions are judged again.
func TestGroupsDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	p := proxy.Policy{
		Networks: networks([]string{"127.0.0.1"}, nil), Verify: nobodyVerifies,
		Rules: rules(t, acl.RuleOptions{Action: "reject", Users: []string{"+locked"}}, acl.RuleOptions{Action: "allow", Users: []string{"+dba"}}),
	}
	judge := func(user string, at time.Time) (outcome, detail string) {
		_, err := p.Judge(&acl.Request{Source: netip.MustParseAddr("127.0.0.1"), User: user, Database: "shop"}, tls.ConnectionState{}, nil, at)
		var refusal *proxy.Refusal
		if errors.As(err, &refusal) {
			if _, public := refusal.Message(); strings.Contains(public, "+") {
				t.Errorf("the client is told %q", public)
			}
			return refusal.Outcome.String(), refusal.Detail
		}
		return "", ""
	}
	if o, detail := judge("alice", now); o != "rule_rejected" || !strings.Contains(detail, "(the members of +locked are not known now)") {
		t.Errorf("without members: %s, %s", o, detail)
	}
	p.Groups = acl.Groups{"": acl.NewMembers(map[string][]string{"dba": {"dba", "alice", "bob"}, "locked": {"bob"}}, now.Add(time.Minute))}
	for user, want := range map[string]string{"alice": "", "bob": "rule_rejected", "carol": "no_rule"} {
		if o, detail := judge(user, now); o != want || strings.Contains(detail, "not known") {
			t.Errorf("%s: %q, %s", user, o, detail)
		}
	}
	if got := p.NextChange(now); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("judged again at %v", got)
	}
	if o, _ := judge("alice", now.Add(time.Minute)); o != "rule_rejected" {
		t.Errorf("too old: %q", o)
	}
}

func nobodyVerifies(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) { return nil, nil }
