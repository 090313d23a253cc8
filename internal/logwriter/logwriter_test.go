package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// reportLine is a report that is easily parsed.
func reportLine(w io.Writer, n int64) { fmt.Fprintf(w, "dropped %d\n", n) }

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
	}
}

// Every line is in the log in its order, or counted in its place, and no Write
// waits for the reader.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var dropped atomic.Int64
	log := New(w, func() { dropped.Add(1) }, reportLine)
	const lines = 40_000 // of 100 bytes: four times what may wait
	write := func(i int) {
		if n, err := fmt.Fprintf(log, "%099d\n", i); n != 100 || err != nil {
			t.Errorf("line %d: %d, %v", i, n, err)
		}
	}
	for i := range lines {
		write(i)
	}
	if n := dropped.Load(); n == 0 || n > lines*3/4 {
		t.Errorf("%d of %d lines were dropped; the queue should hold a quarter of them", n, lines)
	}

	var mu sync.Mutex
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := r.Read(b)
			mu.Lock()
			got.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	waitFor(t, "the report is written without another line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(got.String(), "dropped")
	})
	write(lines)
	log.Close()
	_ = w.Close()
	<-read
	next := int64(0)
	for line := range strings.Lines(got.String()) {
		var n int64
		if _, err := fmt.Sscanf(line, "dropped %d\n", &n); err == nil {
			next += n
			continue
		}
		if _, err := fmt.Sscanf(line, "%d\n", &n); err != nil || len(line) != 100 || n != next {
			t.Fatalf("%q instead of line %d", line, next)
		}
		next++
	}
	if next != lines+1 {
		t.Errorf("%d lines are accounted for, want %d", next, lines+1)
	}
}

// A reader of 64 KB/s and a flood of low priority: every other line is written, in its
// order, and each dropped line is counted.
func TestLowPriorityDisplacesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := &slowReader{perSecond: 64 << 10}
		var dropped, reported atomic.Int64
		log := New(slow, func() { dropped.Add(1) }, func(w io.Writer, n int64) { reported.Add(n); reportLine(w, n) })
		low := log.LowPriority()
		const seconds, mainPerSecond, lowPerSecond = 40, 200, 5_000
		for i := range seconds * mainPerSecond {
			for range lowPerSecond / mainPerSecond {
				_, _ = fmt.Fprintf(low, "low %095d\n", i)
			}
			_, _ = fmt.Fprintf(log, "main %094d\n", i)
			time.Sleep(time.Second / mainPerSecond)
		}
		for log.mu.Lock(); len(log.queue) > 0; log.mu.Lock() { // it is read in the end
			log.mu.Unlock()
			time.Sleep(time.Second)
		}
		log.mu.Unlock()
		time.Sleep(time.Minute)
		log.Close()
		next, lows := 0, int64(0)
		for line := range strings.Lines(slow.got.String()) {
			var n int
			if _, err := fmt.Sscanf(line, "main %d", &n); err != nil {
				if strings.HasPrefix(line, "low ") {
					lows++
				}
				continue
			}
			if n != next {
				t.Fatalf("line %d instead of %d", n, next)
			}
			next++
		}
		if next != seconds*mainPerSecond {
			t.Errorf("%d lines of %d were written", next, seconds*mainPerSecond)
		}
		if d := dropped.Load(); d == 0 || lows+d != seconds*lowPerSecond || reported.Load() != d {
			t.Errorf("%d lines of low priority written, %d dropped, %d reported, want %d in all", lows, d, reported.Load(), seconds*lowPerSecond)
		}
	})
}

// slowReader takes some bytes a second.
type slowReader struct {
	perSecond int
	got       bytes.Buffer
}

func (s *slowReader) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(s.perSecond))
	return s.got.Write(p)
}

// Close does not wait for a reader that never reads.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log := New(w, func() {}, reportLine)
	for range 20_000 {
		_, _ = fmt.Fprintf(log, "%099d\n", 0)
	}
	began := time.Now()
	log.Close()
	if took := time.Since(began); took < closeTimeout || took > 20*closeTimeout {
		t.Errorf("Close took %v, want %v", took, closeTimeout)
	}
	_ = r.Close() // lets the writer go
	<-log.done
}

// flaky is a file whose disk may be full in the middle of a line.
type flaky struct {
	mu   sync.Mutex
	room int // negative: enough
	got  bytes.Buffer
}

func (f *flaky) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room < 0 {
		return f.got.Write(p)
	}
	n, _ := f.got.Write(p[:min(f.room, len(p))])
	if f.room -= n; n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (f *flaky) have(room int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = room
	return f.got.String()
}

// Lines that could not be written are reported, on their own line, once one can be.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	f := &flaky{room: len("one\ntw")}
	var dropped atomic.Int64
	log := New(f, func() { dropped.Add(1) }, reportLine)
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		_, _ = io.WriteString(log, line)
	}
	waitFor(t, "two lines are lost", func() bool { return dropped.Load() == 2 })
	f.have(-1)
	_, _ = io.WriteString(log, "four\n")
	log.Close()
	if got, want := f.have(-1), "one\ntw\ndropped 2\nfour\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A line after Close is counted, and nothing else happens.
func TestWriteAfterClose(t *testing.T) {
	t.Parallel()
	var dropped atomic.Int64
	log := New(io.Discard, func() { dropped.Add(1) }, reportLine)
	log.Close()
	if n, err := io.WriteString(log, "late\n"); n != 5 || err != nil || dropped.Load() != 1 {
		t.Errorf("%d, %v, %d dropped", n, err, dropped.Load())
	}
}

// A closed pipe is an error like others, even on standard error, where the Go
// runtime would end the process.
func TestDeadReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	if _, err := w.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	var dropped atomic.Int64
	log := New(w, func() { dropped.Add(1) }, reportLine)
	_, _ = io.WriteString(log, "a line\n")
	log.Close()
	if dropped.Load() != 1 {
		t.Errorf("%d lines dropped, want 1", dropped.Load())
	}
}
