package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgwicket/config"
	"pgwicket/internal/account"
)

// Access is what a gate has to reach as the account that it runs as.
type Access struct {
	// Account is the one to become first; empty: none, as this process is it.
	Account string
	// File is the configuration, which names the rest.
	File    string
	Files   []config.Name
	Sockets []config.Name // PostgreSQL's, by their full paths
	Written []config.Name // the directories that it writes to
}

// AccessOf returns what the configuration in file names. a is nil for the account of
// this process.
func AccessOf(cfg *config.Config, file string, a *Account) Access {
	t := Access{File: file, Written: config.Written(file)}
	if a != nil {
		t.Account = a.Name
		// Root makes the socket before it becomes the account.
		t.Written = slices.DeleteFunc(t.Written, func(n config.Name) bool { return n.Key == "admin.socket" })
	}
	for _, n := range config.Names(file) {
		switch {
		case !n.Backend:
			t.Files = append(t.Files, n)
		case strings.HasPrefix(n.Path, "/"):
			dir := strings.TrimSuffix(n.Path, "/") + "/.s.PGSQL."
			for _, h := range cfg.Policy.Hosts() {
				if h.Network == "unix" && strings.HasPrefix(h.Address, dir) {
					n.Path = h.Address
					t.Sockets = append(t.Sockets, n)
				}
			}
		}
	}
	return t
}

// Subcommand is the command of this program that calls Serve.
const Subcommand = "try-access"

// accessTimeout is far above the time that opening files and sockets takes.
const accessTimeout = 30 * time.Second

// Try tries to read every file, to write to every directory of Written and to connect to every
// socket, and returns a warning for each that fails. What is not there is left to config, which has warned of it. If
// an account is named, another process of this program becomes that first, as the gate
// does, because a process cannot become root again.
func (t Access) Try(ctx context.Context) ([]config.Problem, error) {
	if t.Account == "" {
		a := current()
		if a == nil {
			return nil, errors.ErrUnsupported
		}
		return a.problems(t), nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	question, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, accessTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, Subcommand)
	cmd.Stdin = strings.NewReader(string(question))
	answer, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && len(exit.Stderr) > 0:
		return nil, errors.New(strings.TrimSpace(string(exit.Stderr)))
	case err != nil:
		return nil, err
	}
	var problems []config.Problem
	if err := json.Unmarshal(answer, &problems); err != nil {
		return nil, fmt.Errorf("%s answers %q", Subcommand, answer)
	}
	return problems, nil
}

// MissingSockets returns a warning for each socket that is not there. Try leaves them to config,
// which warns of them in other words, as PostgreSQL may start after the gate.
func (t Access) MissingSockets() (problems []config.Problem) {
	for _, n := range t.Sockets {
		if _, err := os.Stat(n.Path); errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, config.Problem{
				File: t.File, Line: n.Line, Key: n.Key, Warning: true,
				Text: fmt.Sprintf("there is no socket %s; PostgreSQL is not running, so no session can start: start PostgreSQL; if it runs, write its directory and port (unix_socket_directories, port)", n.Path),
			})
		}
	}
	return problems
}

// Serve reads an Access from in, becomes its account for good, and writes the problems
// to out.
func Serve(in io.Reader, out io.Writer) error {
	var t Access
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("this command is for pgwicket itself: %w", err)
	}
	found, err := account.Find(t.Account)
	if err != nil {
		return err
	}
	a := (*Account)(found)
	if err := a.Become(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(a.problems(t))
}

// problems tries everything as the account of this process, which is a.
func (a *Account) problems(t Access) []config.Problem {
	problems := []config.Problem{}
	warn := func(n config.Name, format string, args ...any) {
		p := config.Problem{File: t.File, Line: n.Line, Key: n.Key, Text: fmt.Sprintf(format, args...), Warning: true}
		if p.Line == 0 {
			p.File = config.Variable(n.Key)
		}
		problems = append(problems, p)
	}
	denied := make(map[string]bool) // a directory denies all that is in it
	for _, n := range t.Files {
		if path, fix := a.denied(n.Path); fix != "" && !denied[path] {
			denied[path] = true
			warn(n, "the account %s cannot read %s, so a reload fails: %s", a.Name, path, fix)
		}
	}
	for _, n := range t.Written {
		if err := cannotWrite(n.Path); err != nil {
			warn(n, "the account %s may not write to %s (%v), so serve does not start: make a directory that belongs to this account, and name it here", a.Name, n.Path, err)
		}
	}
	for _, n := range t.Sockets {
		if text := a.tryConnect(n.Path); text != "" {
			warn(n, "%s", text)
		}
	}
	return problems
}

// tryConnect returns why the account of this process, which is a, cannot connect to a
// socket; empty if it can, or if there is none.
func (a *Account) tryConnect(socket string) string {
	const within = 5 * time.Second
	conn, err := net.DialTimeout("unix", socket, within)
	switch {
	case err == nil:
		_ = conn.Close()
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on %s, so no session can start: start PostgreSQL", socket)
	case !errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("cannot connect to %s: %v", socket, errors.Unwrap(err))
	}
	if _, err := os.Lstat(socket); err != nil {
		return fmt.Sprintf("the account %s may not enter %s, so no session can start: make a directory of mode 0750 that belongs to PostgreSQL's account and the group %s, "+
			"and name it in unix_socket_directories and here", a.Name, forbidding(socket), a.Group)
	}
	return fmt.Sprintf("the account %s may not connect to %s, so no session can start: set unix_socket_permissions = 0770 and unix_socket_group = %s in postgresql.conf, "+
		"and restart PostgreSQL", a.Name, socket, a.Group)
}

// forbidding returns the first directory on the way to path that this process may not
// enter.
func forbidding(path string) string {
	dir := filepath.Dir(path)
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Dir(dir) + "/."); err == nil {
			if _, err := os.Stat(dir + "/."); errors.Is(err, fs.ErrPermission) {
				return dir
			}
		}
		dir = filepath.Dir(dir)
	}
	return filepath.Dir(path)
}
