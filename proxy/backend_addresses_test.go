package proxy_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/proxy"
)

// named is a host by a name that stands for these addresses.
func named(port string, addresses ...string) proxy.Host {
	return proxy.Host{
		Network: "tcp", Address: net.JoinHostPort("db.example", port),
		Lookup: func(_ context.Context, name string) (all []netip.Addr, err error) {
			if name != "db.example" {
				return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
			}
			for _, a := range addresses {
				all = append(all, netip.MustParseAddr(a))
			}
			return all, nil
		},
	}
}

// at serves every connection to an address of the loopback network with script, and counts them.
func at(t *testing.T, address string, script func(net.Conn)) *atomic.Int64 {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err) // systems other than Linux have one loopback address
	}
	t.Cleanup(func() { _ = ln.Close() })
	met := new(atomic.Int64)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			met.Add(1)
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				script(conn)
			}()
		}
	}()
	return met
}

// A name whose first addresses are dead used up connect_timeout with the first one, and
// clients got 57P03 (pgbackrest#2175, pgbackrest#2235, node-postgres#1733). Each address
// has the time for itself, as with libpq, and a dead one goes last from then on.
func TestEveryAddressOfAName(t *testing.T) {
	t.Parallel()
	db := tlsPostgres(t)
	_, port, err := net.SplitHostPort(over(db, nil).Address)
	if err != nil {
		t.Fatal(err)
	}
	silence := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	dead := []*atomic.Int64{at(t, "127.0.0.2:"+port, silence), at(t, "127.0.0.3:"+port, silence)}
	host := named(port, "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1") // nobody listens on the third
	host.TLS = asked("localhost")
	g := newGate(t, db.SocketDir, to(&proxy.Backend{Hosts: []proxy.Host{host}, ConnectTimeout: 500 * time.Millisecond}))
	expectDead := func(when string) {
		t.Helper()
		if n := []int64{dead[0].Load(), dead[1].Load()}; !slices.Equal(n, []int64{1, 1}) {
			t.Errorf("%s the dead addresses were tried %v times, want once each", when, n)
		}
	}
	if got := query[string](t, pgxTo(t, g, "app"), inTLS); got != "TLSv1.3" {
		t.Errorf("the session's TLS is %q", got)
	}
	expectDead("for the first session")
	conn := pgxTo(t, g, "app")
	expectDead("after the second session")

	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(600)")
		failed <- err
	}()
	eventually(t, "the query runs", func() bool {
		out, err := db.SQL("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
		return err == nil && strings.TrimSpace(out) == "1"
	})
	if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("the query ended with %v", err)
	}
	expectDead("after a cancel request, which goes to the address of its session,")
	if n := g.metric(t, "pgwicket_backend_connects_total", "address", host.Address, "result", "failure"); n != 3 {
		t.Errorf("%v failures are counted, want one for each dead address", n)
	}
}

// Only PostgreSQL knows the keys of another gate's sessions, so every address of a name
// hears of such a cancel request.
func TestCancelOfAnotherGateGoesToEveryAddress(t *testing.T) {
	t.Parallel()
	var heard atomic.Int64
	listen := func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, 16)); err == nil {
			heard.Add(1)
		}
	}
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	at(t, "127.0.0.1:"+port, listen)
	at(t, "127.0.0.2:"+port, listen)
	g := newGate(t, t.TempDir(), to(backendOf(named(port, "127.0.0.1", "127.0.0.2"))))
	stray := g.dial(t)
	send(t, stray, cancelRequest(4711, []byte("????")))
	expectEOF(t, stray)
	g.expect(t, "forwarded")
	if n := heard.Load(); n != 2 {
		t.Errorf("%d of 2 addresses have heard of it", n)
	}
}

// A name that nobody knows is a failure of its host, and the log has it.
func TestNameThatCannotBeResolved(t *testing.T) {
	t.Parallel()
	host := named("5432")
	host.Address = "other.example:5432"
	g := newGate(t, t.TempDir(), to(backendOf(host)))
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	expectFatal(t, conn, "57P03", "cannot be reached")
	if line := g.expect(t, "backend_unavailable"); !strings.Contains(line.get("reason"), "other.example") {
		t.Errorf("the log says %q", line.get("reason"))
	}
	if n := g.metric(t, "pgwicket_backend_connects_total", "address", host.Address, "result", "failure"); n != 1 {
		t.Errorf("%v failures are counted, want 1", n)
	}
}
