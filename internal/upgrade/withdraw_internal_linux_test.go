package upgrade

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/handover"
	"pgwicket/internal/lock"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// successor returns a Successor whose new process reads nothing and says nothing.
func successor(t *testing.T) *Successor {
	t.Helper()
	log, m := slog.New(slog.DiscardHandler), metrics.New("test")
	server, err := proxy.New(proxy.Options{Policy: new(proxy.Policy), Log: log, Refusals: log, Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Shutdown(t.Context()) })
	locks, err := lock.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s := &Successor{gate: OldGate{Gate: Gate{Server: server, Metrics: m, Locks: locks, Log: log, Now: time.Now}}}
	if s.claim, err = handover.NewClaim(); err != nil {
		t.Fatal(err)
	}
	if s.tookBack, err = handover.NewMark(); err != nil {
		t.Fatal(err)
	}
	conn, other, err := handover.Pair()
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() {
		s.close()
		s.claim.Close()
		_ = other.Close()
	})
	return s
}

// A step that begins when an upgrade has just been withdrawn does not wait for a new process that says nothing: nobody
// accepts connections meanwhile.
func TestStepAfterWithdrawal(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]func(*Successor) error{"prepare": (*Successor).prepare, "hand": (*Successor).hand} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := successor(t)
			if !s.Withdraw(shuttingDown) {
				t.Fatal("the claim is taken")
			}
			done := make(chan error, 1)
			go func() { done <- step(s) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("it goes on")
				}
			case <-time.After(meetTimeout / 2):
				t.Error("it waits for the new process")
			}
		})
	}
}

// A new process that reads nothing does not hold up who sends it a signal.
func TestSignalForAStuckProcess(t *testing.T) {
	t.Parallel()
	s := successor(t)
	s.conn.SetDeadline(time.Now().Add(switchTimeout))
	full := make(chan struct{})
	go func() {
		defer close(full)
		for s.conn.Send(handover.Counters, nil, make([]byte, handover.MaxFrame)) == nil {
		}
	}()
	t.Cleanup(func() {
		_ = s.conn.Close()
		<-full
	})
	began := time.Now()
	for range 2 {
		s.Signal(syscall.SIGHUP)
	}
	if took := time.Since(began); took > switchTimeout/2 {
		t.Errorf("it has taken %v", took)
	}
}
