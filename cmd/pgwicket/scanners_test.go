//go:build unix

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// scanPatience is how long one scanner may take on a busy machine.
const scanPatience = 10 * time.Minute

// profile is a configuration, and what a scanner must find of it: written by hand,
// for a test that asked the same tables as the product would agree with its mistakes.
type profile struct {
	name    string
	options []string // lines of the section tls
	keys    []string
	suites  map[string][]string // by version
	groups  []string            // OpenSSL's names, of those that every scanner knows
	testssl bool                // which takes a minute or more
}

var profiles = []profile{
	{
		name:    "TLSv1.3 only",
		options: []string{"min_protocol_version: TLSv1.3"},
		keys:    bothKeys,
		suites: map[string][]string{
			"TLSv1.3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
		},
		groups: []string{"X25519", "prime256v1", "secp384r1", "secp521r1"},
	},
	{
		name: "default",
		keys: bothKeys,
		suites: map[string][]string{
			"TLSv1.2": {
				"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
				"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
			},
			"TLSv1.3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
		},
		groups:  []string{"X25519", "prime256v1", "secp384r1", "secp521r1"},
		testssl: true,
	},
	{
		name: "AES-256 only",
		options: []string{
			withCiphers("TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
			"groups: [X25519, secp384r1]",
		},
		keys: bothKeys,
		suites: map[string][]string{
			"TLSv1.2": {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
			"TLSv1.3": {"TLS_AES_256_GCM_SHA384"},
		},
		groups: []string{"X25519", "secp384r1"},
	},
	{
		name: "RSA-only legacy",
		options: []string{
			"min_protocol_version: TLSv1", "max_protocol_version: TLSv1.2",
			withCiphers("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA", "AES128-SHA", "AES256-GCM-SHA384"),
			"groups: [prime256v1, secp384r1]",
		},
		keys: onlyRSA,
		suites: map[string][]string{
			"TLSv1":   {"AES128-SHA", "ECDHE-RSA-AES256-SHA"},
			"TLSv1.1": {"AES128-SHA", "ECDHE-RSA-AES256-SHA"},
			"TLSv1.2": {"AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA"},
		},
		groups:  []string{"prime256v1", "secp384r1"},
		testssl: true,
	},
}

// TestScanners: what scanners find is what the configuration says.
func TestScanners(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Run("openssl", func(t *testing.T) { p.openSSL(t) })
			t.Run("sslscan", func(t *testing.T) { p.sslscan(t) })
			if p.testssl {
				t.Run("testssl.sh", func(t *testing.T) { p.testSSL(t) })
			}
		})
	}
}

func (p profile) compare(t *testing.T, suites map[string][]string) {
	t.Helper()
	for _, list := range suites {
		slices.Sort(list)
	}
	if !maps.EqualFunc(suites, p.suites, slices.Equal) {
		t.Errorf("found %v\nwant %v", suites, p.suites)
	}
}

func (p profile) compareGroups(t *testing.T, groups []string) {
	t.Helper()
	slices.Sort(groups)
	want := slices.Sorted(slices.Values(p.groups))
	if groups = slices.Compact(groups); !slices.Equal(groups, want) {
		t.Errorf("found the groups %v, want %v", groups, want)
	}
}

// openSSL offers all that s_client has, and then always without what the gate has
// chosen, until it chooses nothing.
func (p profile) openSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl in PATH")
	}
	openssl := newOpenSSL(t)
	g := startGate(t, "", p.options, p.keys)
	found := make(map[string][]string)
	for v := v10; v <= v13; v++ {
		offer := openssl.list
		if v == v13 {
			offer = []string{"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256", "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
		}
		for {
			got, err := openssl.handshake(g, v, offer...)
			if err != nil {
				if !strings.Contains(err.Error(), errRefused.Error()) {
					t.Fatal(err)
				}
				break
			}
			version, suite, _ := strings.Cut(got, " ")
			if version != v.String() || !slices.Contains(offer, suite) {
				t.Fatalf("offered %v with %v, and got %q", v, offer, got)
			}
			found[version] = append(found[version], suite)
			if offer = slices.DeleteFunc(slices.Clone(offer), func(s string) bool { return s == suite }); len(offer) == 0 {
				break
			}
		}
	}
	p.compare(t, found)

	var groups []string
	for _, name := range []string{"X25519", "prime256v1", "secp384r1", "secp521r1", "X448", "ffdhe2048"} {
		args := []string{"-groups", name}
		if p.suites["TLSv1.3"] == nil { // a suite with RSA key exchange would have no use for the group
			args = append(args, "-tls1_2", "-cipher", "ECDHE:@SECLEVEL=0")
		}
		if _, err := openssl.run(g, args...); err == nil {
			groups = append(groups, name)
		}
	}
	p.compareGroups(t, groups)
}

