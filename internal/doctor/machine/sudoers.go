package machine

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/printable"
)

// sudoers is what the files of sudo say, as sudoers(5) describes them.
type sudoers struct {
	aliases map[string][]sudoItem
	rules   []sudoRule
	// free is the last Defaults line with !authenticate that is for everything; nil: there is none.
	free *sudoLine
	// unread are the lines that are not understood, and why.
	unread []unreadLine
}

type unreadLine struct {
	sudoLine
	reason string
}

// sudoLine is a line with those that continue it.
type sudoLine struct {
	file        string
	first, last int
	text        string
}

func (l sudoLine) at() string { return fmt.Sprintf("%s:%d", printable.Text(l.file), l.first) }

// sudoItem is an element of a list: a name, an alias or a command.
type sudoItem struct {
	text string
	not  bool
}

// sudoRule is one command of a line.
type sudoRule struct {
	line         sudoLine
	users, hosts []sudoItem
	runAs        []sudoItem
	command      sudoItem
	tag          string // NOPASSWD, PASSWD, or "" for what the Defaults say
}

var (
	sudoTag    = regexp.MustCompile(`^(NOPASSWD|PASSWD|(?:NO)?(?:EXEC|FOLLOW|LOG_INPUT|LOG_OUTPUT|MAIL|INTERCEPT|SETENV))\s*:\s*`)
	sudoOption = regexp.MustCompile(`^(?:ROLE|TYPE|PRIVS|LIMITPRIVS|APPARMOR_PROFILE|CWD|CHROOT|TIMEOUT|NOTBEFORE|NOTAFTER)\s*=\s*("[^"]*"|(?:\\.|[^\s\\])+)\s*`)
	sudoDigest = regexp.MustCompile(`^sha(?:224|256|384|512)\s*:\s*[A-Za-z0-9+/=]+\s*(?:,\s*)?`)
	sudoAlias  = regexp.MustCompile(`^(User|Runas|Host|Cmnd|Cmd)_Alias\s+`)
	sudoFree   = regexp.MustCompile(`(?:^|[\s,])(!?)\s*authenticate\b`)
	sudoName   = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
)

