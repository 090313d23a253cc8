package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/lock"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/policy"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// locked returns a set of one lock until a time.
func locked(t testing.TB, values url.Values, at, until time.Time) *lock.Set {
	t.Helper()
	f, err := lock.ParseFilter(values)
	if err != nil {
		t.Fatal(err)
	}
	table, _ := lock.Open("")
	_, set, err := table.Add(lock.Lock{Filter: f, Reason: "stolen laptop", Until: &until}, at)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// putLocks puts other locks into force, as the gate does for a lock.
func (g *gate) putLocks(set *lock.Set) { g.reload(func(p *proxy.Policy) { p.Locks = set }) }

// A lock ends the sessions of whom it matches, whatever on_recheck says, and nobody
// else's; it refuses new ones in the words of a rule, keeps its reason for the log, and
// ends to the second.
func TestLockEndsAndRefuses(t *testing.T) {
	t.Parallel()
	for _, mode := range []policy.Recheck{policy.Immediate, policy.WhenIdle, policy.Off} {
		b := newBackend(t)
		g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Recheck = mode })
		alice, bob := testCA().Client("alice"), testCA().Client("bob")
		bad, good := g.session(t, "app", withCert(alice)), g.session(t, "app", withCert(bob))
		now := g.Clock.Now()
		g.putLocks(locked(t, url.Values{"cn": {"alice"}}, now, now.Add(time.Hour)))
		expectFatal(t, bad, "57P01", `terminating connection: pgwicket rejects host "127.0.0.1", user "app", database "shop"`)
		_ = bad.Close()
		line := g.expect(t, "locked")
		if line.get("msg") != "session ended" || line.get("cert_subject") != "CN=alice" || !strings.Contains(line.get("reason"), "stolen laptop") {
			t.Errorf("log: %v", line)
		}
		refused := g.secure(t, withCert(alice))
		send(t, refused, startup(protocol3, "user", "app", "database", "shop"))
		expectFatal(t, refused, "28000", `pgwicket rejects host "127.0.0.1", user "app", database "shop"`)
		_ = refused.Close()
		send(t, good, []byte("still here"))
		eventually(t, "the other session goes on", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return bytes.Contains(b.rest, []byte("still here"))
		})
		g.Clock.Add(time.Hour)
		_ = g.session(t, "app", withCert(alice)) // fails unless it is admitted
		g.Clock.Add(-2 * time.Second)
		refused = g.secure(t, withCert(alice))
		send(t, refused, startup(protocol3, "user", "app"))
		expectFatal(t, refused, "28000", `pgwicket rejects host "127.0.0.1", user "app", database "app"`)
		_ = refused.Close()
	}
}

// A clock that goes back over the end of a lock ends the sessions that have begun
// since, without a recheck by the interval.
func TestLockAndAClockThatGoesBack(t *testing.T) {
	t.Parallel()
	g := newGate(t, newBackend(t).SocketDir)
	now := g.Clock.Now()
	set := locked(t, url.Values{"user": {"app"}}, now, now.Add(time.Hour))
	g.Clock.Add(2 * time.Hour)
	g.reload(func(p *proxy.Policy) { p.Locks, p.RecheckInterval = set, 10*time.Millisecond })
	conn := g.session(t, "app")
	g.Clock.Add(-2 * time.Hour)
	expectFatal(t, conn, "57P01", `terminating connection: pgwicket rejects host "127.0.0.1", user "app", database "shop"`)
	_ = conn.Close()
	g.expect(t, "locked")
}

