package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

const gib = 1 << 30

// once measures what one session does, however long that takes, by the bytes
// that it says it has moved.
func once(do func(*session) (bytes int64, err error)) burst {
	return func(ctx context.Context, _ *lab, g *endpoint, _ time.Duration) (sample, error) {
		s, err := dial(ctx, g.target())
		if err != nil {
			return sample{}, err
		}
		defer s.close()
		s.extend(10 * gate.Timeout)
		m, err := startMeter(g)
		if err != nil {
			return sample{}, err
		}
		n, err := do(s)
		if err != nil {
			return sample{}, err
		}
		r, err := m.stop()
		r.Units = float64(n) / gib
		return r, err
	}
}

func copyOut(mib int) burst {
	return once(func(s *session) (int64, error) {
		n, err := s.download(mib)
		if err == nil && n < int64(mib)<<20 {
			err = fmt.Errorf("only %d bytes have come", n)
		}
		return n, err
	})
}

func (s *session) download(mib int) (int64, error) {
	sql := fmt.Sprintf("copy (select t from filler, generate_series(1, %d)) to stdout", mib)
	if err := s.Send(wire.Query(sql)); err != nil {
		return 0, err
	}
	return s.Skip('Z')
}

// copyIn uploads to a table that takes none of it.
func copyIn(mib int) burst {
	row := wire.Message('d', strings.Repeat("x", 1018)+"\n")
	chunk := []byte(strings.Repeat(row, 8192/len(row)))
	return once(func(s *session) (int64, error) { return int64(mib) << 20, s.upload(chunk, mib<<20/len(chunk)) })
}

func (s *session) upload(chunk []byte, times int) error {
	if err := s.Send(wire.Query("copy sink from stdin where false")); err != nil {
		return err
	}
	if _, err := s.Skip('G'); err != nil {
		return err
	}
	for range times {
		if _, err := s.Write(chunk); err != nil {
			return err
		}
	}
	return s.Exchange(wire.Message('c', ""))
}

// download is a COPY that goes on until it is stopped.
type download struct {
	bytes atomic.Int64
	s     *session
	done  chan struct{}
}

func startDownload(ctx context.Context, g *endpoint) (*download, error) {
	s, err := dial(ctx, g.target())
	if err != nil {
		return nil, err
	}
	s.extend(10 * gate.Timeout)
	d := &download{s: s, done: make(chan struct{})}
	if err := s.Send(wire.Query("copy (select t from filler, generate_series(1, 1000000)) to stdout")); err != nil {
		s.drop()
		return nil, err
	}
	go d.run()
	return d, nil
}

func (d *download) run() {
	defer close(d.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := d.s.Read(buf)
		d.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// stop closes the connection in the middle, and waits until the server has ended
// the session, so that the next contender has the machine to itself.
func (d *download) stop(ctx context.Context, db *database) error {
	d.s.drop()
	<-d.done
	return gate.Eventually(ctx, "the download's backend has ended", gate.Timeout, func() error {
		n, err := db.SQL("select count(*) from pg_stat_activity where query like 'copy (select t%' and state = 'active'")
		if err == nil && n != "0" {
			err = errors.New("it still sends")
		}
		return err
	})
}
