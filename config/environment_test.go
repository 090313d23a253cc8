package config

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/golden"
)

// loadWith loads text with these variables, and returns the problems as check prints them.
func (s *site) loadWith(t *testing.T, text string, variables map[string]string) (*Config, []string) {
	t.Helper()
	for name, value := range variables {
		t.Setenv(name, value)
	}
	path := ""
	if text != "" {
		path = s.write(t, "pgwicket.yaml", []byte(text), 0o600)
	}
	cfg, problems := Load(path, nil, nil, time.Now())
	var lines []string
	for _, p := range problems {
		if strings.HasPrefix(p.File, variablePrefix) != (p.Line == 0) {
			t.Errorf("line %d of %s", p.Line, p.File)
		}
		p.File = strings.TrimPrefix(p.File, s.dir+"/")
		lines = append(lines, p.String())
	}
	return cfg, lines
}

const small = `
listen: [{address: "127.0.0.1:5432"}]
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}
acl: {allow: [10.20.0.0/16], rules: [{action: reject, name: from the file}]}
backend: {host: "@postgresql"}
`

// Every key can be set by its variable alone, to the same end as by a file, and one in the environment wins.
func TestEnvironmentHasEveryKey(t *testing.T) {
	s := newSite(t)
	path := s.write(t, "all-keys.yaml", testdata(t, s, "all-keys.good.yaml"), 0o600)
	want, problems := readSettings(path, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	environ := []string{
		`PGWICKET_LISTEN=[{address: "127.0.0.1:5432"}, {address: "[::1]:5432", proxy_protocol_from: ["fd00::/64", 192.0.2.2]}]`,
		"PGWICKET_TLS_CERT_FILE=\"\"", "PGWICKET_TLS_KEY_FILE=\"\"", "PGWICKET_TLS_OCSP_FILE=\"\"",
		"PGWICKET_TLS_CERTIFICATES=- cert_file: chained.crt\n  key_file: chained.key\n  ocsp_file: chained.ocsp\n",
		"PGWICKET_TLS_PASSPHRASE_COMMAND=echo", "PGWICKET_TLS_MIN_PROTOCOL_VERSION=TLSv1.2", "PGWICKET_TLS_MAX_PROTOCOL_VERSION=TLSv1.3",
		"PGWICKET_TLS_CIPHERS=TLS_AES_256_GCM_SHA384, ECDHE-ECDSA-AES256-GCM-SHA384", "PGWICKET_TLS_GROUPS=[X25519, prime256v1]",
		"PGWICKET_TLS_CLIENT_CERT=optional", "PGWICKET_TLS_CA_FILE=" + s.path("ca.crt"), "PGWICKET_TLS_PARTIAL_CHAIN=true", "PGWICKET_TLS_MIN_SECURITY_BITS=80",
		"PGWICKET_TLS_CRL_FILE=ca.crl", "PGWICKET_TLS_CRL_DIR=crls", "PGWICKET_TLS_CRL_URLS=http://ca.example.com/ca.crl,from-certificates", "PGWICKET_TLS_CRL_CHECK=leaf", "PGWICKET_TLS_CRL_MISSING=allow",
		"PGWICKET_TLS_CRL_STALE=end", "PGWICKET_TLS_CRL_GRACE=12h",
		"PGWICKET_ACL_ALLOW=10.20.0.0/16,192.0.2.7,fd00::/8", "PGWICKET_ACL_DENY=10.20.30.0/24", "PGWICKET_ACL_REFUSAL=explain",
		`PGWICKET_ACL_RULES=[{name: first, action: allow, sources: [10.20.0.0/16], listeners: [127.0.0.1:5432, "[::1]:5432"], ` +
			`databases: [shop, sameuser, "t_*", "/^x$"], users: [app, samename, 'u_\1', +staff], certificate: {cn: '/^(.*)$', dn: "CN=app,O=Example", ` +
			`dns: "*.example", email: all, uri: "spiffe://x/*", issuer: CN=CA, spki: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}, ` +
			`sni: [db.example], replication: none, backend: replicas, database_as: shop2, idle_timeout: 22s, from: "2026-01-01T00:00:00Z", until: "2226-01-01T00:00:00Z", weekdays: [mon-fri, sun], hours: [8-18, "22:30-6"], timezone: Europe/Zurich, session_lifetime: 23h, max_certificate_lifetime: 2160h, max_sessions: 24, max_sessions_per_certificate: 25}, {action: reject}]`,
		"PGWICKET_ACL_SUPERUSERS=root", "PGWICKET_ACL_RECHECK_INTERVAL=45s", "PGWICKET_ACL_ON_RECHECK=idle", "PGWICKET_ACL_ON_EXPIRY=off", "PGWICKET_ACL_CANCEL_REQUESTS=known",
		"PGWICKET_BACKEND_HOST=@postgresql", "PGWICKET_BACKEND_PORT=6432", "PGWICKET_BACKEND_CONNECT_TIMEOUT=1s500ms",
		"PGWICKET_BACKEND_SSLMODE=\"\"", "PGWICKET_BACKEND_SSLNEGOTIATION=\"\"", "PGWICKET_BACKEND_SSLROOTCERT=\"\"",
		"PGWICKET_BACKEND_SSLCRL=\"\"", "PGWICKET_BACKEND_SSLCRLDIR=\"\"",
		"PGWICKET_BACKEND_SSLCERT=\"\"", "PGWICKET_BACKEND_SSLKEY=\"\"", "PGWICKET_BACKEND_CLIENT_INFO=false",
		"PGWICKET_BACKEND_GROUPS_USER=\"\"", "PGWICKET_BACKEND_GROUPS_DATABASE=postgres", "PGWICKET_BACKEND_GROUPS_PASSWORD_FILE=\"\"",
		"PGWICKET_BACKEND_GROUPS_REFRESH=30s", "PGWICKET_BACKEND_GROUPS_MAX_AGE=5m",
		`PGWICKET_BACKENDS=[{name: replicas, host: "db1.example, fd00::2, @third", port: "5433,5434,5435", connect_timeout: 2s, sslmode: verify-full, ` +
			`sslnegotiation: direct, sslrootcert: ca.crt, sslcrl: ca.crl, sslcrldir: crls, sslcert: chained.crt, sslkey: chained.key, client_info: true, groups: {user: lookup, database: shop, password_file: groups.password, refresh: 26s, max_age: 27m}}]`,
		"PGWICKET_LIMITS_STARTUP_TIMEOUT=1m", "PGWICKET_LIMITS_AUTHENTICATION_TIMEOUT=70s", "PGWICKET_LIMITS_MAX_CANCEL_REQUESTS=7", "PGWICKET_LIMITS_MAX_CONNECTIONS=11", "PGWICKET_LIMITS_MAX_STARTUPS=8", "PGWICKET_LIMITS_MAX_HANDSHAKE_BYTES=19000",
		"PGWICKET_LIMITS_MAX_CONNECTIONS_PER_SOURCE=12", "PGWICKET_LIMITS_MAX_SESSIONS_PER_ACCOUNT=13", "PGWICKET_LIMITS_CONNECTION_RATE=14",
		"PGWICKET_LIMITS_CONNECTION_BURST=15", "PGWICKET_LIMITS_MAX_AUTH_FAILURES=16", "PGWICKET_LIMITS_AUTH_REFUSAL=17s",
		"PGWICKET_LIMITS_IDLE_TIMEOUT=18s", "PGWICKET_LIMITS_IDLE_IN_TRANSACTION_TIMEOUT=21s", "PGWICKET_LIMITS_SESSION_LIFETIME=19h", "PGWICKET_LIMITS_UNFINISHED_REQUEST_TIMEOUT=20m", "PGWICKET_LIMITS_TCP_USER_TIMEOUT=90s",
		"PGWICKET_LIMITS_DRAIN_DELAY=5s", "PGWICKET_LIMITS_DRAIN_TIMEOUT=2h",
		"PGWICKET_ADMIN_ADDRESS=192.0.2.1:9999", "PGWICKET_ADMIN_UNPROTECTED=false", "PGWICKET_ADMIN_HOSTS=gate.example", "PGWICKET_ADMIN_SOCKET=admin.sock",
		"PGWICKET_ADMIN_SHOW_CLIENTS=true", "PGWICKET_ADMIN_TLS_CERT_FILE=server.crt", "PGWICKET_ADMIN_TLS_KEY_FILE=server.key",
		"PGWICKET_ADMIN_TLS_OCSP_FILE=\"\"", "PGWICKET_ADMIN_TLS_CERTIFICATES=[]", "PGWICKET_ADMIN_TLS_PASSPHRASE_COMMAND=\"\"",
		"PGWICKET_ADMIN_TLS_MIN_PROTOCOL_VERSION=TLSv1.3", "PGWICKET_ADMIN_TLS_MAX_PROTOCOL_VERSION=TLSv1.3",
		"PGWICKET_ADMIN_TLS_CIPHERS=TLS_AES_256_GCM_SHA384", "PGWICKET_ADMIN_TLS_GROUPS=X25519", "PGWICKET_ADMIN_TLS_CLIENT_CERT=require",
		"PGWICKET_ADMIN_TLS_CA_FILE=ca.crt", "PGWICKET_ADMIN_TLS_PARTIAL_CHAIN=false", "PGWICKET_ADMIN_TLS_MIN_SECURITY_BITS=128", "PGWICKET_ADMIN_TLS_CRL_FILE=ca.crl",
		"PGWICKET_ADMIN_TLS_CRL_DIR=\"\"", "PGWICKET_ADMIN_TLS_CRL_URLS=[]", "PGWICKET_ADMIN_TLS_CRL_CHECK=chain", "PGWICKET_ADMIN_TLS_CRL_MISSING=reject",
		"PGWICKET_ADMIN_TLS_CRL_STALE=reject", "PGWICKET_ADMIN_TLS_CRL_GRACE=0s",
		"PGWICKET_LOG_LEVEL=debug", "PGWICKET_LOG_FORMAT=json", "PGWICKET_LOG_SESSIONS=end", "PGWICKET_LOG_REFUSAL_RATE=20",
		"PGWICKET_WATCH_FILES=false", "PGWICKET_REUSE_PORT=true", "PGWICKET_USER=nobody", "PGWICKET_STATE_DIR=.", "PGWICKET_AUDIT_FILE=audit.log", "PGWICKET_AUDIT_REQUIRED=true", "PGWICKET_LANDLOCK=false",
	}
	for _, path := range []string{"", s.write(t, "other.yaml", []byte(small+"log: {level: warn, format: text}\nwatch_files: true\n"), 0o600)} {
		got, problems := readSettings(path, environ)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if !reflect.DeepEqual(got.file, want.file) {
			t.Errorf("the variables of this test (+) do not set what all-keys.good.yaml sets (-); see %s:\n%s", recipe, golden.Diff(golden.Fields(got.file), golden.Fields(want.file)))
		}
		for key, line := range got.lines {
			if line != 0 && key != "tls" && key != "acl" && key != "backend" && key != "log" {
				t.Errorf("%s stands in line %d", key, line)
			}
		}
		var names []string
		for _, entry := range environ {
			name, _, _ := strings.Cut(entry, "=")
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(got.variables, names) {
			t.Errorf("variables that are set:\n%s", golden.Lists(got.variables, names))
		}
	}
	set := map[string]bool{}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		set[name] = true
	}
	for name, key := range variables() { // a new key, too
		if !set[name] {
			t.Errorf("%s of %s is not tried; see %s", name, key, recipe)
		}
	}
}

func TestEnvironmentMistakes(t *testing.T) {
	const blame = "PGWICKET_LIMITS_MAX_CONNECTIONS"
	for _, c := range []struct{ name, value, want string }{
		{blame, "many", `PGWICKET_LIMITS_MAX_CONNECTIONS: "many" is not a whole number from 0 to 2147483647; write it in digits, without quotes`},
		{"PGWICKET_LIMITS_DRAIN_TIMEOUT", "10", `PGWICKET_LIMITS_DRAIN_TIMEOUT: "10" is not a duration; write it with a unit, like 500ms, 10s or 5m`},
		{"PGWICKET_WATCH_FILES", "maybe", `PGWICKET_WATCH_FILES: expected true or false, found text ("maybe")`},
		{"PGWICKET_LOG_LEVEL", "loud", `PGWICKET_LOG_LEVEL: log.level: "loud" is not known; write one of debug, info, warn, error`},
		{"PGWICKET_ACL_ALLOW", "10.0.0.0/8,10.0.0.0/33", `PGWICKET_ACL_ALLOW: acl.allow[1]: "10.0.0.0/33" is not a network; write it like 10.20.0.0/16, 192.0.2.7 or fd00::/8 (prefix length out of range)`},
		{"PGWICKET_ACL_DENY", "10.0.0.0/8,", `PGWICKET_ACL_DENY: acl.deny[1]: "" is not a network; write it like 10.20.0.0/16, 192.0.2.7 or fd00::/8 (no '/')`},
		{"PGWICKET_ACL_RULES", "", `PGWICKET_ACL_RULES: is empty; unset it, or write [] for an empty list`},
		{"PGWICKET_ACL_RULES", "# none", `PGWICKET_ACL_RULES: is empty; unset it, or write [] for an empty list`},
		{"PGWICKET_TLS_CRL_FILE", "", `PGWICKET_TLS_CRL_FILE: is empty; unset it, or write "" for an empty text`},
		{"PGWICKET_TLS_CRL_FILE", "gone.crl", `PGWICKET_TLS_CRL_FILE: tls.crl_file: cannot read "$DIR/gone.crl": no such file or directory`},
		{"PGWICKET_TLS_CA_FILE", "\xff", `PGWICKET_TLS_CA_FILE: is not UTF-8`},
		{"PGWICKET_TLS_CA_FILE", "ca.crt\n", `PGWICKET_TLS_CA_FILE: contains a control character; remove it`},
		{"PGWICKET_LISTEN", "10.0.0.5:5432", `PGWICKET_LISTEN: expected a list of sections (each begins with "- "), found text ("10.0.0.5:5432")`},
		{"PGWICKET_LISTEN", "[{addr: \"10.0.0.5:5432\"}]", `PGWICKET_LISTEN: unknown key "addr"; did you mean "address"?`},
		{"PGWICKET_LISTEN", "[{address: \"10.0.0.5:5432\"}", `PGWICKET_LISTEN: not YAML, here or nearby: did not find expected ',' or ']'`},
		{"PGWICKET_LISTEN", "[]\n---\n[]", `PGWICKET_LISTEN: has more than one list; write one`},
		{"PGWICKET_ACL_RULES", "[{action: allow, users: [app]}, {users: [app]}]", `PGWICKET_ACL_RULES: acl.rules[1]: has no action; write action: allow or action: reject`},
		{"PGWICKET_TLS_MIN_PROTOCOL", "TLSv1.3", `PGWICKET_TLS_MIN_PROTOCOL: unknown variable; did you mean PGWICKET_TLS_MIN_PROTOCOL_VERSION?`},
		{"PGWICKET_BACKND_PORT", "5433", `PGWICKET_BACKND_PORT: unknown variable; did you mean PGWICKET_BACKEND_PORT?`},
		{"PGWICKET_CONFIGS", "x", `PGWICKET_CONFIGS: unknown variable; did you mean PGWICKET_CONFIG?`},
		{"PGWICKET_LISTEM", "x", `PGWICKET_LISTEM: unknown variable; did you mean PGWICKET_LISTEN?`},
		{"PGWICKET_SOMETHING_THAT_IS_NOTHING_LIKE_A_KEY_OF_OURS", "x", `PGWICKET_SOMETHING_THAT_IS_NOTHING_LIKE_A_KEY_OF_OURS: unknown variable; each variable has the name of a key, like PGWICKET_TLS_CERT_FILE for cert_file in tls`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			cfg, got := s.loadWith(t, small, map[string]string{c.name: c.value})
			if want := strings.ReplaceAll(c.want, "$DIR", s.dir); cfg != nil || !slices.Equal(got, []string{want}) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
			}
		})
	}
}