// parse reads the text of a file.
func (s *sudoers) parse(file, text string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		l := sudoLine{file: file, first: i + 1}
		whole := lines[i]
		for strings.HasSuffix(whole, `\`) && i+1 < len(lines) {
			i++
			whole = strings.TrimSuffix(whole, `\`) + lines[i]
		}
		l.last, l.text = i+1, strings.Join(strings.Fields(withoutComment(whole)), " ")
		if l.text == "" || strings.HasPrefix(l.text, "@include") {
			continue
		}
		if err := s.parseLine(l); err != nil {
			s.unread = append(s.unread, unreadLine{l, err.Error()})
		}
	}
}

// withoutComment cuts a comment. A number after # is that of an account.
func withoutComment(line string) string {
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\':
			i++
		case line[i] == '"':
			if end := strings.IndexByte(line[i+1:], '"'); end >= 0 {
				i += end + 1
			}
		case line[i] == '#' && (i+1 == len(line) || line[i+1] < '0' || line[i+1] > '9'):
			return line[:i]
		}
	}
	return line
}

func (s *sudoers) parseLine(l sudoLine) error {
	if rest, ok := strings.CutPrefix(l.text, "Defaults"); ok && (rest == "" || strings.ContainsAny(rest[:1], " @:!>")) {
		return s.parseDefaults(l, rest)
	}
	p := &sudoParser{rest: l.text}
	if m := sudoAlias.FindStringSubmatch(p.rest); m != nil {
		p.rest = p.rest[len(m[0]):]
		return s.parseAliases(p, m[1] == "Cmnd" || m[1] == "Cmd")
	}
	users, err := p.list()
	for more := true; more && err == nil; more = p.take(':') {
		err = s.parseSpec(p, l, users)
	}
	if err == nil && p.rest != "" {
		err = errors.New("it goes on where it should end")
	}
	return err
}

// parseDefaults looks for authenticate only. In a Defaults for some users, hosts, accounts or commands it
// is not resolved.
func (s *sudoers) parseDefaults(l sudoLine, rest string) error {
	all := sudoFree.FindAllStringSubmatch(rest, -1)
	if all == nil {
		return nil
	}
	free := all[len(all)-1][1] == "!"
	switch {
	case rest[0] == ' ' && free:
		s.free = &l
	case rest[0] == ' ':
		s.free = nil
	case free:
		return errors.New("!authenticate for some users, hosts, accounts or commands")
	}
	return nil
}

func (s *sudoers) parseAliases(p *sudoParser, commands bool) error {
	for more := true; more; more = p.take(':') {
		name := p.word()
		if !sudoName.MatchString(name) || !p.take('=') {
			return errors.New("an alias has no name or no list")
		}
		var items []sudoItem
		var err error
		if commands {
			for next := true; next; next = p.take(',') {
				items = append(items, p.command())
			}
		} else if items, err = p.list(); err != nil {
			return err
		}
		s.aliases[name] = items
	}
	if p.rest != "" {
		return errors.New("it goes on where it should end")
	}
	return nil
}

// parseSpec reads hosts = [(accounts)] [tags] command, ... Accounts and tags hold for the commands after
// them, too.
func (s *sudoers) parseSpec(p *sudoParser, l sudoLine, users []sudoItem) error {
	hosts, err := p.list()
	if err != nil || !p.take('=') {
		return errors.Join(err, errors.New("no list of users, hosts and commands"))
	}
	r := sudoRule{line: l, users: users, hosts: hosts, runAs: []sudoItem{{text: "root"}}}
	for more := true; more; more = p.take(',') {
		if p.take('(') {
			if r.runAs = nil; p.rest != "" && p.rest[0] != ':' && p.rest[0] != ')' {
				if r.runAs, err = p.list(); err != nil {
					return err
				}
			}
			if p.take(':') && p.rest != "" && p.rest[0] != ')' {
				if _, err = p.list(); err != nil {
					return err
				}
			}
			if !p.take(')') {
				return errors.New("a parenthesis is not closed")
			}
		}
		for {
			if m := sudoTag.FindStringSubmatch(p.rest); m != nil {
				if strings.HasSuffix(m[1], "PASSWD") {
					r.tag = m[1]
				}
				p.rest = p.rest[len(m[0]):]
			} else if m := sudoOption.FindString(p.rest); m != "" {
				p.rest = p.rest[len(m):]
			} else {
				break
			}
		}
		if r.command = p.command(); r.command.text == "" {
			return errors.New("a command is missing")
		}
		s.rules = append(s.rules, r)
	}
	return nil
}

// list returns what an alias stands for. within are the aliases that it is in: one that has itself, which
// visudo does not accept, stands for nothing there.
func (s *sudoers) list(name string, within []string) (items []sudoItem, ok bool) {
	items, ok = s.aliases[name]
	if slices.Contains(within, name) {
		items = nil
	}
	return items, ok
}

// expand returns the names in a list without its aliases, those that are taken out again left out.
func (s *sudoers) expand(items []sudoItem, within ...string) (names []string) {
	for _, item := range items {
		more := []string{item.text}
		if list, ok := s.list(item.text, within); ok {
			more = s.expand(list, append(slices.Clip(within), item.text)...)
		}
		if item.not {
			names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(more, n) })
		} else {
			names = append(names, more...)
		}
	}
	return names
}

// contains reports whether a list has what matches: the last name that matches decides.
func (s *sudoers) contains(items []sudoItem, matches func(name string) bool, within ...string) (has, decided bool) {
	for _, item := range items {
		inner := matches(item.text)
		known := inner
		if list, ok := s.list(item.text, within); ok {
			inner, known = s.contains(list, matches, append(slices.Clip(within), item.text)...)
		}
		if known {
			has, decided = inner != item.not, true
		}
	}
	return has, decided
}

// included returns the files that a text includes, besides those of sudoers.d.
func (e examination) included(file, text string) (paths []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || !slices.Contains([]string{"@include", "#include", "@includedir", "#includedir"}, words[0]) {
			continue
		}
		path := strings.Trim(strings.ReplaceAll(strings.Join(words[1:], " "), `\ `, " "), `"`)
		if len(e.Hosts) > 0 {
			path = strings.ReplaceAll(path, "%h", e.Hosts[0])
		}
		if rest, ok := strings.CutPrefix(path, "/etc/"); ok {
			path = filepath.Join(e.Etc, rest)
		} else if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		if strings.HasSuffix(words[0], "dir") {
			paths = append(paths, inDirectory(path)...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

// inDirectory returns the files of a directory that sudo reads: it passes over others (sudoers(5),
// "Including other files from within sudoers").
func inDirectory(dir string) []string {
	return slices.DeleteFunc(glob(dir, "*"), func(path string) bool {
		name := filepath.Base(path)
		return strings.Contains(name, ".") || strings.HasSuffix(name, "~")
	})
}
