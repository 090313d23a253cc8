package machine

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/phrase"
	"pgwicket/internal/printable"
)

// sudo finds the rules by which others become one of the accounts without a password.
func (e examination) sudo() (out []report.Finding) {
	s := &sudoers{aliases: make(map[string][]sudoItem)}
	out = e.readSudoers(s)
	done := make(map[string]bool)
	for _, status := range []report.Status{report.Warn, report.Note} {
		for _, r := range s.rules {
			if f, ok := e.judge(s, r); ok && f.Status == status && !done[f.Where] {
				done[f.Where] = true
				out = append(out, f)
			}
		}
	}
	for _, r := range s.rules {
		byGroup := func(n string) bool { return n[0] == '%' || n[0] == '+' }
		seen := slices.ContainsFunc(s.unread, func(l unreadLine) bool { return l.sudoLine == r.line })
		if !seen && r.tag != "PASSWD" && slices.ContainsFunc(s.expand(r.runAs), byGroup) {
			s.unread = append(s.unread, unreadLine{r.line, "it has the accounts of a group"})
		}
	}
	fix := "see what others may do on this machine: sudo -l -U NAME"
	for _, l := range s.unread {
		out = append(out, report.New(report.Skip, l.at(), "a line of sudoers that is not looked at: "+l.reason, fix).WithName(l.text))
	}
	if text, err := readFollowing(filepath.Join(e.Etc, "nsswitch.conf")); err == nil {
		for line := range strings.Lines(text) {
			sources, ok := strings.CutPrefix(strings.TrimSpace(line), "sudoers:")
			if ok && slices.ContainsFunc(strings.Fields(sources), func(w string) bool { return w != "files" && w[0] != '[' }) {
				out = append(out, report.New(report.Skip, printable.Text(filepath.Join(e.Etc, "nsswitch.conf")), "rules of sudo that are not looked at: those of"+printable.Text(strings.TrimRight(sources, "\n")), fix))
			}
		}
	}
	return out
}

// readSudoers reads sudoers, sudoers.d and what they include, and returns findings about what cannot be
// read.
func (e examination) readSudoers(s *sudoers) (out []report.Finding) {
	paths := append([]string{filepath.Join(e.Etc, "sudoers")}, inDirectory(filepath.Join(e.Etc, "sudoers.d"))...)
	for i := 0; i < len(paths) && i <= 2*maxFiles; i++ {
		if slices.Contains(paths[:i], paths[i]) {
			continue
		}
		text, err := readFollowing(paths[i])
		if err != nil {
			out = append(out, unread(paths[i], err)...)
			continue
		}
		s.parse(paths[i], text)
		paths = append(paths, e.included(paths[i], text)...)
	}
	return out
}

// judge returns a finding about a rule by which others become one of the accounts.
func (e examination) judge(s *sudoers, r sudoRule) (f report.Finding, found bool) {
	at, fix := r.line, fmt.Sprintf("sed -i '%d,%ds/NOPASSWD[[:space:]]*:[[:space:]]*//g' %s && visudo -c", r.line.first, r.line.last, quote(r.line.file))
	switch {
	case r.command.not || r.tag == "PASSWD" || !e.isHere(s, r.hosts):
		return f, false
	case r.tag == "" && s.free == nil:
		return f, false
	case r.tag == "":
		at, fix = *s.free, fmt.Sprintf("sed -i '%d,%ds/![[:space:]]*authenticate/authenticate/g' %s && visudo -c", s.free.first, s.free.last, quote(s.free.file))
	}
	everything, _ := s.contains([]sudoItem{r.command}, func(name string) bool { return name == "ALL" })
	for _, a := range e.accounts {
		others := slices.DeleteFunc(s.expand(r.users), func(n string) bool { return slices.Contains([]string{a.Name, "#" + a.UID, "root", "#0"}, n) })
		if len(others) == 0 {
			continue
		}
		who, verb := printable.Text(strings.Join(phrase.Shorten(others), ", ")), "become"
		if len(others) == 1 {
			verb = "becomes"
		}
		its := func(n string) bool { return n == a.Name || n == "#"+a.UID }
		direct, named := s.contains(r.runAs, its)
		anybody, _ := s.contains(r.runAs, func(n string) bool { return n == "ALL" || n == "root" || n == "#0" || its(n) })
		switch {
		case direct:
			return report.New(report.Warn, at.at(), fmt.Sprintf("%s %s %s without a password", who, verb, a.Name), fix).WithName(at.text), true
		case anybody && everything && !named:
			return report.New(report.Note, at.at(), fmt.Sprintf("%s %s every account without a password, and so %s", who, verb, a.Name), fix).WithName(at.text), true
		}
	}
	return f, false
}

// isHere reports whether a rule may be for this machine.
func (e examination) isHere(s *sudoers, hosts []sudoItem) bool {
	if len(e.Hosts) == 0 {
		return true
	}
	here, _ := s.contains(hosts, func(name string) bool {
		network, err := netip.ParsePrefix(name)
		if name == "ALL" || name[0] == '+' || err != nil && strings.Contains(name, "/") {
			return true
		}
		return slices.ContainsFunc(e.Hosts, func(own string) bool {
			if address, err2 := netip.ParseAddr(own); err == nil && err2 == nil {
				return network.Contains(address)
			}
			short, _, _ := strings.Cut(name, ".")
			matches, _ := filepath.Match(name, own)
			return matches || short == own
		})
	})
	return here
}
