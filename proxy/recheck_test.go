package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/policy"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// rules reads a list of rules that must be right.
func rules(t testing.TB, list ...acl.RuleOptions) *acl.Rules {
	t.Helper()
	r, problems := acl.NewRules(list, nil, []string{"postgres"})
	if r == nil {
		t.Fatal(problems)
	}
	return r
}

// refuses returns a Verify that refuses the certificate of one name, as revoked.
func refuses(cn string) func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
	return verifying(func(state tls.ConnectionState, _ time.Time) error {
		if len(state.PeerCertificates) > 0 && state.PeerCertificates[0].Subject.CommonName == cn {
			return &proxy.Refusal{Outcome: outcome.CertRevoked, Public: "client certificate was revoked on 2026-11-23", Detail: cn}
		}
		return nil
	})
}

// session opens one and returns it when the backend is ready.
func (g *gate) session(t testing.TB, user string, edit ...func(*tls.Config)) *tls.Conn {
	t.Helper()
	conn := g.secure(t, edit...)
	send(t, conn, startup(protocol3, "user", user, "database", "shop"))
	readReady(t, conn)
	return conn
}

// rechecked waits until the sessions have been judged by the newest policy.
func (g *gate) rechecked(t testing.TB, before float64) {
	t.Helper()
	eventually(t, "the sessions are judged again", func() bool { return g.metric(t, "pgwicket_rechecks_total") > before })
}

// Whatever a reload takes away ends those who had it, in words, and nobody else.
func TestRecheckEndsWhoWouldNotGetIn(t *testing.T) {
	alice, bob := testCA().Client("alice"), testCA().Client("bob")
	for _, c := range []struct {
		name, outcome, text string
		reload              func(*proxy.Policy)
	}{
		{"revoked", "certificate_revoked", "terminating connection: client certificate was revoked on 2026-11-23", func(p *proxy.Policy) { p.Verify = refuses("bob") }},
		{"rule", "no_rule", `terminating connection: no pgwicket rule for host "127.0.0.1", user "bob", database "shop"`, func(p *proxy.Policy) {
			p.Rules = rules(t, acl.RuleOptions{Action: "allow", Users: []string{"samename"}, Certificate: acl.CertificateOptions{CN: "alice"}})
		}},
		{"reject", "rule_rejected", `terminating connection: pgwicket rejects host "127.0.0.1", user "bob", database "shop"`, func(p *proxy.Policy) {
			p.Rules = rules(
				t,
				acl.RuleOptions{Action: "reject", Users: []string{"bob"}},
				acl.RuleOptions{Action: "allow", Users: []string{"all"}},
			)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			g := newGate(t, b.SocketDir)
			good := g.session(t, "alice", withCert(alice))
			bad := g.session(t, "bob", withCert(bob))
			g.reload(c.reload)
			expectFatal(t, bad, "57P01", c.text)
			expectEOF(t, bad)
			_ = bad.Close()
			line := g.expect(t, c.outcome)
			if line.get("msg") != "session ended" || line.get("user") != "bob" || line.get("reason") == "" || line.get("level") != "WARN" {
				t.Errorf("log: %v", line)
			}
			if n := g.metric(t, "pgwicket_recheck_failing_sessions"); n != 1 {
				t.Errorf("%v failing sessions, want 1", n)
			}
			send(t, good, []byte("still here"))
			eventually(t, "the other session goes on", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return bytes.Contains(b.rest, []byte("still here"))
			})
		})
	}
	t.Run("network", func(t *testing.T) {
		b := newBackend(t)
		g := newGate(t, b.SocketDir)
		conn := g.session(t, "app")
		g.reload(func(p *proxy.Policy) { p.Networks = networks([]string{"10.0.0.0/8"}, nil) })
		expectFatal(t, conn, "57P01", "terminating connection: no pgwicket allowlist entry for this address")
		_ = conn.Close()
		g.expect(t, "source_not_allowed")
	})
}

// Certificates expire and lists are replaced without a reload: the clock is
// enough.
func TestRecheckAsTimePasses(t *testing.T) {
	b := newBackend(t)
	var expired atomic.Bool
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.RecheckInterval = 5 * time.Millisecond
		p.Verify = verifying(func(tls.ConnectionState, time.Time) error {
			if expired.Load() {
				return &proxy.Refusal{Outcome: outcome.CertExpired, Public: "client certificate expired on 2026-11-23"}
			}
			return nil
		})
	})
	conn := g.session(t, "app")
	g.rechecked(t, g.metric(t, "pgwicket_rechecks_total")+2)
	expired.Store(true)
	expectFatal(t, conn, "57P01", "terminating connection: client certificate expired on 2026-11-23")
	_ = conn.Close()
	g.expect(t, "certificate_expired")
}

