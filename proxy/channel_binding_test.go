package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// boundPostgres wants a password from everybody but the superuser, in whatever
// way he comes, and shows that certificate over TLS.
func boundPostgres(t *testing.T, pair *tlstest.Pair) *pgtest.Server {
	t.Helper()
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		Host:     "127.0.0.1",
		HBA:      "local all " + pgtest.Superuser + " trust\nlocal all all scram-sha-256\nhost all rejected all reject\nhost all all all scram-sha-256",
		Files:    map[string][]byte{"server.crt": pair.CertPEM(), "server.key": pair.KeyPEM()},
		Settings: []string{"ssl=on"},
		SQL: `create role scram login password '` + secret + `'; create role shut nologin password '` + secret + `';
			create role rejected login password '` + secret + `';`,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return db
}

// showing is the gate with that certificate.
func showing(pair *tlstest.Pair) func(*proxy.Policy) {
	return func(p *proxy.Policy) {
		p.TLS = p.TLS.Clone()
		p.TLS.Certificates = []tls.Certificate{pair.TLS()}
	}
}

// A login that PostgreSQL may answer with a channel binding ends in one of these
// ways.
type bindingResult int

const (
	bindingWorks   bindingResult = iota
	bindingGivesUp               // the client does, for want of an offer
	bindingRefused               // PostgreSQL does
)

// What the log says of each.
func (r bindingResult) check(t *testing.T, what string, line logLine) {
	t.Helper()
	outcome, sqlstate, hint := line.get("outcome"), line.get("sqlstate"), line.get("hint")
	if r != bindingRefused {
		if outcome != "client_closed" && (r != bindingGivesUp || outcome != "client_vanished") || sqlstate != "" || strings.Contains(hint, "it requires channel binding") != (r == bindingGivesUp) {
			t.Errorf("%s: the log has outcome %q, sqlstate %q and the hint %q", what, outcome, sqlstate, hint)
		}
		return
	}
	if outcome != "authentication_failed" || sqlstate != "28000" {
		t.Errorf("%s: the log has outcome %q and sqlstate %q", what, outcome, sqlstate)
	}
	for _, way := range []string{"bound its password to this gate's certificate", "channel_binding=disable", "Unix socket", "show PostgreSQL's certificate"} {
		if !strings.Contains(hint, way) {
			t.Errorf("%s: the hint %q does not speak of %q", what, hint, way)
		}
	}
}

// pgt-proxy#6: the matrix of docs/security.md. A client binds its password to the
// certificate that it sees, which PostgreSQL compares with its own.
func TestChannelBinding(t *testing.T) {
	t.Parallel()
	pair := testCA().Server("localhost", "127.0.0.1")
	other := testCA().Server("localhost", "127.0.0.1")
	db := boundPostgres(t, pair)
	unoffered := map[string]bindingResult{"disable": bindingWorks, "prefer": bindingWorks, "require": bindingGivesUp}
	for _, c := range []struct {
		name    string
		backend *proxy.Backend
		gate    *tlstest.Pair
		want    map[string]bindingResult // by the client's channel_binding
	}{
		{"Unix socket", socketBackend(fmt.Sprintf("%s/.s.PGSQL.%d", db.SocketDir, db.Port)), other, unoffered},
		{"Unix socket, the same certificate", socketBackend(fmt.Sprintf("%s/.s.PGSQL.%d", db.SocketDir, db.Port)), pair, unoffered},
		{"TCP in clear", backendOf(over(db, nil)), other, unoffered},
		{
			"TLS, another certificate",
			backendOf(over(db, asked("localhost"))),
			other,
			map[string]bindingResult{"disable": bindingWorks, "prefer": bindingRefused, "require": bindingRefused},
		},
		{
			"TLS, the same certificate",
			backendOf(over(db, asked("localhost"))),
			pair,
			map[string]bindingResult{"disable": bindingWorks, "prefer": bindingWorks, "require": bindingWorks},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(t, db.SocketDir, to(c.backend), showing(c.gate))
			for _, mode := range []string{"disable", "prefer", "require"} {
				want := c.want[mode]

				out, err := psql(t, libpq(t, g, "PGUSER=scram", "PGPASSWORD="+secret, "PGCHANNELBINDING="+mode), "select current_user")
				text := map[bindingResult]string{
					bindingWorks:   "scram",
					bindingGivesUp: "channel binding is required, but server did not offer",
					bindingRefused: "SCRAM channel binding check failed",
				}[want]
				if (err == nil) != (want == bindingWorks) || !strings.Contains(out, text) {
					t.Errorf("psql, %s: %v: %s; want %q", mode, err, out, text)
				}
				want.check(t, "psql, "+mode, g.outcome(t))

				err = pgxBound(g, "scram", secret, mode)
				var refusal *pgconn.PgError
				switch refused := errors.As(err, &refusal); {
				case want == bindingWorks && err != nil:
					t.Errorf("pgx, %s: %v", mode, err)
				case want == bindingGivesUp && (refused || err == nil || !strings.Contains(err.Error(), "channel binding required")):
					t.Errorf("pgx, %s: %v; want it to give up", mode, err)
				case want == bindingRefused && (!refused || refusal.Code != "28000"):
					t.Errorf("pgx, %s: %v; want a refusal of PostgreSQL", mode, err)
				}
				want.check(t, "pgx, "+mode, g.outcome(t))
			}
		})
	}
}

