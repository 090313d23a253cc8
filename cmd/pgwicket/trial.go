package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/socket"
	"pgwicket/internal/status"
)

// tryAll tries what serve will do after it has read the configuration, and returns a
// warning for what fails: to open the addresses, and to reach the files and PostgreSQL's
// sockets as the account that the gate becomes. It changes nothing.
func tryAll(cfg *config.Config, path string, account *sandbox.Account) []config.Problem {
	problems := tryListen(cfg, path)
	more, err := sandbox.AccessOf(cfg, path, account).Try(context.Background())
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		where := cmp.Or(path, config.Variable("user"))
		problems = append(problems, config.Problem{File: where, Line: cfg.UserLine, Key: "user", Text: "could not try to read the files as this account: " + err.Error(), Warning: true})
	}
	return append(problems, more...)
}

// tryListen warns of each address that cannot be opened now, unless a gate with this
// configuration has it.
func tryListen(cfg *config.Config, path string) (problems []config.Problem) {
	var running []string
	asked := false
	try := func(key string, line int, address string) {
		err := socket.TryBind(address, cfg.ReusePort)
		if err == nil || errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if inUse := errors.Is(err, syscall.EADDRINUSE); inUse && !asked {
			asked, running = true, addressesInUse(cfg, path)
		}
		if slices.Contains(running, address) {
			return
		}
		p := config.Problem{File: path, Line: line, Key: key, Text: socket.Failure(address, err).Error() + "; serve does not start", Warning: true}
		if line == 0 {
			p.File = config.Variable(key)
		}
		problems = append(problems, p)
	}
	for i, address := range cfg.Listen {
		try(fmt.Sprintf("listen[%d].address", i), cfg.ListenLines[i], address)
	}
	if cfg.Admin.Address != "" {
		try("admin.address", cfg.Admin.Line, cfg.Admin.Address)
	}
	return problems
}

// addressesInUse returns the addresses of the gate that runs with this configuration:
// those that it says, or all if it only says that it is alive. None runs if it returns
// nil.
func addressesInUse(cfg *config.Config, path string) []string {
	const within = 2 * time.Second
	c, err := adminclient.New(path, false)
	if err != nil {
		return nil
	}
	all := append(slices.Clone(cfg.Listen), cfg.Admin.Address)
	answer, err := c.Ask(http.MethodGet, "/status.json", within)
	if err != nil {
		if _, err := c.Ask(http.MethodGet, alivePath, within); err != nil {
			return nil
		}
		return all
	}
	var s status.Status
	if err := json.Unmarshal(answer, &s); err != nil {
		return nil
	}
	running := []string{cfg.Admin.Address}
	for _, l := range s.Listeners {
		running = append(running, l.Address)
	}
	return running
}

// tryAccessCommand is what sandbox.Access starts to try as another account.
func tryAccessCommand(s cli.Streams) *cobra.Command {
	return cli.Runs(&cobra.Command{Use: sandbox.Subcommand, Short: "Try to read files as another account, for check and doctor", Hidden: true}, func() int {
		if err := sandbox.Serve(s.In, s.Out); err != nil {
			fmt.Fprintln(s.Err, err)
			return cli.Failed
		}
		return cli.OK
	})
}
