//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// largeResult is a query whose rows are digests.
type largeResult struct {
	s    *scene
	rows int
}

const resultRow = 16 << 10

// open asks for the result, by a client with a small receive buffer.
func (l largeResult) open(ctx context.Context) (*wire.Conn, error) {
	r, err := l.s.connect(ctx)
	if err != nil {
		return nil, err
	}
	_ = r.TCP.SetReadBuffer(64 << 10)
	_ = r.TCP.SetDeadline(time.Now().Add(3 * gate.Timeout))
	if err := logIn(ctx, r, l.s.lab.tlsConfig(l.s.lab.client)); err != nil {
		return nil, err
	}
	return r, r.Send(wire.Query(digests(l.rows, resultRow/32)))
}

// warmUp has the gate take what memory it needs for any large result, and for
// being measured.
func (l largeResult) warmUp(ctx context.Context, t *trial) error {
	r, err := l.open(ctx)
	if err != nil {
		return err
	}
	if err := readRows(r, 1, min(l.rows, 8<<10)); err != nil {
		return err
	}
	r.CloseTCP()
	if _, err := l.s.released(ctx); err != nil {
		return err
	}
	_, err = l.s.memory(ctx, t)
	return err
}

// A client stops in the middle of a large result. The gate must not buffer what the
// client does not read, and when it reads on, every byte must come.
func readerStops(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{plain: true}) // the race detector needs memory too
	if err != nil {
		return "", err
	}
	l := largeResult{s, pick(t, 8<<10, 64<<10)}
	if err := l.warmUp(ctx, t); err != nil {
		return "", err
	}
	before, err := s.memory(ctx, t)
	if err != nil {
		return "", err
	}
	r, err := l.open(ctx)
	if err != nil {
		return "", err
	}
	defer r.CloseTCP()
	const first = 256
	if err := readRows(r, 1, first); err != nil {
		return "", err
	}
	during, err := s.memory(ctx, t)
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.observers.awaitAnswers(ctx, 20), s.expectServed(ctx), readRows(r, first+1, l.rows-first)); err != nil {
		return "", err
	}
	if _, err := r.Await('Z'); err != nil {
		return "", err
	}
	_ = r.Send(wire.Terminate)
	most := int64(pick(t, 2, 1)) << 20
	grown, heap := during.resident-before.resident, during.heap-before.heap
	if grown > most || heap > most {
		err = fmt.Errorf("the gate has grown by %d KiB of resident memory and %d KiB of heap; %d are allowed", grown>>10, heap>>10, most>>10)
	}
	return fmt.Sprintf("a result of %d MiB, of which 4 MiB were read before the pause: the gate grew by %d KiB (heap: %d KiB), then every byte came",
		l.rows*resultRow>>20, grown>>10, heap>>10), err
}

// usage is the memory of a gate, in bytes.
type usage struct{ resident, heap int64 }

// memory returns the medians of the gate's resident memory and of its heap in use
// over a few seconds, so that what is still on its way has passed.
func (s *scene) memory(ctx context.Context, t *trial) (u usage, err error) {
	var all, heaps []int64
	for range pick(t, 40, 80) {
		m, err := s.Metrics()
		if err != nil {
			return u, err
		}
		n, err := s.Resident()
		if err != nil {
			return u, err
		}
		all, heaps = append(all, n), append(heaps, int64(m["go_memstats_heap_inuse_bytes"]))
		select {
		case <-ctx.Done():
			return u, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	slices.Sort(all)
	slices.Sort(heaps)
	return usage{all[len(all)/2], heaps[len(heaps)/2]}, nil
}

// readRows reads rows of digests, from a number on, and checks every byte.
func readRows(r *wire.Conn, from, n int) error {
	for i := from; i < from+n; {
		kind, body, err := r.ReadMessage()
		switch {
		case err != nil:
			return fmt.Errorf("row %d: %w", i, err)
		case kind == 'E':
			return fmt.Errorf("row %d: %s", i, wire.Field(body, 'M'))
		case kind != 'D':
			continue
		}
		digest := question{i, 1}.answer()
		if want := bytes.Repeat([]byte(digest), (len(body)-6)/len(digest)); !bytes.Equal(body[6:], want) {
			return fmt.Errorf("row %d is another", i)
		}
		i++
	}
	return nil
}
