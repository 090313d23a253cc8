package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// Prepare makes a session read only, bounds its statements, and undoes what the owner of
// the database can set for all sessions in it (ALTER DATABASE ... SET): another role, which
// sees less, and a timeout that ends an idle session. pg_temp is last, so that no temporary
// table of a login trigger stands for a catalog.
func Prepare(ctx context.Context, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	_, err := Query(ctx, conn, "set search_path = pg_catalog, pg_temp; set default_transaction_read_only = on; set statement_timeout = '"+statementTimeout+"'; set lock_timeout = '"+lockTimeout+
		"'; set client_encoding = 'UTF8'; set quote_all_identifiers = off; set standard_conforming_strings = on;"+
		` select set_config('role', 'none', false) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
			where s.setrole = 0 and d.datname = current_database() and exists (select from unnest(s.setconfig) c where starts_with(c, 'role='));
		select set_config(name, '0', false) from pg_settings where name in ('idle_session_timeout', 'transaction_timeout') and setting <> '0'`)
	return err
}

// errTooLong says that a server answers more than any server has to answer.
var errTooLong = errors.New("the answer of the server is too long")

// Query returns the rows of a statement, or of several. A null is "". An answer of more
// than maxAnswer bytes is an error, and ends the session.
func Query(ctx context.Context, conn *pgconn.PgConn, sql string) (rows [][]string, err error) {
	results := conn.Exec(ctx, sql)
	size := 0
	for results.NextResult() {
		for r := results.ResultReader(); r.NextRow(); {
			values := r.Values()
			row := make([]string, len(values))
			size += 64 // what a row takes here, if it is empty
			for i, v := range values {
				row[i] = string(v)
				size += len(v) + 16
			}
			if size > maxAnswer {
				_ = conn.Conn().Close()
				_ = results.Close()
				return nil, errTooLong
			}
			rows = append(rows, row)
		}
	}
	if err := results.Close(); err != nil {
		return nil, err
	}
	return rows, nil
}
