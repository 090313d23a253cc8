//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// cannotConnectNow is what a new client gets while there is no backend: the one
// SQLSTATE that moves libpq to its next host.
const cannotConnectNow = "57P03"

// crashed counts how sessions have ended, and what else they have met.
type crashed struct {
	mu     sync.Mutex
	wg     sync.WaitGroup
	told   int // by a message: 57P01, 57P02
	closed int
	other  []error
}

// sleepers opens sessions that are in a long query until somebody ends them.
func (s *scene) sleepers(ctx context.Context, n int) (*crashed, error) {
	c := new(crashed)
	for range n {
		r, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		if err := logIn(ctx, r, s.lab.tlsConfig(s.lab.client)); err != nil {
			return nil, err
		}
		if err := r.Send(wire.Query("select pg_sleep(3600)")); err != nil {
			return nil, err
		}
		c.wg.Go(func() {
			defer r.CloseTCP()
			told, err := readToEnd(r)
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case !cut(err):
				c.other = append(c.other, fmt.Errorf("a session in a query: %w", err))
			case told:
				c.told++
			default:
				c.closed++
			}
		})
	}
	return c, gate.Eventually(ctx, "all are in their query", gate.Timeout, func() error {
		got, err := s.lab.count("select count(*) from pg_stat_activity where query like 'select pg_sleep(%'")
		if err == nil && got != n {
			err = fmt.Errorf("%d of %d are", got, n)
		}
		return err
	})
}

// readToEnd reads until the connection ends, and says whether the server has
// sent the reason: 57P01 or 57P02, which is a notice where another backend has crashed.
func readToEnd(r *wire.Conn) (told bool, err error) {
	for {
		kind, body, err := r.ReadMessage()
		if err != nil {
			return told, err
		}
		if kind == 'E' || kind == 'N' {
			told = told || strings.HasPrefix(wire.Field(body, 'C'), "57P0")
		}
	}
}

// ended waits for the last of them.
func (c *crashed) ended(ctx context.Context) error {
	done := make(chan struct{})
	go func() { c.wg.Wait(); close(done) }()
	select {
	case <-done:
		return errors.Join(c.other...)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(gate.Timeout):
		return errors.New("sessions of a backend that has gone were not ended")
	}
}

// lost fails unless the observers, too, saw only the end of their backends.
func (s *scene) lost() error {
	s.observers.wg.Wait()
	for _, err := range s.observers.failed {
		if !cut(err) {
			return fmt.Errorf("an observer: %w", err)
		}
	}
	return nil
}

// expectServed waits until a new client is admitted and answered.
func (s *scene) expectServed(ctx context.Context) error {
	return gate.Eventually(ctx, "new clients are served", gate.Timeout, func() error {
		c, err := s.dial(ctx)
		if err != nil {
			return err
		}
		defer closeSession(c)
		return asked(ctx, c, question{1, 100})
	})
}

// expectUnavailable fails unless a new client gets the error that the database cannot be reached.
func (s *scene) expectUnavailable(ctx context.Context) error {
	c, err := s.dial(ctx)
	if err == nil {
		closeSession(c)
		return errors.New("a new client was admitted without a backend")
	}
	if state(err) != cannotConnectNow {
		return fmt.Errorf("a new client without a backend: %w; want SQLSTATE %s", err, cannotConnectNow)
	}
	return nil
}

// One backend is killed. PostgreSQL ends the others, because their shared memory
// may be broken, and recovers; the gate stays.
func backendKilled(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	n := pick(t, 8, 32)
	sleeping, err := s.sleepers(ctx, n)
	if err != nil {
		return "", err
	}
	pid, err := t.count("select pid from pg_stat_activity where query like 'select pg_sleep(%' limit 1")
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return "", err
	}
	if err := errors.Join(sleeping.ended(ctx), s.lost(), s.expectServed(ctx), s.populate(ctx)); err != nil {
		return "", err
	}
	return fmt.Sprintf("kill -9 of one of %d backends: %d clients in a query got a message, %d were only closed; new clients are served once PostgreSQL is", n+observerCount, sleeping.told, sleeping.closed), nil
}

// The whole server is killed: its socket is there, and no process listens.
func postmasterKilled(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	n := pick(t, 8, 32)
	sleeping, err := s.sleepers(ctx, n)
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(t.db.PID(), syscall.SIGKILL); err != nil {
		return "", err
	}
	err = errors.Join(sleeping.ended(ctx), s.lost(), s.expectUnavailable(ctx), t.db.Restart(ctx), s.expectServed(ctx), s.populate(ctx))
	return fmt.Sprintf("kill -9 of the postmaster: %d sessions ended, a new client got %s, and new clients are served after the restart", n+observerCount, cannotConnectNow), err
}

// The socket is moved away and back: open sessions do not need it.
func socketGone(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	socket := filepath.Join(t.db.SocketDir, ".s.PGSQL."+strconv.Itoa(t.db.Port))
	if err := os.Rename(socket, socket+".away"); err != nil {
		return "", err
	}
	n := pick(t, 10, 100)
	for range n {
		if err = s.expectUnavailable(ctx); err != nil {
			break
		}
	}
	err = errors.Join(err, s.observers.awaitAnswers(ctx, 5*observerCount), os.Rename(socket+".away", socket))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d new clients got %s, sessions went on, new clients are served when it is back", n, cannotConnectNow), s.expectServed(ctx)
}

// askAll asks a question of each session.
func askAll(ctx context.Context, sessions []*pgconn.PgConn) error {
	for i, c := range sessions {
		if err := asked(ctx, c, question{i, 64}); err != nil {
			return fmt.Errorf("session %d of %d: %w", i+1, len(sessions), err)
		}
	}
	return nil
}
