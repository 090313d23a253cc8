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
)

// binding puts the values of a document into the structs of file.go, by their
// yaml tags, and gathers what does not fit.
type binding struct {
	lines    map[string]int
	problems []Problem
}

func (b *binding) mistake(n *yaml.Node, format string, args ...any) {
	b.problems = append(b.problems, Problem{Line: max(n.Line, 1), Text: fmt.Sprintf(format, args...)})
}

// section binds a whole document, or nothing, to the struct behind p.
func (b *binding) section(n *yaml.Node, p any) { b.value(n, reflect.ValueOf(p).Elem(), "") }

// value binds n to v. The depth is that of v's type, so an alias that contains
// itself comes to an end.
func (b *binding) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		// What is below stands elsewhere, but is used here.
		lines := b.lines
		b.lines = make(map[string]int)
		defer func() { b.lines = lines }()
		n = n.Alias
	}
	p := v.Addr().Interface()
	if d, ok := p.(*time.Duration); ok { // of a struct that knows nothing of this package
		p = (*duration)(d)
	}
	if t, ok := p.(textual); ok {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			b.mistake(n, "%s stands where %s is wanted", given(n), t.wanted())
		} else if mistake := t.set(n.Value, n.Tag); mistake != "" {
			b.mistake(n, "%s %s", quote(n.Value), mistake)
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
			b.mistake(n, "%s stands where text is wanted", given(n))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		on, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || err != nil {
			b.mistake(n, "%s stands where true or false is wanted", given(n))
			return
		}
		v.SetBool(on)
	default:
		panic("config: no binding for " + v.Type().String())
	}
}

func (b *binding) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		b.mistake(n, "%s stands where a section (indented «key: value» lines) is wanted", given(n))
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
			b.mistake(key, "keys cannot be merged (<<) here; write them out")
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			b.mistake(key, "%s stands where a key is wanted", given(key))
		case !known:
			b.mistake(key, "%s", unknownKey(key.Value, fields))
		case repeated:
			b.mistake(key, "key %q stands in line %d already; keep one of the two", key.Value, line)
		default:
			seen[key.Value] = key.Line
			below := strings.TrimPrefix(path+"."+key.Value, ".")
			b.lines[below] = key.Line
			b.value(n.Content[i+1], field, below)
		}
	}
}

// impossible are settings of PostgreSQL that people will look for and Go cannot
// follow, with what to do instead.
var impossible = map[string]string{
	"dh_params_file":                     "Go has no finite-field Diffie-Hellman (DHE), and ECDHE needs no parameters; remove it",
	"prefer_server_ciphers":              "Go's own order of suites always decides, except for TLS 1.3, where that of ciphers does; remove it",
	"tls13_ciphers":                      "the suites of TLS 1.3 belong into ciphers, with the others",
	"ecdh_curve":                         "write groups, a list, such as [X25519, prime256v1]",
	"passphrase_command_supports_reload": "passphrase_command is run at every reload; remove it",
	"socket":                             "write host, the directory of the socket, and port, which is part of its name",
	"renegotiation_limit":                "there is no renegotiation; remove it",
}

func unknownKey(name string, fields map[string]reflect.Value) string {
	bare := strings.TrimPrefix(name, "ssl_") // as PostgreSQL has it
	if why, ok := impossible[bare]; ok {
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

func (b *binding) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a list whose entries are all commented out
	}
	if n.Kind != yaml.SequenceNode {
		want := "a list ([a, b] or one «- a» a line)"
		if v.Type().Elem().Kind() == reflect.Struct {
			want = "a list of sections (each beginning with «- »)"
		}
		b.mistake(n, "%s stands where %s is wanted", given(n), want)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, entry := range n.Content {
		below := path + "[" + strconv.Itoa(i) + "]"
		b.lines[below] = entry.Line
		b.value(entry, v.Index(i), below)
	}
}

// given says in words what stands in the file.
func given(n *yaml.Node) string {
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

// quote prints what stands in the file on one line, and not more of it than
// shows what is meant.
func quote(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return strconv.Quote(s)
}

// textual is a value that reads itself from a scalar.
type textual interface {
	wanted() string
	// set returns what is wrong with the text, to be put behind it.
	set(text, tag string) (mistake string)
}

// duration is a time.Duration as Go writes it, with its unit.
type duration time.Duration

func (*duration) wanted() string { return "a duration (like 500ms, 10s or 5m)" }

func (d *duration) set(text, _ string) string {
	const longest = "2562047h"
	v, err := time.ParseDuration(text)
	switch {
	case err == nil && v < 0:
		return "is negative; write a duration of 0 or more, like 500ms, 10s or 5m"
	case err != nil && strings.TrimLeft(text, "0123456789.") != text && endsWithUnit(text):
		return "is too long; the longest duration is " + longest
	case err != nil:
		return "is not a duration; write it with its unit, like 500ms, 10s or 5m"
	}
	*d = duration(v)
	return ""
}

// endsWithUnit reports text that failed to parse for its size, not its form.
func endsWithUnit(text string) bool {
	unit := strings.TrimLeft(text, "0123456789.")
	return slices.Contains([]string{"ns", "us", "µs", "ms", "s", "m", "h"}, unit) && strings.Count(text, ".") <= 1
}

// ports are one port, or several with commas between them.
type ports string

func (*ports) wanted() string { return "a port" }

func (p *ports) set(text, tag string) string {
	several := tag == "!!str" && strings.Contains(text, ",")
	for one := range strings.SplitSeq(text, ",") {
		if _, err := strconv.ParseUint(strings.TrimSpace(one), 10, 31); err != nil || !several && tag != "!!int" {
			return "is not a port; write it in digits, without quotes, or several with commas between"
		}
	}
	*p = ports(text)
	return ""
}

// list returns them as numbers.
func (p ports) list() (out []int) {
	for one := range strings.SplitSeq(string(p), ",") {
		n, _ := strconv.Atoi(strings.TrimSpace(one)) // set has looked
		out = append(out, n)
	}
	return out
}

// count is a whole number that is not negative.
type count int

func (*count) wanted() string { return "a whole number" }

func (c *count) set(text, tag string) string {
	v, err := strconv.ParseUint(text, 10, 31)
	if tag != "!!int" || err != nil {
		return "is not a whole number from 0 to 2147483647; write it in digits, without quotes"
	}
	*c = count(v)
	return ""
}
