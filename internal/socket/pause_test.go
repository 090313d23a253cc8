package socket

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// acceptLoop is one as its users have it. It returns its end.
func acceptLoop(p *Pause, ln net.Listener) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := ln.Accept()
			if err == nil {
				_ = conn.Close()
			} else if !p.Wait(err) {
				ended <- err
				return
			}
		}
	}()
	return ended
}

func ends(t *testing.T, loop <-chan error) {
	t.Helper()
	select {
	case err := <-loop:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the accept loop does not end")
	}
}

// A pause that begins or ends when an accept loop has been stopped does not keep it.
func TestPauseAfterStop(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]func(*Pause, net.Listener){
		"end":            func(p *Pause, ln net.Listener) { p.End(ln) },
		"begin":          func(p *Pause, ln net.Listener) { p.Begin(ln) },
		"begin and end":  func(p *Pause, ln net.Listener) { p.Begin(ln); p.End(ln) },
		"stop once more": func(p *Pause, ln net.Listener) { p.Stop(ln) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := loopback(t)
			var p Pause
			p.Begin(ln)
			p.Stop(ln)
			late(&p, ln)
			ends(t, acceptLoop(&p, ln))
		})
	}
}

// A loop goes on after any number of pauses, and ends when it is stopped at any moment of one.
func TestPauses(t *testing.T) {
	t.Parallel()
	for range 50 {
		ln := loopback(t)
		var p Pause
		loop := acceptLoop(&p, ln)
		for range 20 {
			p.Begin(ln)
			p.End(ln)
		}
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("it is not accepted")
		}
		_ = conn.Close()
		paused := make(chan struct{})
		go func() {
			defer close(paused)
			p.Begin(ln)
			p.End(ln)
		}()
		p.Stop(ln)
		ends(t, loop)
		<-paused
	}
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}
