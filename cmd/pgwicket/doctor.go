package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/config"
	"pgwicket/internal/doctor"
	"pgwicket/internal/gate"
	"pgwicket/internal/sandbox"
)

const doctorHelp = `Examine a deployment: the configuration, its certificates and revocation lists, what
the account of the gate can reach, the handshakes that the listeners accept, one
session through each of them, and the PostgreSQL behind the gate, with every way to
bypass it. Each line is a check: PASS, WARN, FAIL, or SKIP if it could not be made,
with the reason, the key, parameter or file, and the fix. Nothing is changed.

Run it on the machine of the gate and PostgreSQL, as root or as the account of the
gate. It connects to PostgreSQL over the socket in backend.host as libpq does (PGUSER,
PGPASSWORD, .pgpass). Root connects as the owner of the socket, which peer
authentication allows. Only a superuser sees everything. With --pg-conf it reads
postgresql.conf and its files instead.

The session through the gate is that of --session-user, with the certificate of
--session-cert where the gate requires one, and PGPASSWORD or .pgpass. It ends when
PostgreSQL is ready for a query. A wrong password counts as a failed login.

Exit status: 0 no warning and no failure, 1 warnings, 2 wrong usage, 3 failures,
78 the configuration is wrong. A skipped check changes nothing.`

// exitFailures is the status of doctor for failures: 1 means warnings and 2 wrong usage.
const exitFailures = 3

func doctorCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine the gate, its certificates and PostgreSQL", Long: doctorHelp,
		Example: `  pgwicket doctor --config pgwicket.yaml --user postgres
  pgwicket doctor --config pgwicket.yaml --user postgres \
                  --session-user app --session-cert app.crt --session-key app.key
  pgwicket doctor --config pgwicket.yaml --pg-conf /etc/postgresql/15/main`,
	}
	var o doctor.Options
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	textFlag(cmd, &o.User, "user", "", "the `role` to ask PostgreSQL as, without the gate (default $PGUSER, or else the account)")
	var cert, key string
	textFlag(cmd, &o.Session.User, "session-user", "", "the `role` of the session through the gate (default: that of --user)")
	textFlag(cmd, &o.Session.Database, "session-dbname", "", "the `database` of the session (default: the name of the role, or that of --dbname)")
	fileFlag(cmd, &cert, "session-cert", "a `file` with the client certificate of the session, in PEM")
	fileFlag(cmd, &key, "session-key", "the `file` of its key")
	textFlag(cmd, &o.Database, "dbname", "postgres", "the `database` to connect to then")
	cmd.Flags().StringVar(&o.PGConf, "pg-conf", "", "read postgresql.conf in this `directory` instead of connecting")
	_ = cmd.MarkFlagDirname("pg-conf") // fails only for a flag that does not exist
	return runs(cmd, func() int {
		o.File, o.Now = *path, time.Now()
		if (cert == "") != (key == "") {
			missing := "--session-key"
			if cert == "" {
				missing = "--session-cert"
			}
			fmt.Fprintf(s.err, "pgwicket doctor: %s is missing: a certificate and its key belong together; see %q\n", missing, "pgwicket doctor --help")
			return exitUsage
		}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				fmt.Fprintf(s.err, "pgwicket doctor: --session-cert and --session-key: %v\n", err)
				return exitUsage
			}
			o.Session.Cert = &pair
		}
		return examine(s, o, *asJSON)
	})
}

func examine(s streams, o doctor.Options, asJSON bool) int {
	o.Config, o.Problems = config.Load(o.File, nil, passphrasePrompt(s), o.Now)
	var account *sandbox.Account
	if o.Config != nil {
		var more []config.Problem
		account, more = sandbox.AccountFor(o.Config, o.File)
		o.Problems = append(o.Problems, more...)
	}
	if config.Failed(o.Problems) {
		printProblems(s.err, o.Problems)
		return exitConfig
	}
	access := sandbox.AccessOf(o.Config, o.File, account)
	o.Unreachable, o.UnreachableError = access.Try(context.Background())
	o.Unreachable = append(o.Unreachable, access.MissingSockets()...)
	_, o.GroupProblems = gate.TryGroups(context.Background(), o.Config, account)
	r := doctor.Examine(context.Background(), o)
	write := r.WriteText
	if asJSON {
		write = r.WriteJSON
	}
	if err := write(s.out); err != nil {
		return fail(s, "doctor", err)
	}
	switch r.Worst() {
	case doctor.Fail:
		return exitFailures
	case doctor.Warn:
		return exitFailed
	}
	return exitOK
}
