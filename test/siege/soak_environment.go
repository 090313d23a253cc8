//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// disturb does an action of the second lane: what clients and the network do.
func (s *soak) disturb(of step) error {
	ctx, rnd := context.Background(), of.rnd()
	switch of.action {
	case killing:
		return s.killClient(ctx, rnd)
	case resetting:
		return s.resetClient(ctx, rnd)
	case terminating:
		return s.terminateBackend(rnd)
	case badFlood:
		return s.floodWithBad(rnd, 20+rnd.IntN(60))
	case connectFlood:
		return s.floodWithConnects(rnd, 40+rnd.IntN(100))
	case wrongCancels:
		return s.cancelOthers(rnd, 5+rnd.IntN(20))
	case guessing:
		return s.guessPasswords(ctx, rnd)
	case stalling:
		return s.stallStarts(rnd, 5+rnd.IntN(20))
	}
	return fmt.Errorf("there is no action %q", of.action)
}

// from connects from another address of this machine.
func from(source string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
}

// somewhere is a random loopback address.
func somewhere(rnd *rand.Rand) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rnd.IntN(250), rnd.IntN(250), 1+rnd.IntN(250))
}

// during says whether an error is that of a restart that was under way.
func (s *soak) during(began time.Time, err error) bool {
	now := time.Now()
	if s.excusesRefusal(err, began, now) {
		return true
	}
	_, ok := s.excuse(ending{err: err, began: began, opened: began}, now)
	return ok
}

// cutClient is the client number of rows whose client was cut off before the answer to
// its COMMIT. Ordinary clients have lower numbers.
const cutClient = 1 << 24

// lostRow is the next of them.
func (s *soak) lostRow() entry { return entry{cutClient, int(s.lost.Add(1))} }

// killClient kills a psql during an answer, or in a transaction that must then have no
// effect.
func (s *soak) killClient(ctx context.Context, rnd *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	began, row := time.Now(), s.lostRow()
	name := fmt.Sprintf("killed %d", row.number)
	sql := "copy (select repeat('x', 1000) from generate_series(1, 1000000000)) to stdout"
	if rnd.IntN(2) == 0 {
		s.ledger.note(row, neverAsked, "")
		sql = fmt.Sprintf("begin; insert into ledger values (%d, %d, ''); select pg_sleep(3600); commit", row.client, row.number)
	}
	cmd, err := s.lab.libpq(ctx, s.newest(), "psql", "-XAtqc", sql)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "PGAPPNAME="+name)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	const there = "select count(*)::text from pg_stat_activity where application_name = $1 and state = 'active'"
	err = gate.Eventually(ctx, "psql is in its query", gate.Timeout, func() error {
		count, err := s.ask(there, name)
		select {
		case <-exited:
			return nil
		default:
		}
		if err == nil && count != "1" {
			err = errors.New("it is not yet")
		}
		return err
	})
	select {
	case <-exited:
		if !s.during(began, io.EOF) {
			return errors.New("psql has ended before it was killed")
		}
	default:
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-exited
	return errors.Join(err, s.gone(ctx, "application_name = '"+name+"'"))
}

// gone waits until PostgreSQL has no such session any more.
func (s *soak) gone(ctx context.Context, which string) error {
	return gate.Eventually(ctx, "the backend of a lost client has gone", gate.Timeout, func() error {
		count, err := s.ask("select count(*)::text from pg_stat_activity where " + which)
		if err == nil && count != "0" {
			err = errors.New("it is still there: " + which)
		}
		return err
	})
}

// resetClient reads a part of a large answer and cuts the connection, or asks for
// a commit and does not wait for it.
func (s *soak) resetClient(ctx context.Context, rnd *rand.Rand) error {
	began := time.Now()
	pid, err := s.resetOne(ctx, rnd)
	if err != nil {
		if s.during(began, err) {
			return nil
		}
		return err
	}
	return s.gone(ctx, "pid = "+pid)
}

func (s *soak) resetOne(ctx context.Context, rnd *rand.Rand) (pid string, err error) {
	r, err := s.newest().connect(ctx)
	if err != nil {
		return "", err
	}
	defer r.Reset()
	if err := logIn(ctx, r, s.lab.tlsConfig(s.lab.client)); err != nil {
		return "", err
	}
	if err := r.Send(wire.Query("select pg_backend_pid()")); err != nil {
		return "", err
	}
	row, err := r.Await('D')
	if err != nil {
		return "", err
	}
	pid = string(row[6:]) // behind the number of columns and the length of the one
	if rnd.IntN(2) == 0 {
		row := s.lostRow()
		s.ledger.note(row, inDoubt, md5hex("x"))
		err := r.Send(wire.Query(fmt.Sprintf("begin; insert into ledger values (%d, %d, 'x'); commit", row.client, row.number)))
		return pid, err
	}
	if err := r.Send(wire.Query("select repeat('x', 100000) from generate_series(1, 1000000)")); err != nil {
		return "", err
	}
	_, err = io.CopyN(io.Discard, r, int64(size(rnd, 16<<20)))
	return pid, err
}

