package main

import (
	"context"
	"fmt"
	"time"

	"pgwicket/config"
	"pgwicket/internal/doctor"
	"pgwicket/internal/sandbox"
)

const doctorHelp = `Examine a deployment as a whole: the configuration, its certificates and lists,
what the listeners really accept, and the PostgreSQL behind the gate, with what
in it would let somebody go round. Each line is a check, PASS, WARN, FAIL or
SKIP (it could not look, and says what would let it), with the reason, the
setting or file, and the fix. Nothing is changed.

Run it where the gate and PostgreSQL run, as root or as the gate's account. It
connects to PostgreSQL over the socket of backend.host as libpq would (PGUSER,
PGPASSWORD, .pgpass; as root in the name of the socket's owner, whom peer lets
in), as a superuser if it is to see everything. Without that it reads
postgresql.conf and what belongs to it:

  pgwicket doctor --config pgwicket.yaml --pg-conf /etc/postgresql/15/main

Exit status: 0 no warning and no failure, 1 warnings, 2 wrong usage,
3 failures, 78 the configuration is wrong. A SKIP changes nothing.
`

// exitFailures is the status of doctor for failures: 1 means warnings and 2 wrong usage.
const exitFailures = 3

func examine(args []string, s streams) int {
	f := flags("doctor")
	path := configFlag(f)
	asJSON := f.Bool("json", false, "print JSON, as docs/operations.md explains it")
	o := doctor.Options{Now: time.Now()}
	f.StringVar(&o.User, "user", "", "the role to connect as (default: PGUSER, else the account)")
	f.StringVar(&o.Database, "dbname", "postgres", "the database to connect to (default postgres)")
	f.StringVar(&o.PGConf, "pg-conf", "", "do not connect, read the postgresql.conf of this directory")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	o.File = *path
	o.Config, o.Problems = config.Load(*path, nil, passphrasePrompt(s), o.Now)
	if o.Config != nil {
		_, more := sandbox.AccountFor(o.Config, *path)
		o.Problems = append(o.Problems, more...)
	}
	if config.Failed(o.Problems) {
		printProblems(s.err, o.Problems)
		return exitConfig
	}
	r := doctor.Examine(context.Background(), o)
	write := r.WriteText
	if *asJSON {
		write = r.WriteJSON
	}
	if err := write(s.out); err != nil {
		fmt.Fprintf(s.err, "pgwicket doctor: %v\n", err)
		return exitFailed
	}
	switch r.Worst() {
	case doctor.Fail:
		return exitFailures
	case doctor.Warn:
		return exitFailed
	}
	return exitOK
}
