package nftables

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/proxy"
)

func networksOf(t testing.TB, allow, deny string) *acl.Networks {
	t.Helper()
	read := func(texts string) (out []netip.Prefix) {
		for _, text := range strings.Fields(texts) {
			p, err := acl.ParsePrefix(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	return acl.NewNetworks(read(allow), read(deny))
}

// ruleset is the text for nft, interpreted as the kernel does.
type ruleset struct {
	t      testing.TB
	sets   map[string][]netip.Prefix
	chains map[string][]string
}

func readRuleset(t testing.TB, text string) ruleset {
	t.Helper()
	r := ruleset{t, map[string][]netip.Prefix{}, map[string][]string{}}
	for _, m := range regexp.MustCompile(`(?s)\tset (\w+) \{(.*?)\n\t\}`).FindAllStringSubmatch(text, -1) {
		r.sets[m[1]] = []netip.Prefix{}
		_, elements, _ := strings.Cut(m[2], "elements = {")
		for _, e := range regexp.MustCompile(`[0-9a-f.:]+/\d+`).FindAllString(elements, -1) {
			r.sets[m[1]] = append(r.sets[m[1]], netip.MustParsePrefix(e))
		}
	}
	for _, m := range regexp.MustCompile(`(?s)\tchain (\w+) \{\n(.*?)\n\t\}`).FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(m[2]) {
			r.chains[m[1]] = append(r.chains[m[1]], strings.TrimSpace(line))
		}
	}
	return r
}

// verdict returns the decision on a TCP packet from another machine.
func (r ruleset) verdict(chain string, from, to netip.Addr, port uint16) string {
	rules, ok := r.chains[chain]
	if !ok {
		r.t.Fatalf("there is no chain %q", chain)
	}
	for _, rule := range rules {
		words := strings.Fields(rule)
		if words[0] == "type" {
			continue // the base of the chain
		}
		if rest, ok := r.matches(words, from, to, port); ok {
			switch rest := strings.Join(rest, " "); {
			case strings.HasPrefix(rest, "goto "):
				return r.verdict(strings.TrimPrefix(rest, "goto "), from, to, port)
			default:
				return rest
			}
		}
	}
	return "accept"
}

// matches consumes the conditions of a rule, and returns its rest.
func (r ruleset) matches(words []string, from, to netip.Addr, port uint16) (rest []string, ok bool) {
	for {
		family := func(six string) bool { return from.Is6() == (six == "ip6" || six == "ipv6") }
		switch {
		case len(words) < 3:
			return words, true
		case words[0] == "iif":
			return nil, false // another machine
		case words[0] == "meta" && words[1] == "nfproto":
			ok = family(words[2])
		case words[0] == "meta" && words[1] == "l4proto":
			ok = words[2] == "tcp"
		case words[1] == "saddr":
			set, there := r.sets[strings.TrimPrefix(words[2], "@")]
			if !there {
				r.t.Fatalf("there is no set %s", words[2])
			}
			ok = family(words[0]) && slices.ContainsFunc(set, func(p netip.Prefix) bool { return p.Contains(from) })
		case words[1] == "daddr":
			ok = family(words[0]) && netip.MustParseAddr(words[2]) == to
		case words[1] == "dport":
			ok = words[2] == fmt.Sprint(port)
		default:
			return words, true
		}
		if words = words[3:]; !ok {
			return nil, false
		}
	}
}

// For random networks, the rules accept the sources that the gate admits, its load balancers, and no others.
func TestRulesJudgeAsTheGate(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	networks := func(n int) (out []netip.Prefix) {
		for range rnd.IntN(n) {
			addr := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(4)), byte(rnd.IntN(256))})
			if rnd.IntN(2) == 0 {
				addr = netip.AddrFrom16([16]byte{0xfd, 14: byte(rnd.IntN(4)), 15: byte(rnd.IntN(256))})
			}
			p, _ := addr.Prefix(addr.BitLen() - rnd.IntN(14))
			if rnd.IntN(9) == 0 {
				p, _ = addr.Prefix(0)
			}
			out = append(out, p)
		}
		return out
	}
	listeners := []string{"0.0.0.0:6000", "[::]:6001", "10.9.9.9:5432", "10.9.9.9:6000", "[fd09::9]:6001", "[fe80::9%eth0]:5432"}
	for range 100 {
		p := &proxy.Policy{Networks: acl.NewNetworks(networks(8), networks(6)), Proxies: map[string]*acl.Networks{}}
		for _, l := range listeners {
			if rnd.IntN(2) == 0 {
				p.Proxies[l] = acl.NewNetworks(networks(3), nil)
			}
		}
		for _, action := range []string{Reject, Drop} {
			text := Rules(p, listeners, action)
			r := readRuleset(t, text)
			for range 200 {
				from := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(4)), byte(rnd.IntN(256))})
				v4, v6 := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("fd09::9")
				to := v4
				if rnd.IntN(2) == 0 {
					from, to = netip.AddrFrom16([16]byte{0xfd, 14: byte(rnd.IntN(4)), 15: byte(rnd.IntN(256))}), []netip.Addr{v6, netip.MustParseAddr("fe80::9")}[rnd.IntN(2)]
				}
				port := []uint16{5432, 6000, 6001, 7000}[rnd.IntN(4)]
				listener := listenerOf(listeners, to, port)
				want := "accept"
				trusted := p.Proxies[listener] != nil && p.Proxies[listener].Judge(from) == acl.Allowed
				if listener != "" && !trusted && p.Networks.Judge(from) != acl.Allowed {
					want = map[string]string{Reject: "counter reject with tcp reset", Drop: "counter drop"}[action]
				}
				if got := r.verdict("input", from, to, port); got != want {
					t.Fatalf("%v to %v:%d, of %q: %s, want %s\n%s", from, to, port, listener, got, want, text)
				}
			}
		}
	}
}

