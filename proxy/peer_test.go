package proxy_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os/user"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// The certificate is the password, and PostgreSQL holds none: it believes our
// account (peer) about the roles in pg_ident.conf, and our rules say whose
// certificate stands for which of them. As in docs/security.md.
func TestPeerAuthentication(t *testing.T) {
	account, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA: "local all " + pgtest.Superuser + " trust\nlocal all all peer map=pgwicket",
		Ident: fmt.Sprintf("pgwicket %[1]q app\npgwicket %[1]q person_alice\npgwicket %[1]q %[2]q\n",
			account.Username, "unmapped_by_rules"),
		SQL: `create role app login; create role person_alice login; create role person_bob login; create role unmapped_by_rules login;`,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
		p.Rules = rules(
			t,
			acl.RuleOptions{Name: "app", Action: "allow", Users: []string{"samename"}, Certificate: acl.CertificateOptions{CN: "app"}},
			acl.RuleOptions{Name: "people", Action: "allow", Users: []string{`person_\1`}, Certificate: acl.CertificateOptions{Email: `/^([a-z]+)@example\.com$`}},
		)
	})
	app := testCA().Client("app")
	person := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.EmailAddresses = []string{name + "@example.com"} }
	}
	alice := testCA().Client("Alice", person("alice"))
	bob := testCA().Client("Bob", person("bob"))
	for _, c := range []struct {
		role    string
		connect func() (*pgx.Conn, error)
		refused string // by whom; empty: nobody
	}{
		{role: "app", connect: func() (*pgx.Conn, error) { return pgxTry(g, "app", withCert(app)) }},
		{role: "person_alice", connect: func() (*pgx.Conn, error) { return pgxTry(g, "person_alice", withCert(alice)) }},
		{role: "person_bob", connect: func() (*pgx.Conn, error) { return pgxTry(g, "person_bob", withCert(bob)) }, refused: "PostgreSQL"},
		{role: "person_bob", connect: func() (*pgx.Conn, error) { return pgxTry(g, "person_bob", withCert(alice)) }, refused: "pgwicket"},
		{role: "person_alice", connect: func() (*pgx.Conn, error) { return pgxTry(g, "person_alice", withCert(app)) }, refused: "pgwicket"},
		{role: "app", connect: func() (*pgx.Conn, error) { return pgxTry(g, "app") }, refused: "pgwicket"},
		{role: "unmapped_by_rules", connect: func() (*pgx.Conn, error) { return pgxTry(g, "unmapped_by_rules", withCert(app)) }, refused: "pgwicket"},
		{role: pgtest.Superuser, connect: func() (*pgx.Conn, error) { return pgxTry(g, pgtest.Superuser, withCert(app)) }, refused: "pgwicket"},
	} {
		conn, err := c.connect()
		if c.refused == "" {
			if err != nil {
				t.Fatalf("%s: %v", c.role, err)
			}
			if is := query[string](t, conn, "select current_user::text"); is != c.role {
				t.Errorf("%s is %s", c.role, is)
			}
			_ = conn.Close(context.Background())
			g.expect(t, "client_closed")
			continue
		}
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || refusal.Code != "28000" {
			t.Errorf("%s: %v, want a refusal by %s", c.role, err, c.refused)
			continue
		}
		outcome := map[string]string{"pgwicket": "no_rule", "PostgreSQL": "authentication_failed"}[c.refused]
		g.expect(t, outcome)
	}
}
