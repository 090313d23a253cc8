package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"pgwicket/internal/nearest"
	"pgwicket/tlsconfig"
)

// binder decodes the nodes of a document into the structs of file.go, by their yaml
// tags, and collects all errors.
type binder struct {
	lines    map[string]int
	problems []Problem
}

func (b *binder) errorf(n *yaml.Node, format string, args ...any) {
	b.problems = append(b.problems, Problem{Line: max(n.Line, 1), Text: fmt.Sprintf(format, args...)})
}

// section decodes a whole document into the struct that p points to.
func (b *binder) section(n *yaml.Node, p any) { b.value(n, reflect.ValueOf(p).Elem(), "") }

// value decodes n into v. The recursion follows the type of v, so an alias that
// contains itself ends.
func (b *binder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		// The lines below the alias belong to its anchor, not to this key.
		lines := b.lines
		b.lines = make(map[string]int)
		defer func() { b.lines = lines }()
		n = n.Alias
	}
	p := v.Addr().Interface()
	if d, ok := p.(*time.Duration); ok { // a field of another package
		p = (*duration)(d)
	} else if i, ok := p.(*int); ok {
		p = (*count)(i)
	}
	if t, ok := p.(scalarValue); ok {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			b.errorf(n, "expected %s, found %s", t.expected(), nodeKind(n))
		} else if mistake := t.set(n.Value, n.Tag); mistake != "" {
			b.errorf(n, "%s %s", quote(n.Value), mistake)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		b.structure(n, v, path)
	case reflect.Slice:
		b.list(n, v, path)
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Style&yaml.TaggedStyle != 0 || strings.Contains(n.Value, "\n") {
			b.errorf(n, "expected text, found %s", nodeKind(n))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		on, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || err != nil {
			b.errorf(n, "expected true or false, found %s", nodeKind(n))
			return
		}
		v.SetBool(on)
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}

func (b *binder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		b.errorf(n, "expected a section (indented \"key: value\" lines), found %s", nodeKind(n))
		return
	}
	fields := make(map[string]reflect.Value)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if key := f.Tag.Get("yaml"); key != "-" && !f.Anonymous {
			fields[key] = v.FieldByIndex(f.Index)
		}
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field, known := fields[key.Value]
		line, repeated := seen[key.Value]
		switch {
		case key.Tag == "!!merge":
			b.errorf(key, "merge keys (<<) are not supported; write the keys out")
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			b.errorf(key, "expected a key, found %s", nodeKind(key))
		case !known:
			b.errorf(key, "%s", unknownKey(key.Value, fields))
		case repeated:
			b.errorf(key, "key %q is already set in line %d; remove one of them", key.Value, line)
		default:
			seen[key.Value] = key.Line
			below := strings.TrimPrefix(path+"."+key.Value, ".")
			b.lines[below] = key.Line
			b.value(n.Content[i+1], field, below)
		}
	}
}

// unsupported are settings of PostgreSQL that Go does not have, with the alternative.
var unsupported = map[string]string{
	"dh_params_file":                     "Go has no finite-field Diffie-Hellman (DHE), and ECDHE needs no parameters; remove it",
	"prefer_server_ciphers":              "Go orders the suites itself, and uses the order of ciphers for TLS 1.3 only; remove it",
	"tls13_ciphers":                      "the TLS 1.3 suites belong in ciphers, with the others",
	"ecdh_curve":                         "write groups, a list, such as [X25519, prime256v1]",
	"passphrase_command_supports_reload": "passphrase_command is run at every reload; remove it",
	"socket":                             "write host, the directory of the socket, and port, which is part of its name",
	"renegotiation_limit":                "there is no renegotiation; remove it",
}

func unknownKey(name string, fields map[string]reflect.Value) string {
	bare := strings.TrimPrefix(name, "ssl_") // the prefix of PostgreSQL
	if why, ok := unsupported[bare]; ok {
		return fmt.Sprintf("%q cannot be set: %s", name, why)
	}
	if _, ok := fields[bare]; ok {
		return fmt.Sprintf("unknown key %q; write %q", name, bare)
	}
	var known []string
	for k := range fields {
		known = append(known, k)
	}
	slices.Sort(known)
	if best, ok := nearest.Word(name, known); ok {
		return fmt.Sprintf("unknown key %s; did you mean %q?", quote(name), best)
	}
	return fmt.Sprintf("unknown key %s; known here: %s", quote(name), strings.Join(known, ", "))
}

