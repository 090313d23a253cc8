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
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
	"pgwicket/test/wire"
)

// cable is a network of three: this machine, a router and a far end, the last
// two in network namespaces. The router can swallow everything: a link that was
// taken down here would be known to our kernel, which then counts differently.
type cable struct {
	router, end string // namespaces
	near        string // our link to the router
	here, there string // the two addresses
	fd          int    // of the far end's namespace
}

// layCable makes one. It fails with errSkipped where that cannot be.
func layCable(ctx context.Context) (c *cable, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: only root can make a network to cut", errSkipped)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("%w: the program ip is missing (\"apt-get install iproute2\" on Debian)", errSkipped)
	}
	id := fmt.Sprintf("pgw%04x", rand.IntN(1<<16))      //nolint:gosec // no secret
	subnet := fmt.Sprintf("10.213.%d.", rand.IntN(256)) //nolint:gosec // likewise
	c = &cable{router: id + "-router", end: id + "-end", near: id, here: subnet + "1", there: subnet + "6", fd: -1}
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

func (c *cable) ip(ctx context.Context, args string) error {
	return harness.Complete(ctx, os.Environ(), append([]string{"ip"}, strings.Fields(args)...)...)
}

// cut has the router lose what is sent, in both directions, and tell nobody.
func (c *cable) cut(ctx context.Context) error  { return c.route(ctx, "add") }
func (c *cable) mend(ctx context.Context) error { return c.route(ctx, "del") }

func (c *cable) route(ctx context.Context, verb string) error {
	const blackhole = "-n %s route %s blackhole %s/32"
	return errors.Join(c.ip(ctx, fmt.Sprintf(blackhole, c.router, verb, c.here)), c.ip(ctx, fmt.Sprintf(blackhole, c.router, verb, c.there)))
}

func (c *cable) remove() {
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
func (c *cable) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
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

// A network that swallows everything. What is shorter than
// limits.tcp_user_timeout costs nobody a byte; what is longer ends the sessions,
// with their backends.
func networkCut(ctx context.Context, t *trial) (string, error) {
	c, err := layCable(ctx)
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
	idle, err := s.from(ctx, c, n)
	if err != nil {
		return "", err
	}
	busy, streams, err := s.streams(ctx, c, n)
	if err != nil {
		return "", err
	}

	// A short one.
	short := timeout / 4
	if err := c.cut(ctx); err != nil {
		return "", err
	}
	time.Sleep(short)
	if err := c.mend(ctx); err != nil {
		return "", err
	}
	for _, r := range idle {
		if err := r.Exchange(wire.Query("select 1")); err != nil {
			return "", fmt.Errorf("an idle session after a cut of %v: %w", short, err)
		}
	}
	time.Sleep(time.Second)
	select {
	case err := <-streams:
		return "", fmt.Errorf("a busy session after a cut of %v: %w", short, err)
	default:
	}
	for _, r := range busy {
		r.Reset()
	}
	if err := s.holds(ctx, observerCount+n); err != nil {
		return "", err
	}

	// One for good.
	if _, _, err := s.streams(ctx, c, n); err != nil {
		return "", err
	}
	began := time.Now()
	if err := c.cut(ctx); err != nil {
		return "", err
	}
	if err := s.holds(ctx, observerCount+n); err != nil {
		return "", fmt.Errorf("sessions with data under way, %v after the cut with tcp_user_timeout %v: %w", time.Since(began), timeout, err)
	}
	took := time.Since(began)
	if slack := pick(t, gate.Timeout, 15*time.Second); took > timeout+slack {
		return "", fmt.Errorf("sessions with data under way were ended %v after the cut, tcp_user_timeout is %v", took, timeout)
	}
	done := fmt.Sprintf("a router drops everything. For %v: %d idle and %d busy sessions lost no byte. For good: busy ones and their backends were gone after %.1f× limits.tcp_user_timeout (%v)",
		short, n, n, took.Seconds()/timeout.Seconds(), timeout)
	if t.quick {
		// Idle ones wait for keepalive, which begins after a minute.
		if err := c.mend(ctx); err != nil {
			return "", err
		}
		for _, r := range idle {
			r.Reset()
		}
		_, err = s.released(ctx)
		return done, err
	}
	if err := gate.Eventually(ctx, "idle sessions are ended", 3*time.Minute, func() error {
		got, err := s.lab.backends()
		if err == nil && got != observerCount {
			err = fmt.Errorf("%d backends are left", got-observerCount)
		}
		return err
	}); err != nil {
		return "", err
	}
	return done + fmt.Sprintf(", idle ones, by keepalive, within %.0f minutes", math.Ceil(max(time.Since(began).Minutes(), 2))), nil
}

// from opens sessions from the far end.
func (s *scene) from(ctx context.Context, c *cable, n int) (all []*wire.Conn, err error) {
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

// streams opens sessions from the far end that read without end, and says how
// each ends.
func (s *scene) streams(ctx context.Context, c *cable, n int) (all []*wire.Conn, ended chan error, err error) {
	if all, err = s.from(ctx, c, n); err != nil {
		return nil, nil, err
	}
	ended = make(chan error, n)
	for _, r := range all {
		_ = r.TCP.SetReadBuffer(64 << 10) // what is under way is not all of it
		go func() { ended <- stream(r) }()
	}
	// All of them have their data under way by then, or soon.
	time.Sleep(time.Second)
	return all, ended, nil
}

// stream asks for a result without end and checks every row. It returns when the
// session does.
func stream(r *wire.Conn) error {
	const forever = 1 << 30
	if err := r.Send(wire.Query(digests(forever, 32))); err != nil {
		return err
	}
	err := readRows(r, 1, forever)
	return errors.Join(errors.New("the stream has ended"), err)
}