// pgxBound logs in once.
func pgxBound(g *gate, user, password, mode string) error {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", user, g.Addr))
	if err != nil {
		return err
	}
	config.Password, config.ChannelBinding, config.TLSConfig, config.ConnectTimeout = password, mode, g.clientTLS(), patience
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		return err
	}
	return conn.Close(context.Background())
}

// The hint is for a binding only. Where PostgreSQL offers one and refuses for
// another reason, or refuses before it has offered any, it would lead astray.
func TestChannelBindingHintIsForNothingElse(t *testing.T) {
	t.Parallel()
	pair := testCA().Server("localhost", "127.0.0.1")
	other := testCA().Server("localhost", "127.0.0.1")
	db := boundPostgres(t, pair)
	tlsBackend := to(backendOf(over(db, asked("localhost"))))
	same, differs := newGate(t, db.SocketDir, tlsBackend, showing(pair)), newGate(t, db.SocketDir, tlsBackend, showing(other))
	for _, c := range []struct {
		name                 string
		gate                 *gate
		user, password, mode string
		sqlstate             string
	}{
		{name: "wrong password, bound", gate: same, user: "scram", password: "wrong", mode: "require", sqlstate: "28P01"},
		{name: "wrong password, not bound", gate: differs, user: "scram", password: "wrong", mode: "disable", sqlstate: "28P01"},
		{name: "no such role", gate: same, user: "nobody", password: secret, mode: "prefer", sqlstate: "28P01"},
		{name: "no entry for it", gate: differs, user: "rejected", password: secret, mode: "prefer", sqlstate: "28000"},
		{name: "may not log in", gate: same, user: "shut", password: secret, mode: "require", sqlstate: "28000"},
	} {
		err := pgxBound(c.gate, c.user, c.password, c.mode)
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || refusal.Code != c.sqlstate {
			t.Errorf("%s: %v, want %s", c.name, err, c.sqlstate)
		}
		line := c.gate.expect(t, "authentication_failed")
		if line.get("sqlstate") != c.sqlstate || line.get("hint") != "" {
			t.Errorf("%s: the log has sqlstate %q and the hint %q", c.name, line.get("sqlstate"), line.get("hint"))
		}
	}
}

// pgjdbc#4272, multigres#986: not every certificate is signed over SHA-256. One that
// Ed25519 has signed has no hash to bind to (RFC 5929 leaves it open), and libpq gives up where it is offered to. Where nobody offers, as over a
// Unix socket, it does not ask.
func TestChannelBindingWithEd25519(t *testing.T) {
	t.Parallel()
	pair := testCA().Server("localhost", "127.0.0.1")
	db := boundPostgres(t, pair)
	signed := testCA().WithKey(tlstest.Ed25519).Intermediate("Ed25519 CA").Server("localhost", "127.0.0.1")
	for _, c := range []struct {
		backend   *proxy.Backend
		mode, say string
	}{
		{socketBackend(fmt.Sprintf("%s/.s.PGSQL.%d", db.SocketDir, db.Port)), "prefer", "scram"},
		{backendOf(over(db, asked("localhost"))), "prefer", "digest"},
		{backendOf(over(db, asked("localhost"))), "disable", "scram"},
	} {
		g := newGate(t, db.SocketDir, to(c.backend), showing(signed))
		out, _ := psql(t, libpq(t, g, "PGUSER=scram", "PGPASSWORD="+secret, "PGCHANNELBINDING="+c.mode), "select current_user")
		if !strings.Contains(out, c.say) {
			t.Errorf("%s, %s: psql says %q, want %q", c.backend.Hosts[0].Network, c.mode, out, c.say)
		}
		g.outcome(t)
	}
}
