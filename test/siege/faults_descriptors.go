//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"pgwicket/test/gate"
)

// queue is more clients than a gate has descriptors for. Those that are not admitted
// wait in the kernel, or are told that PostgreSQL cannot be reached.
type queue struct {
	mu     sync.Mutex
	open   []*pgconn.PgConn
	full   int            // clients that got cannotConnectNow
	others map[string]int // what else clients got
	done   chan struct{}  // closed when each client has got something
}

// enqueue connects n clients at once.
func (s *scene) enqueue(ctx context.Context, n int) *queue {
	q := &queue{others: make(map[string]int), done: make(chan struct{})}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := s.dial(ctx)
			q.mu.Lock()
			defer q.mu.Unlock()
			switch {
			case err == nil:
				q.open = append(q.open, c)
			case state(err) == cannotConnectNow:
				q.full++
			default:
				q.others[cmp.Or(state(err), err.Error())]++
			}
		})
	}
	go func() { wg.Wait(); close(q.done) }()
	return q
}

func (q *queue) sessions() []*pgconn.PgConn {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.open)
}

// empty closes sessions until every client has been admitted or refused.
func (q *queue) empty(ctx context.Context) error {
	for waiting := true; waiting; {
		for _, c := range q.sessions() {
			closeSession(c)
		}
		q.mu.Lock()
		q.open = nil
		q.mu.Unlock()
		select {
		case <-q.done:
			waiting = len(q.sessions()) > 0
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	var err error
	for what, n := range q.others {
		err = errors.Join(err, fmt.Errorf("%d clients got %s without a free descriptor, want %s", n, what, cannotConnectNow))
	}
	return err
}

// The gate runs out of descriptors. It must not spin on accept (ghostunnel#757).
func descriptors(ctx context.Context, t *trial) (string, error) {
	const most = 64
	s, err := t.open(ctx, setting{before: []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, most), "sh"}})
	if err != nil {
		return "", err
	}
	n := pick(t, 60, 100)
	q := s.enqueue(ctx, n)
	err = gate.Eventually(ctx, "every descriptor is taken", gate.Timeout, func() error {
		if n, err := s.Descriptors(); err != nil || n < most {
			return fmt.Errorf("%d of %d, %w", n, most, err)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	before, err := s.CPU()
	if err != nil {
		return "", err
	}
	began := time.Now()
	for time.Since(began) < pick(t, 2*time.Second, 10*time.Second) {
		if err := errors.Join(s.observers.awaitAnswers(ctx, observerCount), askAll(ctx, q.sessions())); err != nil {
			return "", err
		}
	}
	after, err := s.CPU()
	if err != nil {
		return "", err
	}
	took, open := time.Since(began), len(q.sessions())
	if err := q.empty(ctx); err != nil {
		return "", err
	}
	m, err := s.Metrics()
	if err != nil {
		return "", err
	}
	failed := m["pgwicket_accept_errors_total"]
	if limit := 20*took.Seconds() + 50; failed == 0 || failed > limit {
		err = fmt.Errorf("%v failed accepts; there must be some, and %.0f at most", failed, limit)
	}
	return fmt.Sprintf("%d descriptors, %d new clients: %d open sessions went on, %d got %s, the others were admitted later; %v failed accepts, %.0f %% of a core",
		most, n, open, q.full, cannotConnectNow, failed, 100*(after-before).Seconds()/took.Seconds()), errors.Join(err, s.expectServed(ctx))
}

// raiseDescriptors lets this process have as many as it may, and returns how
// many those are.
func raiseDescriptors() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	r.Cur = r.Max
	return r.Cur, unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
}
