package config

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// accountProblem returns what is wrong with the account in user, where that is the cause of
// other problems: the owner of a key is judged by it, and files are closed to other accounts.
// It comes before them. The start of a gate judges the account in any case (sandbox.AccountFor).
func (l *loader) accountProblem(name string) []Problem {
	if name == "" || l.current.Settings != nil { // at a reload, the gate runs as the account
		return nil
	}
	problem := func(format string, args ...any) []Problem {
		p := Problem{File: l.path, Line: l.line("user"), Key: "user", Text: fmt.Sprintf(format, args...)}
		if p.Line == 0 {
			p.File = Variable("user")
		}
		return []Problem{p}
	}
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	uid := strconv.Itoa(os.Geteuid())
	switch {
	case errors.As(err, &unknown):
		return problem("there is no account %q in /etc/passwd; make one with useradd --system, or name another", name)
	case err != nil || os.Geteuid() <= 0 || u.Uid == uid || !slices.ContainsFunc(l.problems, closed):
		return nil
	}
	me := uid
	if i, err := user.LookupId(uid); err == nil {
		me = i.Username
	}
	return problem("you are %s; the gate runs as %s: run this command as root or as %[2]s", me, name)
}

// closed reports whether a file could not be read for want of permission.
func closed(p Problem) bool { return !p.Warning && strings.Contains(p.Text, syscall.EACCES.Error()) }
