package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// passed are the sockets that the service manager has opened for this process,
// by their addresses. Those that nobody takes are a mistake.
type passed map[string]*os.File

// passedSockets must come before any other program is started, which would
// inherit them.
func passedSockets() (passed, error) {
	p := make(passed)
	for _, f := range activation.Files(true) {
		address, err := addressOf(f)
		if err == nil && p[address] != nil {
			err = fmt.Errorf("%s is there twice", address)
		}
		if err != nil {
			return nil, fmt.Errorf("socket %s, passed by the service manager: %w", f.Name(), err)
		}
		p[address] = f
	}
	return p, nil
}

func addressOf(f *os.File) (string, error) {
	ln, err := net.FileListener(f) // a copy
	if err != nil {
		return "", err
	}
	defer ln.Close()
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("%s %s is not of TCP", ln.Addr().Network(), ln.Addr())
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String(), nil
}

// unused names the sockets whose addresses are not among these.
func (p passed) unused(addresses []string) error {
	var left []string
	for address, f := range p {
		if !slices.Contains(addresses, address) {
			left = append(left, fmt.Sprintf("%s (%s)", address, f.Name()))
		}
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("the service manager has passed sockets that listen does not name: %s; it names %s, and ListenStream= of the socket unit must agree with it",
		strings.Join(left, ", "), strings.Join(addresses, ", "))
}

const (
	// How often the status may change without anybody having asked.
	statusEvery = 10 * time.Second
	// The least time that the accept loops get for their proof.
	leastProof = 500 * time.Millisecond
)

// manager tells the service manager how the gate is. Without one, it does
// nothing. Only one goroutine talks to it: a manager that does not listen must
// not hold up the gate.
type manager struct {
	log      *slog.Logger
	messages chan string
	done     chan struct{}
	status   string // the last one
}

// newManager begins to talk to the manager, if there is one, until close.
func newManager(log *slog.Logger) *manager {
	m := &manager{log: log}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return m
	}
	const most = 64 // far more than are ever under way
	m.messages, m.done = make(chan string, most), make(chan struct{})
	go func() {
		defer close(m.done)
		for text := range m.messages {
			if _, err := daemon.SdNotify(false, text); err != nil {
				m.log.Warn("the service manager cannot be told", "error", err)
			}
		}
	}()
	return m
}

func (m *manager) close() {
	if m.messages == nil {
		return
	}
	close(m.messages)
	select {
	case <-m.done:
	case <-time.After(time.Second): // it does not listen
	}
}

func (m *manager) tell(lines ...string) {
	if m.messages == nil {
		return
	}
	select {
	case m.messages <- strings.Join(lines, "\n"):
	default:
		m.log.Warn("the service manager does not listen")
	}
}

// say tells the status if it is not what it was, and with it what has happened.
func (m *manager) say(status string, happened ...string) {
	if status != m.status {
		m.status = status
		happened = append(happened, "STATUS="+status)
	}
	if len(happened) > 0 {
		m.tell(happened...)
	}
}

// proof says that something works, or why it does not, before its context ends.
type proof func(context.Context) error

// watchdog tells the manager, twice in the time that it gives, that the gate is
// alive, as long as that can be proved. It returns at once; stop ends it.
func (m *manager) watchdog(alive proof) (stop func()) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("no watchdog", "error", err)
	}
	if m.messages == nil || within <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.prove(ctx, within/2, alive)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (m *manager) prove(ctx context.Context, every time.Duration, alive proof) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, max(every, leastProof))
		err := alive(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.log.Error("not alive; the service manager will end the gate unless this passes", "error", err)
		default:
			m.tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// status is what the manager shows of the gate.
func (g *gate) status() string {
	connections := plural(g.server.Sessions(), "connection")
	if g.stopping.Load() {
		return "shutting down, " + connections + " left"
	}
	return connections + "; " + g.outcome
}

// beginReload says that a reload is under way, until the returned function is
// called.
func (g *gate) beginReload() (end func()) {
	g.manager.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func() { g.manager.say(g.status(), daemon.SdNotifyReady) }
}

// beginShutdown says that the gate is going, and how long that may take: the
// manager's own limit need not be kept in step with the configuration.
func (g *gate) beginShutdown() {
	g.stopping.Store(true)
	const more = 10 * time.Second // than the drain: for what comes after it
	g.manager.say(g.status(), daemon.SdNotifyStopping,
		fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (g.started.DrainDelay+g.started.DrainTimeout+more).Microseconds()))
}

// reusePortMigrates says whether connections that a closing listener has not yet
// accepted go to another one on the same address. Where that cannot be read, a
// sandbox or another system, it is not worth a warning.
func reusePortMigrates() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}
