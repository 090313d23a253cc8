//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
	"pgwicket/test/wire"
)

// testNetwork is a network of three: this machine, a router and a far end, the last
// two in network namespaces. The router can drop everything. A link that is taken down
// here would be known to our kernel, which then counts retransmissions differently.
type testNetwork struct {
	router, end string // namespaces
	near        string // our link to the router
	here, there string // the two addresses
	fd          int    // of the far end's namespace
}

// newTestNetwork makes one. It fails with errSkipped where that is not possible.
func newTestNetwork(ctx context.Context) (c *testNetwork, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: only root can make a network to cut", errSkipped)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("%w: the program ip is missing (\"apt-get install iproute2\" on Debian)", errSkipped)
	}
	id := fmt.Sprintf("pgw%04x", rand.IntN(1<<16))      //nolint:gosec // no secret
	subnet := fmt.Sprintf("10.213.%d.", rand.IntN(256)) //nolint:gosec // likewise
	c = &testNetwork{router: id + "-router", end: id + "-end", near: id, here: subnet + "1", there: subnet + "6", fd: -1}
	for _, args := range []string{
		"netns add " + c.router,
		"netns add " + c.end,
		"link add " + c.near + " type veth peer name west netns " + c.router,
		"-n " + c.router + " link add east type veth peer name outside netns " + c.end,
		"addr add " + c.here + "/30 dev " + c.near,
		"link set " + c.near + " up",
		"-n " + c.router + " addr add " + subnet + "2/30 dev west",
		"-n " + c.router + " addr add " + subnet + "5/30 dev east",
		"-n " + c.router + " link set west up",
		"-n " + c.router + " link set east up",
		"-n " + c.end + " addr add " + c.there + "/30 dev outside",
		"-n " + c.end + " link set outside up",
		"-n " + c.end + " route add default via " + subnet + "5",
		"route add " + c.there + "/32 via " + subnet + "2",
		"netns exec " + c.router + " sysctl -qw net.ipv4.ip_forward=1",
	} {
		if err := c.ip(ctx, args); err != nil {
			c.remove()
			return nil, fmt.Errorf("%w: no network can be made here: %w", errSkipped, err)
		}
	}
	if c.fd, err = unix.Open("/run/netns/"+c.end, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		c.remove()
		return nil, err
	}
	return c, nil
}

func (c *testNetwork) ip(ctx context.Context, args string) error {
	return harness.Complete(ctx, os.Environ(), append([]string{"ip"}, strings.Fields(args)...)...)
}

// cut has the router drop what is sent, in both directions, without an error.
func (c *testNetwork) cut(ctx context.Context) error     { return c.route(ctx, "add") }
func (c *testNetwork) restore(ctx context.Context) error { return c.route(ctx, "del") }

func (c *testNetwork) route(ctx context.Context, verb string) error {
	const blackhole = "-n %s route %s blackhole %s/32"
	return errors.Join(c.ip(ctx, fmt.Sprintf(blackhole, c.router, verb, c.here)), c.ip(ctx, fmt.Sprintf(blackhole, c.router, verb, c.there)))
}

func (c *testNetwork) remove() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
	ctx := context.Background() // also after Ctrl-C
	_ = c.ip(ctx, "link del "+c.near)
	_ = c.ip(ctx, "netns del "+c.router)
	_ = c.ip(ctx, "netns del "+c.end)
}

// dial connects from the far end. A socket belongs to the one that its thread
// is in when it is made.
func (c *testNetwork) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so the thread ends with the goroutine
		if err = unix.Setns(c.fd, unix.CLONE_NEWNET); err == nil {
			conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}

// A network that drops everything. A cut that is shorter than
// limits.tcp_user_timeout must lose no byte; a longer one must end the sessions,
// with their backends.
func networkCut(ctx context.Context, t *trial) (string, error) {
	c, err := newTestNetwork(ctx)
	if err != nil {
		return "", err
	}
	t.after = append(t.after, c.remove)
	timeout := pick(t, 8*time.Second, 10*time.Second)
	s, err := t.open(ctx, setting{listen: net.JoinHostPort(c.here, "25432"), keys: map[string]string{
		"limits.tcp_user_timeout": timeout.String(), "acl.allow": "[10.213.0.0/16]",
	}})
	if err != nil {
		return "", err
	}
	n := pick(t, 2, 8)
	idle, err := s.dialFrom(ctx, c, n)
	if err != nil {
		return "", err
	}
	short := timeout / 4
	if err := s.shortCut(ctx, c, idle, short); err != nil {
		return "", fmt.Errorf("a cut of %v: %w", short, err)
	}
	began := time.Now()
	took, err := s.longCut(ctx, c, n, timeout)
	if err != nil {
		return "", err
	}
	if slack := pick(t, gate.Timeout, 15*time.Second); took > timeout+slack {
		return "", fmt.Errorf("sessions with data under way were ended %v after the cut, tcp_user_timeout is %v", took, timeout)
	}
	done := fmt.Sprintf("a router drops everything. For %v: %d idle and %d busy sessions lost no byte. For good: busy ones and their backends were gone after %.1f× limits.tcp_user_timeout (%v)",
		short, n, n, took.Seconds()/timeout.Seconds(), timeout)
	if t.quick {
		// Idle ones wait for keepalive, which begins after a minute.
		if err := c.restore(ctx); err != nil {
			return "", err
		}
		for _, r := range idle {
			r.Reset()
		}
		_, err = s.released(ctx)
		return done, err
	}
	err = gate.Eventually(ctx, "idle sessions are ended", 3*time.Minute, func() error { return s.backendsAre(observerCount) })
	if err != nil {
		return "", err
	}
	return done + fmt.Sprintf(", idle ones, by keepalive, within %.0f minutes", math.Ceil(max(time.Since(began).Minutes(), 2))), nil
}

