package sandbox

import (
	"fmt"
	"os"

	"pgwicket/config"
	"pgwicket/internal/account"
)

// Account is one that a process started as root can become.
type Account account.Account

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
		return nil, problem(true, "a gate that root starts stays root, as no account is named; name an unprivileged one, or start it as one (User= of a systemd unit)")
	}
	found, err := account.Find(cfg.User)
	a := (*Account)(found)
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