func (b *binder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a list whose entries are all commented out
	}
	if n.Kind != yaml.SequenceNode {
		want := `a list ([a, b], or "- a" on each line)`
		if v.Type().Elem().Kind() == reflect.Struct {
			want = `a list of sections (each begins with "- ")`
		}
		if n.Kind == yaml.ScalarNode {
			if why := tlsconfig.ExplainText(path[strings.LastIndexByte(path, '.')+1:], n.Value); why != "" {
				b.errorf(n, "%s: expected %s, found text: %s", path, want, why)
				return
			}
		}
		b.errorf(n, "expected %s, found %s", want, nodeKind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, entry := range n.Content {
		below := path + "[" + strconv.Itoa(i) + "]"
		b.lines[below] = entry.Line
		b.value(entry, v.Index(i), below)
	}
}

// nodeKind describes a node for a message.
func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	names := map[string]string{"!!str": "text", "!!int": "a number", "!!float": "a fraction", "!!bool": "true or false", "!!null": "nothing"}
	name, ok := names[n.Tag]
	switch {
	case !ok:
		return "a value of another kind (" + quote(n.Value) + ")"
	case n.Tag == "!!null":
		return name
	}
	return name + " (" + quote(n.Value) + ")"
}

// quote returns s in quotes on one line, shortened to 40 characters.
func quote(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return strconv.Quote(s)
}

// scalarValue is a value that parses a scalar.
type scalarValue interface {
	expected() string
	// set returns a message that follows the text, or "" if the text is valid.
	set(text, tag string) (mistake string)
}

// duration is a time.Duration in the format of Go, with a unit.
type duration time.Duration

func (*duration) expected() string { return "a duration (like 500ms, 10s or 5m)" }

func (d *duration) set(text, _ string) string {
	const longest = "2562047h"
	v, err := time.ParseDuration(text)
	switch {
	case err == nil && v < 0:
		return "is negative; write a duration of 0 or more, like 500ms, 10s or 5m"
	case err != nil && strings.TrimLeft(text, "0123456789.") != text && endsWithUnit(text):
		return "is too long; the longest duration is " + longest
	case err != nil:
		return "is not a duration; write it with a unit, like 500ms, 10s or 5m"
	}
	*d = duration(v)
	return ""
}

// endsWithUnit reports whether text has the form of a duration, so that only its size
// can be wrong.
func endsWithUnit(text string) bool {
	unit := strings.TrimLeft(text, "0123456789.")
	return slices.Contains([]string{"ns", "us", "µs", "ms", "s", "m", "h"}, unit) && strings.Count(text, ".") <= 1
}

// ports is one port, or several separated with commas.
type ports string

func (*ports) expected() string { return "a port" }

func (p *ports) set(text, tag string) string {
	several := tag == "!!str" && strings.Contains(text, ",")
	for one := range strings.SplitSeq(text, ",") {
		if _, err := strconv.ParseUint(strings.TrimSpace(one), 10, 31); err != nil || !several && tag != "!!int" {
			return "is not a port; write it in digits, without quotes, or several separated with commas"
		}
	}
	*p = ports(text)
	return ""
}

// list returns the ports as numbers.
func (p ports) list() (out []int) {
	for one := range strings.SplitSeq(string(p), ",") {
		n, _ := strconv.Atoi(strings.TrimSpace(one)) // set has checked it
		out = append(out, n)
	}
	return out
}

// count is a whole number that is not negative.
type count int

func (*count) expected() string { return "a whole number" }

func (c *count) set(text, tag string) string {
	v, err := strconv.ParseUint(text, 10, 31)
	if tag != "!!int" || err != nil {
		return "is not a whole number from 0 to 2147483647; write it in digits, without quotes"
	}
	*c = count(v)
	return ""
}