// listenerOf returns the listener that the kernel prefers.
func listenerOf(listeners []string, to netip.Addr, port uint16) string {
	found := ""
	for _, l := range listeners {
		ap := netip.MustParseAddrPort(l)
		switch addr := ap.Addr().WithZone(""); {
		case ap.Port() != port:
		case addr == to:
			return l
		case addr == netip.IPv4Unspecified() && to.Is4(), addr == netip.IPv6Unspecified():
			found = l
		}
	}
	return found
}

// needNFT skips a test where nft or network namespaces are missing.
func needNFT(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("there is no nft (apt-get install nftables)")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can have rules in a network namespace")
	}
	if out, err := inNamespace("nft list ruleset", ""); err != nil {
		t.Skipf("no network namespace can be made here, or none that has nftables: %v: %s", err, out)
	}
}

// inNamespace runs a shell script in a new network namespace.
func inNamespace(script, stdin string) ([]byte, error) {
	cmd := exec.Command("unshare", "--net", "sh", "-ec", script)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd.CombinedOutput()
}

// policies returns one policy for every shape of a table.
func policies(t testing.TB) map[string]*proxy.Policy {
	return map[string]*proxy.Policy{
		"nobody":   {Networks: networksOf(t, "", "")},
		"all":      {Networks: networksOf(t, "0.0.0.0/0 ::/0", "")},
		"none":     {Networks: networksOf(t, "0.0.0.0/0 ::/0", "0.0.0.0/0 ::/0")},
		"one":      {Networks: networksOf(t, "192.0.2.7", "")},
		"nested":   {Networks: networksOf(t, "10.0.0.0/8 10.20.0.0/16 10.20.3.0/24 fd00::/8 fd00:1::/32", "10.20.3.0/25 10.20.3.128/26 fd00:1:2::/48")},
		"adjacent": {Networks: networksOf(t, "10.0.0.0/25 10.0.0.128/25 10.0.1.0/24 10.0.2.0/23 192.0.2.6 192.0.2.7 192.0.2.8", "255.255.255.255 0.0.0.0 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::")},
		"balanced": {Networks: networksOf(t, "10.0.0.0/8", "10.0.0.2"), Proxies: map[string]*acl.Networks{
			"10.0.0.5:5432": networksOf(t, "10.0.0.2 fd00::2", ""), "[::]:5434": networksOf(t, "10.0.0.3/32", ""),
		}},
	}
}

var sampleListeners = []string{"[::]:5434", "0.0.0.0:5433", "10.0.0.5:5432", "[fd00::5]:5432"}

