package acl

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// pattern matches a name as pg_hba.conf and pg_ident.conf do: all names, one
// name, a glob, or a regular expression. The zero pattern matches nothing.
type pattern struct {
	kind       patternKind
	text       string         // of a literal
	parts      []string       // of a glob: the text between its stars; of a template: before and after \1
	re         *regexp.Regexp // of a regular expression
	escapes    bool           // a glob for names with backslash escapes
	unanchored bool           // a regular expression that also matches longer names: /app is good for webapp2
}

type patternKind uint8

const (
	nothing    patternKind = iota
	everything             // all
	literal
	glob
	regex
	template // with \1, which comes from the certificate
	same     // samename: the certificate's common name; sameuser: the user
	group    // the members of the role in text
)

// nameKind is the kind of name that a pattern is compared with. It changes how the
// pattern is parsed.
type nameKind uint8

const (
	anyName  nameKind = iota
	roleName          // of a role or a database: 63 bytes at most
	hostName          // compared in lower case
	fullName          // a distinguished name, with backslash escapes
)

// maxPattern bounds the cost of a pattern for each connection, in bytes.
const maxPattern = 1024

// parsePattern parses a pattern for any kind of name. A group, which only users may have, and the
// file of pg_hba.conf are errors.
func parsePattern(s string, v nameKind) (p pattern, err error) {
	switch {
	case s == "":
		return p, errors.New("is empty; write all for every name, or remove the key")
	case len(s) > maxPattern:
		return p, fmt.Errorf("is %d bytes long, more than %d", len(s), maxPattern)
	case s == "all":
		return pattern{kind: everything}, nil
	case s[0] == '/':
		return parseRegex(s[1:], v)
	case s[0] == '+':
		return p, errors.New("means the members of a role, which only users may name; write the names, a glob or a regular expression")
	case s[0] == '@':
		return p, errors.New("means a file in pg_hba.conf; write the names here")
	case strings.Contains(s, `\`) && v != fullName:
		return p, errors.New(`has a backslash; only a regular expression (/...) and, in users, \1 may have one`)
	}
	if v == hostName {
		s = lower(s)
	}
	if strings.Contains(s, `\*`) {
		return p, errors.New("has a backslash before a star, which RFC 2253 does not escape; use a regular expression for a name that contains a star")
	}
	if strings.Contains(s, "*") {
		return pattern{kind: glob, parts: strings.Split(s, "*"), escapes: v == fullName}, nil
	}
	return pattern{kind: literal, text: s}, nil
}

// parseRegex compiles a regular expression with the semantics of PostgreSQL: a dot
// also matches a line break, which the name of a role may contain; there are no
// implicit anchors; and the longest match wins, so ^(app|application) matches all of
// "application". A difference remains where one match can be divided into groups in
// two ways, as with ^(a|ab)(b?)$. Do not use such an expression for \1.
func parseRegex(text string, v nameKind) (p pattern, err error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return p, fmt.Errorf("is not a regular expression (%s)", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	flags := "(?s)"
	if v == hostName {
		flags = "(?si)"
	}
	re, err := regexp.Compile(flags + text)
	if err != nil {
		return p, fmt.Errorf("is not a regular expression (%w)", err)
	}
	if !lazy(tree) {
		re.Longest()
	}
	return pattern{kind: regex, re: re, unanchored: !bounded(tree, syntax.OpBeginText) || !bounded(tree, syntax.OpEndText)}, nil
}

// bounded reports whether every match of an expression begins (or ends) where the
// name does. /^alice|bob$ does neither.
func bounded(e *syntax.Regexp, by syntax.Op) bool {
	switch e.Op {
	case by:
		return true
	case syntax.OpCapture:
		return bounded(e.Sub[0], by)
	case syntax.OpConcat:
		if by == syntax.OpBeginText {
			return bounded(e.Sub[0], by)
		}
		return bounded(e.Sub[len(e.Sub)-1], by)
	case syntax.OpAlternate:
		for _, sub := range e.Sub {
			if !bounded(sub, by) {
				return false
			}
		}
		return true
	}
	return false
}

// lazy reports whether an expression has a non-greedy operator, such as .*?.
func lazy(e *syntax.Regexp) bool {
	return e.Flags&syntax.NonGreedy != 0 && len(e.Sub) == 1 && e.Op != syntax.OpCapture || slices.ContainsFunc(e.Sub, lazy)
}

// lower folds the case of ASCII letters only, as RFC 4343 requires for DNS names.
func lower(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

// matches reports whether the pattern matches the name. A template, a group and the keywords
// samename and sameuser need more than the name and match nothing here.
func (p *pattern) matches(name string) bool {
	switch p.kind {
	case everything:
		return true
	case literal:
		return name == p.text
	case glob:
		return p.matchesGlob(name)
	case regex:
		return p.re.MatchString(name)
	}
	return false
}

// spans looks for the parts of a glob in the name, each at the first possible
// place.
func (p *pattern) matchesGlob(name string) bool {
	last := len(p.parts) - 1
	rest, ok := between(name, p.parts[0], p.parts[last])
	if !ok {
		return false
	}
	for _, part := range p.parts[1:last] {
		if rest, ok = p.after(part, rest); !ok {
			return false
		}
	}
	return !p.escapes || !endsInEscape(rest)
}

// after returns the rest of the name after the first possible place of a part.
func (p *pattern) after(part, name string) (rest string, ok bool) {
	for from := 0; ; from++ {
		i := strings.Index(name[from:], part)
		if i < 0 {
			return "", false
		}
		from += i
		if !p.escapes || !endsInEscape(name[:from]) {
			return name[from+len(part):], true
		}
	}
}

// endsInEscape reports whether text ends in the middle of an escape. If a star could
// match "OU=x\", the value "x\,O=Firm" of one attribute would match as two.
func endsInEscape(text string) bool {
	return (len(text)-len(strings.TrimRight(text, `\`)))%2 == 1
}

// between returns the part of the name between a prefix and a suffix.
func between(name, begin, end string) (rest string, ok bool) {
	if len(name) < len(begin)+len(end) || !strings.HasPrefix(name, begin) || !strings.HasSuffix(name, end) {
		return "", false
	}
	return name[len(begin) : len(name)-len(end)], true
}

// captures reports whether the pattern has a group that \1 can refer to.
func (p *pattern) captures() bool { return p.kind == regex && p.re.NumSubexp() > 0 }

// capturesValue reports whether the first group of the regular expression captures
// want. The match allocates, so the cheap test comes first.
func (p *pattern) capturesValue(name, want string) bool {
	if !strings.Contains(name, want) {
		return false
	}
	at := p.re.FindStringSubmatchIndex(name)
	return len(at) >= 4 && at[2] >= 0 && name[at[2]:at[3]] == want
}

// any reports whether the pattern seems to match every name. It tries names that are
// unlikely to match anything else.
func (p *pattern) any() bool {
	for _, unlikely := range []string{"j", "0Qx_ -.", "\u00ff\u4e16", strings.Repeat("z", maxCN)} {
		if !p.matches(unlikely) {
			return false
		}
	}
	return true
}
