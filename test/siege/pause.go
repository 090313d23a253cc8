//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// pauses measures how long sessions wait for an answer while a gate is upgraded.
type pauses struct {
	lab      *lab
	backend  *pgtest.Fake
	sessions int
	busy     int
	rounds   int
	clients  []*wire.Conn
	out      io.Writer
}

// runPause is the command.
func runPause(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	p := &pauses{out: stderr}
	f := flag.NewFlagSet("upgrade-pause", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&p.sessions, "sessions", 10_000, "how many are open")
	f.IntVar(&p.busy, "busy", 100, "how many of them send a query every 10 ms")
	f.IntVar(&p.rounds, "rounds", 5, "upgrades")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || p.busy < 1 || p.sessions < p.busy || p.rounds < 1 {
		return errors.New("there must be a busy session, as many open ones, and an upgrade")
	}
	if err := p.allowFiles(); err != nil {
		return err
	}
	var err error
	if p.lab, err = newLab(ctx, stderr); err != nil {
		return err
	}
	defer p.lab.remove()
	// As many sessions of PostgreSQL would be as many processes.
	if p.backend, err = pgtest.StartFake(answerAll); err != nil {
		return err
	}
	defer p.backend.Stop()
	return p.measure(ctx, stdout)
}

// allowFiles allows this program and the gate the descriptors of the sessions: each has two of each session,
// and both processes of an upgrade have some of a batch.
func (p *pauses) allowFiles() error {
	need := uint64(2*p.sessions + 2000)
	limit := syscall.Rlimit{Cur: need, Max: need}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return err
	}
	if now.Max >= need {
		limit.Max = now.Max
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d sessions take %d open files: %w", p.sessions, need, err)
	}
	return nil
}

func (p *pauses) measure(ctx context.Context, stdout io.Writer) error {
	g, err := p.lab.start(ctx, setting{plain: true, keys: map[string]string{
		"backend.host": p.backend.SocketDir, "admin.socket": p.lab.file("admin.sock"), "log.level": "info", "limits.drain_timeout": "10s",
	}})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "opening %d sessions\n", p.sessions)
	if err := p.open(ctx, g); err != nil {
		return err
	}
	defer func() {
		for _, c := range p.clients {
			c.Reset()
		}
	}()
	fmt.Fprintf(stdout, "%d sessions with client certificates, %d of them with a query every 10 ms, %d processors, %s.\n\n", p.sessions, p.busy, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(stdout, "| longest answer of each busy session | p50 | p99 | most |\n|---|---|---|---|\n")
	for n := range p.rounds {
		quiet, err := p.longest(func() error { time.Sleep(3 * time.Second); return nil })
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "| 3 s without an upgrade | %s |\n", quiet)
		var took string
		upgraded, err := p.longest(func() error {
			u, err := g.BeginUpgrade(ctx, p.lab.plain, "")
			if err != nil {
				return err
			}
			if took, err = u.Wait(); err != nil {
				return err
			}
			next, err := u.Successor()
			if err != nil {
				return err
			}
			old := g
			g = p.lab.holds(next, old.setting)
			return old.Expect(gate.Timeout)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "| upgrade %d | %s |\n", n+1, upgraded)
		fmt.Fprintln(p.out, took)
		if want := fmt.Sprintf("with %d sessions", p.sessions); !strings.Contains(took, want) {
			return fmt.Errorf("not %s: %s", want, took)
		}
	}
	if err := p.askAll(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nAll sessions have answered after the last upgrade.\n")
	return nil
}

// open opens the sessions, some at a time.
func (p *pauses) open(ctx context.Context, g *target) error {
	p.clients = make([]*wire.Conn, p.sessions)
	config := p.lab.tlsConfig(p.lab.client)
	var next atomic.Int64
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < int64(p.sessions) && errs[i] == nil; n = next.Add(1) - 1 {
				c, err := wire.Dial(ctx, g.Address, gate.Timeout)
				if err == nil {
					p.clients[n] = c
					err = errors.Join(c.RequestTLS(), c.LogIn(ctx, config, "user", appUser, "database", "postgres"))
				}
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// spread is the longest waits of sessions.
type spread []time.Duration

func (s spread) String() string {
	slices.Sort(s)
	at := func(q float64) time.Duration { return s[int(q*float64(len(s)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("%v | %v | %v", at(0.5), at(0.99), at(1))
}

// longest has the busy sessions ask while do runs, and returns how long each has waited at most.
func (p *pauses) longest(do func() error) (spread, error) {
	waited, errs := make(spread, p.busy), make([]error, p.busy)
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range p.busy {
		// They are spread over all sessions: these are handed over in some order.
		c := p.clients[i*(p.sessions/p.busy)]
		_ = c.SetDeadline(time.Now().Add(2 * gate.Timeout))
		wg.Go(func() {
			for !over.Load() && errs[i] == nil {
				began := time.Now()
				errs[i] = c.Exchange(wire.Query("select"))
				waited[i] = max(waited[i], time.Since(began))
				time.Sleep(10 * time.Millisecond) // the load
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	err := do()
	over.Store(true)
	wg.Wait()
	return waited, errors.Join(err, errors.Join(errs...))
}

// askAll fails unless each session answers.
func (p *pauses) askAll() error {
	for i, c := range p.clients {
		_ = c.SetDeadline(time.Now().Add(gate.Timeout))
		if err := c.Exchange(wire.Query("select")); err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
	}
	return nil
}

// answerAll is a backend that answers every query at once, and stores nothing.
func answerAll(c net.Conn) {
	r := bufio.NewReaderSize(c, 64)
	var head [5]byte
	skip := func(length []byte) error {
		_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(length))-4)
		return err
	}
	if _, err := io.ReadFull(r, head[:4]); err != nil || skip(head[:4]) != nil {
		return
	}
	answer := wire.Message('R', "\x00\x00\x00\x00") + wire.Message('K', "\x00\x00\x00\x01\x00\x00\x00\x02") + wire.Message('Z', "I")
	for {
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
		if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != 'Q' || skip(head[1:]) != nil {
			return
		}
		answer = wire.Message('C', "SELECT 0\x00") + wire.Message('Z', "I")
	}
}
