package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Each file in testdata is a configuration that loads (*.good.yaml) or does not (*.bad.yaml). Its comments that begin
// with the name of the file are the exact output of check. $DIR is the directory of the site. $OTHERS is the message of
// tlsconfig about a key that other accounts can read, which depends on its owner. $SERIAL is any serial number.
func TestFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	others := "only its owner may have access: chmod 0600"
	if os.Geteuid() == 0 {
		others = "only root may write it and only its group may read it: chmod 0640"
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text := string(testdata(t, s, name))
			var want []string
			for line := range strings.Lines(text) {
				if rest, ok := strings.CutPrefix(line, "# "+name+":"); ok {
					want = append(want, name+":"+strings.ReplaceAll(strings.TrimSpace(rest), "$OTHERS", others))
				}
			}
			cfg, got := s.load(t, name, text)
			if loads := strings.HasSuffix(name, ".good.yaml"); (cfg != nil) != loads {
				t.Errorf("loads: %v, want %v", cfg != nil, loads)
			}
			if g, w := serialNumber.ReplaceAllString(strings.Join(got, "\n"), "serial $$SERIAL"), strings.Join(want, "\n"); g != w {
				t.Errorf("got:\n%s\nwant:\n%s", g, w)
			}
		})
	}
}

// serialNumber matches the serial number of a certificate of the site, which is random.
var serialNumber = regexp.MustCompile(`serial [0-9A-F]+`)

// load loads text as a file of the site, and returns the problems as check prints
// them, the file by its base name.
func (s *site) load(t testing.TB, name, text string) (*Config, []string) {
	t.Helper()
	path := s.write(t, name, []byte(text), 0o600)
	cfg, problems := Load(path, nil, nil, time.Now())
	if (cfg == nil) != Failed(problems) {
		t.Errorf("config %v, but Failed is %v", cfg, Failed(problems))
	}
	var lines []string
	for i, p := range problems {
		checkMessage(t, p, text)
		if i > 0 && p.Line < problems[i-1].Line {
			t.Errorf("line %d is reported after line %d", p.Line, problems[i-1].Line)
		}
		p.File = name
		lines = append(lines, p.String())
	}
	return cfg, lines
}

// jargon matches terms of Go or of the YAML library.
var jargon = regexp.MustCompile(`\b(config|tlsconfig|yaml|netip|acl)\.[A-Za-z]|\[\][a-z]|\bu?int\d*\b|!!|unmarshal|%!`)

// control matches characters that break a line or control a terminal.
var control = regexp.MustCompile(`[\pC\x{2028}\x{2029}]`)

// checkMessage checks a message: it is one line, in the terms of the file, with a line number that exists.
func checkMessage(t testing.TB, p Problem, text string) {
	t.Helper()
	last := max(1, strings.Count(strings.TrimRight(text, "\n"), "\n")+1)
	if p.Line < 1 || p.Line > last {
		t.Errorf("line %d of %d: %s", p.Line, last, p)
	}
	if control.MatchString(p.Text) || !utf8.ValidString(p.Text) || strings.TrimSpace(p.Text) != p.Text || p.Text == "" {
		t.Errorf("not a line of text: %q", p.Text)
	}
	if word := jargon.FindString(strings.ReplaceAll(p.Text, "config.example.yaml", "")); word != "" {
		t.Errorf("%q in %q", word, p.Text)
	}
}