// A stale list says nothing against those who came in while it was fresh,
// unless the policy wants it so.
func TestRecheckAndStaleLists(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	conn := g.session(t, "app")
	before := g.metric(t, "pgwicket_rechecks_total")
	g.reload(func(p *proxy.Policy) {
		p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
			return nil, &proxy.Refusal{Outcome: outcome.CRLStale}
		}
	})
	g.rechecked(t, before)
	if n := len(g.Server.Snapshot()); n != 1 {
		t.Fatalf("%d sessions, want 1", n)
	}
	late := g.secure(t)
	send(t, late, startup(protocol3, "user", "late"))
	expectFatal(t, late, "28000", "client certificate could not be checked for revocation")
	_ = late.Close()
	g.expect(t, "crl_stale")
	g.reload(func(p *proxy.Policy) { p.EndOnStaleCRL = true })
	expectFatal(t, conn, "57P01", "terminating connection: client certificate could not be checked for revocation")
	_ = conn.Close()
	g.expect(t, "crl_stale")
}

// Off only counts; idle waits for the end of the transaction, and forgives those
// whom a later policy admits again.
func TestRecheckModes(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir)
	conn := pgxTo(t, g, "app")
	query := func(sql string) error {
		_, err := conn.Exec(context.Background(), sql)
		return err
	}
	shut := func(mode policy.Recheck) func(p *proxy.Policy) {
		return func(p *proxy.Policy) {
			p.Recheck, p.Rules = mode, rules(t, acl.RuleOptions{Action: "reject"})
		}
	}
	reload := func(edit func(*proxy.Policy)) {
		t.Helper()
		before := g.metric(t, "pgwicket_rechecks_total")
		g.reload(edit)
		g.rechecked(t, before)
	}
	reload(shut(policy.Off))
	if n := g.metric(t, "pgwicket_recheck_failing_sessions"); n != 1 {
		t.Errorf("%v failing sessions, want 1", n)
	}
	if err := query("begin"); err != nil {
		t.Fatal(err)
	}
	reload(shut(policy.WhenIdle))
	if err := query("select 1"); err != nil {
		t.Fatalf("in a transaction: %v", err)
	}
	reload(func(p *proxy.Policy) { p.Rules = nil })
	if err := query("commit"); err != nil {
		t.Fatal(err)
	}
	if err := query("begin"); err != nil {
		t.Fatalf("after the termination was cancelled: %v", err)
	}
	reload(shut(policy.WhenIdle))
	if err := query("commit"); err != nil {
		t.Fatalf("the last of the transaction: %v", err)
	}
	var pg *pgconn.PgError
	if err := query("select 1"); !errors.As(err, &pg) && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(fmt.Sprint(err), "closed") {
		t.Errorf("after the transaction: %v", err)
	}
	g.expect(t, "rule_rejected")
}

// A running query of a session that is ended is cancelled: PostgreSQL would
// notice only when it writes, and finish a DELETE before.
func TestRecheckCancelsTheQuery(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir)
	conn := pgxTo(t, g, "app")
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(600)")
		failed <- err
	}()
	running := func() string {
		out, err := db.SQL("select count(*) from pg_stat_activity where application_name = '" + t.Name() + "' and query like '%pg_sleep%'")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	eventually(t, "the query runs", func() bool { return running() == "1" })
	g.reload(func(p *proxy.Policy) { p.Rules = rules(t, acl.RuleOptions{Action: "reject"}) })
	var pg *pgconn.PgError
	if err := <-failed; !errors.As(err, &pg) || pg.Code != "57P01" || !strings.HasPrefix(pg.Message, "terminating connection: pgwicket rejects host") {
		t.Errorf("the client got %v", err)
	}
	eventually(t, "the backend has gone", func() bool { return running() == "0" })
	g.expect(t, "rule_rejected")
}

// A reload that comes between the judgement of a connection and its session
// does not let it slip past.
func TestRecheckOfAStartup(t *testing.T) {
	b := newBackend(t)
	judging, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Verify = verifying(func(tls.ConnectionState, time.Time) error {
			once.Do(func() {
				close(judging)
				<-release
			})
			return nil
		})
	})
	conn := g.secure(t, withCert(testCA().Client("bob")))
	send(t, conn, startup(protocol3, "user", "bob"))
	<-judging // by the first policy, which is about to say yes
	before := g.metric(t, "pgwicket_rechecks_total")
	g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
	g.rechecked(t, before)
	close(release)
	if line := g.expect(t, "certificate_revoked"); line.get("msg") != "connection refused" {
		t.Errorf("log: %v", line)
	}
	if _, err := io.ReadAll(conn); err == nil {
		t.Log("an orderly end, which is fine too")
	}
	if n := len(g.Server.Snapshot()); n != 0 {
		t.Errorf("%d sessions, want none", n)
	}
}

