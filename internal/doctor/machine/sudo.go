package machine

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/printable"
)

// sudoRule is a line of sudoers that asks for no password.
type sudoRule struct {
	file        string
	first, last int // lines
	who         string
	runAs       []string
	all         bool // every command
}

// sudo finds the rules by which others become one of the accounts without a password.
// Aliases are not resolved.
func (e examination) sudo() (out []report.Finding) {
	for _, path := range append([]string{filepath.Join(e.Etc, "sudoers")}, glob(e.Etc, "sudoers.d", "*")...) {
		if name := filepath.Base(path); filepath.Base(filepath.Dir(path)) == "sudoers.d" && (strings.Contains(name, ".") || strings.HasSuffix(name, "~")) {
			continue // sudo passes over them (sudoers(5), "Including other files from within sudoers")
		}
		text, err := readFollowing(path)
		if err != nil {
			out = append(out, unread(path, err)...)
			continue
		}
		for _, r := range sudoRules(path, text) {
			out = append(out, e.judge(r)...)
		}
	}
	return out
}

func (e examination) judge(r sudoRule) []report.Finding {
	where := fmt.Sprintf("%s:%d", printable.Text(r.file), r.first)
	fix := fmt.Sprintf("sed -i '%d,%ds/NOPASSWD:[[:space:]]*//' %s && visudo -c", r.first, r.last, quote(r.file))
	for _, a := range e.accounts {
		if r.who == a.Name || r.who == "root" {
			continue
		}
		switch {
		case slices.Contains(r.runAs, a.Name) || slices.Contains(r.runAs, "#"+a.UID):
			return []report.Finding{report.New(report.Warn, where, fmt.Sprintf("%s becomes %s without a password", printable.Text(r.who), a.Name), fix)}
		case r.all && (slices.Contains(r.runAs, "ALL") || slices.Contains(r.runAs, "root")):
			return []report.Finding{report.New(report.Note, where, fmt.Sprintf("%s becomes every account without a password, and so %s", printable.Text(r.who), a.Name), fix)}
		}
	}
	return nil
}

var (
	sudoLine   = regexp.MustCompile(`^\s*(\S+)\s+[^=]+=\s*(.*NOPASSWD:.*)$`)
	sudoTarget = regexp.MustCompile(`\(([^:)]*)[^)]*\)`)
	sudoAll    = regexp.MustCompile(`NOPASSWD:(\s*[A-Z_]+:)*\s*ALL\b`)
)

// sudoRules returns the rules of a file with NOPASSWD.
func sudoRules(file, text string) (all []sudoRule) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		first, line := i+1, lines[i]
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + lines[i]
		}
		m := sudoLine.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(m[1], "#") || strings.HasPrefix(m[1], "Defaults") || strings.HasSuffix(m[1], "_Alias") {
			continue
		}
		r := sudoRule{file: file, first: first, last: i + 1, who: m[1], all: sudoAll.MatchString(m[2])}
		for _, t := range sudoTarget.FindAllStringSubmatch(m[2], -1) {
			for name := range strings.SplitSeq(t[1], ",") {
				r.runAs = append(r.runAs, strings.TrimSpace(name))
			}
		}
		if r.runAs == nil {
			r.runAs = []string{"root"}
		}
		all = append(all, r)
	}
	return all
}
