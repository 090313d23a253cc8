package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// parse decodes one strict YAML document over the defaults, and reports all errors
// at once. lines has the line of each key, by its path ("tls.ciphers[2]").
//
// The library parses the document into nodes; bind.go decodes them. The library's
// own decoder accepts 1.5 for an integer and a bare 10 for ten nanoseconds, stops at
// some errors, and describes others in Go types.
func parse(text []byte) (f file, lines map[string]int, problems []Problem) {
	f, lines = defaults(), make(map[string]int)
	if p := unreadable(text); p != nil {
		return f, lines, p
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := dec.Decode(&document); {
	case errors.Is(err, io.EOF):
		return f, lines, []Problem{{Line: 1, Text: "the file is empty; start with a copy of config.example.yaml"}}
	case err != nil:
		return f, lines, []Problem{syntaxError(err, text)}
	}
	root := document.Content[0]
	if root.Tag == "!!null" {
		return f, lines, []Problem{{Line: root.Line, Text: "the file has no configuration; start with a copy of config.example.yaml"}}
	}
	b := &binder{lines: lines}
	b.section(root, &f)
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		b.problems = append(b.problems, Problem{
			Line: secondDocument(&second, text),
			Text: `a second YAML document begins here; a file has one configuration, so remove the "---" line or the text after it`,
		})
	}
	return f, lines, b.problems
}

// unreadable finds bytes that YAML does not allow. The library reports them without
// a line.
func unreadable(text []byte) (problems []Problem) {
	for i, line := range bytes.Split(text, []byte("\n")) {
		switch {
		case !utf8.Valid(line):
			problems = append(problems, Problem{Line: i + 1, Text: "this line is not UTF-8; save the file as UTF-8"})
		case bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }):
			problems = append(problems, Problem{Line: i + 1, Text: "this line contains a control character; remove it"})
		}
	}
	return problems
}

func secondDocument(second *yaml.Node, text []byte) int {
	if len(second.Content) > 0 {
		return second.Content[0].Line
	}
	// It cannot be parsed, so look for the line that begins it.
	if at := regexp.MustCompile(`(?m)^(---|\.\.\.)`).FindAllIndex(text, -1); len(at) > 0 {
		return 1 + bytes.Count(text[:at[len(at)-1][0]], []byte("\n"))
	}
	return 1
}

var (
	atLine   = regexp.MustCompile(`(?s)^(?:yaml: )?line (\d+): (.*)$`)
	anchor   = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
	controls = regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}]+`)
)

// syntaxError converts an error of the library. Its parser counts lines from 0, its
// scanner from 1, and some messages have no line.
func syntaxError(err error, text []byte) Problem {
	p := Problem{Line: 1, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	if at := atLine.FindStringSubmatch(p.Text); at != nil {
		p.Line, _ = strconv.Atoi(at[1])
		p.Text = at[2]
		if strings.HasPrefix(p.Text, "did not find expected") && !strings.Contains(p.Text, "alphabetic") {
			p.Line++
		}
	} else if a := anchor.FindStringSubmatch(p.Text); a != nil {
		if i := bytes.Index(text, []byte("*"+a[1])); i >= 0 {
			p.Line = 1 + bytes.Count(text[:i], []byte("\n"))
		}
	}
	p.Text = "not YAML, here or nearby: " + controls.ReplaceAllString(p.Text, " ")
	if line := unquotedAddress(text); line > 0 {
		p.Line = line
		p.Text += `; quote an IPv6 address with its port, like "[::1]:5432"`
	}
	if strings.Contains(p.Text, "tab character") {
		p.Text += "; indent with spaces, not tabs"
	}
	if strings.Contains(p.Text, "cannot start any token") || strings.Contains(p.Text, "alphabetic or numeric") {
		p.Text += "; indent with spaces, not tabs, and quote a value that begins with a character such as @ or *"
	}
	return p
}

var ipv6Port = regexp.MustCompile(`(?m)^[^#"'\n]*[\s,{\[]\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]:\d`)

// unquotedAddress returns the line of an IPv6 address with a port that is not quoted: to
// YAML its brackets are a list. It returns 0 if there is none.
func unquotedAddress(text []byte) int {
	at := ipv6Port.FindIndex(text)
	if at == nil {
		return 0
	}
	return 1 + bytes.Count(text[:at[1]], []byte("\n"))
}

// has reports whether a section, or a key in it, is set.
func has(lines map[string]int, section string) bool {
	for key := range lines {
		if within(key, section) {
			return true
		}
	}
	return false
}

// lineOf returns the line of a key, or of the nearest section or list around it; 0 if
// the environment sets it.
func lineOf(lines map[string]int, key string) int {
	for key != "" {
		if line, ok := lines[key]; ok {
			return line
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 1
}
