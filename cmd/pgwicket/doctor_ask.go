package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/pgconf"
)

// patient is how a PostgreSQL is examined.
type patient struct {
	user, database string
	files          string // the directory of its postgresql.conf, read instead of asking; empty: ask
}

// server is what is known about one PostgreSQL.
type server struct {
	name     string // its socket, or the directory of its files
	asked    string // how it was asked, or its files read; empty: neither
	unasked  string // why it was not
	sockets  []socketFacts
	settings map[string]string
	rules    []pgconf.Rule
	mappings []pgconf.Mapping
	roles    []pgRole
	md5      []string // roles whose password is kept in that form
	unknown  map[string]string

	gate gateFacts
}

// The keys of server.unknown: what could not be found out has the reason there.
const (
	theRules    = "pg_hba_file_rules"
	theMappings = "pg_ident_file_mappings"
	theRoles    = "pg_roles"
	theHashes   = "pg_authid"
)

type pgRole struct {
	name  string
	super bool
}

// socketFacts are a directory that PostgreSQL puts its socket into, and the socket.
type socketFacts struct {
	path         string // of the socket
	trouble      string // why it cannot be looked at
	owner        string // of the directory
	group        string
	dir, socket  fs.FileMode
	ownedByOther bool // than the socket's owner, or root
}

// serversOf examines each PostgreSQL whose socket the configuration names, or the
// one whose files are to be read.
func (p patient) serversOf(ctx context.Context, gate gateFacts) (all []*server) {
	var paths []string
	for _, h := range gate.hosts {
		if h.Network == "unix" && !slices.Contains(paths, h.Address) {
			paths = append(paths, h.Address)
		}
	}
	if p.files != "" {
		s := &server{name: p.files, gate: gate, unknown: make(map[string]string)}
		s.read(p.files)
		s.look(paths)
		return []*server{s}
	}
	for _, path := range paths {
		s := &server{name: path, gate: gate, unknown: make(map[string]string)}
		if conn, err := p.connect(ctx, path); err != nil {
			s.unasked = reason(err)
		} else {
			s.ask(ctx, conn)
			_ = conn.Close(ctx)
		}
		s.look([]string{path})
		all = append(all, s)
	}
	if len(paths) == 0 {
		all = append(all, &server{name: "on TCP", gate: gate, unasked: "its backends are on TCP, and PostgreSQL is asked over its socket only"})
	}
	return all
}

// read takes the files for the truth.
func (s *server) read(dir string) {
	c, err := pgconf.Read(dir)
	if err != nil {
		s.unasked = err.Error()
		return
	}
	s.asked = "by its files; what its command line sets they do not show"
	s.settings, s.rules, s.mappings = c.Settings, c.Rules, c.Mappings
	for _, standard := range standardSettings() {
		if _, ok := s.settings[standard[0]]; !ok {
			s.settings[standard[0]] = standard[1]
		}
	}
	for _, what := range []string{theRoles, theHashes} {
		s.unknown[what] = "its files do not say which roles there are"
	}
}

// standardSettings are what releases 14 to 18 do where their files say nothing.
func standardSettings() [][2]string {
	return [][2]string{
		{"listen_addresses", "localhost"},
		{"unix_socket_permissions", "0777"},
		{"password_encryption", "scram-sha-256"},
		{"ssl", "off"},
		{"ssl_min_protocol_version", "TLSv1.2"},
		{"ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL"},
		{"log_connections", "off"},
	}
}

// look adds what the directories of its sockets show, those of the settings too.
func (s *server) look(paths []string) {
	for _, dir := range list(s.settings["unix_socket_directories"]) {
		port := "5432"
		if set := s.settings["port"]; set != "" {
			port = set
		}
		path := filepath.Join(dir, ".s.PGSQL."+port)
		if strings.HasPrefix(dir, "@") {
			path = dir + "/.s.PGSQL." + port
		}
		paths = append(paths, path)
	}
	var seen []string
	for _, path := range paths {
		where := path
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			where = filepath.Join(real, filepath.Base(path))
		}
		if !slices.Contains(seen, where) {
			seen = append(seen, where)
			s.sockets = append(s.sockets, lookAt(where, s.settings["unix_socket_permissions"]))
		}
	}
}

