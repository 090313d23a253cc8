package acl

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// pattern matches a name as pg_hba.conf and pg_ident.conf do: everything, one
// name, a glob, or a regular expression. What a name holds is never taken for a
// pattern. The zero pattern matches nothing.
type pattern struct {
	kind    patternKind
	text    string         // of a literal
	parts   []string       // of a glob: what stands between its stars; of a template: before and behind \1
	re      *regexp.Regexp // of a regular expression
	escapes bool           // a glob for names where a backslash escapes
	loose   bool           // a regular expression that also matches longer names: /app is good for webapp2
}

type patternKind uint8

const (
	nothing    patternKind = iota
	everything             // all
	literal
	glob
	regex
	template // with \1, which the certificate fills in
	same     // samename: the certificate's common name; sameuser: the user
)

// vocabulary is what a pattern is compared with, where that changes how it is
// read.
type vocabulary uint8

const (
	anyName  vocabulary = iota
	roleName            // of a role or a database: 63 bytes at most
	hostName            // compared in lower case
	fullName            // a distinguished name, where a backslash escapes
)

// maxPattern bounds what an operator can make every connection pay for.
const maxPattern = 1024

// parsePattern reads what every kind of name may be matched by. What a pattern
// says of itself (a role group, a file) that a gate cannot know is a mistake.
func parsePattern(s string, v vocabulary) (p pattern, err error) {
	switch {
	case s == "":
		return p, errors.New("is empty; write all for everything, or leave the key out")
	case len(s) > maxPattern:
		return p, fmt.Errorf("is %d bytes long, more than %d", len(s), maxPattern)
	case s == "all":
		return pattern{kind: everything}, nil
	case s[0] == '/':
		return parseRegex(s[1:], v)
	case s[0] == '+':
		return p, errors.New("means the members of a role in pg_hba.conf, whom only PostgreSQL knows; write the names, a glob or a regular expression")
	case s[0] == '@':
		return p, errors.New("means a file in pg_hba.conf; write the names here")
	case strings.Contains(s, `\`) && v != fullName:
		return p, errors.New(`has a backslash; only a regular expression (/...) and, in users, \1 may have one`)
	}
	if v == hostName {
		s = lower(s)
	}
	if strings.Contains(s, `\*`) {
		return p, errors.New("has a backslash before a star, which RFC 2253 does not escape; write a regular expression for a name that has one")
	}
	if strings.Contains(s, "*") {
		return pattern{kind: glob, parts: strings.Split(s, "*"), escapes: v == fullName}, nil
	}
	return pattern{kind: literal, text: s}, nil
}

// parseRegex: as in PostgreSQL, a dot is also good for a line break, which a
// role may have in its name, nothing is anchored that does not say so, and of
// two matches, the longer counts: what ^(app|application) finds in application is
// all of it. They still differ where one match can be divided into groups in two
// ways, as by ^(a|ab)(b?)$, of which nobody should make users.
func parseRegex(text string, v vocabulary) (p pattern, err error) {
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
	return pattern{kind: regex, re: re, loose: !bounded(tree, syntax.OpBeginText) || !bounded(tree, syntax.OpEndText)}, nil
}

// bounded says whether all that an expression matches begins, or ends, where
// the name does. That of /^alice|bob$ does neither.
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

// lazy says whether an expression asks for short matches, as .*? does.
func lazy(e *syntax.Regexp) bool {
	return e.Flags&syntax.NonGreedy != 0 && len(e.Sub) == 1 && e.Op != syntax.OpCapture || slices.ContainsFunc(e.Sub, lazy)
}

// lower folds the case of what a DNS name may consist of (RFC 4343), and
// nothing else.
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

// matches says whether the pattern is for a name. Those that need more than the
// name to know match nothing.
func (p *pattern) matches(name string) bool {
	switch p.kind {
	case everything:
		return true
	case literal:
		return name == p.text
	case glob:
		return p.spans(name)
	case regex:
		return p.re.MatchString(name)
	}
	return false
}

// spans finds the parts of a glob in a name, each as early as it can stand.
func (p *pattern) spans(name string) bool {
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
	return !p.escapes || !halved(rest)
}

// after returns what follows the first place where a part can stand.
func (p *pattern) after(part, name string) (rest string, ok bool) {
	for from := 0; ; from++ {
		i := strings.Index(name[from:], part)
		if i < 0 {
			return "", false
		}
		from += i
		if !p.escapes || !halved(name[:from]) {
			return name[from+len(part):], true
		}
	}
}

// halved reports text that ends in half of an escape: a star that stands for
// OU=x\ would make an attribute of what the owner of OU=x\,O=Firm calls himself.
func halved(text string) bool {
	return (len(text)-len(strings.TrimRight(text, `\`)))%2 == 1
}

// between returns what a name has between its beginning and its end.
func between(name, begin, end string) (rest string, ok bool) {
	if len(name) < len(begin)+len(end) || !strings.HasPrefix(name, begin) || !strings.HasSuffix(name, end) {
		return "", false
	}
	return name[len(begin) : len(name)-len(end)], true
}

// captures reports a regular expression that \1 can refer to.
func (p *pattern) captures() bool { return p.kind == regex && p.re.NumSubexp() > 0 }

// finds says whether the first group of a regular expression finds want in a
// name. To ask is not free of allocations, so it asks only if it can be.
func (p *pattern) finds(name, want string) bool {
	if !strings.Contains(name, want) {
		return false
	}
	at := p.re.FindStringSubmatchIndex(name)
	return len(at) >= 4 && at[2] >= 0 && name[at[2]:at[3]] == want
}

// any reports a pattern that, by all appearances, every name matches.
func (p *pattern) any() bool {
	for _, unlikely := range []string{"j", "0Qx_ -.", "\u00ff\u4e16", strings.Repeat("z", maxCN)} {
		if !p.matches(unlikely) {
			return false
		}
	}
	return true
}
