package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/proxy"
)

// simpleQuery is a Query message.
func simpleQuery(sql string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	return append(append(b, sql...), 0)
}

// From the decision on, a revoked client does nothing more: what it has pipelined,
// or still sends, is not executed, its statement is cancelled at once, and its
// backend is gone within a second. It does not matter whether it reads or closes.
func TestRevokedClientDoesNothingMore(t *testing.T) {
	db := realPostgres(t)
	watch := control(t, db)
	for name, c := range map[string]struct{ reads, closes bool }{
		"reading":             {true, false},
		"not reading":         {false, false},
		"reading and closing": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, db.SocketDir)
			table := fmt.Sprintf("revoked_%d", time.Now().UnixNano())
			for _, sql := range []string{"create table %s (n int)", "grant all on %s to public"} {
				if _, err := watch.Exec(t.Context(), fmt.Sprintf(sql, table)); err != nil {
					t.Fatal(err)
				}
			}
			bob := g.secure(t, withCert(g.CA.Client("bob")))
			send(t, bob, startup(protocol3, "user", "app", "database", "postgres", "application_name", t.Name()))
			readReady(t, bob)
			// One statement is as long as many; more follow in the same segment.
			for i := range 200 {
				send(t, bob, simpleQuery(fmt.Sprintf("insert into %s select %d from pg_sleep(0.02)", table, i)))
			}
			rows := func() int { return query[int](t, watch, "select count(*) from "+table) }
			eventually(t, "some statements are done", func() bool { return rows() >= 3 })
			read := make(chan []byte, 1)
			if c.reads {
				go func() {
					all, _ := io.ReadAll(bob)
					read <- all
				}()
			}
			g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
			decided := time.Now()
			if c.closes {
				_ = bob.NetConn().(*net.TCPConn).Close()
			}
			gone := func() bool {
				return query[int](t, watch, "select count(*) from pg_stat_activity where application_name = $1 and pid <> pg_backend_pid()", t.Name()) == 0
			}
			eventually(t, "the backend is gone", gone)
			took := time.Since(decided)
			after := rows()
			if took > 5*time.Second {
				t.Errorf("its backend was gone after %v", took)
			}
			if after > 150 {
				t.Errorf("%d of 200 statements were executed", after)
			}
			t.Logf("gone after %v, %d statements", took, after)
			if c.reads && !c.closes {
				select {
				case all := <-read:
					if !bytes.Contains(all, []byte("terminating connection: client certificate was revoked")) {
						t.Error("the client was not told why")
					}
				case <-time.After(patience):
					t.Error("the client's connection is still open")
				}
			}
			if c.closes { // it may be faster than the decision
				g.outcome(t)
			} else {
				g.expect(t, "certificate_revoked")
			}
		})
	}
}

// A statement that sends nothing and would run for long is cancelled, although its
// client keeps the connection.
func TestRevokedClientsStatementIsCancelled(t *testing.T) {
	db := realPostgres(t)
	watch := control(t, db)
	g := newGate(t, db.SocketDir)
	bob := g.secure(t, withCert(g.CA.Client("bob")))
	send(t, bob, startup(protocol3, "user", "app", "database", "postgres", "application_name", t.Name()))
	readReady(t, bob)
	send(t, bob, simpleQuery("select pg_sleep(600)"))
	eventually(t, "it sleeps", func() bool { return backends(t, watch, true) == 1 })
	g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
	decided := time.Now()
	eventually(t, "the statement has ended", func() bool { return backends(t, watch, true) == 0 })
	if took := time.Since(decided); took > 5*time.Second {
		t.Errorf("the statement ended after %v", took)
	} else {
		t.Logf("the statement ended after %v", took)
	}
	eventually(t, "the backend is gone", func() bool { return backends(t, watch, false) == 0 })
	g.expect(t, "certificate_revoked")
}

// The budget of memory: whatever an unproved client has sent, once it has been
// judged little of it is held.
func TestRefusedCertificatesAreNotKept(t *testing.T) {
	const clients, bound = 50, 96 << 10
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.StartupTimeout = patience
		p.Limits.HandshakeBytes = 32 << 10
		p.Verify = verifying(func(tls.ConnectionState, time.Time) error { return &proxy.Refusal{Outcome: outcome.CertUnknownCA} })
	})
	junk := g.CA.Client("junk").TLS()
	for i := 0; len(junk.Certificate) < 40; i++ {
		junk.Certificate = append(junk.Certificate, g.CA.Client(fmt.Sprintf("junk %d", i)).TLS().Certificate[0])
	}
	chain := func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &junk, nil }
	}
	before := heap()
	for range clients {
		_ = g.secure(t, chain) // and no startup packet
	}
	eventually(t, "all are judged", func() bool { return g.Server.Usage().Startups == clients })
	// The clients live in this process, too: their own half is measured apart.
	held := (heap() - before) / clients
	t.Logf("%d bytes a connection, both ends", held)
	if held > 2*bound {
		t.Errorf("%d bytes a connection are held, both ends, want %d at most", held, 2*bound)
	}
}
