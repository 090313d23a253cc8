package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
)

const gib = 1 << 30

// once measures what one session does, however long that takes, by the bytes
// that it says it has moved.
func once(do func(*session) (bytes int64, err error)) burst {
	return func(ctx context.Context, _ *lab, g *gate, _ time.Duration) (sample, error) {
		s, err := dial(ctx, g.target())
		if err != nil {
			return sample{}, err
		}
		defer s.close()
		s.renew(10 * patience)
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
	s.r.Reset(s.conn)
	sql := fmt.Sprintf("copy (select t from filler, generate_series(1, %d)) to stdout", mib)
	if _, err := io.WriteString(s.conn, message('Q', sql+"\x00")); err != nil {
		return 0, err
	}
	return s.await('Z')
}

// copyIn uploads to a table that takes none of it.
func copyIn(mib int) burst {
	row := message('d', strings.Repeat("x", 1018)+"\n")
	chunk := []byte(strings.Repeat(row, 8192/len(row)))
	return once(func(s *session) (int64, error) { return int64(mib) << 20, s.upload(chunk, mib<<20/len(chunk)) })
}

func (s *session) upload(chunk []byte, times int) error {
	if _, err := io.WriteString(s.conn, message('Q', "copy sink from stdin where false\x00")); err != nil {
		return err
	}
	if _, err := s.await('G'); err != nil {
		return err
	}
	for range times {
		if _, err := s.conn.Write(chunk); err != nil {
			return err
		}
	}
	return s.exchange(message('c', ""))
}

// download is a COPY that goes on until it is stopped.
type download struct {
	bytes atomic.Int64
	s     *session
	done  chan struct{}
}

func startDownload(ctx context.Context, g *gate) (*download, error) {
	s, err := dial(ctx, g.target())
	if err != nil {
		return nil, err
	}
	s.renew(10 * patience)
	d := &download{s: s, done: make(chan struct{})}
	if _, err := io.WriteString(s.conn, message('Q', "copy (select t from filler, generate_series(1, 1000000)) to stdout\x00")); err != nil {
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
		n, err := d.s.conn.Read(buf)
		d.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// stop breaks it off, as a client that has seen enough, and waits for the
// server to notice, so that the next contender has the machine to itself.
func (d *download) stop() {
	d.s.drop()
	<-d.done
	time.Sleep(300 * time.Millisecond)
}
