//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/budget"
	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// hourMemory is what the gate's control group has.
const hourMemory = 256 << 20

// memoryGroup is a control group of its own with a limit of memory.
type memoryGroup struct {
	dir  string
	peak string // the file that has the most memory that was used
}

// newMemoryGroup makes one, or says with errSkipped why it cannot.
func newMemoryGroup(limit int64) (*memoryGroup, error) {
	name := fmt.Sprintf("pgwicket-siege-%d", os.Getpid())
	g, limitFile := &memoryGroup{filepath.Join("/sys/fs/cgroup/memory", name), "memory.max_usage_in_bytes"}, "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		g, limitFile = &memoryGroup{filepath.Join("/sys/fs/cgroup", name), "memory.peak"}, "memory.max"
	}
	err := os.Mkdir(g.dir, 0o750)
	if err == nil {
		err = os.WriteFile(filepath.Join(g.dir, limitFile), []byte(strconv.FormatInt(limit, 10)), 0o600)
	}
	if err != nil {
		_ = os.Remove(g.dir)
		return nil, fmt.Errorf("%w: it needs a control group for memory, as root: %w", errSkipped, err)
	}
	return g, nil
}

// enter is the command that enters the group and becomes the gate.
func (g *memoryGroup) enter() []string {
	return []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, g.dir}
}

func (g *memoryGroup) used() (int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.peak))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// remove must be called when the gate has exited.
func (g *memoryGroup) remove() { _ = os.Remove(g.dir) }

// assault is a kind of hostile connection, how many there are a second, and how long
// each is held.
type assault struct {
	kind hostile
	rate int
	hold time.Duration
}

func (t *trial) assaults(config map[string]string) ([]assault, error) {
	chain, err := exploding()
	if err != nil {
		return nil, err
	}
	config["tls.ca_file"], err = t.manyCAs()
	if err != nil {
		return nil, err
	}
	hello, err := recordHello(t.tlsConfig(credentials{}))
	if err != nil {
		return nil, err
	}
	all := []assault{
		{showing("250 KiB", junk(250<<10, nil)), 10, 5 * time.Second},
		{halfOpen, 100, 8 * time.Second},
		{deafHello(hello), 5, 8 * time.Second},
		{chain, 2, time.Second},
		{updating(), 2, time.Second},
		{strangeCancel, 20, 0},
		{passwordGuess, 5, 0},
	}
	for _, kind := range growing() {
		all = append(all, assault{kind, 5, 8 * time.Second})
	}
	return all, nil
}

var strangeCancel = hostile{name: "a CancelRequest with a key that nobody has", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
	c, err := g.openFrom(ctx, i)
	if err != nil {
		return nil, err
	}
	return c, ignoreCut(c.Send(wire.Cancel([]byte{0, 0, byte(i >> 8), byte(i), 1, 2, 3, 4})))
}}

var passwordGuess = hostile{name: "a guess of a password", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
	_ = g.dialAs(ctx, g.lab.client, fmt.Sprint("guess ", i))
	return nil, nil
}}

// launch opens the connections of an assault until ctx ends, and waits.
func (g *target) launch(ctx context.Context, a assault, count func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(time.Second / time.Duration(a.rate))
	defer tick.Stop()
	held := make(chan struct{}, a.rate*12)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case held <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-held }()
			c, _ := a.kind.open(ctx, g, i)
			count()
			select {
			case <-ctx.Done():
			case <-time.After(a.hold):
			}
			closeAll([]*wire.Conn{c})
		})
	}
}

// All hostile kinds at once, from 20 addresses, in 256 MiB of memory, beside sessions
// whose every answer is checked and honest clients that come all the time.
func hostileHour(ctx context.Context, t *trial) (string, error) {
	if _, err := raiseDescriptors(); err != nil {
		return "", err
	}
	group, err := newMemoryGroup(hourMemory)
	if err != nil {
		return "", err
	}
	t.after = append(t.after, group.remove)
	length := cmp.Or(t.length, pick(t, 30*time.Second, 5*time.Minute))
	const startups, sessions = 800, 1000
	keys := map[string]string{
		"log.level": "info", "tls.crl_missing": "allow",
		"limits.max_startups": strconv.Itoa(startups), "limits.max_connections": strconv.Itoa(sessions), "limits.max_connections_per_source": "500", "limits.connection_rate": "500",
	}
	assaults, err := t.assaults(keys)
	if err != nil {
		return "", err
	}
	s, err := t.open(ctx, setting{plain: true, keys: maps.Clone(keys), before: group.enter()})
	if err != nil {
		return "", err
	}
	attacking, stop := context.WithTimeout(ctx, length)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	hostiles := 0
	for _, a := range assaults {
		wg.Go(func() { s.launch(attacking, a, func() { mu.Lock(); hostiles++; mu.Unlock() }) })
	}
	waits, failed := s.honestUntil(attacking)
	wg.Wait()
	used, err := group.used()
	if err != nil {
		return "", err
	}
	slices.Sort(waits)
	b, _ := budget.Of(startups, sessions)
	done := fmt.Sprintf("%v, %d hostile connections of %d kinds from 20 addresses: at most %d MiB of memory (the budget is %d MiB, the control group has %d MiB); %d honest clients served, the median within %v, the slowest within %v",
		length, hostiles, len(assaults), used>>20, b.Total>>20, hourMemory>>20, len(waits), waits[len(waits)/2].Round(time.Millisecond), waits[len(waits)-1].Round(time.Millisecond))
	errs := []error{failed, s.startupsEnd(ctx), s.sessionsEnd(ctx), s.linesComplete(ctx)}
	if used > b.Total {
		errs = append(errs, fmt.Errorf("%d bytes of memory were used, the budget is %d", used, b.Total))
	}
	if slowest := waits[len(waits)-1]; slowest > honestTimeout {
		errs = append(errs, fmt.Errorf("an honest client waited %v", slowest))
	}
	return done, errors.Join(errs...)
}

// honestUntil has a client served ten times a second until ctx ends, and returns how
// long each has waited.
func (g *target) honestUntil(ctx context.Context) (waits []time.Duration, failed error) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		took, err := g.answered(bounded)
		cancel()
		waits = append(waits, took)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("an honest client: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return waits, failed
}

// linesComplete fails unless the log has a line of every session that has ended.
func (s *scene) linesComplete(ctx context.Context) error {
	return gate.Eventually(ctx, "every session has its line in the log", 10*time.Second, func() error {
		m, err := s.Metrics()
		if err != nil {
			return err
		}
		lines := 0
		for _, r := range s.Records() {
			if r["msg"] == gate.MessageEnded {
				lines++
			}
		}
		if ended := int(m.Sum("pgwicket_sessions_ended_total")); lines != ended {
			return fmt.Errorf("%d lines of %d sessions", lines, ended)
		}
		return nil
	})
}
