package acl

import (
	"fmt"
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		v       nameKind
		yes, no string // names, in words
	}{
		{"all", anyName, "a all *", ""},
		{"ALL", anyName, "ALL", "a all"},
		{"alice", anyName, "alice", "Alice alic alicex xalice"},
		{"a.c", anyName, "a.c", "abc"},
		{"a*", anyName, "a ab a*", "b ba"},
		{"*a", anyName, "a ba", "ab"},
		{"*a*", anyName, "a bab", "b"},
		{"a*b*a", anyName, "aba axbxa abba", "a aa ab aab"},
		{"a**b", anyName, "ab axb", "a b"},
		{"**", anyName, "a", ""},
		{"ab*ba", anyName, "abba abxba", "aba ab"},
		{"*ab*ab*", anyName, "abab xabxabx", "ab aba"},
		{"[a]*", anyName, "[a]b", "ab"},
		{"a?*", anyName, "a?b", "ab"},
		{"/a", anyName, "a ba ab", "b A"},
		{"/^a$", anyName, "a", "ab ba A"},
		{"/^a|b$", anyName, "ax xb", "xa bx"},
		{"/", anyName, "a", ""},

		{"A.Example", hostName, "a.example", "A.Example b.example"}, // names of hosts come in lower case
		{"*.Example", hostName, "a.example a.b.example", "a.Example example"},
		{`/^A\.`, hostName, "a.example", "b.example"},
		{"É*", hostName, "É", "é"}, // no letter of a DNS name

		{`CN=a\,b`, fullName, `CN=a\,b`, `CN=a,b CN=a\\,b`},
		{`CN=a\,*`, fullName, `CN=a\, CN=a\,b`, `CN=a,b CN=a\`},
		{`*,O=b`, fullName, `CN=a,O=b ,O=b CN=a\\,O=b`, `CN=a\,O=b CN=a\\\,O=b O=b`},
		{`*,O=b*`, fullName, `CN=a,O=b CN=a\,O=b,O=bc`, `CN=a\,O=b CN=a\,O=b\,O=b`},
		{`*,*,*`, fullName, `a,b,c ,, a,b\,c,d`, `a,b a\,b,c a,b\,c`},
	} {
		p, err := parsePattern(c.text, c.v)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		for _, name := range strings.Fields(c.yes) {
			if !p.matches(name) {
				t.Errorf("%q does not match %q", c.text, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if p.matches(name) {
				t.Errorf("%q matches %q", c.text, name)
			}
		}
	}
}

// A pattern that nobody has read must not be one for everybody.
func TestZeroPattern(t *testing.T) {
	t.Parallel()
	var p pattern
	if p.matches("") || p.matches("alice") || p.captures() || p.any() {
		t.Error("the zero pattern matches")
	}
	for _, kind := range []patternKind{template, same} {
		if p := (pattern{kind: kind, parts: []string{"", ""}}); p.matches("") || p.matches("alice") {
			t.Errorf("a pattern of kind %d matches without the rest of the request", kind)
		}
	}
}

// What a regular expression of pg_hba.conf also matches is warned of, whichever way it is written.
func TestUnanchored(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"/^a$": false, `/\Aa\z`: false, "/^(a)$": false, "/^(?:a|b)$": false, "/(^a$)": false, "/^a$|^b$": false, "/^$": false,
		"/(?i)^a$": false, "/^a[$]$": false, "/^ab$|^ac$": false, "/^(a$|b$)": false,
		"/a": true, "/^a": true, "/a$": true, "/^a|b$": true, "/^a$|b": true, `/^a\$`: true, `/\^a$`: true, "/^a[$]": true, "/(?m)^a$": true,
		"/": true, "/^": true, "/(^a)?$": true, "/^a($)?": true, "/(^)*a$": true, "/^(a$|b)": true,
	} {
		p, err := parsePattern(text, anyName)
		if err != nil || p.unanchored != want {
			t.Errorf("%s: unanchored is %v, want %v (%v)", text, p.unanchored, want, err)
		}
	}
}

func TestAny(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"all": true, "*": true, "***": true, "/": true, "/.": true, "/.*": true, "/^.*$": true, "/^(.+)$": true, "/^": true, "/a*": true, "/a|": true,
		"a": false, "a*": false, "*a": false, "/a": false, "/^[a-z]+$": false, "/^.{2,}$": false, `/^\w+$`: false, "/^$": false,
	} {
		p, err := parsePattern(text, anyName)
		if err != nil || p.any() != want {
			t.Errorf("%s: any is %v, want %v (%v)", text, p.any(), want, err)
		}
	}
}

// naiveGlob tries all that a star could stand for.
func naiveGlob(glob, name string) bool {
	if glob == "" {
		return name == ""
	}
	if glob[0] != '*' {
		return name != "" && glob[0] == name[0] && naiveGlob(glob[1:], name[1:])
	}
	for i := range len(name) + 1 {
		if naiveGlob(glob[1:], name[i:]) {
			return true
		}
	}
	return false
}

// Whatever is written in a configuration and whatever a client calls itself: nothing panics, a literal is for its own name
// alone, and a glob for what it looks like.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"all", "alice"},
		{"alice", "alice"},
		{"a*e", "alice"},
		{"*l*i*", "alice"},
		{"**", ""},
		{"a*a", "a"},
		{"/^al(.*)$", "alice"},
		{"/(a)?b", "b"},
		{"/(?i)A|b", "\n"},
		{"/(", ""},
		{`/\p{Greek}`, "Ω"},
		{"/(?P<x>a){1000}", "a"},
		{"A.Example", "a.example"},
		{`CN=a\,*`, `CN=a\,b`},
		{`*,O=b`, `CN=a\,O=b`},
		{`CN=\*`, `CN=\x`},
		{`\1`, "alice"},
		{`app_\1`, "app_alice"},
		{"samename", "alice"},
		{"+dba", "dba"},
		{"\xff*", "\xff\xfe"},
		{"\u212a", "k"},
		{"%!", "%d"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		for _, v := range []nameKind{anyName, roleName, hostName, fullName} {
			p, err := parsePattern(text, v)
			if err != nil {
				if p.matches(name) || p.matches("") || p.matches(text) {
					t.Fatalf("%q is refused, and matches", text)
				}
				continue
			}
			if v == hostName {
				name = lower(name)
			}
			checkPattern(t, p, text, name, v)
		}
		fuzzRules(t, text, name)
	})
}

func checkPattern(t *testing.T, p pattern, text, name string, v nameKind) {
	t.Helper()
	got := p.matches(name)
	switch p.kind {
	case everything:
		if text != "all" || !got {
			t.Fatalf("%q is for everybody", text)
		}
	case literal:
		own := text
		if v == hostName {
			own = lower(text)
		}
		if got != (name == own) || !p.matches(own) {
			t.Fatalf("%q for %q: %v", text, name, got)
		}
	case glob:
		// The naive one is exponential.
		if strings.Count(text, "*") > 4 || len(text) > 64 || len(name) > 64 {
			return
		}
		want := text
		if v == hostName {
			want = lower(text)
		}
		plain := naiveGlob(want, name)
		escaped := v == fullName && strings.Contains(name, `\`) // where a star may stand for less
		if got && !plain || plain && !got && !escaped {
			t.Fatalf("%q for %q: %v", text, name, got)
		}
	case regex:
		if text[0] != '/' {
			t.Fatalf("%q is a regular expression", text)
		}
	default:
		t.Fatalf("%q is of kind %d", text, p.kind)
	}
}

// fuzzRules puts the text wherever a pattern can stand.
func fuzzRules(t *testing.T, text, name string) {
	t.Helper()
	id := &Identity{CN: name, DN: name, Issuer: name, SPKI: name, DNS: []string{name, text}, Email: []string{name}, URI: []string{name, name}}
	list := []string{text}
	for _, o := range []RuleOptions{
		{Users: list},
		{Databases: list},
		{SNI: list},
		{Sources: list},
		{Listeners: list},
		{Replication: text},
		{Name: text, Users: []string{`\1`, `a\1`, text}, Certificate: CertificateOptions{CN: text}},
		{Users: []string{"samename", `\1`}, Certificate: CertificateOptions{DNS: text}},
		{Users: list, Certificate: CertificateOptions{Email: "/^(.*)$"}},
		{Certificate: CertificateOptions{CN: text, DN: text, Email: text, URI: text, Issuer: text}},
		{Certificate: CertificateOptions{SPKI: text}},
	} {
		o.Action = "allow"
		rules, problems := NewRules([]RuleOptions{o}, []string{text}, []string{"postgres"})
		for _, p := range problems {
			if p.Key == "" || p.Text == "" || !strings.Contains(text, "%") && strings.Contains(fmt.Sprint(p), "%!") {
				t.Fatalf("%+v: %+v", o, p)
			}
		}
		if rules == nil {
			continue
		}
		for _, q := range []*Request{
			{User: name, Database: text, SNI: name, Listener: name, Certificate: id},
			{User: "postgres", Database: name, Replication: LogicalReplication, Certificate: id},
			{User: text, Database: name, Replication: PhysicalReplication},
		} {
			rule, steps := rules.Decide(q), rules.Trace(q)
			if len(steps) != 1 || (rule != nil) != (steps[0].Mismatch == "") {
				t.Fatalf("%+v: %v, but %v", o, rule, steps)
			}
			if rule != nil && (q.Replication == PhysicalReplication && o.Replication != "physical" ||
				q.User == "postgres" && !rule.namesUser("postgres")) {
				t.Fatalf("%+v lets in %+v", o, q)
			}
		}
	}
}
