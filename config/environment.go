package config

import (
	"errors"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"pgwicket/internal/nearest"
)

// FileVariable names the configuration file to the commands. It is the only
// variable of ours that is no key.
const FileVariable = "PGWICKET_CONFIG"

const variablePrefix = "PGWICKET_"

// Variable is the name of the environment variable that sets a key. What is below
// a list is set with the list.
func Variable(key string) string {
	list, _, _ := strings.Cut(key, "[")
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(list, ".", "_"))
}

// InEnvironment reports whether the environment sets any key.
func InEnvironment(environ []string) bool {
	known := variables()
	return slices.ContainsFunc(environ, func(entry string) bool {
		name, text, _ := strings.Cut(entry, "=")
		return known[name] != "" && !foreign(name, text)
	})
}

// variables are the keys, by the names of their variables.
func variables() map[string]string {
	known := make(map[string]string)
	var add func(t reflect.Type, path string)
	add = func(t reflect.Type, path string) {
		for _, f := range reflect.VisibleFields(t) {
			key := f.Tag.Get("yaml")
			switch {
			case key == "-":
			case f.Type.Kind() == reflect.Struct:
				add(f.Type, path+key+".")
			default:
				known[Variable(path+key)] = path + key
			}
		}
	}
	add(reflect.TypeFor[file](), "")
	return known
}

// serviceLink matches what Kubernetes sets in every container for a Service whose
// name begins with pgwicket.
var serviceLink = regexp.MustCompile(`^PGWICKET_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$`)

// foreign reports a variable that is not for us, whatever its name.
func foreign(name, text string) bool {
	return !strings.HasPrefix(name, variablePrefix) || name == FileVariable || serviceLink.MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://") // a Service, too
}

// environment puts the values of variables over those of the file, each in place
// of all that the file says of its key. In lines, they stand in line 0.
func environment(f *file, lines map[string]int, environ []string) (set []string, problems []Problem) {
	known := variables()
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(entry, "=")
		if foreign(name, text) {
			continue
		}
		key, ok := known[name]
		if !ok {
			problems = append(problems, Problem{File: name, Text: unknownVariable(name, known)})
			continue
		}
		set = append(set, name)
		maps.DeleteFunc(lines, func(k string, _ int) bool { return within(k, key) })
		lines[key] = 0
		b := &binding{lines: make(map[string]int)}
		v := fieldOf(reflect.ValueOf(f).Elem(), key)
		if n, mistake := nodeOf(v, text); mistake != "" {
			b.problems = []Problem{{Text: mistake}}
		} else {
			b.value(n, v, key)
		}
		for below := range b.lines {
			lines[below] = 0
		}
		for _, p := range b.problems {
			problems = append(problems, Problem{File: name, Text: p.Text})
		}
	}
	return set, problems
}

// within reports whether a key is another one, or below it.
func within(key, of string) bool {
	rest, ok := strings.CutPrefix(key, of)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func unknownVariable(name string, known map[string]string) string {
	var names []string // what all have in common would make any two of them near
	for _, n := range append(slices.Sorted(maps.Keys(known)), FileVariable) {
		names = append(names, strings.TrimPrefix(n, variablePrefix))
	}
	if best, ok := nearest.Word(strings.TrimPrefix(name, variablePrefix), names); ok {
		return "there is no such variable; did you mean " + variablePrefix + best + "?"
	}
	return "there is no such variable; each is named after a key, like PGWICKET_TLS_CERT_FILE for cert_file below tls"
}

// fieldOf returns the field of a key that is in no list.
func fieldOf(v reflect.Value, key string) reflect.Value {
	for name := range strings.SplitSeq(key, ".") {
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.Tag.Get("yaml") == name {
				v = v.FieldByIndex(f.Index)
				break
			}
		}
	}
	return v
}

// nodeOf makes of a variable's text what would stand in the file for it. A text
// stands for itself, without YAML's quotes; but nothing at all is most often a
// variable that was forgotten in a template, and must not switch off a list.
func nodeOf(v reflect.Value, text string) (n *yaml.Node, mistake string) {
	list := v.Kind() == reflect.Slice
	sections := list && v.Type().Elem().Kind() == reflect.Struct
	switch {
	case text == "" && list:
		return nil, "is empty; unset it, or write [] for an empty list"
	case text == "":
		return nil, `is empty; unset it, or write "" for an empty text`
	case !utf8.ValidString(text):
		return nil, "is not UTF-8"
	case strings.ContainsFunc(text, func(r rune) bool { return (r < ' ' || r == 0x7f) && (!sections || r != '\n') }):
		return nil, "holds a control character; remove it"
	case sections || list && strings.HasPrefix(text, "["):
		return readNode(text)
	case list:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for entry := range strings.SplitSeq(text, ",") {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(entry)})
		}
		return n, ""
	}
	n = &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	n.Tag = n.ShortTag()
	if isText(v) {
		n.Tag = "!!str"
		if text == `""` {
			n.Value = ""
		}
	}
	return n, ""
}

// isText reports a value that any text is good for, whatever YAML takes it for.
func isText(v reflect.Value) bool {
	p := v.Addr().Interface()
	_, reads := p.(textual)
	_, span := p.(*time.Duration)
	return v.Kind() == reflect.String && !reads && !span
}

// readNode reads a list that is written as YAML.
func readNode(text string) (*yaml.Node, string) {
	var document, second yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&document); errors.Is(err, io.EOF) {
		return nil, "is empty; unset it, or write [] for an empty list"
	} else if err != nil {
		return nil, syntaxError(err, []byte(text)).Text
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, "holds more than one list; write one"
	}
	return document.Content[0], ""
}
