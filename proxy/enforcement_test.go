package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/policy"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// files are a gate's TLS files, with two intermediates under one root, so that
// one can be taken away.
type files struct {
	dir       string
	root      *tlstest.CA
	one, two  *tlstest.CA
	alice     *tlstest.Pair // of one
	bystander *tlstest.Pair // of two
	groups    []string      // that are configured
}

func newFiles(t *testing.T) *files {
	t.Helper()
	f := &files{dir: t.TempDir(), root: tlstest.NewCA("root")}
	f.one, f.two = f.root.Intermediate("one"), f.root.Intermediate("two")
	f.alice, f.bystander = f.one.Client("alice"), f.two.Client("bystander")
	if err := testCA().Server("localhost").WriteFiles(f.at("server.crt"), f.at("server.key")); err != nil {
		t.Fatal(err)
	}
	f.trust(t, f.root, f.one, f.two)
	f.revoke(t)
	return f
}

func (f *files) at(name string) string { return filepath.Join(f.dir, name) }

func (f *files) trust(t *testing.T, list ...*tlstest.CA) {
	t.Helper()
	var pem []byte
	for _, ca := range list {
		pem = append(pem, ca.CertPEM()...)
	}
	if err := os.WriteFile(f.at("ca.crt"), pem, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *files) revoke(t *testing.T, certs ...*x509.Certificate) {
	t.Helper()
	revoke := func(l *tlstest.CRL) { l.Revoke(certs...) }
	lists := slices.Concat(f.root.CRL(revoke), f.one.CRL(revoke), f.two.CRL(revoke))
	if err := os.WriteFile(f.at("ca.crl"), lists, 0o600); err != nil {
		t.Fatal(err)
	}
}

// load puts the files into a policy, as a reload does.
func (f *files) load(t *testing.T, p *proxy.Policy) {
	t.Helper()
	s, problems := tlsconfig.Load(tlsconfig.Options{
		CertFile: f.at("server.crt"), KeyFile: f.at("server.key"), CAFile: f.at("ca.crt"), CRLFile: f.at("ca.crl"), Groups: f.groups,
	}, nil, nil, time.Now())
	if s == nil {
		t.Fatal(problems)
	}
	p.TLS = s.Config
	p.Verify = func(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error) {
		var refused *tlsconfig.VerifyError
		chain, err := s.Verify(state, sent, at)
		outcomes := map[tlsconfig.Reason]proxy.Outcome{
			tlsconfig.ReasonRevoked: outcome.CertRevoked, tlsconfig.ReasonUnknownCA: outcome.CertUnknownCA, tlsconfig.ReasonExpired: outcome.CertExpired,
			tlsconfig.ReasonGroup: outcome.TLSGroup, tlsconfig.ReasonCRLStale: outcome.CRLStale,
		}
		if errors.As(err, &refused) {
			return nil, outcome.RefuseCertificate(outcomes[refused.Reason], refused.CA, refused.Date, refused.Detail)
		}
		return chain, err
	}
}

// Whatever takes the ground away under a session ends it, whatever it is doing,
// and leaves the others alone.
func TestEnforcement(t *testing.T) {
	db := realPostgres(t)
	allow := func(users ...string) acl.RuleOptions { return acl.RuleOptions{Action: "allow", Users: users} }
	reasons := []struct {
		outcome string
		take    func(*testing.T, *files, *proxy.Policy)
	}{
		{"certificate_revoked", func(t *testing.T, f *files, p *proxy.Policy) {
			f.revoke(t, f.alice.Leaf())
			f.load(t, p)
		}},
		{"certificate_revoked", func(t *testing.T, f *files, p *proxy.Policy) { // the whole intermediate
			f.revoke(t, f.one.Cert)
			f.load(t, p)
		}},
		{"certificate_unknown_ca", func(t *testing.T, f *files, p *proxy.Policy) {
			f.trust(t, f.root, f.two)
			f.alice.Chain = f.alice.Chain[:1]
			f.load(t, p)
		}},
		{"tls_group", func(t *testing.T, f *files, p *proxy.Policy) {
			f.groups = []string{"secp521r1"} // the bystander's
			f.load(t, p)
		}},
		{"certificate_expired", nil}, // as time passes
		{"source_not_allowed", func(_ *testing.T, _ *files, p *proxy.Policy) {
			p.Networks = networks([]string{"127.0.0.2/32"}, nil)
		}},
		{"no_rule", func(t *testing.T, _ *files, p *proxy.Policy) { p.Rules = rules(t, allow("scram")) }},
	}
	doing := map[string]string{
		"a query": "select pg_sleep(600)",
		"nothing": "",
		"a COPY":  "copy (select repeat('x', 1000) from generate_series(1, 100000000)) to stdout",
	}
	for i, reason := range reasons {
		for what, sql := range doing {
			t.Run(fmt.Sprintf("%d %s/%s", i, reason.outcome, what), func(t *testing.T) {
				f := newFiles(t)
				if reason.take == nil {
					f.alice = f.one.Client("alice", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) })
				}
				if reason.outcome == "certificate_unknown_ca" {
					f.alice.Chain = f.alice.Chain[:1] // the gate alone has the intermediate
				}
				g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
					f.load(t, p)
					p.Rules = rules(t, allow("app", "scram"))
					p.RecheckInterval = 20 * time.Millisecond
				})
				conn := pgxTo(t, g, "app", withCert(f.alice)).PgConn()
				// From another address, as another user, and by another key exchange.
				other := pgxFrom(t, g, "127.0.0.2", "scram", withCert(f.bystander), func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} })
				failed := make(chan error, 1)
				go func() { failed <- busy(conn, sql) }()
				eventually(t, "it is under way", func() bool {
					return sql == "" || slices.ContainsFunc(g.Server.Snapshot(), func(s proxy.Session) bool { return s.User == "app" && s.FromClient > 0 })
				})
				if reason.take != nil {
					g.reload(func(p *proxy.Policy) { reason.take(t, f, p) })
				}
				err := <-failed
				var refusal *pgconn.PgError
				if errors.As(err, &refusal) && (refusal.Code != "57P01" || !strings.HasPrefix(refusal.Message, "terminating connection: ")) {
					t.Errorf("the client got %v", err)
				} else if text := errorText(err); refusal == nil && (!endedWell.MatchString(text) || what != "a COPY") {
					t.Errorf("the client got %v", text)
				}
				g.expect(t, reason.outcome)
				if n := query[int](t, other, "select 42"); n != 42 {
					t.Errorf("the other session answers %d", n)
				}
				eventually(t, "one session is left", func() bool { return len(g.Server.Snapshot()) == 1 })
			})
		}
	}
}

