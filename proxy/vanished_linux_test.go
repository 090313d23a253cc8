package proxy_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/socket"
)

// impatient finds out sooner than Listen's connections do that a client which
// idles has vanished.
type impatient struct{ *net.TCPListener }

func (l impatient) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return conn, conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1})
}

// pull pulls the client's cable: its kernel throws away whatever comes, and neither
// acknowledges nor resets it.
func pull(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}} // of each packet
	program := &unix.SockFprog{Len: 1, Filter: &nothing[0]}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program)
	}); e != nil || err != nil {
		t.Skip("the kernel takes no filter: ", e, err)
	}
}

// stolon#323, kviklet#537, proxysql#6129, alloydb-auth-proxy#282,
// pg_auto_failover#1180: the client is gone without a word, as when a cable is
// pulled. Its backend session goes as soon as the kernel has found out: from what
// it cannot deliver (TCP_USER_TIMEOUT), or by asking (keepalive).
func TestVanishedClient(t *testing.T) {
	s := realPostgres(t)
	watch := control(t, s)
	listen := func(timeout time.Duration) net.Listener {
		ln, err := socket.Listen(t.Context(), "127.0.0.1:0", timeout)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	for _, c := range []struct {
		name string
		ln   net.Listener
		sql  string
	}{
		{"while a result is on its way", listen(time.Second), "Q\x00\x00\x00\x40select repeat('x', 1000) from generate_series(1, 10000000) \x00"},
		{"while it idles", impatient{listen(0).(*net.TCPListener)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(t, s.SocketDir)
			g.Addr = c.ln.Addr().String()
			go func() { _ = g.Server.Serve(c.ln) }() // until gate.stop
			conn := session(t, g)
			if c.sql != "" {
				send(t, conn, []byte(c.sql))
				if kind, body := readMessage(t, conn); kind != 'T' {
					t.Fatalf("got %q %q, want the beginning of a result", kind, body)
				}
			}
			there := func() int {
				return query[int](t, watch, "select count(*) from pg_stat_activity where application_name = $1", t.Name())
			}
			if n := there(); n != 1 {
				t.Fatalf("%d backend sessions, want 1", n)
			}
			pull(t, tcpOf(conn))
			eventually(t, "the backend session is gone", func() bool { return there() == 0 })
			g.expect(t, "client_lost")
		})
	}
}