// Kubernetes tells every container of the Services beside it.
func TestEnvironmentOfKubernetes(t *testing.T) {
	s := newSite(t)
	cfg, problems := s.loadWith(t, small, map[string]string{
		"PGWICKET_SERVICE_HOST": "10.96.0.7", "PGWICKET_SERVICE_PORT": "5432", "PGWICKET_SERVICE_PORT_POSTGRESQL": "5432",
		"PGWICKET_PORT": "tcp://10.96.0.7:5432", "PGWICKET_PORT_5432_TCP": "tcp://10.96.0.7:5432", "PGWICKET_PORT_5432_TCP_PROTO": "tcp",
		"PGWICKET_PORT_5432_TCP_PORT": "5432", "PGWICKET_PORT_5432_TCP_ADDR": "10.96.0.7",
		"PGWICKET_METRICS_SERVICE_HOST": "10.96.0.8", "PGWICKET_METRICS_PORT": "tcp://10.96.0.8:10432",
		"PGWICKET_BACKEND_PORT": "tcp://10.96.0.9:5432",
	})
	if cfg == nil || len(problems) > 0 || len(cfg.Variables) > 0 {
		t.Errorf("config %v, %q", cfg, problems)
	}
}

// A variable takes the place of all that the file says of its key, and of nothing else.
func TestEnvironmentOverFile(t *testing.T) {
	s := newSite(t)
	cfg, problems := s.loadWith(t, small, map[string]string{
		"PGWICKET_ACL_RULES":              `[{action: allow, users: [app]}]`,
		"PGWICKET_BACKEND_PORT":           "5433",
		"PGWICKET_TLS_PASSPHRASE_COMMAND": `echo "a: #b"`, // no YAML, which would end at the #
		"PGWICKET_LIMITS_MAX_CONNECTIONS": "7",
		"PGWICKET_CONFIG":                 "elsewhere.yaml", // the command's business
	})
	if cfg == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	rules := cfg.Policy.Rules.All()
	if len(rules) != 1 || rules[0].Name != "rule 1" || cfg.At(rules[0].Line) != "PGWICKET_ACL_RULES" {
		t.Errorf("rules %+v", rules)
	}
	if got := cfg.Policy.Backend.Hosts[0].Address; got != "@postgresql/.s.PGSQL.5433" {
		t.Errorf("backend %s", got)
	}
	if !cfg.RunsCommands || cfg.Policy.Limits.Sessions != 7 || cfg.UserLine == 0 {
		t.Errorf("got %+v, limits %+v", cfg, cfg.Policy.Limits)
	}
	if want := []string{"PGWICKET_ACL_RULES", "PGWICKET_BACKEND_PORT", "PGWICKET_LIMITS_MAX_CONNECTIONS", "PGWICKET_TLS_PASSPHRASE_COMMAND"}; !slices.Equal(cfg.Variables, want) {
		t.Errorf("variables %q", cfg.Variables)
	}
}

