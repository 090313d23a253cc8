package machine

import (
	"errors"
	"strings"
)

// sudoParser reads a line from its beginning.
type sudoParser struct{ rest string }

func (p *sudoParser) space() { p.rest = strings.TrimLeft(p.rest, " ") }

// take takes a character, if it is the next.
func (p *sudoParser) take(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	p.space()
	return true
}

// until returns the text before the first of these characters that has no backslash and is not between
// double quotes.
func (p *sudoParser) until(stops string) string {
	i := 0
	for ; i < len(p.rest) && !strings.Contains(stops, p.rest[i:i+1]); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '"':
			if end := strings.IndexByte(p.rest[i+1:], '"'); end >= 0 {
				i += end + 1
			}
		}
	}
	i = min(i, len(p.rest))
	text := p.rest[:i]
	p.rest = p.rest[i:]
	p.space()
	return text
}

func (p *sudoParser) word() string { return p.until(" ,:=()") }

// nots takes exclamation marks, each of which turns the meaning round.
func (p *sudoParser) nots() (not bool) {
	for p.take('!') {
		not = !not
	}
	return not
}

// list reads names with commas between them.
func (p *sudoParser) list() (items []sudoItem, err error) {
	for more := true; more; more = p.take(',') {
		p.space()
		item := sudoItem{not: p.nots()}
		// A group of another directory (%:name) has a colon.
		prefix := ""
		if strings.HasPrefix(p.rest, "%:") {
			prefix, p.rest = "%:", p.rest[2:]
		}
		if item.text = prefix + strings.Trim(p.word(), `"`); item.text == "" {
			return nil, errors.New("a name is missing")
		}
		items = append(items, item)
	}
	return items, nil
}

// command reads a command with its arguments. An argument that is a regular expression ends with $.
func (p *sudoParser) command() sudoItem {
	for m := sudoDigest.FindString(p.rest); m != ""; m = sudoDigest.FindString(p.rest) {
		p.rest = p.rest[len(m):]
	}
	item := sudoItem{not: p.nots()}
	for {
		item.text += p.until(" ,:=")
		if strings.HasPrefix(p.rest, "^") {
			end := strings.IndexByte(p.rest, '$')
			if end < 0 {
				return sudoItem{}
			}
			item.text, p.rest = item.text+" "+p.rest[:end+1], p.rest[end+1:]
			p.space()
		}
		if p.rest == "" || strings.IndexByte(",:=", p.rest[0]) >= 0 {
			return item
		}
		item.text += " "
	}
}
