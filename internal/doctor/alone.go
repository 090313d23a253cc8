package doctor

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/machine"
	"pgwicket/internal/doctor/report"
	"pgwicket/internal/printable"
)

// ExaminePostgres examines a PostgreSQL without a gate. conninfo is a connection string
// of libpq, which the PG variables complete. m has the files of its account, if it is on this
// machine; nil: they are not examined. An error is about conninfo only.
func ExaminePostgres(ctx context.Context, conninfo string, now time.Time, m *machine.System) (report.Report, error) {
	cfg, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return report.Report{}, err
	}
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	s := &server{name: printable.Text(address), alone: true, unknown: make(map[string]string)}
	owner := -1
	if network == "unix" && os.Geteuid() == 0 {
		if st, err := os.Stat(address); err == nil {
			owner, _ = ownerOf(st)
		}
		// The account of this process is no role that anybody meant.
		if owner > 0 && os.Getenv("PGUSER") == "" && !namesUser(conninfo) {
			cfg.User = accountName(owner)
		}
	}
	if cfg.Database == "" {
		cfg.Database = "postgres"
	}
	bound(cfg)
	s.connect(ctx, func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		c := cfg.Copy()
		if database != "" {
			c.Database = database
		}
		maps.Copy(c.RuntimeParams, s.parameters)
		return dial(ctx, c, owner)
	}, func(context.Context, *pgconn.PgConn) bool { return network == "unix" }, now)
	if network == "unix" {
		s.readSockets([]string{filepath.Clean(address)})
	}
	all := s.findings()
	if m != nil && network == "unix" {
		all = append(all, m.Examine(m.Accounts(s.owner()))...)
	}
	return report.Report{Time: now, Findings: all}, nil
}

// namesUser reports whether a connection string names a role.
func namesUser(conninfo string) bool {
	if _, rest, ok := strings.Cut(conninfo, "://"); ok {
		authority, query, _ := strings.Cut(rest, "?")
		authority, _, _ = strings.Cut(authority, "/")
		return strings.Contains(authority, "@") || strings.Contains("&"+query, "&user=")
	}
	for word := range strings.FieldsSeq(strings.ReplaceAll(conninfo, " =", "=")) {
		if strings.HasPrefix(word, "user=") {
			return true
		}
	}
	return false
}
