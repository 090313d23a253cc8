package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/golden"
	"pgwicket/internal/tlstest"
)

const exampleFile = "../config.example.yaml"

// recipe is where a failed test of every key sends its reader.
const recipe = `"How to add a configuration key" in CONTRIBUTING.md`

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The example is a manual and a valid configuration: it loads if the files that it names exist.
func TestExampleLoads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg, problems := s.load(t, "pgwicket.yaml", example(t))
	if cfg == nil {
		t.Fatal(problems)
	}
	// There may be no PostgreSQL on this machine. No other warning is expected.
	for _, p := range problems {
		if !strings.Contains(p, "warning: backend.host: ") {
			t.Error(p)
		}
	}

	// The keys in comments load too, when the list of certificates replaces the single one.
	s.chained(t, "ecdsa")
	s.pair(t, "rsa", s.ca.WithKey(tlstest.RSA).Server("db.example"))
	s.write(t, "crl.d/ca.crl", s.ca.CRL(nil), 0o644)
	s.write(t, "db-ca.crt", s.ca.CertPEM(), 0o644)
	s.write(t, "db-ca.crl", s.ca.CRL(nil), 0o644)
	s.write(t, "db-crls/db-ca.crl", s.ca.CRL(nil), 0o644)
	s.pair(t, "gate", s.ca.Client("gate"))
	s.pair(t, "admin", s.ca.Server("db.example"))
	s.write(t, "admin-ca.crt", s.ca.CertPEM(), 0o644)
	s.write(t, "admin-ca.crl", s.ca.CRL(nil), 0o644)
	text := regexp.MustCompile(`(?m)^  (cert|key|ocsp)_file: .*$`).ReplaceAllString(uncommented(t, example(t)), "")
	cfg, problems = s.load(t, "pgwicket.yaml", text)
	if cfg == nil {
		t.Fatalf("%v in\n%s", problems, text)
	}
	if len(cfg.Listen) != 2 || len(cfg.TLS.Certificates) != 2 {
		t.Errorf("listens on %q, with %v", cfg.Listen, cfg.TLS.Certificates)
	}
}

// The example has every key, set or in a comment, and no other.
func TestExampleIsComplete(t *testing.T) {
	t.Parallel()
	_, lines, problems := parse([]byte(uncommented(t, example(t))))
	if len(problems) > 0 {
		t.Fatalf("%v in\n%s", problems, uncommented(t, example(t)))
	}
	index := regexp.MustCompile(`\[\d+\]`)
	shown := map[string]bool{}
	for path := range lines {
		if strings.HasPrefix(path, "admin.tls.") {
			continue // the keys of tls, which the example does not explain twice
		}
		if path = index.ReplaceAllString(path, "[]"); !strings.HasSuffix(path, "[]") {
			shown[path] = true
		}
	}
	there := keyPaths(reflect.TypeFor[file](), "")
	maps.DeleteFunc(there, func(path string, _ bool) bool { return strings.HasPrefix(path, "admin.tls.") })
	if got, want := slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(there)); !slices.Equal(got, want) {
		t.Errorf("config.example.yaml has (+) or lacks (-) these keys; see %s:\n%s", recipe, golden.Lists(got, want))
	}
}

// keyPaths returns the path of every key below a struct, and whether it is a section.
func keyPaths(t reflect.Type, path string) map[string]bool {
	paths := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		key, kind := f.Tag.Get("yaml"), f.Type
		if key == "-" {
			continue
		}
		if path != "" {
			key = path + "." + key
		}
		below := key
		if kind.Kind() == reflect.Slice {
			kind, below = kind.Elem(), key+"[]"
		}
		paths[key] = kind.Kind() == reflect.Struct
		if kind.Kind() == reflect.Struct {
			maps.Copy(paths, keyPaths(kind, below))
		}
	}
	return paths
}

// disabled matches a comment with a key and a value, or with an entry of a list.
var disabled = regexp.MustCompile(`^( *)# ( *)((?:- )?([a-z_]+):(?: (?:\[.*\]|\{.*\}|"[^"]*"|[^ "]+))?|- (?:\{.*\}))$`)

