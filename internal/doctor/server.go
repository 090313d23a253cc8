package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/postgres"
	"pgwicket/internal/doctor/report"
	"pgwicket/internal/pgconf"
)

// server is what is known of one PostgreSQL.
type server struct {
	name       string // its socket, or the directory of its files
	examined   string // how it was examined; empty: it was not
	unexamined string // why not
	sockets    []socketState
	settings   map[string]string
	rules      []pgconf.Rule
	mappings   []pgconf.Mapping
	roles      []pgRole
	md5        []string          // roles whose password is stored as MD5
	noPassword []string          // roles that can log in and have none
	unknown    map[string]string // the reason, by what is not known

	parameters map[string]string // see parametersOf

	byFiles bool // it was not asked: its files were read

	gate    gateState
	backend *tcpBackend // nil: the gate reaches it over a socket, or there is no gate
	alone   bool        // there is no gate
	more    []Finding   // of internal/doctor/postgres
}

// The keys of server.unknown.
const (
	hbaRules      = "pg_hba_file_rules"
	identMappings = "pg_ident_file_mappings"
	roleList      = "pg_roles"
	verifierList  = "pg_authid"
)

// servers examines each PostgreSQL that the configuration names, or the one whose files
// are read.
func (t target) servers(ctx context.Context, gate gateState) (all []*server) {
	var paths []string
	for _, h := range gate.hosts {
		if h.Network == "unix" && !slices.Contains(paths, h.Address) {
			paths = append(paths, h.Address)
		}
	}
	if t.confDir != "" {
		return []*server{t.readServer(ctx, gate, paths)}
	}
	for _, path := range paths {
		s := &server{name: path, gate: gate, unknown: make(map[string]string)}
		s.connect(ctx, func(ctx context.Context, database string) (*pgconn.PgConn, error) {
			return t.connect(ctx, path, database, s.parameters)
		}, onThisMachine, t.now)
		s.readSockets([]string{path})
		all = append(all, s)
	}
	for _, h := range tcpHosts(gate.hosts) {
		all = append(all, t.examineBackend(ctx, h, gate))
	}
	return all
}

// onThisMachine says that the files of a server are on this machine.
func onThisMachine(context.Context, *pgconn.PgConn) bool { return true }

// connect asks a server, and makes the checks of package postgres. local reports whether its
// files are on this machine.
func (s *server) connect(ctx context.Context, connect func(ctx context.Context, database string) (*pgconn.PgConn, error), local func(context.Context, *pgconn.PgConn) bool, now time.Time) {
	conn, err := connect(ctx, "")
	if err != nil {
		s.unexamined = postgres.Reason(err)
		return
	}
	defer conn.Close(ctx)
	s.ask(ctx, conn)
	o := postgres.Options{Connect: connect, Now: now, Local: local(ctx, conn), BehindGate: !s.alone}
	if s.gate.perAccount > 0 {
		o.GateLimits = fmt.Sprintf("the gate admits %d sessions of an account (limits.max_sessions_per_account)", s.gate.perAccount)
	}
	if s.gate.authFailures > 0 {
		o.GateDelays = fmt.Sprintf("the gate refuses those who guess, after %d failures (limits.max_auth_failures)", s.gate.authFailures)
	}
	s.more = postgres.Examine(ctx, conn, o)
}

// setting returns the statements, or the line of postgresql.conf, that give a parameter a
// value, in SQL.
func (s *server) setting(name, value string) string {
	if s.byFiles {
		return name + " = " + value
	}
	return "alter system set " + name + " = " + value + ";\nselect pg_reload_conf();"
}

// list splits a setting that is a list of names.
func list(setting string) (out []string) {
	for one := range strings.SplitSeq(setting, ",") {
		if one = strings.Trim(strings.TrimSpace(one), `"`); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// checks returns the checks that are possible: where PostgreSQL could not be examined,
// the permissions of its socket still can be.
func (s *server) checks() []check[*server] {
	asked := []check[*server]{
		{"examined", (*server).checkExamined},
		{"unix_socket", (*server).checkSockets},
	}
	if s.backend != nil {
		asked = append(asked, check[*server]{"backend_tls", (*server).checkBackendTLS}, check[*server]{"backend_firewall", (*server).checkBackendFirewall})
	}
	if s.examined == "" {
		return asked
	}
	return append(asked, []check[*server]{
		{"listen_addresses", (*server).checkListenAddresses},
		{"pg_hba_network", (*server).checkNetwork},
		{"pg_hba_trust", (*server).checkTrust},
		{"pg_hba_method", (*server).checkMethods},
		{"pg_hba_shadowed", (*server).checkShadowed},
		{"pg_hba_helpers", (*server).checkHelpers},
		{"pg_ident", (*server).checkMappings},
		{"superusers", (*server).checkSuperusers},
		{"without_password", (*server).checkWithoutPassword},
		{"password_encryption", (*server).checkPasswords},
		{"ssl", (*server).checkSSL},
		{"log_connections", (*server).checkLog},
	}...)
}

func (s *server) checkExamined() []Finding {
	if s.examined == "" {
		fix := "run doctor on the machine of PostgreSQL, as an account and with a --user that pg_hba.conf allows, or name the directory of its postgresql.conf with --pg-conf"
		if s.alone {
			fix = "give --postgres a host, port, user and database by which psql can connect"
		}
		if s.backend != nil {
			fix = "name a role that pg_hba.conf allows from this machine with --user, and its password with PGPASSWORD or .pgpass; or run doctor --postgres on the machine of PostgreSQL"
		}
		return []Finding{{Status: Skip, Reason: "PostgreSQL could not be examined: " + s.unexamined, Fix: fix}}
	}
	return []Finding{pass("%s", s.examined)}
}

// skipUnknown is the finding of a check that needs what is not known.
func (s *server) skipUnknown(what string) []Finding {
	return []Finding{{
		Status: Skip, Where: what, Reason: s.unknown[what],
		Fix: "connect as a superuser (--user), over the socket",
	}}
}

// findings makes all checks of a server, sorted by heading.
func (s *server) findings() []Finding {
	all := runChecks("postgresql", s.name, s, s.checks())
	lines := make(map[string]string)
	for _, r := range s.rules {
		if r.Mistake == "" {
			lines[r.At()] = r.String()
		}
	}
	for _, m := range s.mappings {
		if m.Mistake == "" {
			lines[m.At()] = strings.Join([]string{m.Map, m.System, m.Role}, " ")
		}
	}
	for i, f := range all {
		if line, ok := lines[f.Where]; ok {
			all[i] = f.WithName(line)
		}
	}
	for _, f := range s.more {
		f.Group, f.Subject = "postgresql", s.name
		all = append(all, f)
	}
	order := report.Headings()
	// The first one says how the server was asked.
	slices.SortStableFunc(all[1:], func(a, b Finding) int { return slices.Index(order, a.Heading) - slices.Index(order, b.Heading) })
	return all
}
