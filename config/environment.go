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

// FileVariable is the variable with the path of the configuration file.
const FileVariable = "PGWICKET_CONFIG"

// The variables of "pgwicket ca". With FileVariable they are the only ones that do not set
// a key.
const (
	CADirVariable        = "PGWICKET_CA_DIR"
	CAPassphraseVariable = "PGWICKET_CA_PASSPHRASE_COMMAND" //nolint:gosec // a name, not a passphrase
)

const variablePrefix = "PGWICKET_"

// Variable returns the name of the environment variable that sets a key. For a key in
// a list, it is the variable of the list.
func Variable(key string) string {
	list, _, _ := strings.Cut(key, "[")
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(list, ".", "_"))
}

// InEnvironment reports whether the environment sets any key.
func InEnvironment(environ []string) bool {
	known := variables()
	return slices.ContainsFunc(environ, func(entry string) bool {
		name, text, _ := strings.Cut(entry, "=")
		return known[name] != "" && !ignored(name, text)
	})
}

// variables returns the keys by the names of their variables.
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

// serviceLink matches the variables that Kubernetes sets in every container for a
// Service with a name that begins with pgwicket.
var serviceLink = regexp.MustCompile(`^PGWICKET_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$`)

// ignored reports whether a variable is not meant for pgwicket.
func ignored(name, text string) bool {
	return !strings.HasPrefix(name, variablePrefix) || slices.Contains([]string{FileVariable, CADirVariable, CAPassphraseVariable}, name) || serviceLink.MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://") // a Kubernetes Service, too
}

// environment sets the keys that have a variable. A variable replaces everything that
// the file sets at or below its key. The lines of these keys become 0.
func environment(f *file, lines map[string]int, environ []string) (set []string, problems []Problem) {
	known := variables()
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(entry, "=")
		if ignored(name, text) {
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
		b := &binder{lines: make(map[string]int)}
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

// within reports whether key is equal to of or below it.
func within(key, of string) bool {
	rest, ok := strings.CutPrefix(key, of)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func unknownVariable(name string, known map[string]string) string {
	var names []string // without the common prefix, which would make all of them similar
	for _, n := range append(slices.Sorted(maps.Keys(known)), FileVariable) {
		names = append(names, strings.TrimPrefix(n, variablePrefix))
	}
	if best, ok := nearest.Word(strings.TrimPrefix(name, variablePrefix), names); ok {
		return "unknown variable; did you mean " + variablePrefix + best + "?"
	}
	return "unknown variable; each variable has the name of a key, like PGWICKET_TLS_CERT_FILE for cert_file in tls"
}

// fieldOf returns the field of a key that is not in a list.
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

// nodeOf returns the YAML node for the text of a variable. A string needs no YAML
// quotes. An empty variable is an error: it is most often a forgotten value in a
// template, and must not turn off a list.
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
		return nil, "contains a control character; remove it"
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

// isText reports whether v accepts any text, even text that YAML reads as a number.
func isText(v reflect.Value) bool {
	p := v.Addr().Interface()
	_, parses := p.(scalarValue)
	_, isDuration := p.(*time.Duration)
	return v.Kind() == reflect.String && !parses && !isDuration
}

// readNode parses a list in YAML.
func readNode(text string) (*yaml.Node, string) {
	var document, second yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&document); errors.Is(err, io.EOF) {
		return nil, "is empty; unset it, or write [] for an empty list"
	} else if err != nil {
		return nil, syntaxError(err, []byte(text)).Text
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, "has more than one list; write one"
	}
	return document.Content[0], ""
}
