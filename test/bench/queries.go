package main

import (
	"context"
	"errors"
	"time"
)

// settled is waited for before a meter is read for the last time, so that the
// ends of connections are counted where they belong.
const settled = 30 * time.Millisecond

// accounts is the statement of pgbench's select-only script, and account one
// execution of it, each client's of its own row.
const accounts = "SELECT abalance FROM pgbench_accounts WHERE aid = $1"

func account(client int) string { return bound(1 + client) }

// asking is clients that ask as fast as they are answered.
type asking struct {
	clients int
	sql     string // of a prepared statement
	request func(client int) string
}

func (a asking) burst(ctx context.Context, _ *lab, g *endpoint, d time.Duration) (sample, error) {
	c, err := openClients(ctx, g.target(), a.clients, prepare(a.sql))
	if err != nil {
		return sample{}, err
	}
	defer c.closeAll()
	if _, err := c.run(d/10, 0, a.request); err != nil {
		return sample{}, err
	}
	m, err := startMeter(g)
	if err != nil {
		return sample{}, err
	}
	took, err := c.run(d, 0, a.request)
	if err != nil {
		return sample{}, err
	}
	s, err := m.stop()
	s.Units = float64(len(took))
	s.latencies(took)
	return s, err
}

// reconnect opens and closes sessions.
func reconnect(ctx context.Context, _ *lab, g *endpoint, d time.Duration) (sample, error) {
	m, err := startMeter(g)
	if err != nil {
		return sample{}, err
	}
	took, err := flood(8, d, func() error { return g.probe(ctx) })
	if err != nil {
		return sample{}, err
	}
	time.Sleep(settled)
	s, err := m.stop()
	s.Units = float64(len(took))
	s.Seconds -= settled.Seconds()
	s.latencies(took)
	return s, err
}

// mixed is many small clients beside one that downloads without end.
func mixed(ctx context.Context, l *lab, g *endpoint, d time.Duration) (s sample, err error) {
	c, err := openClients(ctx, g.target(), 32, prepare(accounts))
	if err != nil {
		return sample{}, err
	}
	defer c.closeAll()
	bulk, err := startDownload(ctx, g)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, bulk.stop(ctx, l.db)) }()
	if _, err := c.run(d/10, 0, account); err != nil {
		return sample{}, err
	}
	m, err := startMeter(g)
	if err != nil {
		return sample{}, err
	}
	before := bulk.bytes.Load()
	took, err := c.run(d, 0, account)
	if err != nil {
		return sample{}, err
	}
	s, err = m.stop()
	s.Units = float64(len(took))
	s.Beside = float64(bulk.bytes.Load()-before) / gib / s.Seconds
	s.latencies(took)
	return s, err
}

// storm is live clients in a flood of handshakes.
func storm(ctx context.Context, _ *lab, g *endpoint, d time.Duration) (sample, error) {
	c, err := openClients(ctx, g.target(), 8, prepare(accounts))
	if err != nil {
		return sample{}, err
	}
	defer c.closeAll()
	m, err := startMeter(g)
	if err != nil {
		return sample{}, err
	}
	type answer struct {
		handshakes []time.Duration
		err        error
	}
	flooded := make(chan answer, 1)
	go func() {
		h, err := flood(16, d, func() error { return handshake(ctx, g.target()) })
		flooded <- answer{h, err}
	}()
	took, err := c.run(d, 10*time.Millisecond, account)
	a := <-flooded
	if err != nil {
		return sample{}, err
	}
	if a.err != nil {
		return sample{}, a.err
	}
	s, err := m.stop()
	s.Units = float64(len(a.handshakes))
	s.Beside = float64(len(took)) / s.Seconds
	s.latencies(took)
	return s, err
}

func handshake(ctx context.Context, t target) error {
	c, err := dialTLS(ctx, t)
	if err != nil {
		return err
	}
	return c.Close()
}