// anyBackend returns the backend of a client that has a session, or 0.
func (s *soak) anyBackend(rnd *rand.Rand) (pid uint32) {
	first := rnd.IntN(len(s.workers))
	for i := range s.workers {
		if pid := s.workers[(first+i)%len(s.workers)].pid.Load(); pid != 0 {
			return pid
		}
	}
	return 0
}

// terminateBackend has PostgreSQL end the session of a client.
func (s *soak) terminateBackend(rnd *rand.Rand) error {
	pid := s.anyBackend(rnd)
	if pid == 0 {
		return nil
	}
	s.terminate(pid)
	if _, err := s.ask("select pg_terminate_backend($1)::text", int32(pid)); err != nil {
		return err
	}
	return s.gone(context.Background(), fmt.Sprintf("pid = %d", pid))
}

// concurrently does something n times, a few at once, each with its own rnd.
// The errors of a restart that is under way do not count.
func (s *soak) concurrently(rnd *rand.Rand, n int, do func(i int, rnd *rand.Rand) error) error {
	var wg sync.WaitGroup
	const atOnce = 24
	places, errs := make(chan struct{}, atOnce), make([]error, n)
	for i := range n {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), 0)) //nolint:gosec // it must be repeatable
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			began := time.Now()
			if err := do(i, rnd); err != nil && !s.during(began, err) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// floodWithConnects opens sessions of many good clients at once.
func (s *soak) floodWithConnects(rnd *rand.Rand, n int) error {
	return s.concurrently(rnd, n, func(i int, rnd *rand.Rand) error {
		w := s.worker(1<<16+i, brief, s.app)
		w.rnd, w.source = rnd, somewhere(rnd)
		if w.connect() {
			w.does(simple.name, simple.do)
			w.close()
		}
		return nil
	})
}

// cancelOthers tries to cancel the queries of others without their keys. A
// client whose query was cancelled by that would report it.
func (s *soak) cancelOthers(rnd *rand.Rand, n int) error {
	return s.concurrently(rnd, n, func(_ int, rnd *rand.Rand) error {
		pid := s.anyBackend(rnd)
		key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, pid), rnd.Uint32())
		r, err := s.newest().connect(context.Background())
		if err != nil {
			return err
		}
		defer r.CloseTCP()
		if err := r.Send(wire.Cancel(key)); err != nil {
			return err
		}
		answer, err := io.ReadAll(r.TCP)
		if err != nil || len(answer) > 0 {
			return fmt.Errorf("a cancel is answered by %q, %w", answer, err)
		}
		s.bad.add("cancel with a wrong key", 1)
		return nil
	})
}

// guessPasswords logs in with wrong passwords, from an address that no other client
// uses: the gate delays such an address.
func (s *soak) guessPasswords(ctx context.Context, rnd *rand.Rand) error {
	source := somewhere(rnd)
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	for range 2 + rnd.IntN(3) {
		config, err := s.config(s.keyed.role, s.keyed.current(), source)
		if err != nil {
			return err
		}
		config.Password = fmt.Sprintf("guess %d", rnd.Uint32())
		began := time.Now()
		c, err := pgconn.ConnectConfig(ctx, &config.Config)
		if err == nil {
			closeSession(c)
			return errors.New("a wrong password has opened a session")
		}
		switch {
		case state(err) == "28P01", state(err) == "28000" && strings.Contains(err.Error(), gate.FatalBackoff):
			s.bad.add("wrong password", 1)
		case !s.during(began, err):
			return fmt.Errorf("a wrong password is answered otherwise: %w", err)
		}
	}
	return nil
}

// stallStarts opens connections that send a part of a startup, and closes them in
// several ways.
func (s *soak) stallStarts(rnd *rand.Rand, n int) error {
	patiently := time.Duration(500+rnd.IntN(2500)) * time.Millisecond
	return s.concurrently(rnd, n, func(_ int, rnd *rand.Rand) error {
		r, err := s.newest().connect(context.Background())
		if err != nil {
			return err
		}
		defer r.CloseTCP()
		switch rnd.IntN(3) {
		case 0:
			_, err = io.WriteString(r.TCP, sslRequest[:rnd.IntN(8)])
		case 1:
			err = r.RequestTLS()
		case 2:
			if err = r.RequestTLS(); err == nil {
				hello := clientHello(rnd)
				_, err = r.TCP.Write(hello[:1+rnd.IntN(len(hello)-1)])
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(patiently):
		case <-s.over:
		}
		if rnd.IntN(2) == 0 {
			r.Reset()
		}
		s.bad.add("startup that stalls", 1)
		return nil
	})
}