// Bytes that an editor hides or does not write.
func TestOddFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := "listen: [{address: \"127.0.0.1:5432\"}]\n" +
		"tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}\n" +
		"acl: {allow: [10.20.0.0/16]}\nbackend: {host: \"@postgresql\"}\n"
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	huge := good + strings.Repeat("# filler\n", maxSize/9)
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"good", good, nil},
		{"bom", "\ufeff" + good, nil},
		{"crlf", crlf(good), nil},
		{"crlf, two mistakes", crlf(good + "log:\n  level: all\n  format: xml\n"), []string{
			`:6: log.level: "all" is not known; write one of debug, info, warn, error`,
			`:7: log.format: "xml" is not known; write one of auto, json, text`,
		}},
		{"old Macintosh", strings.ReplaceAll(good, "\n", "\r"), nil},
		{"no line end", strings.TrimRight(good, "\n"), nil},
		{"almost too long", huge[:maxSize], nil},
		{"too long", huge + "#", []string{fmt.Sprintf(`:1: is %d bytes long, too long for a configuration`, len(huge)+1)}},
		{"empty", "", []string{`:1: the file is empty; start with a copy of config.example.yaml`}},
		{"only a bom", "\ufeff", []string{`:1: the file is empty; start with a copy of config.example.yaml`}},
		{"only blanks", " \n\n", []string{`:1: the file is empty; start with a copy of config.example.yaml`}},
		{"tab", "log:\n\tlevel: info\n", []string{`:2: not YAML, here or nearby: found character that cannot start any token; indent with spaces, not tabs, and quote a value that begins with a character such as @ or *`}},
		{"quote", "log:\n  level: \"info\n", []string{`:2: not YAML, here or nearby: found unexpected end of stream`}},
		{"utf-8", "log:\n  level: info\xff\n", []string{`:2: this line is not UTF-8; save the file as UTF-8`}},
		{"latin-1", "# für alle\nlog:\n  level: f\xfcr\n", []string{`:3: this line is not UTF-8; save the file as UTF-8`}},
		{"latin-1 in a comment", "log: {level: info}\n# f\xfc\n", []string{`:2: this line is not UTF-8; save the file as UTF-8`}},
		{"nul", "log:\n  level: info\x00\n", []string{`:2: this line contains a control character; remove it`}},
		{"escape", "log:\n  level: \"\x1b[2J\"\n", []string{`:2: this line contains a control character; remove it`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, got := s.load(t, "pgwicket.yaml", c.text)
			want := ""
			for _, w := range c.want {
				want += "pgwicket.yaml" + w + "\n"
			}
			if g := strings.Join(append(got, ""), "\n"); g != want {
				t.Errorf("got:\n%s\nwant:\n%s", g, want)
			}
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	s := newSite(t)
	for name, want := range map[string]string{
		"gone.yaml":      `:1: cannot be read (no such file or directory)`,
		"words.txt/name": `:1: cannot be read (not a directory)`,
		"crls":           `:1: is not a regular file`,
	} {
		cfg, problems := Load(s.path(name), nil, nil, time.Now())
		if cfg != nil || len(problems) != 1 || problems[0].String() != s.path(name)+want {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// Features of YAML that a configuration does not need. The library words these messages, so only their form is checked:
// no tag, no Go type, one line.
func TestOddYAML(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"log:\n  ~: json\n", // a key of nothing is a key that means nothing
		"log:\n  \"level\\ninfo\": x\n",
		"acl:\n  allow: \"10.0\\n1\"\n",
		"acl:\n  allow: \"\\e[2J\"\n",
		"acl:\n  allow: ööööööö und drüben\n", // cut within a letter
		"log:\n  level: !!float info\n",
		"log:\n  level: !!binary \"*\"\n",
		"log: !!set {level: info, other}\n",
		"log: 2001-01-01\n",
		"log:\n  <<: [info]\n",
		"log:\n  <<: info\n",
		"log: &log {level: *log}\n",
		"acl: {allow: &allow [*allow]}\n",
		"listen: &listen\n  - *listen\n",
		"? [log, level]\n: info\n",
		"? {log: level}\n: info\n",
		"%YAML 9.9\n---\nlog: {level: info}\n",
		"%unknown\n---\nlog: {level: info}\n",
		"log: {level: \"\\q\"}\n",
		"log: {level: 'it's'}\n",
		"log: |\n",
		"- log\n- level\n",
		"true: {}\n",
		"0x10: {}\n",
	} {
		_, _, problems := parse([]byte(text))
		if len(problems) == 0 {
			t.Errorf("nothing is wrong with %q", text)
		}
		for _, p := range problems {
			checkMessage(t, p, text)
		}
	}
}

// An alias of a few bytes can stand for any amount of data ("billion laughs", CVE-2003-1564).
func TestAliasesAreBounded(t *testing.T) {
	t.Parallel()
	var lists, merges strings.Builder
	lists.WriteString("acl:\n  allow: &l0 [10.0.0.0/8]\n")
	merges.WriteString("log: &m0 {level: info}\n")
	for i := range 30 {
		fmt.Fprintf(&lists, "  x%d: &l%d [*l%d, *l%d, *l%d, *l%d]\n", i, i+1, i, i, i, i)
		fmt.Fprintf(&merges, "x%d: &m%d {<<: [*m%d, *m%d, *m%d, *m%d]}\n", i, i+1, i, i, i, i)
	}
	lists.WriteString("  deny: *l30\n")
	merges.WriteString("admin: *m30\n")
	for _, text := range []string{lists.String(), merges.String(), "acl:\n  allow: &a [10.0.0.0/8" + strings.Repeat(", x", 30_000) + "]\n  deny: *a\n"} {
		done := make(chan []Problem, 1)
		go func() {
			_, _, problems := parse([]byte(text))
			done <- problems
		}()
		select {
		case problems := <-done:
			for _, p := range problems {
				checkMessage(t, p, text)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("still reading %.40q", text)
		}
	}
}

// testdata returns a file of testdata as the site has it.
func testdata(t testing.TB, s *site, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte("$DIR"), []byte(s.dir))
}
