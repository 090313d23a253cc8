package main

import (
	"os"
	"path/filepath"

	"pgwicket/test/gate"
)

func pgbouncer() contender {
	return contender{
		id: "pgbouncer", title: "PgBouncer",
		about:   "session pooling, `auth_type=trust`, the default `server_reset_query` (DISCARD ALL), no logs, no statistics; `pkt_buf` of 64 KiB, which nearly halves the cost of its COPY, but in the mixed run its default of 4 KiB, which is fairer",
		program: "pgbouncer", pkg: "pgbouncer",
		version: func(*lab) string { return firstLine(program("pgbouncer"), "--version") },
		start:   startPgbouncer,
	}
}

// pgbouncerNotReusing shows what PgBouncer saves by pooling: through the others, every login
// reaches PostgreSQL. No target is about it.
func pgbouncerNotReusing() contender {
	c := pgbouncer()
	c.id, c.title, c.only = "pgbouncer-once", "PgBouncer, not reusing", "connect"
	c.about = "the same with `server_lifetime = 0`, so that each connection is one to PostgreSQL, as with the others"
	c.start = func(l *lab, s setting) (*gate.Process, error) {
		s.Once = true
		return startPgbouncer(l, s)
	}
	return c
}

func startPgbouncer(l *lab, s setting) (*gate.Process, error) {
	config, err := s.render("pgbouncer.ini")
	if err != nil {
		return nil, err
	}
	users := "\"" + benchUser + "\" \"\"\n\"" + certUser + "\" \"\"\n"
	if err := os.WriteFile(filepath.Join(s.Dir, "users.txt"), []byte(users), 0o644); err != nil { //nolint:gosec // another account reads it
		return nil, err
	}
	// It refuses to run as root.
	if err := s.chownTo(l.account); err != nil {
		return nil, err
	}
	return s.launch(l.account, program("pgbouncer"), config)
}
