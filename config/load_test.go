package config

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/golden"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
)

// loadFile loads a good file of testdata.
func loadFile(t *testing.T, s *site, name string) *Config {
	t.Helper()
	cfg, problems := s.load(t, name, string(testdata(t, s, name)))
	if cfg == nil {
		t.Fatal(problems)
	}
	return cfg
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	cfg := loadFile(t, newSite(t), "defaults.good.yaml")
	got := *cfg.Policy
	if got.TLS != cfg.TLS.Config || got.Verify == nil || got.Networks == nil {
		t.Errorf("policy %+v", got)
	}
	got.TLS, got.Verify, got.Networks = nil, nil, nil
	if want := (proxy.Policy{
		SourceRefusal:      policy.Close,
		Backend:            &proxy.Backend{Hosts: []proxy.Host{{Network: "unix", Address: "@postgresql/.s.PGSQL.5432"}}, ConnectTimeout: 5 * time.Second},
		RecheckInterval:    30 * time.Second,
		ProxyHeaderTimeout: 5 * time.Second,
		Limits:             proxy.Limits{Startups: 1000, HandshakeBytes: 16 << 10, Sessions: 10_000, PerSource: 1000, Rate: 500, Burst: 1000, AuthFailures: 10, AuthRefusal: time.Minute, UnfinishedTimeout: time.Hour},
		StartupTimeout:     10 * time.Second, AuthenticationTimeout: 65 * time.Second,
		MaxCancelRequests: 64,
		Recording:         policy.Recording{RefusalLogRate: 50},
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("policy (+) differs from what all-keys.good.yaml says (-); see %s:\n%s", recipe, golden.Diff(golden.Fields(got), golden.Fields(want)))
	}
	rest := *cfg
	rest.Policy, rest.TLS, rest.Settings, rest.path = nil, nil, nil, ""
	if want := (Config{
		Listen: []string{"127.0.0.1:5432"}, ListenLines: []int{1}, TCPUserTimeout: 5 * time.Minute, DrainTimeout: 30 * time.Second,
		Admin: Admin{Address: "127.0.0.1:10432", Line: 1}, LogLevel: slog.LevelInfo, LogFormat: "auto", WatchFiles: true, UserLine: 1, Landlock: true,
	}); !reflect.DeepEqual(rest, want) {
		t.Errorf("the rest of the configuration (+) differs from what all-keys.good.yaml says (-); see %s:\n%s", recipe, golden.Diff(golden.Fields(rest), golden.Fields(want)))
	}
}

// Every key reaches the value that it is named after.
func TestLoadEveryKey(t *testing.T) {
	t.Parallel()
	cfg := loadFile(t, newSite(t), "all-keys.good.yaml")
	got := *cfg.Policy
	networks, rules, proxies, others := got.Networks, got.Rules, got.Proxies, got.Backends
	got.TLS, got.Verify, got.Networks, got.Rules, got.Proxies, got.Backends = nil, nil, nil, nil, nil, nil
	if want := (proxy.Policy{
		SourceRefusal: policy.Explain,
		Backend:       &proxy.Backend{Hosts: []proxy.Host{{Network: "unix", Address: "@postgresql/.s.PGSQL.6432"}}, ConnectTimeout: 1500 * time.Millisecond},
		Recheck:       policy.WhenIdle, OnExpiry: policy.Off,
		RecheckInterval:    45 * time.Second,
		ProxyHeaderTimeout: 5 * time.Second,
		EndOnStaleCRL:      true,
		Limits: proxy.Limits{
			Startups: 8, HandshakeBytes: 19_000, Sessions: 11, PerSource: 12, PerAccount: 13, Rate: 14, Burst: 15, AuthFailures: 16, AuthRefusal: 17 * time.Second,
			IdleTimeout: 18 * time.Second, IdleInTransaction: 21 * time.Second, SessionLifetime: 19 * time.Hour, UnfinishedTimeout: 20 * time.Minute,
		},
		StartupTimeout: time.Minute, AuthenticationTimeout: 70 * time.Second,
		MaxCancelRequests: 7,
		KnownCancelsOnly:  true,
		Recording:         policy.Recording{RefusalLogRate: 20, LogEndsOnly: true, AuditRequired: true},
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("policy %+v, want %+v", got, want)
	}
	if got, want := cfg.TLS.Describe(), "TLSv1.2 to TLSv1.3; TLS_AES_256_GCM_SHA384, ECDHE-ECDSA-AES256-GCM-SHA384"; got != want {
		t.Errorf("offers %s, want %s", got, want)
	}
	if got, want := cfg.TLS.DescribeClients(), "certificate optional, but checked if sent, checked for revocation "+
		"(only the client's own certificate, missing lists allowed, grace of 12h0m0s after the next update)"; got != want {
		t.Errorf("clients: %s, want %s", got, want)
	}
	if cfg.TLS.Certificates[0].StapledUntil.IsZero() {
		t.Error("nothing is stapled")
	}
	rest := *cfg
	if admin := rest.Admin.TLS; admin == nil || admin.DescribeClients() != "certificate required, checked for revocation" {
		t.Errorf("the TLS of admin.address: %+v", admin)
	}
	rest.Policy, rest.TLS, rest.Admin.TLS, rest.Settings, rest.path = nil, nil, nil, nil, ""
	if want := (Config{
		Listen: []string{"127.0.0.1:5432", "[::1]:5432"}, ListenLines: []int{2, 3}, TCPUserTimeout: 90 * time.Second, DrainDelay: 5 * time.Second, DrainTimeout: 2 * time.Hour,
		Admin: Admin{Address: "192.0.2.1:9999", Line: rest.Admin.Line, Socket: rest.Admin.Socket, Hosts: []string{"gate.example"}, ShowClients: true}, LogLevel: slog.LevelDebug, LogFormat: "json", ReusePort: true, User: "nobody", UserLine: rest.UserLine, RunsCommands: true,
		Groups:   []GroupLookup{{Backend: "replicas", Key: "backends[0].groups", User: "lookup", Database: "shop", Password: "correct horse", Refresh: 26 * time.Second, MaxAge: 27 * time.Minute, Roles: []string{"staff"}}},
		StateDir: filepath.Dir(rest.Admin.Socket), AuditFile: filepath.Join(filepath.Dir(rest.Admin.Socket), "audit.log"),
	}); !reflect.DeepEqual(rest, want) {
		t.Errorf("got %+v, want %+v", rest, want)
	}
	if filepath.Base(rest.Admin.Socket) != "admin.sock" || !filepath.IsAbs(rest.Admin.Socket) {
		t.Errorf("the socket of admin is %q", rest.Admin.Socket)
	}
	if rest.UserLine < 2 {
		t.Errorf("user is said to stand in line %d", rest.UserLine)
	}
	replicas := others["replicas"]
	if len(others) != 1 || replicas == nil || len(replicas.Hosts) != 3 || replicas.ConnectTimeout != 2*time.Second || !replicas.ClientInfo {
		t.Fatalf("backends %+v", others)
	}
	for i, want := range []struct{ network, address, name string }{
		{"tcp", "db1.example:5433", "db1.example"}, {"tcp", "[fd00::2]:5434", "fd00::2"}, {"unix", "@third/.s.PGSQL.5435", ""},
	} {
		h := replicas.Hosts[i]
		if h.Network != want.network || h.Address != want.address || (h.TLS != nil) != (want.name != "") || h.Direct != (want.name != "") {
			t.Errorf("host %d: %+v", i, h)
		}
		if h.TLS != nil && (h.TLS.ServerName != want.name || h.TLS.VerifyConnection == nil || h.SSLMode != "verify-full" || len(h.TLS.Certificates) != 1 || h.UserTimeout != 90*time.Second) {
			t.Errorf("host %d: %+v", i, h)
		}
	}
	if r := rules.All()[0]; r.Backend != "replicas" || r.DatabaseAs != "shop2" || r.IdleTimeout == nil || *r.IdleTimeout != 22*time.Second {
		t.Errorf("the first rule leads to %q, %q, with idle_timeout %v", r.Backend, r.DatabaseAs, r.IdleTimeout)
	}
	behind := proxies["[::1]:5432"]
	if len(proxies) != 1 || behind == nil || behind.Judge(netip.MustParseAddr("192.0.2.2")) != acl.Allowed || behind.Judge(netip.MustParseAddr("192.0.2.3")) == acl.Allowed {
		t.Errorf("load balancers %v", proxies)
	}
	if rules == nil || len(rules.All()) != 2 || rules.All()[0].Name != "first" || rules.All()[1].Line == 0 {
		t.Errorf("rules %+v", rules)
	}
	for addr, want := range map[string]acl.Verdict{
		"10.20.1.1": acl.Allowed, "192.0.2.7": acl.Allowed, "fd01::1": acl.Allowed,
		"10.20.30.1": acl.Denied, "192.0.2.8": acl.NotAllowed,
	} {
		if got := networks.Judge(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: verdict %d, want %d", addr, got, want)
		}
	}
}

// Load balancers are found by the address that the listener reports, which for 0.0.0.0
// is [::] with IPv6.
func TestLoadProxies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg, problems := s.load(t, "pgwicket.yaml", `
listen:
  - {address: "0.0.0.0:5432", proxy_protocol_from: [10.0.0.2]}
  - {address: "[::ffff:127.0.0.1]:5433", proxy_protocol_from: ["::ffff:10.0.0.3", "fd00::/8"]}
  - {address: "*:5434", proxy_protocol_from: [10.0.0.4]}
  - {address: "127.0.0.1:5435", proxy_protocol_from: []}
  - {address: "127.0.0.1:5436", proxy_protocol_from: [0.0.0.0/0]}
`+strings.TrimPrefix(string(testdata(t, s, "defaults.good.yaml")), "listen: [{address: \"127.0.0.1:5432\"}]"))
	if cfg == nil {
		t.Fatal(problems)
	}
	const open = "listen[4].proxy_protocol_from: 0.0.0.0/0 allows every host to claim any client address; list the load balancers"
	if !slices.ContainsFunc(problems, func(p string) bool { return strings.HasSuffix(p, "warning: "+open) }) {
		t.Errorf("no warning of 0.0.0.0/0 in %q", problems)
	}
	proxies := cfg.Policy.Proxies
	for listener, from := range map[string]string{
		"0.0.0.0:5432": "10.0.0.2", "[::]:5432": "10.0.0.2", "127.0.0.1:5433": "10.0.0.3", "[::]:5434": "10.0.0.4", "127.0.0.1:5436": "8.8.8.8",
	} {
		if n := proxies[listener]; n == nil || n.Judge(netip.MustParseAddr(from)) != acl.Allowed {
			t.Errorf("%s: %s is not trusted", listener, from)
		}
	}
	if len(proxies) != 5 {
		t.Errorf("%d listeners with load balancers: %v", len(proxies), proxies)
	}
	if n := proxies["127.0.0.1:5433"]; n.Judge(netip.MustParseAddr("10.0.0.2")) == acl.Allowed {
		t.Error("the load balancer of one listener is trusted by another")
	}
}

// supabase/supabase#20478: an IPv4-mapped network contains the IPv4 addresses.
func TestLoadMappedNetworks(t *testing.T) {
	t.Parallel()
	n := loadFile(t, newSite(t), "networks-mapped.good.yaml").Policy.Networks
	for addr, want := range map[string]acl.Verdict{
		"10.0.0.1": acl.Allowed, "::ffff:10.0.0.1": acl.Allowed, "10.0.0.7": acl.Denied, "::ffff:10.0.0.7": acl.Denied, "::1": acl.NotAllowed,
	} {
		if got := n.Judge(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: verdict %d, want %d", addr, got, want)
		}
	}
}

// A gate without an acl section admits nobody.
func TestLoadWithoutNetworks(t *testing.T) {
	t.Parallel()
	n := loadFile(t, newSite(t), "networks-none.good.yaml").Policy.Networks
	for _, addr := range []string{"127.0.0.1", "10.0.0.1", "::1"} {
		if got := n.Judge(netip.MustParseAddr(addr)); got != acl.NotAllowed {
			t.Errorf("%s: verdict %d", addr, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	cfg := loadFile(t, newSite(t), "wildcard.good.yaml")
	if want := []string{"0.0.0.0:5432", "[::]:5433"}; !slices.Equal(cfg.Listen, want) || cfg.Admin.Address != "[::]:10432" {
		t.Errorf("listen %q, admin %+v", cfg.Listen, cfg.Admin)
	}
}

// An empty address turns the admin address off.
func TestLoadWithoutAdmin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	text := string(testdata(t, s, "defaults.good.yaml")) + "admin: {address: \"\"}\n"
	if cfg, problems := s.load(t, "pgwicket.yaml", text); cfg == nil || !reflect.DeepEqual(cfg.Admin, Admin{}) {
		t.Errorf("config %v, %v", cfg, problems)
	}
}
