//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// The gate is killed under load. The next one must be able to listen at once, and
// PostgreSQL must not keep sessions without a client (stolon#323,
// kviklet#537, proxysql#6129, pg_auto_failover#1180).
func gateKilled(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	n := pick(t, 4, 16)
	bench, err := t.libpq(ctx, s.target, "pgbench", "-n", "-S", "-c", fmt.Sprint(n), "-T", "600")
	if err != nil {
		return "", err
	}
	if err := bench.Start(); err != nil {
		return "", err
	}
	if err := s.holds(ctx, observerCount+n); err != nil {
		return "", err
	}
	times := pick(t, 2, 5)
	for range times {
		s.Kill()
		if err := s.Launch(ctx); err != nil {
			return "", err
		}
		if err := s.expectServed(ctx); err != nil {
			return "", err
		}
	}
	_ = bench.Wait() // all of its sessions have been cut
	err = errors.Join(s.lost(), s.populate(ctx))
	return fmt.Sprintf("kill -9 with %d sessions under load, %d times; the next gate listened at once, and PostgreSQL dropped every session", n+observerCount, times), err
}

// holds waits until PostgreSQL has so many sessions.
func (s *scene) holds(ctx context.Context, n int) error {
	return gate.Eventually(ctx, "PostgreSQL has the sessions", gate.Timeout, func() error { return s.backendsAre(n) })
}

func (s *scene) backendsAre(n int) error {
	got, err := s.lab.backends()
	if err == nil && got != n {
		err = fmt.Errorf("%d, want %d", got, n)
	}
	return err
}

// checkService fails unless all that a gate does is done: sessions, new clients, a
// reload, metrics.
func (s *scene) checkService(ctx context.Context) error {
	return errors.Join(s.observers.awaitAnswers(ctx, 5*observerCount), s.expectServed(ctx), s.Reload(ctx, nil), s.ready())
}

const linesDropped = "pgwicket_log_lines_dropped_total"

// floodLog makes the gate log until lines are dropped.
func (s *scene) floodLog(ctx context.Context) (dropped int, err error) {
	before, err := s.Metrics()
	if err != nil {
		return 0, err
	}
	for range 400 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { // each is a port scan, which is a line at level debug
				for range 8 {
					if c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Address); err == nil {
						_ = c.Close()
					}
				}
			})
		}
		wg.Wait()
		m, err := s.Metrics()
		if err != nil {
			return 0, err
		}
		if n := int(m[linesDropped] - before[linesDropped]); n > 0 {
			return n, nil
		}
	}
	return 0, errors.New("no line was dropped after 25,600 of them; is there still a bound?")
}

// A reader of the log that is stuck: a full pipe must delay no session.
func logStuck(ctx context.Context, t *trial) (string, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer reader.Close()
	defer writer.Close()
	s, err := t.open(ctx, setting{stderr: writer, keys: map[string]string{"log.refusal_rate": "0"}})
	if err != nil {
		return "", err
	}
	dropped, err := s.floodLog(ctx)
	if err != nil {
		return "", err
	}
	if err := s.checkService(ctx); err != nil {
		return "", err
	}

	// The reader is back. What it gets is the log of this gate, for sound.
	file, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer file.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(file, reader)
	}()
	missing, err := s.missingLines(ctx)
	if err := errors.Join(err, s.checkService(ctx), s.settles(ctx, s.before, gate.Timeout)); err != nil {
		return "", err
	}

	// It is stuck for good, and the gate gets SIGTERM.
	_ = reader.SetReadDeadline(time.Now())
	<-read
	if _, err := s.floodLog(ctx); err != nil {
		return "", err
	}
	if err := s.observers.awaitAnswers(ctx, observerCount); err != nil {
		return "", err
	}
	s.observers.end()
	return fmt.Sprintf("a full pipe: %d lines and more were dropped and counted, no session waited; read again, the log reported how many (%v); stuck again, SIGTERM ended the gate", dropped, missing), s.Stop()
}

// missingLines waits until the log reports as many dropped lines as the metric, and
// returns how many those are.
func (s *scene) missingLines(ctx context.Context) (missing float64, err error) {
	err = gate.Eventually(ctx, "the log reports the dropped lines", gate.Timeout, func() error {
		m, err := s.Metrics()
		if err != nil {
			return err
		}
		missing = 0
		for _, r := range s.Records() {
			if n, ok := r["lines"].(float64); ok {
				missing += n
			}
		}
		if missing != m[linesDropped] {
			return fmt.Errorf("%v lines by the log, %v by the metric", missing, m[linesDropped])
		}
		return nil
	})
	return missing, err
}

// Every write to the log fails.
func logFull(ctx context.Context, t *trial) (string, error) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer full.Close()
	s, err := t.open(ctx, setting{stderr: full})
	if err != nil {
		return "", err
	}
	dropped, err := s.floodLog(ctx)
	return fmt.Sprintf("standard error is /dev/full: %d lines and more were counted, all else went on", dropped), errors.Join(err, s.checkService(ctx))
}

// The program behind the pipe has died: the Go runtime would end the gate at its
// next line.
func logGone(ctx context.Context, t *trial) (string, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer writer.Close()
	s, err := t.open(ctx, setting{stderr: writer})
	if err != nil {
		_ = reader.Close()
		return "", err
	}
	_ = writer.Close() // ours
	_ = reader.Close()
	dropped, err := s.floodLog(ctx)
	return fmt.Sprintf("a pipe without a reader: %d lines and more were counted, all else went on", dropped), errors.Join(err, s.checkService(ctx))
}

// The gate is stopped for a while. The machine's clock belongs to all programs on
// it and is not touched. Deadlines use the monotonic clock, which steps of the other
// do not move.
func gateStopped(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{keys: map[string]string{"limits.startup_timeout": "60s"}})
	if err != nil {
		return "", err
	}
	n := pick(t, 8, 32)
	var starting []*wire.Conn
	defer func() {
		for _, r := range starting {
			r.Reset()
		}
	}()
	for range n {
		r, err := s.connect(ctx)
		if err != nil {
			return "", err
		}
		starting = append(starting, r)
		if err := r.RequestTLS(); err != nil {
			return "", err
		}
	}
	pause := pick(t, 2*time.Second, 15*time.Second)
	if err := s.Signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	var wg sync.WaitGroup
	late := make([]error, n)
	for i := range n { // they connect while the gate does not accept
		wg.Go(func() {
			c, err := s.dial(ctx)
			if late[i] = err; err == nil {
				late[i] = asked(ctx, c, question{i, 100})
				closeSession(c)
			}
		})
	}
	time.Sleep(pause)
	if err := s.Signal(syscall.SIGCONT); err != nil {
		return "", err
	}
	wg.Wait()
	for _, r := range starting {
		late = append(late, r.LogIn(ctx, s.lab.tlsConfig(s.lab.client), startupParameters...))
	}
	return fmt.Sprintf("SIGSTOP for %v: %d sessions, %d connections in their startup and %d new clients meanwhile, none lost (steps of the machine's clock are not made)", pause, observerCount, n, n), errors.Join(late...)
}