// Every kind of condition is known of a connection when it is judged.
func TestLockConditions(t *testing.T) {
	t.Parallel()
	g := newGate(t, newBackend(t).SocketDir)
	client := testCA().Client("alice")
	first := g.session(t, "app", withCert(client))
	one := g.Server.Snapshot()[0]
	id := one.Request.Certificate
	now := g.Clock.Now()
	for _, values := range []url.Values{
		{"cn": {"alice"}},
		{"serial": {id.Serial}},
		{"issuer": {id.Issuer}},
		{"spki": {id.SPKI}},
		{"user": {"app"}},
		{"database": {"shop"}},
		{"source": {"127.0.0.0/8"}},
		{"session": {one.ID}},
		{"cn": {"alice"}, "user": {"app"}, "database": {"shop"}, "source": {"127.0.0.1"}},
	} {
		p := proxy.Policy{State: policy.State{Locks: locked(t, values, now, now.Add(time.Hour))}, Networks: networks([]string{"127.0.0.1"}, nil), Verify: refuses("nobody")}
		_, err := p.Judge(one.Request, first.ConnectionState(), nil, now)
		var r *proxy.Refusal
		if !errors.As(err, &r) || r.Outcome != outcome.Locked || strings.Contains(r.Public, "laptop") || !strings.Contains(r.Detail, "stolen laptop") {
			t.Errorf("%v: %v", values, err)
		}
		if _, err := p.Judge(one.Request, first.ConnectionState(), nil, now.Add(2*time.Hour)); err != nil {
			t.Errorf("%v, later: %v", values, err)
		}
	}
}

// A CancelRequest of a locked network is not forwarded.
func TestLockRefusesCancelRequests(t *testing.T) {
	t.Parallel()
	g := newGate(t, newBackend(t).SocketDir)
	now := g.Clock.Now()
	g.putLocks(locked(t, url.Values{"source": {"127.0.0.1"}}, now, now.Add(time.Hour)))
	conn := g.dial(t)
	send(t, conn, cancelRequest(7, []byte("abcd")))
	expectEOF(t, conn)
	g.expect(t, "locked")
}

// Whatever is locked at the moment at which a connection is judged is in force: no
// connection slips past.
func TestNoConnectionSlipsPastALock(t *testing.T) {
	t.Parallel()
	g := newGate(t, newBackend(t).SocketDir)
	now := g.Clock.Now()
	set := locked(t, url.Values{"user": {"app"}}, now, now.Add(time.Hour))
	const clients = 20
	conns := make(chan error, clients)
	for range clients {
		conn := g.secure(t)
		go func() {
			_, _ = conn.Write(startup(protocol3, "user", "app", "database", "shop"))
			_, err := io.Copy(io.Discard, conn)
			conns <- err
		}()
	}
	g.putLocks(set)
	for range clients {
		<-conns // each is refused, or ended
	}
	eventually(t, "no session of app is open", func() bool { return len(g.Server.Snapshot()) == 0 })
}

// A client that is authenticating has been idle since its connection was accepted.
func TestIdleDuringAuthentication(t *testing.T) {
	t.Parallel()
	fake, err := pgtest.StartFake(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }) // it asks for nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	begun := time.Now()
	g := newGate(t, fake.SocketDir)
	send(t, g.secure(t), startup(protocol3, "user", "app", "database", "shop"))
	eventually(t, "the relay has the session", func() bool { return len(g.Server.Snapshot()) == 1 })
	if s := g.Server.Snapshot()[0]; s.Idle < 0 || s.Idle > time.Since(begun) {
		t.Errorf("%+v", s)
	}
}

// Terminate ends the sessions that match, and only those, once.
func TestTerminate(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	bad, good := g.session(t, "app"), g.session(t, "other")
	byUser := func(user string) func(*acl.Request) bool { return func(q *acl.Request) bool { return q.User == user } }
	if n := g.Server.Terminate(byUser("nobody"), ""); n != 0 {
		t.Errorf("%d sessions of nobody", n)
	}
	if n := g.Server.Terminate(byUser("app"), "terminated by uid 0"); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	if n := g.Server.Terminate(byUser("app"), "again"); n != 0 {
		t.Errorf("%d sessions are terminated a second time", n)
	}
	expectFatal(t, bad, "57P01", "terminating connection due to administrator command")
	expectEOF(t, bad)
	_ = bad.Close()
	if line := g.expect(t, "terminated"); line.get("reason") != "terminated by uid 0" || line.get("user") != "app" {
		t.Errorf("log: %v", line)
	}
	send(t, good, []byte("still here"))
	eventually(t, "the other session goes on", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return bytes.Contains(b.rest, []byte("still here"))
	})
	for _, s := range g.Server.Snapshot() {
		if s.User != "other" || s.State == "ending" || s.Idle < 0 || s.Idle > patience {
			t.Errorf("%+v", s)
		}
	}
}

