// Package doctor examines a deployment: the configuration of a gate, its
// certificates, what its listeners accept, and the PostgreSQL behind it. It reads,
// connects and tries handshakes, and changes nothing.
//
// The checks are sorted by the headings of docs/hardening.md, one file for each:
// firewall.go, listener.go, certificates.go and revocation.go for the gate,
// sockets.go, tcp.go, backend.go, network.go, transport.go, authentication.go, roles.go and log.go for
// PostgreSQL, and gate.go for the rest of the configuration. A group of checks first
// collects its state, and each check is a function of that state, so that tests need
// no deployment.
//
// The package may import whatever knows a part of the deployment: config, proxy,
// acl, tlsconfig, and internal/pgconf, pgwire and nftables. pgx's
// pgconn asks PostgreSQL as libpq would.
package doctor

import (
	"context"
	"os"
	"time"

	"pgwicket/config"
	"pgwicket/internal/doctor/machine"
	"pgwicket/internal/doctor/report"
)

// Options say what to examine.
type Options struct {
	// File is the configuration that Config and Problems are from.
	File     string
	Config   *config.Config
	Problems []config.Problem
	// Now is the time that certificates and lists are judged at.
	Now time.Time
	// User and Database are what to connect to PostgreSQL with. An empty User is
	// PGUSER, or else the account.
	User, Database string
	// Session says how to open a session through the gate.
	Session SessionOptions
	// Unreachable are the files and sockets that the account of the gate cannot reach. With
	// an UnreachableError, which says why that could not be tried, it has only the sockets
	// that do not exist.
	Unreachable      []config.Problem
	UnreachableError error
	// GroupProblems are what is wrong with the look-up of the roles that rules name.
	GroupProblems []config.Problem
	// Machine is where the files of the accounts and services are; nil: they are not examined.
	Machine *machine.System
	// PGConf is the directory of a postgresql.conf that is read instead of
	// connecting to PostgreSQL; empty: connect.
	PGConf string
}

// Examine makes every check. It takes as long as the listeners and PostgreSQL take
// to answer, at most ten seconds for a connection.
func Examine(ctx context.Context, o Options) report.Report {
	gate := gateStateOf(ctx, o.Config)
	gate.unreachable, gate.unreachableErr = o.Unreachable, o.UnreachableError
	gate.groupProblems = o.GroupProblems
	all := runChecks("gate", "", gate, gateChecks())
	all = append(all, runChecks("tls", "", tlsFilesOf(o.Config, o.Now), tlsChecks())...)
	for _, l := range scanListeners(ctx, o) {
		all = append(all, runChecks("listener", l.address, l, listenerChecks())...)
	}
	t := target{user: o.User, database: o.Database, confDir: o.PGConf, now: o.Now}
	accounts := []string{gateAccount(o.Config.User)}
	for _, s := range t.servers(ctx, gate) {
		all = append(all, s.findings()...)
		if len(s.sockets) > 0 {
			accounts = append(accounts, s.owner())
		}
	}
	if o.Machine != nil {
		all = append(all, o.Machine.Examine(o.Machine.Accounts(accounts...))...)
	}
	return report.Report{Config: o.File, Time: o.Now, Findings: withWarnings(all, o.Problems)}
}

// gateAccount returns the account of the gate: that of the configuration, or of this process. If
// that is root, a unit starts the gate as the account of the packages.
func gateAccount(configured string) string {
	switch {
	case configured != "":
		return configured
	case os.Geteuid() == 0:
		return "pgwicket"
	}
	return accountName(os.Geteuid())
}
