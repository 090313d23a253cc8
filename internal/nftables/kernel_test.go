//go:build linux

package nftables

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/acl"
	"pgwicket/internal/socket"
	"pgwicket/proxy"
)

// deadline bounds every wait of a test; it only matters for one that fails.
const deadline = time.Minute

// testNetwork is two network namespaces, of a gate and of a client, with a virtual cable between them.
type testNetwork struct {
	t            *testing.T
	gate, client string
	fds          map[string]int
}

func newTestNetwork(t *testing.T) *testNetwork {
	t.Helper()
	needNFT(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip (apt-get install iproute2)")
	}
	id := fmt.Sprintf("pgwf%04x", rand.IntN(1<<16))
	w := &testNetwork{t, id + "-gate", id + "-client", map[string]int{}}
	t.Cleanup(w.remove)
	steps := []string{
		"netns add GATE", "netns add CLIENT",
		"-n GATE link add cable type veth peer name cable netns CLIENT",
		"-n GATE addr add 10.213.0.5/24 dev cable", "-n GATE addr add fd13::5/64 dev cable nodad",
		"-n GATE link set lo up", "-n GATE link set cable up", "-n CLIENT link set cable up",
	}
	for _, a := range []string{"10.213.0.7/24", "10.213.0.8/24", "10.213.0.2/24", "fd13::7/64", "fd13::8/64", "fd13::2/64"} {
		step := "-n CLIENT addr add " + a + " dev cable"
		if strings.Contains(a, ":") {
			step += " nodad"
		}
		steps = append(steps, step)
	}
	for _, step := range steps {
		args := strings.Fields(strings.NewReplacer("GATE", w.gate, "CLIENT", w.client).Replace(step))
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("no network can be made here: ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, name := range []string{w.gate, w.client} {
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.fds[name] = fd
	}
	return w
}

func (w *testNetwork) remove() {
	for name, fd := range w.fds {
		_ = unix.Close(fd)
		delete(w.fds, name)
	}
	for _, name := range []string{w.gate, w.client} {
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
}

// in calls do in a namespace. A socket stays in the namespace of the thread that has made it.
func (w *testNetwork) in(namespace string, do func()) {
	w.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so the thread ends with the goroutine
		err := unix.Setns(w.fds[namespace], unix.CLONE_NEWNET)
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

// listen accepts connections and sends a greeting.
func (w *testNetwork) listen(address string) {
	w.t.Helper()
	w.in(w.gate, func() {
		ln, err := socket.Listen(context.Background(), address, 0)
		if err != nil {
			w.t.Error(err)
			return
		}
		w.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, "hello")
				_ = conn.Close()
			}
		}()
	})
}

// load loads a table in the namespace of the gate.
func (w *testNetwork) load(text string) {
	w.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", w.gate, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("nft: %v: %s", err, out)
	}
}

// try connects from one of the client's addresses, and returns what it has received.
func (w *testNetwork) try(namespace, from, to string, timeout time.Duration) (seen string) {
	w.t.Helper()
	w.in(namespace, func() {
		d := net.Dialer{Timeout: timeout, FallbackDelay: -1}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		conn, err := d.Dial("tcp", to)
		var netErr net.Error
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			seen = "reset"
		case errors.As(err, &netErr) && netErr.Timeout():
			seen = "silence"
		case err != nil:
			seen = err.Error()
		default:
			text, err := io.ReadAll(conn)
			if seen = string(text); err != nil {
				seen = err.Error()
			}
			_ = conn.Close()
		}
	})
	return seen
}

// In the kernel, for both address families: an allowed source connects, another one is reset or gets no answer, for a
// listener on one address and for one on all.
func TestRulesBetweenMachines(t *testing.T) {
	w := newTestNetwork(t)
	listeners := []string{"10.213.0.5:5432", "[fd13::5]:5432", "[::]:5433", "0.0.0.0:5434"}
	for _, l := range append(listeners, "[::]:7000") { // the last is no listener of the gate
		w.listen(l)
	}
	p := &proxy.Policy{
		Networks: networksOf(t, "10.213.0.0/24 fd13::/64", "10.213.0.8 10.213.0.2 fd13::8 fd13::2"),
		Proxies: map[string]*acl.Networks{
			"10.213.0.5:5432": networksOf(t, "10.213.0.2", ""), "[::]:5433": networksOf(t, "fd13::2", ""),
		},
	}
	type attempt struct{ from, to string }
	admitted := map[attempt]bool{
		{"10.213.0.7", "10.213.0.5:5432"}: true, {"10.213.0.8", "10.213.0.5:5432"}: false, {"10.213.0.2", "10.213.0.5:5432"}: true,
		{"fd13::7", "[fd13::5]:5432"}: true, {"fd13::8", "[fd13::5]:5432"}: false, {"fd13::2", "[fd13::5]:5432"}: false,
		{"10.213.0.7", "10.213.0.5:5433"}: true, {"10.213.0.8", "10.213.0.5:5433"}: false, {"10.213.0.2", "10.213.0.5:5433"}: false,
		{"fd13::7", "[fd13::5]:5433"}: true, {"fd13::8", "[fd13::5]:5433"}: false, {"fd13::2", "[fd13::5]:5433"}: true,
		{"10.213.0.7", "10.213.0.5:5434"}: true, {"10.213.0.8", "10.213.0.5:5434"}: false,
		{"10.213.0.8", "10.213.0.5:7000"}: true, {"fd13::8", "[fd13::5]:7000"}: true,
	}
	for a := range admitted {
		if got := w.try(w.client, a.from, a.to, deadline); got != "hello" {
			t.Fatalf("%s to %s without rules: %s", a.from, a.to, got)
		}
	}
	for action, refusal := range map[string]string{Reject: "reset", Drop: "silence"} {
		w.load(Rules(p, listeners, action))
		for a, in := range admitted {
			want, timeout := refusal, deadline
			if in {
				want = "hello"
			} else if action == Drop {
				timeout = 500 * time.Millisecond // no answer comes
			}
			if got := w.try(w.client, a.from, a.to, timeout); got != want {
				t.Errorf("%s: %s to %s: %s, want %s", action, a.from, a.to, got, want)
			}
		}
		// The machine itself, as the watchdog of systemd needs it.
		for _, to := range []string{"10.213.0.5:5432", "[fd13::5]:5432", "127.0.0.1:5434", "[::1]:5433"} {
			if got := w.try(w.gate, "", to, deadline); got != "hello" {
				t.Errorf("%s: from the gate's machine to %s: %s", action, to, got)
			}
		}
	}
}

// Loading a list that no longer allows the source of an open session ends it.
func TestChangedListEndsSession(t *testing.T) {
	w := newTestNetwork(t)
	const address = "10.213.0.5:5432"
	var ln net.Listener
	w.in(w.gate, func() { ln, _ = net.Listen("tcp", address) })
	if ln == nil {
		t.Fatal("cannot listen")
	}
	defer ln.Close()
	w.load(Rules(&proxy.Policy{Networks: networksOf(t, "10.213.0.0/24", "")}, []string{address}, Reject))
	var conn net.Conn
	var err error
	w.in(w.client, func() {
		conn, err = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("10.213.0.7")}, Timeout: deadline}).Dial("tcp", address)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(deadline))
	w.load(Rules(&proxy.Policy{Networks: networksOf(t, "10.213.0.0/24", "10.213.0.7")}, []string{address}, Reject))
	if _, err = conn.Write([]byte("x")); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("the session ends with %v", err)
	}
}