// With all that is required in the environment there need be no file; what is missing is asked for by its variable.
func TestEnvironmentAlone(t *testing.T) {
	s := newSite(t)
	t.Chdir(s.dir) // where relative paths then start
	if cfg, problems := s.loadWith(t, "", map[string]string{"PGWICKET_ACL_ALLOW": "10.20.0.0/16"}); cfg != nil || len(problems) < 2 ||
		!strings.HasPrefix(problems[0], "PGWICKET_LISTEN: listen: is missing;") || !strings.HasPrefix(problems[1], "PGWICKET_TLS_C") {
		t.Errorf("config %v, %q", cfg, problems)
	}
	cfg, problems := s.loadWith(t, "", map[string]string{
		"PGWICKET_LISTEN":        `[{address: "127.0.0.1:5432"}]`,
		"PGWICKET_TLS_CERT_FILE": "server.crt", "PGWICKET_TLS_KEY_FILE": "server.key",
		"PGWICKET_TLS_CA_FILE": "ca.crt", "PGWICKET_TLS_CRL_DIR": "crls",
		"PGWICKET_BACKEND_HOST": s.path("gone"), "PGWICKET_USER": "nobody",
	})
	if want := []string{"PGWICKET_BACKEND_HOST: warning: backend.host: there is no directory " + s.path("gone") +
		"; is PostgreSQL installed, and is this one of its unix_socket_directories?"}; cfg == nil || !slices.Equal(problems, want) {
		t.Fatalf("config %v, %q", cfg, problems)
	}
	if cfg.UserLine != 0 || cfg.Listen[0] != "127.0.0.1:5432" {
		t.Errorf("got %+v", cfg)
	}
	if got, want := Files(""), []string{"server.crt", "server.key", "ca.crt", "crls"}; !slices.Equal(got, want) {
		t.Errorf("watched are %q", got)
	}
	for _, n := range Names("") {
		if n.Line != 0 || n.Key == "" {
			t.Errorf("%+v", n)
		}
	}
}

