package pgconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/internal/statefile"
)

// Rule is a line of pg_hba.conf.
type Rule struct {
	File             string // empty if not known
	Line             int
	Type             string // local, host, hostssl, hostnossl, hostgssenc or hostnogssenc
	Databases, Users []string
	Address          string // a network, a host name, all, samehost or samenet; empty for local
	Method           string
	Options          []string // name=value
	Mistake          string   // why PostgreSQL refuses the line; empty if it does not
}

// Mapping is a line of pg_ident.conf.
type Mapping struct {
	File              string
	Line              int
	Map, System, Role string
	Mistake           string
}

// String returns the rule as a line of pg_hba.conf, without the passwords in its options.
func (r Rule) String() string {
	words := []string{r.Type, strings.Join(r.Databases, ","), strings.Join(r.Users, ","), r.Address, r.Method}
	for _, o := range r.Options {
		if name, _, _ := strings.Cut(o, "="); name == "ldapbindpasswd" || name == "radiussecrets" {
			o = name + "=..."
		}
		words = append(words, o)
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// At returns the file and line.
func (r Rule) At() string { return at(r.File, r.Line) }

// At returns the file and line.
func (m Mapping) At() string { return at(m.File, m.Line) }

func at(file string, line int) string { return fmt.Sprintf("%s:%d", file, line) }

// Remote reports whether the rule also applies to other machines.
func (r Rule) Remote() bool {
	if r.Type == "local" || r.Address == "samehost" || r.Address == "localhost" {
		return false
	}
	p, err := netip.ParsePrefix(r.Address)
	return err != nil || !Loopback(p)
}

// Loopback reports whether all addresses of a network are loopback addresses.
func Loopback(p netip.Prefix) bool {
	return p.Addr().IsLoopback() && (p.Addr().Is6() || p.Bits() >= 8)
}

// Option returns the value of an option, or "" if it is not set.
func (r Rule) Option(name string) string {
	for _, o := range r.Options {
		if value, ok := strings.CutPrefix(o, name+"="); ok {
			return value
		}
	}
	return ""
}

// Network returns an address and a mask as a network in CIDR notation. Without a valid
// address and mask it returns address unchanged.
func Network(address, mask string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || mask == "" {
		return address
	}
	m, err := netip.ParseAddr(mask)
	if err != nil {
		return address
	}
	bits := 0
	for _, b := range m.AsSlice() {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(a, bits).String()
}

func readRules(file string) (rules []Rule, err error) {
	lines, err := readLines(file, 0)
	for _, l := range lines {
		rules = append(rules, l.rule())
	}
	return rules, err
}

func readMappings(file string) (mappings []Mapping, err error) {
	lines, err := readLines(file, 0)
	for _, l := range lines {
		m := Mapping{File: l.file, Line: l.number}
		if len(l.fields) == 3 {
			m.Map, m.System, m.Role = l.word(0), l.word(1), l.word(2)
		} else {
			m.Mistake = "a line must have a map, a system user name and a role"
		}
		mappings = append(mappings, m)
	}
	return mappings, err
}

func (l line) rule() Rule {
	r := Rule{File: l.file, Line: l.number, Type: l.word(0), Databases: l.list(1), Users: l.list(2)}
	next := 3
	switch r.Type {
	case "local":
	case "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc":
		r.Address, next = l.word(3), 4
		if a, err := netip.ParseAddr(r.Address); err == nil {
			r.Address, next = Network(a.String(), l.word(4)), 5
		}
	default:
		r.Mistake = fmt.Sprintf("%q is not a type of connection", r.Type)
	}
	r.Method = l.word(next)
	for i := next + 1; i < len(l.fields); i++ {
		r.Options = append(r.Options, strings.Join(l.fields[i], ","))
	}
	if r.Mistake == "" && r.Method == "" {
		r.Mistake = "the line ends before its authentication method"
	}
	return r
}

// line is a line of pg_hba.conf or pg_ident.conf. Each field is a list of words.
type line struct {
	file   string
	number int
	fields [][]string
}

func (l line) list(i int) []string {
	if i >= len(l.fields) {
		return nil
	}
	return l.fields[i]
}

// word returns a field as one word.
func (l line) word(i int) string { return strings.Join(l.list(i), ",") }

func readLines(file string, depth int) (lines []line, err error) {
	if err := tooDeep(file, depth); err != nil {
		return nil, err
	}
	text, err := statefile.Read(file, maxFile)
	if err != nil {
		return nil, err
	}
	rest := strings.Split(string(text), "\n")
	for number := 1; len(rest) > 0; {
		first := number
		whole, more := strings.CutSuffix(strings.TrimRight(rest[0], "\r"), `\`)
		rest, number = rest[1:], number+1
		for more && len(rest) > 0 {
			var next string
			next, more = strings.CutSuffix(strings.TrimRight(rest[0], "\r"), `\`)
			whole, rest, number = whole+next, rest[1:], number+1
		}
		fields, err := split(file, whole, depth)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, first, err)
		}
		if len(fields) == 0 {
			continue
		}
		l := line{file, first, fields}
		files, isDirective, err := included(file, l.word(0), l.word(1))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, first, err)
		}
		for _, f := range files {
			inner, err := readLines(f, depth+1)
			if err != nil {
				return nil, err
			}
			lines = append(lines, inner...)
		}
		if !isDirective {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// split splits a line into fields. A word that begins with @ names a file with more
// words.
func split(file, text string, depth int) (fields [][]string, err error) {
	for {
		var field []string
		comma := true
		for comma {
			var w word
			if w, text = nextWord(text); !w.there {
				break
			}
			comma = w.comma
			name, isFile := strings.CutPrefix(w.text, "@")
			if !isFile || name == "" || w.quoted {
				field = append(field, w.text)
				continue
			}
			inner, err := readLines(resolve(file, name), depth+1)
			if err != nil {
				return nil, err
			}
			for _, l := range inner {
				field = append(field, slices.Concat(l.fields...)...)
			}
		}
		if field == nil {
			return fields, nil
		}
		fields = append(fields, field)
	}
}

type word struct {
	text          string
	there         bool
	quoted, comma bool // begins with a quote; is followed by a comma
}

// nextWord works like next_token in src/backend/libpq/hba.c of PostgreSQL: quotes are
// allowed anywhere, and two quotes inside quotes are one.
func nextWord(s string) (w word, rest string) {
	s = strings.TrimLeft(s, " \t\r,")
	var b strings.Builder
	within, was := false, false
	i := 0
	for ; i < len(s) && (within || !strings.ContainsRune(" \t\r,#", rune(s[i]))); i++ {
		c := s[i]
		if c != '"' || was {
			b.WriteByte(c)
		}
		was = within && c == '"' && !was
		if c == '"' {
			w.quoted = w.quoted || i == 0
			within = !within
		}
	}
	w.text, w.there = b.String(), i > 0
	switch {
	case i < len(s) && s[i] == '#':
		return w, ""
	case i < len(s) && s[i] == ',':
		w.comma = true
		i++
	}
	return w, s[i:]
}