// busy runs a statement, or waits for what comes without one, until the session
// has ended.
func busy(conn *pgconn.PgConn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case sql == "":
		return conn.WaitForNotification(ctx)
	case strings.HasPrefix(sql, "copy"):
		_, err := conn.CopyTo(ctx, new(counter), sql)
		return err
	}
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// Certificates that live for an hour need not end a dump that takes longer: on_expiry
// leaves its session alone, and a revocation ends it all the same (cnpg#3705).
func TestOnExpiry(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	for _, c := range []struct {
		mode policy.Recheck
		name string
	}{{policy.Off, "off"}, {policy.WhenIdle, "idle"}, {policy.Immediate, "immediate"}} {
		t.Run(c.name, func(t *testing.T) {
			f := newFiles(t)
			expiry := time.Now().Add(2 * time.Second)
			f.alice = f.one.Client("alice", func(c *x509.Certificate) { c.NotAfter = expiry })
			g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
				f.load(t, p)
				p.OnExpiry, p.RecheckInterval = c.mode, 20*time.Millisecond
			})
			conn := pgxTo(t, g, "app", withCert(f.alice))
			if _, err := conn.Exec(t.Context(), "begin"); err != nil {
				t.Fatal(err)
			}
			if c.mode == policy.Immediate {
				left(t, conn.PgConn(), "57P01", "client certificate expired")
				g.expect(t, "certificate_expired")
				return
			}
			eventually(t, "the certificate has expired", func() bool { return g.metric(t, "pgwicket_recheck_failing_sessions") == 1 })
			if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
				t.Fatalf("in the transaction: %v", err)
			}
			if c.mode == policy.WhenIdle {
				_, _ = conn.Exec(t.Context(), "commit")
				g.expect(t, "certificate_expired")
				return
			}
			g.reload(func(p *proxy.Policy) {
				f.revoke(t, f.alice.Leaf())
				f.load(t, p)
			})
			left(t, conn.PgConn(), "57P01", "client certificate was revoked")
			g.expect(t, "certificate_revoked")
		})
	}
}

// With on_expiry off neither a certificate nor a CA that has expired hides what else there is against a session: whatever
// has become of the lists since then.
func TestOnExpiryHidesNothing(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	newLists := func(t *testing.T, f *files, revoked ...*x509.Certificate) {
		t.Helper()
		edit := func(l *tlstest.CRL) {
			l.ThisUpdate = time.Now().Truncate(time.Second)
			l.Revoke(revoked...)
		}
		lists := slices.Concat(f.root.CRL(edit), f.one.CRL(edit), f.two.CRL(edit))
		if err := os.WriteFile(f.at("ca.crl"), lists, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lockAlice := func(t *testing.T, p *proxy.Policy) {
		t.Helper()
		now := time.Now()
		p.Locks = locked(t, url.Values{"cn": {"alice"}}, now, now.Add(time.Hour))
	}
	for _, c := range []struct {
		name   string
		caOnly bool // of ca_file, which the client does not send
		take   func(t *testing.T, f *files, p *proxy.Policy)
		want   string
	}{
		{"a lock, with newer lists", false, func(t *testing.T, f *files, p *proxy.Policy) { newLists(t, f); lockAlice(t, p) }, "locked"},
		{"a lock, and a CA has expired", true, func(t *testing.T, _ *files, p *proxy.Policy) { lockAlice(t, p) }, "locked"},
		{"a revocation, with newer lists", false, func(t *testing.T, f *files, _ *proxy.Policy) { newLists(t, f, f.alice.Leaf()) }, "certificate_revoked"},
		{"a revocation, and a CA has expired", true, func(t *testing.T, f *files, _ *proxy.Policy) { f.revoke(t, f.alice.Leaf()) }, "certificate_revoked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFiles(t)
			expire := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Second) }
			if c.caOnly {
				f.one = f.root.Intermediate("one", expire)
				f.trust(t, f.root, f.one, f.two)
				f.revoke(t)
				f.alice = f.one.Client("alice")
				f.alice.Chain = f.alice.Chain[:1]
			} else {
				f.alice = f.one.Client("alice", expire)
			}
			g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
				f.load(t, p)
				p.OnExpiry, p.RecheckInterval = policy.Off, 20*time.Millisecond
			})
			conn := pgxTo(t, g, "app", withCert(f.alice))
			eventually(t, "the certificate has expired", func() bool { return g.metric(t, "pgwicket_recheck_failing_sessions") == 1 })
			if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
				t.Fatalf("with the certificate that has expired: %v", err)
			}
			g.reload(func(p *proxy.Policy) {
				c.take(t, f, p)
				f.load(t, p)
			})
			g.expect(t, c.want)
		})
	}
}