// shortCut cuts the network for a time in which no session may be lost: the idle
// ones, and as many that read without end.
func (s *scene) shortCut(ctx context.Context, c *testNetwork, idle []*wire.Conn, d time.Duration) error {
	busy, ended, err := s.streams(ctx, c, len(idle))
	if err != nil {
		return err
	}
	if err := c.cut(ctx); err != nil {
		return err
	}
	time.Sleep(d) // the length of the cut
	if err := c.restore(ctx); err != nil {
		return err
	}
	for _, r := range idle {
		if err := r.Exchange(wire.Query("select 1")); err != nil {
			return fmt.Errorf("an idle session: %w", err)
		}
	}
	for _, r := range busy {
		if err := r.awaitRows(ctx, ended, 1); err != nil {
			return fmt.Errorf("a busy session: %w", err)
		}
	}
	for _, r := range busy {
		r.Reset()
	}
	return s.holds(ctx, observerCount+len(idle))
}

// longCut cuts the network for good, and returns how long sessions with data under
// way have lived on.
func (s *scene) longCut(ctx context.Context, c *testNetwork, n int, timeout time.Duration) (time.Duration, error) {
	if _, _, err := s.streams(ctx, c, n); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.cut(ctx); err != nil {
		return 0, err
	}
	if err := s.holds(ctx, observerCount+n); err != nil {
		return 0, fmt.Errorf("sessions with data under way, %v after the cut with tcp_user_timeout %v: %w", time.Since(began), timeout, err)
	}
	return time.Since(began), nil
}

// dialFrom opens sessions from the far end.
func (s *scene) dialFrom(ctx context.Context, c *testNetwork, n int) (all []*wire.Conn, err error) {
	for range n {
		conn, err := c.dial(ctx, "tcp", s.Address)
		if err != nil {
			return nil, err
		}
		_ = conn.SetDeadline(time.Now().Add(4 * gate.Timeout))
		r := wire.New(conn)
		if err := logIn(ctx, r, s.lab.tlsConfig(s.lab.client)); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// stream is a session that reads a result without end and checks every row.
type stream struct {
	*wire.Conn
	rows atomic.Int64
}

// streams opens sessions from the far end that read without end, and returns when
// all of them have data under way. How each ends is sent to the channel.
func (s *scene) streams(ctx context.Context, c *testNetwork, n int) (all []*stream, ended chan error, err error) {
	conns, err := s.dialFrom(ctx, c, n)
	if err != nil {
		return nil, nil, err
	}
	ended = make(chan error, n)
	for _, conn := range conns {
		_ = conn.TCP.SetReadBuffer(64 << 10) // so that data are always under way
		r := &stream{Conn: conn}
		all = append(all, r)
		go func() { ended <- r.run() }()
	}
	for _, r := range all {
		if err := r.awaitRows(ctx, ended, 100); err != nil {
			return nil, nil, err
		}
	}
	return all, ended, nil
}

// run returns when the session ends.
func (r *stream) run() error {
	if err := r.Send(wire.Query(digests(1<<30, 32))); err != nil {
		return err
	}
	for i := 1; ; i++ {
		if err := readRows(r.Conn, i, 1); err != nil {
			return fmt.Errorf("the stream has ended: %w", err)
		}
		r.rows.Add(1)
	}
}

// awaitRows waits until n more rows have come. It fails if any stream has ended.
func (r *stream) awaitRows(ctx context.Context, ended <-chan error, n int64) error {
	want := r.rows.Load() + n
	return gate.Eventually(ctx, "the stream goes on", gate.Timeout, func() error {
		select {
		case err := <-ended:
			return gate.Never(err)
		default:
		}
		if got := r.rows.Load(); got < want {
			return fmt.Errorf("%d rows to go", want-got)
		}
		return nil
	})
}