// list splits a list of names as PostgreSQL has them in a setting.
func list(setting string) (out []string) {
	for one := range strings.SplitSeq(setting, ",") {
		if one = strings.Trim(strings.TrimSpace(one), `"`); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// lookAt stats a socket; permissions are those that it will have where it is not
// there yet.
func lookAt(path, permissions string) socketFacts {
	f := socketFacts{path: path}
	if strings.HasPrefix(path, "@") {
		return f
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		f.trouble = err.Error()
		return f
	}
	f.dir = dir.Mode()
	owner, group := ownerOf(dir)
	f.owner, f.group = accountName(owner), groupName(group)
	socket, err := os.Stat(path)
	mode, octal := strconv.ParseUint(permissions, 8, 12)
	switch {
	case err == nil:
		f.socket = socket.Mode().Perm()
		by, _ := ownerOf(socket)
		f.ownedByOther = owner != 0 && owner != by
	case errors.Is(err, fs.ErrNotExist) && octal == nil:
		f.socket = fs.FileMode(mode).Perm()
	default:
		f.trouble = err.Error()
	}
	return f
}

func ownerOf(st fs.FileInfo) (uid, gid int) {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return -1, -1
}

func accountName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// connect opens a connection over a socket: as root first in the name of the
// socket's owner, whom peer takes for the superuser.
func (p patient) connect(ctx context.Context, path string) (*pgconn.PgConn, error) {
	owner := -1
	if st, err := os.Stat(path); err == nil && os.Geteuid() == 0 {
		owner, _ = ownerOf(st)
	}
	cfg, err := p.conninfo(path, owner)
	if err != nil {
		return nil, err
	}
	if owner > 0 {
		cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialAs(ctx, owner, network, address)
		}
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		var refused *pgconn.PgError
		if err == nil || !errors.As(err, &refused) {
			return conn, err
		}
	}
	cfg.DialFunc = new(net.Dialer).DialContext
	return pgconn.ConnectConfig(ctx, cfg)
}

func (p patient) conninfo(path string, owner int) (*pgconn.Config, error) {
	dir, port, _ := strings.Cut(path, "/.s.PGSQL.")
	words := map[string]string{"host": dir, "port": port, "dbname": p.database, "sslmode": "disable"}
	if p.user != "" {
		words["user"] = p.user
	} else if owner > 0 && os.Getenv("PGUSER") == "" {
		words["user"] = accountName(owner)
	}
	var conninfo []string
	for word, value := range words {
		conninfo = append(conninfo, fmt.Sprintf("%s='%s'", word, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)))
	}
	cfg, err := pgconn.ParseConfig(strings.Join(conninfo, " "))
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = knockTimeout
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"application_name": "pgwicket doctor", "default_transaction_read_only": "on", "statement_timeout": "10s", "search_path": "pg_catalog",
	})
	return cfg, nil
}

// reason is what PostgreSQL has said, without what pgx puts round it.
func reason(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Message
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// ask notes what PostgreSQL answers, and what it refuses to.
func (s *server) ask(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(ctx, 2*knockTimeout)
	defer cancel()
	q := &questions{ctx: ctx, conn: conn, refused: s.unknown}
	s.settings = make(map[string]string)
	who := ""
	for _, row := range q.rows("pg_settings", "select name, setting from pg_settings union all select '', current_user") {
		if s.settings[row[0]] = row[1]; row[0] == "" {
			who = row[1]
		}
	}
	s.asked = fmt.Sprintf("asked as %s, release %s", who, s.settings["server_version"])
	release, _ := strconv.Atoi(s.settings["server_version_num"])
	file := "current_setting('hba_file')"
	if release >= 160000 {
		file = "file_name"
	}
	for _, row := range q.rows(theRules, `select `+file+`, line_number, type, array_to_string(database, E'\n'), array_to_string(user_name, E'\n'),
		address, netmask, auth_method, array_to_string(options, E'\n'), error from pg_hba_file_rules order by line_number`) {
		line, _ := strconv.Atoi(row[1])
		s.rules = append(s.rules, pgconf.Rule{
			File: row[0], Line: line, Type: row[2], Databases: strings.Split(row[3], "\n"), Users: strings.Split(row[4], "\n"),
			Address: pgconf.Network(row[5], row[6]), Method: row[7], Options: strings.Split(row[8], "\n"), Mistake: row[9],
		})
	}
	s.askMappings(q, release)
	for _, row := range q.rows(theRoles, "select rolname, rolsuper from pg_roles where rolcanlogin order by 1") {
		s.roles = append(s.roles, pgRole{name: row[0], super: row[1] == "t"})
	}
	for _, row := range q.rows(theHashes, "select rolname from pg_authid where rolcanlogin and rolpassword like 'md5%' order by 1") {
		s.md5 = append(s.md5, row[0])
	}
}

func (s *server) askMappings(q *questions, release int) {
	if release < 150000 {
		s.unknown[theMappings] = "there is no pg_ident_file_mappings before release 15"
		return
	}
	file := "current_setting('ident_file')"
	if release >= 160000 {
		file = "file_name"
	}
	for _, row := range q.rows(theMappings, "select "+file+", line_number, map_name, sys_name, pg_username, error from pg_ident_file_mappings order by line_number") {
		line, _ := strconv.Atoi(row[1])
		s.mappings = append(s.mappings, pgconf.Mapping{File: row[0], Line: line, Map: row[2], System: row[3], Role: row[4], Mistake: row[5]})
	}
}

// questions are put one after the other; the reason of a refusal is kept under the
// name of what was asked for.
type questions struct {
	ctx     context.Context //nolint:containedctx // of one exchange
	conn    *pgconn.PgConn
	refused map[string]string
}

func (q *questions) rows(what, sql string) (rows [][]string) {
	results, err := q.conn.Exec(q.ctx, sql).ReadAll()
	if err != nil {
		q.refused[what] = reason(err)
		return nil
	}
	for _, r := range results {
		for _, values := range r.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows
}