// nft accepts what is printed, and its listing is recognised as equal.
func TestRulesInTheKernel(t *testing.T) {
	needNFT(t)
	for name, p := range policies(t) {
		for _, action := range []string{Reject, Drop} {
			t.Run(name+"/"+action, func(t *testing.T) {
				text := Rules(p, sampleListeners, action)
				if out, err := inNamespace("nft --check -f -", text); err != nil || len(out) > 0 {
					t.Fatalf("%v: %s", err, out)
				}
				listed, err := inNamespace("nft -f - && nft -j list table inet pgwicket", text+text) // twice is as good as once
				if err != nil {
					t.Fatalf("%v: %s", err, listed)
				}
				found, err := compare(p, sampleListeners, listed)
				if err != nil || len(found) > 0 {
					t.Errorf("%v, %q in\n%s\nof\n%s", err, found, listed, text)
				}
			})
		}
	}
}

func TestDifferences(t *testing.T) {
	needNFT(t)
	p := policies(t)["balanced"]
	const moved = "delete chain inet pgwicket input; add chain inet pgwicket input { type filter hook input priority 5; policy accept; }"
	for change, want := range map[string]string{
		"add element inet pgwicket allow4 { 172.16.0.0/12 }":                     "set allow4 also has 172.16.0.0-172.31.255.255",
		"delete element inet pgwicket deny4 { 10.0.0.2 }":                        "set deny4 lacks 10.0.0.2",
		"flush set inet pgwicket listener1_from6":                                "set listener1_from6 lacks fd00::2",
		"insert rule inet pgwicket input accept":                                 `chain input has the rules "accept; iif \"lo\" accept; `,
		"add rule inet pgwicket sources drop":                                    "chain sources has the rules ",
		"insert rule inet pgwicket sources ip saddr 10.0.0.2 accept":             `chain sources has the rules "ip saddr 10.0.0.2 accept; `,
		"insert rule inet pgwicket refuse tcp dport != 5432 accept":              `chain refuse has the rules "{\"match\":`,
		"flush chain inet pgwicket refuse":                                       `chain refuse has the rules ""`,
		"add chain inet pgwicket other { type filter hook forward priority 0; }": "chain other is unexpected",
		"delete chain inet pgwicket input":                                       "chain input is missing",
		"flush table inet pgwicket; delete set inet pgwicket allow6":             "set allow6 is missing",
		moved: `chain input is "type filter hook input priority 5; policy accept;"`,
	} {
		script := "nft -f - && nft '" + change + "' && nft -j list table inet pgwicket"
		listed, err := inNamespace(script, Rules(p, sampleListeners, Reject))
		if err != nil {
			t.Errorf("%s: %v: %s", change, err, listed)
			continue
		}
		found, err := compare(p, sampleListeners, listed)
		if err != nil || !slices.ContainsFunc(found, func(d string) bool { return strings.HasPrefix(d, want) }) {
			t.Errorf("%s: %v, %q", change, err, found)
		}
	}
}

// A dormant table counts as a difference. Some releases of nft list its flags in broken JSON, which is an error.
func TestDormant(t *testing.T) {
	needNFT(t)
	p := policies(t)["one"]
	listed, err := inNamespace("nft -f - && nft 'add table inet pgwicket { flags dormant; }' && nft -j list table inet pgwicket", Rules(p, sampleListeners, Reject))
	if err != nil {
		t.Fatalf("%v: %s", err, listed)
	}
	if found, err := compare(p, sampleListeners, listed); err == nil && !slices.ContainsFunc(found, func(d string) bool { return strings.Contains(d, "the table has the flags") }) {
		t.Errorf("%q in\n%s", found, listed)
	}
}

// The forms in which nft writes elements, and some that it never writes.
func TestReadSpan(t *testing.T) {
	for text, want := range map[string]string{
		`"10.0.0.1"`: "10.0.0.1",
		`{"prefix": {"addr": "10.0.0.0", "len": 9}}`: "10.0.0.0-10.127.255.255",
		`{"range": ["10.0.0.1", "10.0.0.9"]}`:        "10.0.0.1-10.0.0.9",
		`{"prefix": {"addr": "::", "len": 0}}`:       "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got, err := readSpan(json.RawMessage(text)); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`{"elem": {"val": "10.0.0.1", "timeout": 5}}`, `"lo"`, `5`, `{"range": ["10.0.0.1"]}`} {
		if got, err := readSpan(json.RawMessage(text)); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"", "{}x", `{"nftables": [{"set": {"name": "allow4", "elem": [5]}}]}`} {
		if found, err := compare(policies(t)["one"], sampleListeners, []byte(text)); err == nil {
			t.Errorf("%q: %q", text, found)
		}
	}
}
