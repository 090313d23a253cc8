package sandbox

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"pgwicket/config"
)

// Account is one that a process started as root can become.
type Account struct {
	Name     string
	Group    string // its first
	UID, GID int
	Groups   []int // all of them
}

// AccountFor returns the account that this process must become by the configuration
// in file, nil for none. A problem that is not a warning means that it cannot.
func AccountFor(cfg *config.Config, file string) (*Account, []config.Problem) {
	if cfg.UserLine == 0 {
		file = config.Variable("user")
	}
	problem := func(warning bool, format string, args ...any) []config.Problem {
		return []config.Problem{{File: file, Line: cfg.UserLine, Key: "user", Text: fmt.Sprintf(format, args...), Warning: warning}}
	}
	euid := os.Geteuid()
	if cfg.User == "" {
		if euid != 0 {
			return nil, nil
		}
		return nil, problem(true, "is missing, so a gate that root starts stays root; name an unprivileged account, or start it as one (User= of a systemd unit)")
	}
	a, err := FindAccount(cfg.User)
	switch {
	case err != nil:
		return nil, problem(false, "%v; make one with useradd --system, or name another", err)
	case a.UID == 0:
		return nil, problem(false, "%s is root; name an unprivileged account", cfg.User)
	case euid == 0:
		return a, nil
	case euid != a.UID:
		return nil, problem(false, "is %s (%d), but this process runs as %d, and only root can become another account; start it as root or as that account, or remove the line user", cfg.User, a.UID, euid)
	}
	return nil, nil
}

// FindAccount returns the account of that name. Without cgo, as in a release, it
// reads /etc/passwd and /etc/group only.
func FindAccount(name string) (*Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("there is no account %q in /etc/passwd", name)
	}
	a := &Account{Name: name, Group: u.Gid}
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.Group = g.Name
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of %q cannot be found: %w", name, err)
	}
	numbers := make([]int, 0, 2+len(ids))
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("the account %q has no number: %w", name, err)
		}
		numbers = append(numbers, n)
	}
	a.UID, a.GID, a.Groups = numbers[0], numbers[1], numbers[2:]
	return a, nil
}