// uncommented removes "# ", as the example says, from every key in a comment. Such a key replaces the one with the same
// name in its section.
func uncommented(t *testing.T, text string) string {
	t.Helper()
	var out []string
	found := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		m := disabled.FindStringSubmatch(line)
		if m == nil {
			out = append(out, line)
			continue
		}
		found++
		indent := m[1] + m[2]
		if m[4] != "" && !strings.HasPrefix(m[3], "-") {
			section := out // the last one, in which alone an indented key can be another time
			for i, l := range out {
				if indent != "" && l != "" && l[0] >= 'a' && l[0] <= 'z' {
					section = out[i:]
				}
			}
			if i := slices.IndexFunc(section, func(l string) bool { return strings.HasPrefix(l, indent+m[4]+":") }); i >= 0 {
				section[i] = ""
			}
		}
		out = append(out, indent+m[3])
	}
	if found < 5 {
		t.Errorf("only %d keys in comments", found)
	}
	return strings.Join(out, "\n")
}

// Each "Default:" in the example is true: a file without the key means the same as the example.
func TestExampleDefaults(t *testing.T) {
	t.Parallel()
	text := example(t)
	_, lines, problems := parse([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	// These have no value in defaults(), because their default is none or comes from crypto/tls.
	words := map[string]string{
		"tls.passphrase_command": `""`, "tls.min_protocol_version": "TLSv1.2", "tls.max_protocol_version": "no maximum",
		"tls.ciphers": "[]", "tls.groups": "[]", "tls.client_cert": "require", "tls.ca_file": "none", "tls.partial_chain": "false", "tls.min_security_bits": "112",
		"tls.crl_file": "none", "acl.allow": "[]", "acl.deny": "[]", "user": `""`, "admin.socket": `""`,
	}
	// The example sets these to another value than the default.
	set := []string{"tls.ca_file", "tls.crl_file", "acl.allow"}
	s := newSite(t)
	whole := meaning(t, s, text)
	for path, section := range keyPaths(reflect.TypeFor[file](), "") {
		line, ok := lines[path]
		if section || !ok || strings.Contains(path, "[]") {
			continue
		}
		said, ok := defaultAbove(text, line)
		if !ok {
			if path != "tls.cert_file" && path != "tls.key_file" { // required
				t.Errorf("%s: no default is named", path)
			}
			continue
		}
		want, ok := words[path]
		if !ok {
			want = defaultOf(path)
		}
		if token := regexp.MustCompile(`(^|[ ,;])` + regexp.QuoteMeta(want) + `($|[ ,;.])`); !token.MatchString(said) {
			t.Errorf("%s: the default is %s, and the example says %q", path, want, said)
		}
		if slices.Contains(set, path) {
			continue
		}
		without := strings.Split(text, "\n")
		without[line-1] = ""
		if got := meaning(t, s, strings.Join(without, "\n")); got != whole {
			t.Errorf("%s: its value is not the default; without it (+):\n%s", path, golden.Diff(got, whole))
		}
	}
}

// defaultAbove returns the text after "Default:" in the comment above a line, or above the keys before it without one.
func defaultAbove(text string, line int) (string, bool) {
	all := strings.Split(text, "\n")
	i := line - 2
	for i >= 0 && !strings.HasPrefix(strings.TrimSpace(all[i]), "#") && strings.TrimSpace(all[i]) != "" {
		i--
	}
	comment := ""
	for ; i >= 0 && strings.HasPrefix(strings.TrimSpace(all[i]), "#"); i-- {
		comment = strings.TrimPrefix(strings.TrimSpace(all[i]), "#") + comment
	}
	_, said, ok := strings.Cut(comment, "Default: ")
	return said, ok
}

// defaultOf returns the default of a key as it is written in YAML.
func defaultOf(path string) string {
	v := reflect.ValueOf(defaults())
	for key := range strings.SplitSeq(path, ".") {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("yaml") == key {
				v = v.Field(i)
				break
			}
		}
	}
	if d, ok := v.Interface().(duration); ok {
		return plainDuration(time.Duration(d))
	}
	return fmt.Sprint(v.Interface())
}

// meaning returns the values of a loaded configuration as text.
func meaning(t *testing.T, s *site, text string) string {
	t.Helper()
	cfg, problems := s.load(t, "pgwicket.yaml", text)
	if cfg == nil {
		t.Fatal(problems)
	}
	p := cfg.Policy
	cfg.Admin.Line = 0
	return fmt.Sprintln(cfg.Listen, cfg.TCPUserTimeout, cfg.DrainTimeout, cfg.Admin, cfg.LogLevel, cfg.LogFormat, cfg.WatchFiles, cfg.ReusePort, cfg.User, cfg.Landlock,
		p.SourceRefusal, p.Backend, p.StartupTimeout, p.MaxCancelRequests, p.RefusalLogRate,
		p.TLS.MinVersion, p.TLS.MaxVersion, p.TLS.CurvePreferences, p.TLS.ClientAuth,
		cfg.TLS.Describe(), cfg.TLS.DescribeClients())
}
