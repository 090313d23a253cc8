package group_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/backend"
	"pgwicket/internal/group"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// What a look-up and a Keeper do, in the other releases, which "make interop-quick" installs.
func TestReleases(t *testing.T) {
	t.Parallel()
	releases := pgtest.Releases("../..")
	if len(releases) == 0 {
		t.Skip("no other release is installed; make interop-quick installs them")
	}
	for major, o := range releases {
		for name, test := range map[string]func(*testing.T, pgtest.Options){"socket": testAsk, "tcp": testTCP, "standby": testStandby} {
			t.Run(strconv.Itoa(major)+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, o)
			})
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	testTCP(t, pgtest.Options{})
}

// Over TCP PostgreSQL knows the gate by its certificate or its password, and the gate PostgreSQL by its
// certificate.
func testTCP(t *testing.T, o pgtest.Options) {
	t.Helper()
	const address = "127.0.0.1"
	ca := tlstest.NewCA("backends")
	server := ca.Server(address)
	o.Host, o.Files = address, map[string][]byte{"ca.crt": ca.CertPEM(), "server.crt": server.CertPEM(), "server.key": server.KeyPEM()}
	o.Settings = append(slices.Clip(o.Settings), "ssl=on", "ssl_ca_file=ca.crt", "password_encryption=scram-sha-256")
	o.HBA = "local all all trust\nhostssl postgres lookup 127.0.0.1/32 cert\nhostssl all bob 127.0.0.1/32 scram-sha-256\nhostnossl all carol 127.0.0.1/32 scram-sha-256\n"
	o.SQL = "alter role bob password 'right'; alter role carol password 'right';"
	s := startPostgres(t, o)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	client := &tls.Config{ServerName: address, RootCAs: pool, NextProtos: []string{"postgresql"}, MinVersion: tls.VersionTLS12}
	known := client.Clone()
	known.Certificates = []tls.Certificate{ca.Client("lookup").TLS()}
	other := client.Clone()
	other.RootCAs = x509.NewCertPool()
	to := func(change func(*group.Lookup, *backend.Host)) group.Lookup {
		l := lookup("", "dba", "gone")
		h := backend.Host{Network: "tcp", Address: net.JoinHostPort(address, strconv.Itoa(s.Port)), TLS: client}
		change(&l, &h)
		l.Backend.Hosts = []backend.Host{h}
		return l
	}
	for _, c := range []struct {
		what   string
		change func(*group.Lookup, *backend.Host)
		want   string // of the error; empty: none
	}{
		{"a certificate", func(_ *group.Lookup, h *backend.Host) { h.TLS = known }, ""},
		{"no certificate", func(*group.Lookup, *backend.Host) {}, "PostgreSQL says: connection requires a valid client certificate (28000)"},
		{"a password", func(l *group.Lookup, _ *backend.Host) { l.User, l.Password = "bob", "right" }, ""},
		{"a wrong password", func(l *group.Lookup, _ *backend.Host) { l.User, l.Password = "bob", "wrong" }, `PostgreSQL says: password authentication failed for user "bob" (28P01)`},
		{"another server", func(l *group.Lookup, h *backend.Host) { l.User, l.Password, h.TLS = "bob", "right", other }, "certificate"},
		{"in clear", func(l *group.Lookup, h *backend.Host) { l.User, l.Password, h.TLS = "carol", "right", nil }, ""},
	} {
		l := to(c.change)
		answer, err := l.Ask(t.Context())
		switch {
		case c.want == "" && (err != nil || sorted(answer)["dba"] != "alice carol dave dba ops"):
			t.Errorf("%s: %q, %v", c.what, answer, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "right")):
			t.Errorf("%s: %v", c.what, err)
		}
	}
	var clock atomic.Int64
	_, results := keep(t, to(func(_ *group.Lookup, h *backend.Host) { h.TLS = known }), group.State{}, &clock)
	until(t, results, "an answer", func(r group.Result) bool { return r.Err == nil && !r.Members.Has("dba", "lookup") })
	mustSQL(t, s, "grant dba to lookup")
	until(t, results, "a GRANT", func(r group.Result) bool { return r.Err == nil && r.Members.Has("dba", "lookup") })
	s.Kill()
	until(t, results, "a failure", func(r group.Result) bool { return r.Err != nil })
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSQL(t, s, "revoke dba from lookup")
	until(t, results, "a REVOKE", func(r group.Result) bool { return r.Err == nil && !r.Members.Has("dba", "lookup") })
}

func TestStandby(t *testing.T) {
	t.Parallel()
	testStandby(t, pgtest.Options{})
}

// A standby knows the members as soon as it has replayed a GRANT, goes on without its primary, and
// answers after it was promoted.
func testStandby(t *testing.T, o pgtest.Options) {
	t.Helper()
	o.HBA = "local all all trust\nlocal replication all trust\n"
	primary := startPostgres(t, o)
	standby, err := primary.StartStandby(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Stop)
	if out := mustSQL(t, standby, "select pg_is_in_recovery()"); out != "t" {
		t.Fatalf("pg_is_in_recovery() is %s", out)
	}
	var clock atomic.Int64
	l := lookup(standby.SocketDir, "dba", "later", "al\"i\\ce")
	k, results := keep(t, l, group.State{}, &clock)
	first := until(t, results, "an answer", func(r group.Result) bool { return r.Err == nil })
	if got := first.Members.Counts(); got["dba"] != 5 || got["later"] != 0 || got["al\"i\\ce"] != 1 {
		t.Errorf("%v", got)
	}
	mustSQL(t, primary, "create role later; grant later to alice; revoke ops from carol")
	until(t, results, "what the primary has done", func(r group.Result) bool {
		return r.Err == nil && r.Members.Has("later", "alice") && !r.Members.Has("dba", "carol")
	})
	primary.Kill()
	clock.Add(10)
	until(t, results, "an answer without the primary", func(r group.Result) bool {
		return r.Renewed && r.Members.Until().Equal(time.Unix(clock.Load(), 0).Add(time.Minute))
	})
	mustSQL(t, standby, "select pg_promote()")
	mustSQL(t, standby, "revoke later from alice")
	until(t, results, "what the promoted one has done", func(r group.Result) bool { return r.Err == nil && !r.Members.Has("later", "alice") })
	k.Stop()

	// The first host that answers is asked, be it a standby or not.
	l.Backend.Hosts = append([]backend.Host{{Network: "unix", Address: primary.SocketDir + "/.s.PGSQL.5432"}}, l.Backend.Hosts...)
	answer, err := l.Ask(t.Context())
	if err != nil || strings.Join(answer["later"], " ") != "later" {
		t.Errorf("%q, %v", answer, err)
	}
}

func mustSQL(t *testing.T, s *pgtest.Server, sql string) string {
	t.Helper()
	out, err := s.SQL(sql)
	if err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
	return strings.TrimSpace(out)
}