// sslscanReport is what sslscan writes.
type sslscanReport struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled string `xml:"enabled,attr"`
		} `xml:"protocol"`
		Ciphers []struct {
			Version string `xml:"sslversion,attr"`
			Name    string `xml:"cipher,attr"`
		} `xml:"cipher"`
		Groups []struct {
			ID string `xml:"id,attr"`
		} `xml:"group"`
		Compression struct {
			Supported string `xml:"supported,attr"`
		} `xml:"compression"`
		Heartbleed []struct {
			Vulnerable string `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
	} `xml:"ssltest"`
}

func (p profile) sslscan(t *testing.T) {
	if _, err := exec.LookPath("sslscan"); err != nil {
		t.Skip("no sslscan in PATH; install it (apt-get install sslscan)")
	}
	t.Setenv("OPENSSL_CONF", "/dev/null")
	g := startGate(t, "", p.options, p.keys)
	ctx, cancel := context.WithTimeout(context.Background(), scanPatience)
	defer cancel()
	// Its own patience would take a busy machine for a refusal.
	out, err := exec.CommandContext(ctx, "sslscan", "--starttls-psql", "--no-colour", "--timeout=60", "--xml=-", g.address).Output()
	var report sslscanReport
	if bad := xml.Unmarshal(out, &report); err != nil || bad != nil {
		t.Fatalf("sslscan: %v, %v: %s", err, bad, out)
	}
	test := report.Test
	spoken := make(map[string][]string)
	for _, c := range test.Ciphers {
		v := strings.TrimSuffix(c.Version, ".0")
		if !slices.Contains(spoken[v], c.Name) {
			spoken[v] = append(spoken[v], c.Name)
		}
	}
	p.compare(t, spoken)
	var enabled []string
	for _, v := range test.Protocols {
		if v.Enabled == "1" {
			enabled = append(enabled, strings.TrimSuffix(strings.ToUpper(v.Type)+"v"+v.Version, ".0"))
		}
	}
	slices.Sort(enabled)
	if want := slices.Sorted(maps.Keys(p.suites)); len(test.Protocols) < 6 || !slices.Equal(enabled, want) {
		t.Errorf("of %d versions %v are enabled, want %v", len(test.Protocols), enabled, want)
	}
	names := map[string]string{"0x001d": "X25519", "0x0017": "prime256v1", "0x0018": "secp384r1", "0x0019": "secp521r1"}
	var groups []string
	for _, gr := range test.Groups {
		groups = append(groups, cmp.Or(names[gr.ID], gr.ID))
	}
	p.compareGroups(t, groups)
	// What it says of renegotiation is not asked: it takes one that is refused with an
	// alert for one that is not. Some builds cannot ask for compression.
	if test.Compression.Supported == "1" {
		t.Error("there is compression")
	}
	for _, h := range test.Heartbleed {
		if h.Vulnerable != "0" {
			t.Errorf("Heartbleed: %q", h.Vulnerable)
		}
	}
}

// What testssl.sh calls the versions, and how it names a suite of one of them.
var (
	testSSLVersions = map[string]string{"SSLv2": "SSLv2", "SSLv3": "SSLv3", "TLS1": "TLSv1", "TLS1_1": "TLSv1.1", "TLS1_2": "TLSv1.2", "TLS1_3": "TLSv1.3"}
	testSSLSuite    = regexp.MustCompile(`^cipher-(tls1(?:_[123])?)_x[0-9a-f]+$`)
	testSSLName     = regexp.MustCompile(`\sx[0-9a-f]+\s+(\S+)`)
)

func (p profile) testSSL(t *testing.T) {
	if testing.Short() {
		t.Skip("testssl.sh takes long")
	}
	path, err := exec.LookPath("testssl")
	if err != nil {
		if path, err = exec.LookPath("testssl.sh"); err != nil {
			t.Skip("no testssl.sh in PATH; install it (apt-get install testssl.sh)")
		}
	}
	g := startGate(t, "", p.options, p.keys)
	ctx, cancel := context.WithTimeout(context.Background(), scanPatience)
	defer cancel()
	file := filepath.Join(t.TempDir(), "report.json")
	cmd := exec.CommandContext(ctx, path, "--quiet", "--color", "0", "--warnings", "off", "--jsonfile", file, "-t", "postgres", "-p", "-E", g.address)
	// It comes back with the number of what it finds wanting, which a throw-away CA is.
	out, _ := cmd.CombinedOutput()
	var findings []struct{ ID, Finding string }
	if text, err := os.ReadFile(file); err != nil {
		t.Fatalf("testssl.sh: %v: %s", err, out)
	} else if err := json.Unmarshal(text, &findings); err != nil {
		t.Fatalf("testssl.sh: %v: %s", err, text)
	}
	found, seen := make(map[string][]string), make(map[string]bool)
	for _, f := range findings {
		if v, ok := testSSLVersions[f.ID]; ok {
			seen[v] = true
			offered := strings.HasPrefix(f.Finding, "offered")
			if _, want := p.suites[v]; offered != want {
				t.Errorf("%s: %q", v, f.Finding)
			}
		}
		if m := testSSLSuite.FindStringSubmatch(f.ID); m != nil {
			v, name := testSSLVersions[strings.ToUpper(m[1])], testSSLName.FindStringSubmatch(f.Finding)
			if v == "" || name == nil {
				t.Errorf("%s: %q", f.ID, f.Finding)
				continue
			}
			found[v] = append(found[v], name[1])
		}
	}
	if len(seen) != len(testSSLVersions) {
		t.Errorf("testssl.sh speaks of %v: %s", seen, fmt.Sprintf("%.2000s", out))
	}
	p.compare(t, found)
}
