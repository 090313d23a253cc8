//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	"pgwicket/test/gate"
)

// setting is how a gate differs from the plainest one: TLS with client
// certificates and a revocation list, 127.0.0.0/8, no limit of connections, the
// lab's PostgreSQL.
type setting struct {
	plain  bool              // as released, without the race detector
	older  bool              // the one of --before
	listen string            // empty: a free port of 127.0.0.1
	keys   map[string]string // of the configuration, as gate.Config takes them
	env    []string          // of the gate
	before []string          // a command that becomes the gate, such as prlimit
	stderr *os.File          // nil: a file that Records reads
}

// target is a gate of the lab, with what clients do to it.
type target struct {
	*gate.Gate
	lab     *lab
	setting setting
}

// start starts a gate and waits until it is ready. The lab ends it.
func (l *lab) start(ctx context.Context, s setting) (*target, error) {
	keys := map[string]string{
		"tls.cert_file": l.file("server.crt"), "tls.key_file": l.file("server.key"), "tls.ca_file": l.file("ca.crt"), "tls.crl_file": l.file("ca.crl"),
		"acl.allow":                         "[127.0.0.0/8]",
		"backend.host":                      l.db.SocketDir,
		"limits.max_connections":            "0",
		"limits.max_connections_per_source": "0",
		"limits.connection_rate":            "0",
	}
	maps.Copy(keys, s.keys)
	binary := l.raced
	if s.plain {
		binary = l.plain
	}
	if s.older {
		binary = l.older
	}
	g, err := gate.Start(ctx, gate.Options{Binary: binary, Dir: l.dir, Listen: s.listen, Keys: keys, Before: s.before, Env: s.env, Stderr: s.stderr})
	if g == nil {
		return nil, err
	}
	return l.holds(g, s), err
}

// holds takes a gate that runs. The lab ends it.
func (l *lab) holds(g *gate.Gate, s setting) *target {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gates = append(l.gates, g)
	return &target{Gate: g, lab: l, setting: s}
}

// ready fails unless the gate says that it is.
func (g *target) ready() error {
	_, err := g.Get("/readyz")
	return err
}

// level is what a gate holds.
type level struct {
	goroutines, descriptors, backends int
}

// level reads it. Two readings are alike if the gate holds as much.
func (g *target) level() (n level, err error) {
	m, err := g.Metrics()
	if err != nil {
		return n, err
	}
	n.goroutines = int(m["go_goroutines"])
	if n.backends, err = g.lab.backends(); err != nil {
		return n, err
	}
	n.descriptors, err = g.Descriptors()
	return n, err
}

// settles waits until the gate holds no more than before and every connection
// is accounted for. A loss of backends is an error, too.
func (g *target) settles(ctx context.Context, before level, within time.Duration) error {
	return gate.Eventually(ctx, "the gate holds what it held before", within, func() error {
		now, err := g.level()
		if err != nil {
			return err
		}
		m, err := g.Metrics()
		if err != nil {
			return err
		}
		if now.goroutines > before.goroutines || now.descriptors > before.descriptors || now.backends != before.backends {
			return fmt.Errorf("%+v, was %+v", now, before)
		}
		if n := m.Unaccounted(); n != 0 {
			return fmt.Errorf("%v connections are counted in and nowhere else", n)
		}
		return nil
	})
}
