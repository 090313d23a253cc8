package config

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Effective returns the configuration from the file at path, the environment and the
// defaults, as a YAML file with absolute paths. A comment after each value has its
// source. Effective does not read the files that the configuration names, and does not
// check the values.
func Effective(path string) (text []byte, problems []Problem) {
	s, problems := readSettings(path, os.Environ())
	if len(problems) > 0 {
		return nil, problems
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, []Problem{{File: path, Line: 1, Text: err.Error()}}
	}
	s.paths(dir)
	s.Admin.Socket = absolute(dir, s.Admin.Socket)
	s.StateDir = absolute(dir, s.StateDir)
	s.Audit.File = absolute(dir, s.Audit.File)
	for i := range s.Backends {
		s.Backends[i].backend = withDefaults(s.lines, fmt.Sprintf("backends[%d]", i), s.Backends[i].backend)
	}
	p := &printer{path: path, lines: s.lines, inForce: s.inForce()}
	root := p.section(reflect.ValueOf(&s.file).Elem(), reflect.ValueOf(defaults()), "")
	// An empty section would have an effect, so leave it out.
	if len(s.Backends) > 0 && !has(s.lines, "backend") {
		root.Content = without(root.Content, "backend")
	}
	if !has(s.lines, "admin.tls") {
		i := slices.IndexFunc(root.Content, func(n *yaml.Node) bool { return n.Value == "admin" })
		root.Content[i+1].Content = without(root.Content[i+1].Content, "tls")
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, []Problem{{File: path, Line: 1, Text: err.Error()}}
	}
	return b.Bytes(), nil
}

// printer encodes the settings as YAML.
type printer struct {
	path    string
	lines   map[string]int
	inForce map[string]string
}

// standard has the defaults that tlsconfig uses for an empty string or 0, as far as
// they can be written as a value.
var standard = map[string]string{"tls.min_protocol_version": "TLSv1.2", "tls.client_cert": "require", "tls.min_security_bits": "112"}

// section encodes a section with all its keys. Entries of a list have no defaults, so
// only the keys that are set are encoded there.
func (p *printer) section(v, byDefault reflect.Value, path string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := f.Tag.Get("yaml")
		if f.Anonymous || key == "-" {
			continue
		}
		below := strings.TrimPrefix(path+"."+key, ".")
		field, standard := v.FieldByIndex(f.Index), reflect.Value{}
		if byDefault.IsValid() {
			standard = byDefault.FieldByIndex(f.Index)
		}
		if _, set := p.lines[below]; !set && !standard.IsValid() && field.IsZero() {
			continue
		}
		name := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
		value := p.value(field, standard, below)
		switch {
		case field.Kind() == reflect.Struct:
		case value.Kind == yaml.ScalarNode || value.Style == yaml.FlowStyle:
			value.LineComment = p.origin(field, standard, below)
		default:
			name.LineComment = p.origin(field, standard, below)
		}
		n.Content = append(n.Content, name, value)
	}
	return n
}

func (p *printer) value(v, byDefault reflect.Value, path string) *yaml.Node {
	switch x := v.Addr().Interface().(type) {
	case *duration:
		return scalar(plainDuration(time.Duration(*x)), "!!str")
	case *time.Duration:
		return scalar(plainDuration(*x), "!!str")
	case *count:
		return scalar(strconv.Itoa(int(*x)), "!!int")
	case *ports:
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: string(*x)}
		n.Tag = n.ShortTag()
		return n
	}
	switch v.Kind() {
	case reflect.Struct:
		return p.section(v, byDefault, path)
	case reflect.Slice:
		return p.list(v, path)
	case reflect.Bool:
		return scalar(strconv.FormatBool(v.Bool()), "!!bool")
	case reflect.Int:
		if v.IsZero() && byDefault.IsValid() {
			return scalar(cmp.Or(standard[path], "0"), "!!int")
		}
		return scalar(strconv.FormatInt(v.Int(), 10), "!!int")
	}
	if v.Len() == 0 && byDefault.IsValid() {
		return scalar(standard[path], "!!str")
	}
	return scalar(v.String(), "!!str")
}

func scalar(text, tag string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	if text == "<<" { // a merge key without quotes, which the library does not add
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// list encodes a list on one line if it was on one line, otherwise each entry with its
// source.
func (p *printer) list(v reflect.Value, path string) *yaml.Node {
	if _, set := p.lines[path]; set && v.IsNil() {
		return scalar("", "!!null") // null and [] differ for some keys
	}
	var entryDefault reflect.Value
	if path == "backends" {
		entryDefault = reflect.ValueOf(namedBackend{backend: defaults().Backend})
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for i := range v.Len() {
		key := path + "[" + strconv.Itoa(i) + "]"
		entry := p.value(v.Index(i), entryDefault, key)
		if entry.Kind == yaml.MappingNode || lineOf(p.lines, key) != lineOf(p.lines, path) {
			n.Style = 0
		}
		n.Content = append(n.Content, entry)
	}
	for i, entry := range n.Content {
		if n.Style == 0 && entry.Kind == yaml.ScalarNode {
			entry.LineComment = p.comment(path + "[" + strconv.Itoa(i) + "]")
		}
	}
	return n
}

// origin returns a comment with the source of a value. A value that is not set and not
// the default comes from an alias.
func (p *printer) origin(v, byDefault reflect.Value, key string) string {
	_, set := p.lines[key]
	if !set && byDefault.IsValid() && reflect.DeepEqual(v.Interface(), byDefault.Interface()) {
		return p.byDefault(v, key)
	}
	return p.comment(key)
}

// byDefault is the comment of a default: what an empty value stands for, too.
func (p *printer) byDefault(v reflect.Value, key string) string {
	switch value, known := p.inForce[key]; {
	case !v.IsZero() || v.Kind() != reflect.String && v.Kind() != reflect.Slice || standard[key] != "":
		return "# default"
	case known:
		return "# default: " + value
	}
	return "# default: none"
}

func (p *printer) comment(key string) string { return "# " + at(p.path, lineOf(p.lines, key), key) }

// plainDuration prints a duration without zero parts: 5m instead of 5m0s.
func plainDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// without returns the contents of a mapping without a key.
func without(content []*yaml.Node, key string) []*yaml.Node {
	for i := 0; i < len(content); i += 2 {
		if content[i].Value == key {
			return append(content[:i:i], content[i+2:]...)
		}
	}
	return content
}