// The sessions of a rule whose time ends are ended at that moment, without a recheck by the interval; those of
// another rule go on, and a rule that begins admits.
func TestRuleEndsByItself(t *testing.T) {
	t.Parallel()
	now := time.Now()
	end := now.Add(time.Hour).UTC().Truncate(time.Second)
	g := newGate(t, newBackend(t).SocketDir, func(p *proxy.Policy) {
		p.Rules = rules(
			t,
			acl.RuleOptions{Name: "ends", Action: "allow", Users: []string{"app"}, RuleTimes: acl.RuleTimes{Until: end.Format(time.RFC3339)}},
			acl.RuleOptions{Name: "begins", Action: "allow", Users: []string{"late"}, RuleTimes: acl.RuleTimes{From: end.Format(time.RFC3339)}},
			acl.RuleOptions{Name: "stays", Action: "allow", Users: []string{"other"}},
		)
	})
	conn := g.session(t, "app")
	_ = g.session(t, "other")
	refused := g.secure(t)
	send(t, refused, startup(protocol3, "user", "late"))
	expectFatal(t, refused, "28000", `no pgwicket rule for host "127.0.0.1", user "late", database "late"`)
	_ = refused.Close()
	g.expect(t, "no_rule")
	g.Clock.Add(time.Hour)
	expectFatal(t, conn, "57P01", `terminating connection: no pgwicket rule for host "127.0.0.1", user "app", database "shop"`)
	_ = conn.Close()
	g.expect(t, "no_rule")
	_ = g.session(t, "late")
	if all := g.Server.Snapshot(); len(all) != 2 {
		t.Errorf("%d sessions are open, want those of other and late", len(all))
	}
}

// A rule, and each certificate in it, has as many sessions as it may, and its sessions end at their age.
func TestRuleLimits(t *testing.T) {
	t.Parallel()
	g := newGate(t, newBackend(t).SocketDir, func(p *proxy.Policy) {
		p.Rules = rules(
			t,
			acl.RuleOptions{Name: "few", Action: "allow", Users: []string{"app"}, MaxSessions: 2, MaxSessionsPerCertificate: 1},
			acl.RuleOptions{Name: "short", Action: "allow", Users: []string{"short"}, SessionLifetime: "100ms"},
		)
	})
	alice, bob, carol := testCA().Client("alice"), testCA().Client("bob"), testCA().Client("carol")
	refused := func(pair *tlstest.Pair) {
		t.Helper()
		conn := g.secure(t, withCert(pair))
		send(t, conn, startup(protocol3, "user", "app"))
		expectFatal(t, conn, "53300", "too many connections of this kind")
		_ = conn.Close()
		g.expect(t, "rule_limit")
	}
	first := g.session(t, "app", withCert(alice))
	refused(alice)
	_ = g.session(t, "app", withCert(bob))
	refused(carol)
	_ = first.Close()
	g.expect(t, "client_closed")
	eventually(t, "the place is free", func() bool { return len(g.Server.Snapshot()) == 1 && g.Server.Sessions() == 1 })
	_ = g.session(t, "app", withCert(carol))

	conn := g.session(t, "short")
	expectFatal(t, conn, "57P01", "terminating connection: it has been open for the session_lifetime of 100ms")
	_ = conn.Close()
	g.expect(t, "session_lifetime")
}
