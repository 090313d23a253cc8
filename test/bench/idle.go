package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"pgwicket/internal/tlstest"
)

// idle measures sessions that have asked once and rest.
func idle(n int, settle time.Duration) burst {
	return func(ctx context.Context, _ *lab, g *endpoint, _ time.Duration) (sample, error) {
		c, s, err := openIdle(ctx, g, n, settle)
		c.resetAll()
		return s, err
	}
}

// rest opens sessions that ask once and then rest, and measures them. The gate
// has just been started, so that nothing of earlier sessions is in its memory.
func openIdle(ctx context.Context, g *endpoint, n int, settle time.Duration) (clients, sample, error) {
	m, err := startMeter(g)
	if err != nil {
		return nil, sample{}, err
	}
	before := pss(g.pid())
	if before == 0 {
		return nil, sample{}, errors.New("no proportional set size in /proc")
	}
	t := g.target()
	if g.cert != nil {
		t.pair = func() *tlstest.Pair { return g.cert.ca.Client(certUser) }
	}
	c, err := openClients(ctx, t, n, func(s *session) error { return s.query("select 1") })
	if err != nil {
		return nil, sample{}, err
	}
	s, err := m.stop() // without the rest
	if err != nil {
		return c, s, err
	}
	select {
	case <-ctx.Done():
		return c, s, ctx.Err()
	case <-time.After(settle):
	}
	s.Units = float64(n)
	s.PerSession = (pss(g.pid()) - before) / float64(n)
	return c, s, nil
}

// resetAll resets the connections: closed in order they would leave thousands of
// sockets in TIME_WAIT.
func (c clients) resetAll() {
	for _, s := range c {
		s.unhook()
		s.Reset()
	}
}

// raiseFiles allows us, and all that we start from now on, as many open files as
// n sessions take, or else as many as the system lets us have. It returns for
// how many sessions that is enough: every gate has two descriptors for each, and
// stunnel wants some to spare (125 sessions for 256 files).
func raiseFiles(n int) (sessions int, err error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	need := uint64(n)*25/12 + 1000
	if l.Max < need {
		raised := syscall.Rlimit{Cur: need, Max: need}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			return n, nil
		}
	}
	l.Cur = l.Max
	// Set it even if it is so: else Go gives children the limit that we began with.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return min(n, int(min(l.Max, need)*12/25)), nil
}
