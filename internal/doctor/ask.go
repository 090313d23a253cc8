package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/postgres"
	"pgwicket/internal/pgconf"
	"pgwicket/internal/socket"
)

// target says how to examine PostgreSQL.
type target struct {
	user, database string
	confDir        string // of the postgresql.conf that is read instead; empty: connect
	now            time.Time
}

// connect connects over a socket, to a database or, if it is empty, to that of the
// target. Root connects as the owner of the socket first,
// whose peer authentication as the superuser works by default.
func (t target) connect(ctx context.Context, path, database string, parameters map[string]string) (*pgconn.PgConn, error) {
	owner := -1
	if st, err := os.Stat(path); err == nil && os.Geteuid() == 0 {
		owner, _ = ownerOf(st)
	}
	cfg, err := t.config(path, owner)
	if err != nil {
		return nil, err
	}
	if database != "" {
		cfg.Database = database
	}
	maps.Copy(cfg.RuntimeParams, parameters)
	return dial(ctx, cfg, owner)
}

// dial connects as the account that owns the socket of the server, and then as itself.
func dial(ctx context.Context, cfg *pgconn.Config, owner int) (*pgconn.PgConn, error) {
	if owner > 0 {
		cfg.DialFunc = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			socket.As(socket.Account{UID: owner}, func() { conn, err = dialBounded(ctx, network, address) })
			return conn, err
		}
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		var refusal *pgconn.PgError
		if err == nil || !errors.As(err, &refusal) {
			return conn, err
		}
	}
	cfg.DialFunc = dialBounded
	return pgconn.ConnectConfig(ctx, cfg)
}

// maxReceived bounds what one connection can make doctor keep, notices and parameters that
// nobody has asked for included.
const maxReceived = 64 << 20

// boundedConn fails after maxReceived bytes.
type boundedConn struct {
	net.Conn
	left int
}

func dialBounded(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &boundedConn{conn, maxReceived}, nil
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the server sends too much")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (t target) config(path string, owner int) (*pgconn.Config, error) {
	dir, port, _ := strings.Cut(path, "/.s.PGSQL.")
	words := map[string]string{"host": dir, "port": port, "dbname": t.database, "sslmode": "disable"}
	if t.user != "" {
		words["user"] = t.user
	} else if owner > 0 && os.Getenv("PGUSER") == "" {
		words["user"] = accountName(owner)
	}
	cfg, err := pgconn.ParseConfig(conninfo(words))
	if err != nil {
		return nil, err
	}
	bound(cfg)
	return cfg, nil
}

// bound limits what a connection may do, and how long.
func bound(cfg *pgconn.Config) {
	cfg.ConnectTimeout = timeout
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"application_name": "pgwicket doctor", "default_transaction_read_only": "on", "statement_timeout": "10s", "search_path": "pg_catalog, pg_temp",
	})
	cfg.DialFunc = dialBounded
	cfg.MaxProtocolMessageBodyLen = maxReceived
	cfg.AfterConnect = postgres.Prepare
}

// conninfo joins libpq's parameters; an empty one is left to the environment.
func conninfo(words map[string]string) string {
	var all []string
	for word, value := range words {
		if value != "" {
			all = append(all, fmt.Sprintf("%s='%s'", word, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)))
		}
	}
	return strings.Join(all, " ")
}

// ask queries what the checks need, and records what PostgreSQL refuses.
func (s *server) ask(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	q := &queries{ctx: ctx, conn: conn, failed: s.unknown}
	s.settings = make(map[string]string)
	user := ""
	for _, row := range q.rows("pg_settings", "select name, setting from pg_settings union all select '', current_user") {
		if s.settings[row[0]] = row[1]; row[0] == "" {
			user = row[1]
		}
	}
	s.examined = fmt.Sprintf("connected as %s, release %s", user, s.settings["server_version"])
	release, _ := strconv.Atoi(s.settings["server_version_num"])
	file := "current_setting('hba_file')"
	if release >= 160000 {
		file = "file_name"
	}
	for _, row := range q.rows(hbaRules, `select `+file+`, line_number, type, array_to_string(database, E'\n'), array_to_string(user_name, E'\n'),
		address, netmask, auth_method, array_to_string(options, E'\n'), error from pg_hba_file_rules order by line_number`) {
		line, _ := strconv.Atoi(row[1])
		s.rules = append(s.rules, pgconf.Rule{
			File: row[0], Line: line, Type: row[2], Databases: strings.Split(row[3], "\n"), Users: strings.Split(row[4], "\n"),
			Address: pgconf.Network(row[5], row[6]), Method: row[7], Options: strings.Split(row[8], "\n"), Mistake: row[9],
		})
	}
	s.askMappings(q, release)
	s.parameters = parametersOf(release, len(q.rows(roleList, "select from pg_roles where rolname = current_user and rolsuper")) > 0)
	for _, row := range q.rows(roleList, "select rolname, rolsuper from pg_roles where rolcanlogin order by 1") {
		s.roles = append(s.roles, pgRole{name: row[0], super: row[1] == "t"})
	}
	for _, row := range q.rows(verifierList, "select rolname, rolpassword is null from pg_authid where rolcanlogin and (rolpassword is null or rolpassword like 'md5%') order by 1") {
		if row[1] == "t" {
			s.noPassword = append(s.noPassword, row[0])
		} else {
			s.md5 = append(s.md5, row[0])
		}
	}
}

// parametersOf are those of the connections to further databases, against what their owners have set for
// sessions in them: no timeout ends such a session before it has asked anything, and no login trigger runs
// as a superuser.
func parametersOf(release int, super bool) map[string]string {
	all := make(map[string]string)
	if release >= 140000 {
		all["idle_session_timeout"] = "0"
	}
	if release >= 170000 {
		all["transaction_timeout"] = "0"
		if super {
			all["event_triggers"] = "off"
		}
	}
	return all
}

func (s *server) askMappings(q *queries, release int) {
	if release < 150000 {
		s.unknown[identMappings] = "there is no pg_ident_file_mappings before release 15"
		return
	}
	file := "current_setting('ident_file')"
	if release >= 160000 {
		file = "file_name"
	}
	for _, row := range q.rows(identMappings, "select "+file+", line_number, map_name, sys_name, pg_username, error from pg_ident_file_mappings order by line_number") {
		line, _ := strconv.Atoi(row[1])
		s.mappings = append(s.mappings, pgconf.Mapping{File: row[0], Line: line, Map: row[2], System: row[3], Role: row[4], Mistake: row[5]})
	}
}

// queries runs one query after the other, and keeps the reason of a failure under the
// name of what was queried.
type queries struct {
	ctx    context.Context //nolint:containedctx // of one exchange
	conn   *pgconn.PgConn
	failed map[string]string
}

func (q *queries) rows(what, sql string) (rows [][]string) {
	rows, err := postgres.Query(q.ctx, q.conn, sql)
	if err != nil {
		q.failed[what] = postgres.Reason(err)
	}
	return rows
}
