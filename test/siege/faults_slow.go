//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// Clients that send a byte at a time, at every stage of the startup. They must be ended by
// limits.startup_timeout, and no other client may wait behind them: a handshake that
// waits for its client gives its slot up (a slow loris: gate#936, go-proxyproto#65).
// A session that has begun may take its time.
func slowClient(ctx context.Context, t *trial) (string, error) {
	timeout, pause := pick(t, 3*time.Second, 10*time.Second), pick(t, 300*time.Millisecond, time.Second)
	s, err := t.open(ctx, setting{keys: map[string]string{"limits.startup_timeout": timeout.String()}})
	if err != nil {
		return "", err
	}
	stages, err := s.slowStages(ctx)
	if err != nil {
		return "", err
	}
	each := pick(t, 4, 16)
	var wg sync.WaitGroup
	errs := make(chan error, each*len(stages)+1)
	for _, stage := range stages {
		for range each {
			wg.Go(func() { errs <- s.slowStartup(ctx, stage, pause) })
		}
	}
	wg.Go(func() { errs <- s.slowQuery(ctx, t, pause) })
	for range 5 {
		if err := s.expectServed(ctx); err != nil {
			return "", err
		}
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	late := 0
	for _, r := range s.Records() {
		if r.Is(gate.MessageRefused, "outcome", "startup_timeout") || r.Is(gate.MessageRefused, "outcome", "tls_timeout") {
			late++
		}
	}
	if late != each*len(stages) {
		err = errors.Join(err, fmt.Errorf("the log has %d startups that took too long, want %d", late, each*len(stages)))
	}
	return fmt.Sprintf("a byte each %v, %d clients in each of %d stages: all ended by startup_timeout (%v), new clients served meanwhile; a query sent so was answered", pause, each, len(stages), timeout), err
}

// slowStage is a point of the startup from which on a client is slow. begin does what
// comes before it, and returns where and what to send slowly.
type slowStage struct {
	name  string
	begin func(c *wire.Conn) (io.Writer, string, error)
}

func (s *scene) slowStages(ctx context.Context) ([]slowStage, error) {
	config := s.lab.tlsConfig(s.lab.client)
	hello, err := recordHello(config)
	return []slowStage{
		{"the SSLRequest", func(c *wire.Conn) (io.Writer, string, error) { return c.TCP, sslRequest[:7], nil }},
		{"the ClientHello", func(c *wire.Conn) (io.Writer, string, error) { return c.TCP, hello, c.RequestTLS() }},
		{"a direct ClientHello", func(c *wire.Conn) (io.Writer, string, error) { return c.TCP, hello, nil }},
		{"the startup packet", func(c *wire.Conn) (io.Writer, string, error) {
			if err := c.RequestTLS(); err != nil {
				return nil, "", err
			}
			err := c.Handshake(ctx, config)
			return c, startupPacket(), err
		}},
	}, err
}

// slowStartup fails unless the gate ends the connection.
func (s *scene) slowStartup(ctx context.Context, stage slowStage, pause time.Duration) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Reset()
	w, text, err := stage.begin(c)
	if err == nil {
		err = sendSlowly(ctx, w, text, pause)
	}
	if cut(err) {
		return nil
	}
	return fmt.Errorf("%s, a byte each %v: it was not ended: %w", stage.name, pause, err)
}

// sendSlowly sends a byte at a time, and what comes after the last is silence. The
// error is how the peer has ended that.
func sendSlowly(ctx context.Context, w io.Writer, text string, pause time.Duration) error {
	gone := make(chan error, 1)
	if r, ok := w.(io.Reader); ok {
		go func() {
			_, err := io.Copy(io.Discard, r)
			if err == nil {
				err = io.EOF
			}
			gone <- err
		}()
	}
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return err
		}
		select {
		case err := <-gone:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	select {
	case err := <-gone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scene) slowQuery(ctx context.Context, t *trial, pause time.Duration) error {
	r, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer r.CloseTCP()
	if err := logIn(ctx, r, t.tlsConfig(t.client)); err != nil {
		return err
	}
	for _, b := range []byte(wire.Query("select 1")) {
		if err := r.Send(string([]byte{b})); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	_, err = r.Await('Z')
	return err
}

// recordHello returns the ClientHello of a client with that configuration.
func recordHello(config *tls.Config) (string, error) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		_ = tls.Client(ours, config).Handshake()
		_ = ours.Close()
	}()
	var head [5]byte
	if _, err := io.ReadFull(theirs, head[:]); err != nil {
		return "", err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err := io.ReadFull(theirs, body)
	return string(head[:]) + string(body), err
}
