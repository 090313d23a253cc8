package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"pgwicket/test/gate"
)

// clients are many sessions at one gate.
type clients []*session

// openClients opens n sessions, a few at a time, and does something with each.
func openClients(ctx context.Context, t target, n int, first func(*session) error) (clients, error) {
	sessions, errs := make(clients, n), make([]error, n)
	var wg sync.WaitGroup
	turns := make(chan int)
	for range min(n, 32) {
		wg.Go(func() {
			for i := range turns {
				sessions[i], errs[i] = dial(ctx, t)
				if errs[i] == nil {
					errs[i] = first(sessions[i])
				}
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	wg.Wait()
	if err := first3(errs); err != nil {
		sessions.closeAll()
		return nil, err
	}
	return sessions, nil
}

// first3 joins errors, but not ten thousand of them.
func first3(errs []error) error {
	var some []error
	for _, err := range errs {
		if err != nil && len(some) < 3 {
			some = append(some, err)
		}
	}
	return errors.Join(some...)
}

func (c clients) closeAll() {
	var wg sync.WaitGroup
	for _, s := range c {
		if s != nil {
			wg.Go(s.close)
		}
	}
	wg.Wait()
}

// run has every session ask and wait for the answer, again and
// again for a while, and returns how long each answer took. With a pause, each
// begins a query every pause, unless it is late.
func (c clients) run(d, pause time.Duration, request func(client int) string) ([]time.Duration, error) {
	took, errs := make([][]time.Duration, len(c)), make([]error, len(c))
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i, s := range c {
		wg.Go(func() {
			s.extend(d + gate.Timeout)
			// Staggered, else all would ask in the same moment.
			time.Sleep(pause * time.Duration(i) / time.Duration(len(c)))
			took[i], errs[i] = s.run(request(i), end, pause)
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	return all, first3(errs)
}

func (s *session) run(request string, end time.Time, pause time.Duration) (took []time.Duration, err error) {
	for {
		begin := time.Now()
		if begin.After(end) {
			return took, nil
		}
		if err := s.Exchange(request); err != nil {
			return took, err
		}
		spent := time.Since(begin)
		took = append(took, spent)
		if pause > spent {
			time.Sleep(pause - spent)
		}
	}
}

// flood calls a function again and again for a while, in several goroutines,
// and returns how long each call took.
func flood(workers int, d time.Duration, call func() error) ([]time.Duration, error) {
	took, errs := make([][]time.Duration, workers), make([]error, workers)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for errs[i] == nil && time.Now().Before(end) {
				begin := time.Now()
				errs[i] = call()
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	return all, first3(errs)
}
