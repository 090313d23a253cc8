package config

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"pgwicket/tlsconfig"
)

// effective prints the configuration at path, copies it to another directory, and checks that it means the same there
// without the environment, with and without its comments.
func effective(t *testing.T, path string, environ []string) string {
	t.Helper()
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	text, problems := Effective(path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want, problems := readSettings(path, environ)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, printed := range [][]byte{text, withoutComments(t, text)} {
		copied := filepath.Join(t.TempDir(), "effective.yaml")
		if err := os.WriteFile(copied, printed, 0o600); err != nil {
			t.Fatal(err)
		}
		got, problems := readSettings(copied, nil)
		if len(problems) > 0 {
			t.Fatalf("%v in\n%s", problems, printed)
		}
		if g, w := meant(t, got, copied), meant(t, want, path); !reflect.DeepEqual(g, w) {
			t.Errorf("%s means\n%+v\nand not\n%+v", printed, g, w)
		}
		if has(got.lines, "backend") == (len(want.Backends) > 0 && !has(want.lines, "backend")) {
			t.Errorf("there is another backend, or one less, in\n%s", printed)
		}
		if has(got.lines, "admin.tls") != has(want.lines, "admin.tls") {
			t.Errorf("the admin address has TLS, or none any more, in\n%s", printed)
		}
	}
	return string(text)
}

// meant is what Load goes on from: its paths as they are, and no difference between the default and what stands
// for it.
func meant(t *testing.T, s settings, path string) file {
	t.Helper()
	f := s.file
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	f.paths(dir)
	f.Admin.Socket = absolute(dir, f.Admin.Socket)
	f.StateDir = absolute(dir, f.StateDir)
	f.Audit.File = absolute(dir, f.Audit.File)
	for i := range f.Backends {
		f.Backends[i].backend = withDefaults(s.lines, fmt.Sprintf("backends[%d]", i), f.Backends[i].backend)
	}
	if f.TLS.MinSecurityBits == 0 {
		f.TLS.MinSecurityBits = 112
	}
	if f.TLS.MinProtocolVersion == "" {
		f.TLS.MinProtocolVersion = "TLSv1.2"
	}
	if f.TLS.ClientCert == "" {
		f.TLS.ClientCert = "require"
	}
	for _, list := range []*[]string{&f.TLS.Ciphers, &f.TLS.Groups, &f.TLS.CRLURLs, &f.Admin.TLS.CRLURLs, &f.Admin.TLS.Ciphers, &f.Admin.TLS.Groups, &f.ACL.Allow, &f.ACL.Deny, &f.Admin.Hosts, &f.ACL.Superusers} {
		*list = slices.Clip(append([]string{}, *list...))
	}
	if len(f.ACL.Rules) == 0 {
		f.ACL.Rules = nil
	}
	if len(f.Backends) == 0 {
		f.Backends = nil
	}
	if len(f.TLS.Certificates) == 0 {
		f.TLS.Certificates = nil
	}
	if len(f.Admin.TLS.Certificates) == 0 {
		f.Admin.TLS.Certificates = nil
	}
	if len(f.Listen) == 0 {
		f.Listen = nil
	}
	return f
}

func withoutComments(t *testing.T, text []byte) []byte {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		t.Fatal(err)
	}
	var strip func(n *yaml.Node)
	strip = func(n *yaml.Node) {
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
		for _, c := range n.Content {
			strip(c)
		}
	}
	strip(&n)
	out, err := yaml.Marshal(&n)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte(" # ")) {
		t.Fatalf("comments are left in\n%s", out)
	}
	return out
}

// An empty value that stands for something says for what, and what it says is a value
// that can be written there with the same meaning.
func TestEffectiveDefaults(t *testing.T) {
	s := newSite(t)
	text := `
listen: [{address: "127.0.0.1:5432"}]
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}
acl: {allow: [127.0.0.0/8], on_recheck: idle}
backend: {host: db.example, sslrootcert: ca.crt}
`
	printed := effective(t, s.write(t, "defaults.yaml", []byte(text), 0o600), nil)
	for key, want := range map[string]string{
		"max_protocol_version": `"" # default: TLSv1.3`, "crl_check": `"" # default: chain`, "crl_missing": `"" # default: reject`,
		"crl_stale": `"" # default: reject`, "on_expiry": `"" # default: idle, as on_recheck`, "sslmode": `"" # default: verify-full`,
		"sslnegotiation": `"" # default: postgres`, "ciphers": "[] # default: " + strings.Join(tlsconfig.DefaultCiphers(), ", "),
		"groups": "[] # default: " + strings.Join(tlsconfig.DefaultGroups(), ", "), "ocsp_file": `"" # default: none`,
	} {
		if !strings.Contains(printed, "  "+key+": "+want+"\n") {
			t.Errorf("no %s: %s in\n%s", key, want, printed)
		}
		_, value, _ := strings.Cut(want, "# default: ")
		value, _, _ = strings.Cut(value, ", as ")
		if strings.HasPrefix(want, "[]") {
			value = "[" + value + "]"
		}
		if section := map[bool]string{true: "tls: {", false: "acl: {"}[key != "on_expiry"]; strings.HasPrefix(key, "ssl") {
			text = strings.Replace(text, "backend: {", "backend: {"+key+": "+value+", ", 1)
		} else if value != "none" {
			text = strings.Replace(text, section, section+key+": "+value+", ", 1)
		}
	}
	before, problems := s.load(t, "defaults.yaml", text)
	if before == nil || len(problems) > 0 {
		t.Errorf("with the defaults written out: %v\n%s", problems, text)
	}
}

