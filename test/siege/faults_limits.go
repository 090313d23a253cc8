//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/wire"
)

// A role that needs a password, and the password.
const (
	passwordUser  = "owner"
	rightPassword = "right"
)

// dialAs opens a session of passwordUser with a password, and closes it.
func (g *target) dialAs(ctx context.Context, c credentials, password string) error {
	config, err := pgconn.ParseConfig("host=" + g.Host + " port=" + strconv.Itoa(g.Port) + " user=" + passwordUser + " database=postgres sslmode=require connect_timeout=30 channel_binding=disable")
	if err != nil {
		return err
	}
	config.TLSConfig, config.Fallbacks, config.Password = g.lab.tlsConfig(c), nil, password
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		closeSession(conn)
	}
	return err
}

// Sixty guesses at once, by one certificate, of a role whose owner has another.
func parallelGuesses(ctx context.Context, t *trial) (string, error) {
	thief, err := t.issue("thief")
	if err != nil {
		return "", err
	}
	keys := map[string]string{"limits.max_auth_failures": "3", "limits.auth_refusal": "1m"}
	return t.compare(ctx, keys, func(ctx context.Context, s *scene) (string, error) {
		const n = 60
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { _ = s.dialAs(ctx, thief, fmt.Sprint("guess ", i)) })
		}
		wg.Wait()
		m, err := s.Metrics()
		if err != nil {
			return "", err
		}
		asked := int(m[`pgwicket_sessions_ended_total{outcome="authentication_failed"}`])
		began := time.Now()
		owner := s.dialAs(ctx, t.client, rightPassword)
		done := fmt.Sprintf("max_auth_failures 3: PostgreSQL was asked for %d of %d guesses; the owner of the role, with another certificate at the same address, then got %s within %v",
			asked, n, outcomeText(owner), time.Since(began).Round(time.Millisecond))
		if asked > 3 {
			err = fmt.Errorf("PostgreSQL was asked for %d guesses, 3 are allowed", asked)
		}
		return done, errors.Join(err, owner)
	})
}

func outcomeText(err error) string {
	if err != nil {
		return "an error"
	}
	return "its session"
}

// A client with a stale password beside one with the right one: the same user, address
// and certificate, as behind a balancer.
func stalePassword(ctx context.Context, t *trial) (string, error) {
	keys := map[string]string{"limits.max_auth_failures": "3", "limits.auth_refusal": "1m"}
	return t.compare(ctx, keys, func(ctx context.Context, s *scene) (string, error) {
		if err := s.dialAs(ctx, t.client, rightPassword); err != nil {
			return "", err
		}
		const failures = 10
		for range failures {
			if err := s.dialAs(ctx, t.client, "stale"); err == nil {
				return "", errors.New("a stale password has opened a session")
			}
		}
		var longest time.Duration
		for range 3 {
			began := time.Now()
			if err := s.dialAs(ctx, t.client, rightPassword); err != nil {
				return "", err
			}
			longest = max(longest, time.Since(began))
		}
		var err error
		if longest > honestTimeout {
			err = fmt.Errorf("the right password waited %v", longest)
		}
		return fmt.Sprintf("max_auth_failures 3, %d failures with a stale password: the right one was served within %v", failures, longest.Round(time.Millisecond)), err
	})
}

// Ctrl-C in psql, and a CancelRequest over TLS, when every place is taken.
func cancelAtLimit(ctx context.Context, t *trial) (string, error) {
	const places = 8
	return t.compare(ctx, map[string]string{"limits.max_connections": strconv.Itoa(places)}, func(ctx context.Context, s *scene) (string, error) {
		psql, err := t.libpq(ctx, s.target, "psql", "-Xc", "select pg_sleep(600)")
		if err != nil {
			return "", err
		}
		if err := psql.Start(); err != nil {
			return "", err
		}
		defer func() { _ = psql.Process.Kill(); _ = psql.Wait() }()
		if err := s.awaitSleeping(ctx, 1); err != nil {
			return "", err
		}
		victim, err := s.dial(ctx)
		if err != nil {
			return "", err
		}
		defer closeSession(victim)
		var others []*pgconn.PgConn
		defer func() {
			for _, c := range others {
				closeSession(c)
			}
		}()
		for range places {
			c, err := s.dial(ctx)
			if err != nil {
				break
			}
			others = append(others, c)
		}
		began := time.Now()
		if err := psql.Process.Signal(syscall.SIGINT); err != nil {
			return "", err
		}
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.awaitSleeping(bounded, 0); err != nil {
			return "", fmt.Errorf("Ctrl-C in psql: %w", err)
		}
		byPsql := time.Since(began)
		byTLS, err := s.cancelOverTLS(ctx, victim)
		return fmt.Sprintf("all %d places taken: Ctrl-C in psql ended its statement within %v, a CancelRequest over TLS one within %v", places, byPsql.Round(time.Millisecond), byTLS.Round(time.Millisecond)), err
	})
}

