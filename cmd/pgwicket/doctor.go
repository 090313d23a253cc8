package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/doctor"
	"pgwicket/internal/doctor/machine"
	"pgwicket/internal/doctor/report"
	"pgwicket/internal/gate"
	"pgwicket/internal/sandbox"
)

const doctorHelp = `Examine a deployment: the configuration, its certificates and revocation lists, what
the account of the gate can reach, the handshakes that the listeners accept, one
session through each of them, and the PostgreSQL behind the gate: every way to bypass
the gate, authentication, roles, privileges, row security, settings and the release,
in every database, and passwords in the files of the accounts. Failures come first,
then warnings, notes, and what could not be examined, each with the reason and the
statement or line that mends it. Nothing is changed: the sessions are read only, and
no query takes longer than five seconds.

Run it on the machine of the gate and PostgreSQL, as root or as the account of the
gate. It connects to PostgreSQL over the socket in backend.host, or over TCP with the
TLS of the gate, as libpq does (PGUSER, PGPASSWORD, .pgpass). Root connects as the
owner of the socket, which peer authentication allows. Only a superuser sees
everything. With --pg-conf it reads postgresql.conf and its files instead. With
--postgres there is no gate: it examines the PostgreSQL of that connection string.

The session through the gate is that of --session-user, with the certificate of
--session-cert where the gate requires one, and PGPASSWORD or .pgpass. It ends when
PostgreSQL is ready for a query. A wrong password counts as a failed login.

A waiver accepts a finding: CHECK[:OBJECT]=REASON[,YYYY-MM-DD], where OBJECT is one of
the names, or the place, that the finding has, and the date is the last day.

Exit status: 0 no warning and no failure, 1 warnings, 2 wrong usage, 3 failures,
78 the configuration is wrong. Notes and skipped checks change nothing.`

// exitFailures is the status of doctor for failures: 1 means warnings and 2 wrong usage.
const exitFailures = 3

func doctorCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine the gate, its certificates and PostgreSQL", Long: doctorHelp,
		Example: `  pgwicket doctor --config pgwicket.yaml --user postgres
  pgwicket doctor --config pgwicket.yaml --user postgres \
                  --session-user app --session-cert app.crt --session-key app.key
  pgwicket doctor --config pgwicket.yaml --pg-conf /etc/postgresql/15/main
  pgwicket doctor --postgres "host=/run/postgresql user=postgres" --html report.html
  pgwicket doctor --postgres "host=/run/postgresql user=postgres" \
                  --waive "secret_columns:shop.public.users.password=bcrypt,2027-06-30"`,
	}
	var o doctor.Options
	var forms report.Forms
	path := cli.ConfigFlag(cmd)
	cli.TextFlag(cmd, &o.User, "user", "", "the `role` to connect to PostgreSQL as, without the gate (default $PGUSER, or else the account)")
	var cert, key, conninfo, waivers string
	var waive []string
	cli.TextFlag(cmd, &o.Session.User, "session-user", "", "the `role` of the session through the gate (default: that of --user)")
	cli.TextFlag(cmd, &o.Session.Database, "session-dbname", "", "the `database` of the session (default: the name of the role, or that of --dbname)")
	cli.FileFlag(cmd, &cert, "session-cert", "a `file` with the client certificate of the session, in PEM")
	cli.FileFlag(cmd, &key, "session-key", "a `file` with the key of --session-cert")
	cli.TextFlag(cmd, &o.Database, "dbname", "postgres", "the `database` to connect to as --user, without the gate")
	cmd.Flags().StringVar(&o.PGConf, "pg-conf", "", "read postgresql.conf in this `directory` instead of connecting")
	_ = cmd.MarkFlagDirname("pg-conf") // fails only for a flag that does not exist
	cli.TextFlag(cmd, &conninfo, "postgres", "", "examine the PostgreSQL of this `conninfo`, without a gate")
	cmd.Flags().StringArrayVar(&waive, "waive", nil, "accept what a check finds: `CHECK[:OBJECT]=REASON[,YYYY-MM-DD]`; may be repeated")
	cli.CompleteWords(cmd, "waive")
	cli.FileFlag(cmd, &waivers, "waivers", "a `file` with one waiver on each line")
	formsFlags(cmd, &forms)
	return cli.Runs(cmd, func() int {
		o.File, o.Now, o.Machine = *path, time.Now(), machine.This()
		if err := forms.ReadWaivers(waive, waivers); err != nil {
			fmt.Fprintf(s.Err, "pgwicket doctor: %v; see %q\n", err, "pgwicket doctor --help")
			return cli.Usage
		}
		if conninfo != "" {
			return examinePostgres(s, conninfo, forms)
		}
		if err := loadSessionCert(&o, cert, key); err != nil {
			fmt.Fprintf(s.Err, "pgwicket doctor: %v\n", err)
			return cli.Usage
		}
		return examine(s, o, forms)
	})
}

func loadSessionCert(o *doctor.Options, cert, key string) error {
	if (cert == "") != (key == "") {
		missing := "--session-key"
		if cert == "" {
			missing = "--session-cert"
		}
		return fmt.Errorf("%s is missing: a certificate and its key belong together; see %q", missing, "pgwicket doctor --help")
	}
	if cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("--session-cert and --session-key: %w", err)
	}
	o.Session.Cert = &pair
	return nil
}

func examinePostgres(s cli.Streams, conninfo string, forms report.Forms) int {
	r, err := doctor.ExaminePostgres(context.Background(), conninfo, time.Now(), machine.This())
	if err != nil {
		fmt.Fprintf(s.Err, "pgwicket doctor: --postgres: %v\n", err)
		return cli.Usage
	}
	return writeReport(s, forms, r)
}

func examine(s cli.Streams, o doctor.Options, forms report.Forms) int {
	o.Config, o.Problems = config.Load(o.File, nil, passphrasePrompt(s), o.Now)
	var account *sandbox.Account
	if o.Config != nil {
		var more []config.Problem
		account, more = sandbox.AccountFor(o.Config, o.File)
		o.Problems = append(o.Problems, more...)
	}
	if config.Failed(o.Problems) {
		printProblems(s.Err, o.Problems)
		return cli.BadConfig
	}
	access := sandbox.AccessOf(o.Config, o.File, account)
	o.Unreachable, o.UnreachableError = access.Try(context.Background())
	o.Unreachable = append(o.Unreachable, access.MissingSockets()...)
	_, o.GroupProblems = gate.TryGroups(context.Background(), o.Config, account)
	return writeReport(s, forms, doctor.Examine(context.Background(), o))
}