func TestEffectiveExample(t *testing.T) {
	text := effective(t, exampleFile, []string{"PGWICKET_LIMITS_MAX_CONNECTIONS=7", "PGWICKET_ACL_DENY=10.20.1.0/24"})
	_, lines, _ := parse([]byte(example(t)))
	for _, want := range []string{
		fmt.Sprintf("- address: 10.0.0.5:5432 # %s:%d\n", exampleFile, lines["listen[0].address"]),
		"max_connections: 7 # PGWICKET_LIMITS_MAX_CONNECTIONS\n",
		"deny: [10.20.1.0/24] # PGWICKET_ACL_DENY\n",
		"ocsp_file: \"\" # default: none\n",
		"crl_grace: 0s # default\n",
		fmt.Sprintf("landlock: true # %s:%d\n", exampleFile, lines["landlock"]),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// Each value says where it is from, and every key that is in no list is there.
	_, printed, problems := parse([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, key := range variables() {
		if within(key, "admin.tls") {
			continue // to print it is to have it
		}
		if _, ok := printed[key]; !ok {
			t.Errorf("%s (%s) is not printed", key, name)
		}
	}
	from := regexp.MustCompile(` # (default(: [-A-Za-z0-9_., ]+)?|PGWICKET_[A-Z_]+|\.\./config\.example\.yaml:\d+)$`)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); !from.MatchString(line) && !strings.HasSuffix(line, ":") {
			t.Errorf("where is this from: %s", line)
		}
	}
}

// What testdata has of YAML, aliases and half-empty sections included.
func TestEffectiveFiles(t *testing.T) {
	s := newSite(t)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	printed := 0
	for _, file := range files {
		name := filepath.Base(file)
		path := s.write(t, name, testdata(t, s, name), 0o600)
		if _, problems := readSettings(path, nil); len(problems) > 0 {
			if text, p := Effective(path); text != nil || !Failed(p) {
				t.Errorf("%s: %v, and it is printed", name, problems)
			}
			continue
		}
		printed++
		t.Run(name, func(t *testing.T) {
			effective(t, path, nil)
			before, problems := Load(path, nil, nil, time.Now())
			text, _ := Effective(path)
			after, same := Load(s.write(t, "effective.yaml", text, 0o600), nil, nil, time.Now())
			if (before == nil) != (after == nil) || len(problems) != len(same) {
				t.Fatalf("loads with %v, and printed with %v", problems, same)
			}
			for i := range problems { // in another order: that of the lines
				if !slices.ContainsFunc(same, func(p Problem) bool { return p.Key == problems[i].Key && p.Text == problems[i].Text }) {
					t.Errorf("%v is not among %v", problems[i], same)
				}
			}
		})
	}
	if printed < 30 {
		t.Errorf("only %d files are printed", printed)
	}
}

// Whatever a configuration holds, and however it is written, it comes out the same.
func TestEffectiveAny(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		var f file
		fill(rnd, reflect.ValueOf(&f).Elem())
		root := (&printer{path: "x", lines: map[string]int{}}).section(reflect.ValueOf(&f).Elem(), reflect.ValueOf(defaults()), "")
		dropKeys(rnd, root)
		text, err := yaml.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "any.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, problems := readSettings(path, nil); len(problems) > 0 {
			t.Fatalf("%v in\n%s", problems, text)
		}
		effective(t, path, nil)
	}
}

// awkward are texts that YAML could take for something else.
var awkward = []string{
	"", "a", "yes", "null", "~", "0x10", "1.5", "10", "1e3", "2001-01-01", "@a", "*", "&x", "- a", "a: b", "a #b", "#", "'", `"`, `\1`, `/^a\.b$`,
	" a ", "a,b", "[", "{a}", "!x", "%", "ü", "\u00a0", "\u2028", "\ufeff", "=", "<<", "::", "[::1]:5432", "?", "|", ">", "a\tb",
}

func fill(rnd *rand.Rand, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *duration:
		*p = duration(rnd.Int64N(int64(72 * time.Hour)))
		return
	case *time.Duration:
		*p = time.Duration(rnd.IntN(100)) * time.Minute
		return
	case *count:
		*p = count(rnd.IntN(1 << 20))
		return
	case *ports:
		*p = ports([]string{"5432", "1", "5432,5433"}[rnd.IntN(3)])
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.Tag.Get("yaml") != "-" && !f.Anonymous {
				fill(rnd, v.FieldByIndex(f.Index))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.IntN(4), 4))
		for i := range v.Len() {
			fill(rnd, v.Index(i))
		}
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.String:
		v.SetString(awkward[rnd.IntN(len(awkward))])
	}
}

// dropKeys removes some keys, and writes lists in either style.
func dropKeys(rnd *rand.Rand, n *yaml.Node) {
	n.LineComment = ""
	if n.Kind == yaml.SequenceNode {
		n.Style = []yaml.Style{0, yaml.FlowStyle}[rnd.IntN(2)]
	}
	if n.Kind == yaml.MappingNode {
		var kept []*yaml.Node
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].LineComment = ""; rnd.IntN(5) > 0 {
				kept = append(kept, n.Content[i], n.Content[i+1])
			}
		}
		n.Content = kept
	}
	for _, c := range n.Content {
		dropKeys(rnd, c)
	}
}