// cancelOverTLS cancels a statement of a session, and says how long that took.
func (s *scene) cancelOverTLS(ctx context.Context, victim *pgconn.PgConn) (time.Duration, error) {
	got := make(chan error, 1)
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	go func() {
		_, err := one(bounded, victim, "select pg_sleep(600)")
		got <- err
	}()
	if err := s.awaitSleeping(ctx, 1); err != nil {
		return 0, err
	}
	began := time.Now()
	c, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer c.CloseTCP()
	if err := c.RequestTLS(); err != nil {
		return 0, err
	}
	if err := c.Handshake(ctx, s.lab.tlsConfig(s.lab.client)); err != nil {
		return 0, err
	}
	if err := c.Send(wire.Cancel(cancelKey(victim))); err != nil {
		return 0, err
	}
	if err := <-got; state(err) != "57014" {
		return 0, fmt.Errorf("a CancelRequest over TLS: the statement ended with %w", err)
	}
	return time.Since(began), nil
}

// cancelKey returns the body of a session's BackendKeyData.
func cancelKey(c *pgconn.PgConn) []byte {
	pid := c.PID()
	return append([]byte{byte(pid >> 24), byte(pid >> 16), byte(pid >> 8), byte(pid)}, c.SecretKey()...)
}

// Strangers send CancelRequests with keys that nobody has, each of which would cost
// PostgreSQL a process, beside honest ones.
func strangeCancels(ctx context.Context, t *trial) (string, error) {
	length := pick(t, 3*time.Second, 10*time.Second)
	return t.compare(ctx, nil, func(ctx context.Context, s *scene) (string, error) {
		before, err := s.Metrics()
		if err != nil {
			return "", err
		}
		flooding, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for n := i; flooding.Err() == nil; n += 32 {
					if c, err := s.openFrom(flooding, n); err == nil {
						_ = c.Send(wire.Cancel([]byte{0, 0, byte(n >> 8), byte(n), 1, 2, 3, 4}))
						_, _ = c.TCP.Read(make([]byte, 1))
						c.Reset()
					}
				}
			})
		}
		tried, arrived, err := s.honestCancels(ctx, length)
		stop()
		wg.Wait()
		after, e := s.Metrics()
		if err := errors.Join(err, e); err != nil {
			return "", err
		}
		const forwarded = `pgwicket_cancel_requests_total{outcome="forwarded"}`
		processes := int(after[forwarded]-before[forwarded]) - arrived
		rate := float64(processes) / length.Seconds()
		total := after.Sum("pgwicket_cancel_requests_total") - before.Sum("pgwicket_cancel_requests_total")
		done := fmt.Sprintf("%.0f CancelRequests a second with keys that nobody has: %.0f a second reached PostgreSQL; of %d honest ones beside them, %d did",
			total/length.Seconds(), rate, tried, arrived)
		if arrived < tried {
			err = fmt.Errorf("%d of %d honest CancelRequests had no effect", tried-arrived, tried)
		}
		return done, err
	})
}

// honestCancels cancels statements of a session, one after another, for a while: less often than any one key may be used.
func (s *scene) honestCancels(ctx context.Context, d time.Duration) (tried, arrived int, err error) {
	c, err := s.dial(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer closeSession(c)
	for end := time.Now().Add(d); time.Now().Before(end); tried++ {
		got := make(chan error, 1)
		go func() {
			_, err := one(ctx, c, "select pg_sleep(2)")
			got <- err
		}()
		if err := s.awaitSleeping(ctx, 1); err != nil {
			return tried, arrived, err
		}
		r, err := s.connect(ctx)
		if err != nil {
			return tried, arrived, err
		}
		_ = r.Send(wire.Cancel(cancelKey(c)))
		if err := <-got; state(err) == "57014" {
			arrived++
		}
		r.Reset()
		time.Sleep(150 * time.Millisecond)
	}
	return tried, arrived, nil
}