// What the environment names is watched like what the file names, and starts where the file's does.
func TestEnvironmentIsWatched(t *testing.T) {
	s := newSite(t)
	path := s.write(t, "pgwicket.yaml", []byte(small), 0o600)
	t.Setenv("PGWICKET_TLS_CRL_FILE", "lists/new.crl")
	if got, want := Files(path), []string{path, s.path("server.crt"), s.path("server.key"), s.path("ca.crt"), s.path("lists/new.crl")}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	t.Setenv("PGWICKET_NOTHING", "x")
	if got := Files(path); !slices.Equal(got, []string{path}) {
		t.Errorf("with a mistake: %q", got)
	}
}

func TestInEnvironment(t *testing.T) {
	for entry, want := range map[string]bool{
		"PGWICKET_LISTEN=[]": true, "PGWICKET_CONFIG=x": false, "PGWICKET_LISTN=[]": false, "LISTEN=[]": false, "PGWICKET_BACKEND_PORT=tcp://10.0.0.1:1": false,
	} {
		if got := InEnvironment([]string{"PATH=/bin", entry}); got != want {
			t.Errorf("%s: %t", entry, got)
		}
	}
}

// Whatever stands in a variable, its key gets a value or one mistake that is a line of text.
func FuzzEnvironment(f *testing.F) {
	for _, text := range []string{"", "[]", "[{address: x}]", "a, b", "- a\n- *b", "1", "10s", "\"\"", "\x00", "[a", "{a: b}", "&a [*a]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, key := range variables() {
			_, problems := readSettings("", []string{name + "=" + text})
			for _, p := range problems {
				if p.File != name || p.Line != 0 || control.MatchString(p.Text) || p.Text == "" {
					t.Errorf("%s (%s): %+v", name, key, p)
				}
			}
		}
	})
}

// The environment of the caller must not change what the tests load.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, variablePrefix) {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}
