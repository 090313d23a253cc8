package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/explain"
	"pgwicket/internal/gate"
	"pgwicket/internal/lock"
	"pgwicket/internal/sandbox"
)

const explainHelp = `Print the decision on a client and the reasons for it, by the code that serves and
from the files as they are now. Where rules name a role with +, its members are asked
for as the gate does. No gate needs to run, and the key of the certificate is not
needed.

Exit status: 0 admitted, 1 refused, 2 wrong usage, 78 the configuration is wrong.`

func explainCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain", Short: "Print whether a client would be admitted, and why", Long: explainHelp,
		Example: `  pgwicket explain --config pgwicket.yaml --source 10.20.1.7 \
                   --user app --database shop --cert app.crt`,
	}
	var q explain.Question
	var at string
	path := cli.ConfigFlag(cmd)
	cli.TextFlag(cmd, &q.Source, "source", "", "the `address` of the client (required)")
	cli.TextFlag(cmd, &q.User, "user", "", "the `role` that the client asks for (required)")
	cli.TextFlag(cmd, &q.Database, "database", "", "the `database` that the client asks for (default: the name of the user)")
	cli.FileFlag(cmd, &q.Cert, "cert", "a `file` with the certificate of the client and intermediates in PEM (default: no certificate)")
	cli.TextFlag(cmd, &q.Listener, "listener", "", "the `address` that the client connects to (default: the first in listen)")
	cli.TextFlag(cmd, &q.SNI, "sni", "", "the server `name` that the client sends (default: none)")
	cmd.Flags().StringVar(&q.Replication, "replication", "", "the `kind` of replication, database or physical (default: none)")
	cli.CompleteWords(cmd, "replication", "database", "physical")
	cli.TextFlag(cmd, &at, "at", "", "the `time` to decide at, as in 2027-01-31T12:00:00Z (default: now)")
	return cli.Runs(cmd, func() int { return explainClient(s, *path, q, at) })
}

func explainClient(s cli.Streams, path string, q explain.Question, at string) int {
	now := time.Now()
	cfg, problems := config.Load(path, nil, passphrasePrompt(s), now)
	if cfg == nil {
		printProblems(s.Err, problems)
		return cli.BadConfig
	}
	client, err := clientOf(cfg, q)
	if err == nil && at != "" {
		now, err = time.Parse(time.RFC3339, at)
	}
	if err != nil {
		fmt.Fprintf(s.Err, "pgwicket explain: %v; see \"pgwicket explain --help\"\n", err)
		return cli.Usage
	}
	locks, err := lock.Open(cfg.StateDir)
	if err != nil { // an answer without the locks could be wrong
		return cli.Fail(s, "explain", err)
	}
	cfg.Policy.Locks = locks.Set()
	account, _ := sandbox.AccountFor(cfg, path)
	cfg.Policy.Groups, problems = gate.TryGroups(context.Background(), cfg, account)
	printProblems(s.Err, problems)
	if !client.Write(s.Out, cfg, now) {
		return cli.Failed
	}
	return cli.OK
}

// clientOf names the flags in its errors.
func clientOf(cfg *config.Config, q explain.Question) (*explain.Client, error) {
	if q.Source == "" || q.User == "" {
		return nil, errors.New("--source and --user must be given")
	}
	client, err := q.Client(cfg)
	if err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	return client, nil
}