// Only the CancelRequests of our own sessions pass where the policy forbids others.
func TestKnownCancelsOnly(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) { p.KnownCancelsOnly = true })
	conn := pgxTo(t, g, "app")
	pid, key := conn.PgConn().PID(), conn.PgConn().SecretKey()
	cancel := func(key []byte) {
		raw := g.dial(t)
		send(t, raw, cancelRequest(pid, key))
		expectEOF(t, raw)
		_ = raw.Close()
	}
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(600)")
		failed <- err
	}()
	wrong := bytes.Clone(key)
	wrong[0]++
	cancel(wrong)
	g.expect(t, "unknown_key")
	eventually(t, "the query is cancelled", func() bool {
		cancel(key)
		select {
		case err := <-failed:
			var pg *pgconn.PgError
			return errors.As(err, &pg) && pg.Code == "57014"
		default:
			return false
		}
	})
	_ = conn.Close(context.Background())
	eventually(t, "the session is forgotten", func() bool { return g.Server.Sessions() == 0 })
	cancel(key)
	eventually(t, "its key, too", func() bool { return g.metric(t, "pgwicket_cancel_requests_total", "outcome", "unknown_key") == 2 })
}

// teleport#68711, pgx#2489: the key of a session has 4 bytes, up to 256 since
// protocol 3.2, or there is none. The gate needs all of it, to know the requests of
// its own sessions and to stop what a session that it ends is still doing.
func TestCancelKeysOfEveryLength(t *testing.T) {
	for _, length := range []int{0, 4, 32, 256} {
		t.Run(fmt.Sprintf("%d bytes", length), func(t *testing.T) {
			key := bytes.Repeat([]byte{0xfe, 0, 'Z', 0xff}, 64)[:length]
			request := cancelRequest(0xfffffffe, key)
			cancels := make(chan []byte, 64)
			f := rawBackend(t, func(c net.Conn) {
				packet := make([]byte, 1024)
				n, _ := c.Read(packet)
				if bytes.Equal(packet[4:8], request[4:8]) {
					cancels <- packet[:n]
					return
				}
				answer := []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")
				if length > 0 {
					answer = binary.BigEndian.AppendUint32(append(answer, 'K'), uint32(8+length))
					answer = append(answer, request[8:]...)
				}
				_, _ = c.Write(append(answer, "Z\x00\x00\x00\x05I"...))
				_, _ = io.Copy(io.Discard, c)
			})
			g := newGate(t, f.SocketDir, func(p *proxy.Policy) { p.KnownCancelsOnly = true })
			conn := g.session(t, "app")
			g.play(t, scene{"a guess", "unknown_key", do(say(cancelRequest(0xfffffffe, []byte("????"))), eof)})
			want := 0
			if length > 0 {
				g.play(t, scene{"the client's", "forwarded", do(say(request), eof)})
				want = 2
			}
			send(t, conn, []byte("Q\x00\x00\x00\x0dselect 1\x00"))
			eventually(t, "the query is under way", func() bool {
				all := g.Server.Snapshot()
				return len(all) == 1 && all[0].FromClient > 0
			})
			g.reload(func(p *proxy.Policy) { p.Rules = rules(t, acl.RuleOptions{Action: "reject"}) })
			expectFatal(t, conn, "57P01", "pgwicket rejects")
			_ = conn.Close()
			eventually(t, "the session is gone", func() bool { return g.Server.Sessions() == 0 })
			// The statement is cancelled again and again until the backend is gone.
			eventually(t, "the statement is cancelled", func() bool { return len(cancels) >= want })
			if want == 0 && len(cancels) > 0 {
				t.Fatalf("%d requests have reached a backend without a key", len(cancels))
			}
			for range want {
				if got := <-cancels; !bytes.Equal(got, request) {
					t.Errorf("the backend got %q, want %q", got, request)
				}
			}
		})
	}
}

// pgbouncer#1105, ghostunnel#760: policies that change all the time
// while sessions come and go. No session is lost that every policy admits, and
// nobody stays whom the last one does not.
func TestReloadHammer(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	always, sometimes := testCA().Client("always"), testCA().Client("sometimes")
	verify := []func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error){refuses("nobody"), refuses("sometimes")}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	stay := g.session(t, "stay", withCert(always))
	for _, c := range []*tlstest.Pair{always, sometimes} {
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					conn := g.secure(t, withCert(c))
					send(t, conn, startup(protocol3, "user", "app"))
					var head [1]byte
					_, err := io.ReadFull(conn, head[:])
					if c == always && (err != nil || head[0] != 'R') {
						t.Errorf("a session that every policy admits: %q, %v", head, err)
					}
					_ = conn.Close()
				}
			})
		}
	}
	for i := range 200 {
		g.reload(func(p *proxy.Policy) { p.Verify = verify[i%2] })
		time.Sleep(time.Millisecond)
	}
	close(stop)
	clients.Wait()
	kept := g.session(t, "kept", withCert(always))
	g.reload(func(p *proxy.Policy) { p.Verify = verify[0] })
	ended := g.session(t, "ended", withCert(sometimes))
	g.reload(func(p *proxy.Policy) { p.Verify = verify[1] })
	expectFatal(t, ended, "57P01", "terminating connection: client certificate was revoked on 2026-11-23")
	_ = ended.Close()
	eventually(t, "only those are left that the last policy admits", func() bool { return len(g.Server.Snapshot()) == 2 })
	for _, conn := range []*tls.Conn{stay, kept} {
		send(t, conn, []byte("alive"))
	}
	eventually(t, "they go on", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return bytes.Count(b.rest, []byte("alive")) == 2
	})
}
