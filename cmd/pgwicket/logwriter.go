package main

import (
	"bytes"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// The bounds of what waits for a log that is not read.
const (
	mostQueued   = 1 << 20 // bytes; as many again may be under way
	smallQueue   = 64 << 10
	flushTimeout = time.Second
)

// logWriter stands between the log and whoever reads it: a pipe that nobody
// reads, a full disk or a dead reader must not hold up a session. Write never
// waits. Lines keep their order. What does not fit is dropped and counted, and as
// soon as lines can be written again, one of them says how many are missing, in
// the place where they are.
//
// Make it with newLogWriter; Write may be called concurrently.
type logWriter struct {
	to      io.Writer
	dropped func()                     // called for each line that is
	missing func(w io.Writer, n int64) // writes the line about n of them

	mu     sync.Mutex
	queue  []byte // whole lines
	gap    int64  // lines that are missing behind the queue
	closed bool
	ready  chan struct{} // there is something to do
	done   chan struct{} // closed when all has been written, after flush

	// Of run alone.
	lost int64 // lines that could not be written since the last that could
	torn bool  // half a line has been
}

// surviveDeadReader keeps the process alive when the reader of its standard error
// has died: the Go runtime ends a program whose write there fails with EPIPE,
// unless it wants to hear of SIGPIPE.
func surviveDeadReader() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

func newLogWriter(to io.Writer, dropped func(), missing func(w io.Writer, n int64)) *logWriter {
	w := &logWriter{to: to, dropped: dropped, missing: missing, ready: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one line. It never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	// Once one is missing, so are all up to the place where that is said.
	if w.closed || w.gap > 0 || len(w.queue)+len(line) > mostQueued {
		w.gap++
		w.mu.Unlock()
		w.dropped()
		return len(line), nil
	}
	w.queue = append(w.queue, line...)
	w.mu.Unlock()
	w.wake()
	return len(line), nil
}

func (w *logWriter) wake() {
	select {
	case w.ready <- struct{}{}:
	default: // it will look
	}
}

// flush ends the writer when it has written everything, or after flushTimeout.
func (w *logWriter) flush() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
	select {
	case <-w.done:
	case <-time.After(flushTimeout):
	}
}

func (w *logWriter) run() {
	defer close(w.done)
	var lines []byte
	for range w.ready {
		for {
			w.mu.Lock()
			if len(w.queue) == 0 && w.gap == 0 {
				closed := w.closed
				w.mu.Unlock()
				if closed {
					return
				}
				break
			}
			gap := w.gap
			lines, w.queue, w.gap = w.queue, lines[:0], 0
			w.mu.Unlock()
			// A line each time, as if there was no queue: others may write to the same pipe.
			for line := range bytes.Lines(lines) {
				w.write(line)
			}
			if w.lost += gap; w.lost > 0 {
				w.confess()
			}
			if cap(lines) > smallQueue {
				lines = nil
			}
		}
	}
}

// write writes one line, after the one about those that are missing before it.
func (w *logWriter) write(line []byte) {
	if w.lost > 0 && !w.confess() || !w.put(line) {
		w.lost++
		w.dropped()
	}
}

// confess says how many lines are missing, if that can be said.
func (w *logWriter) confess() bool {
	var b bytes.Buffer
	w.missing(&b, w.lost)
	if !w.put(b.Bytes()) {
		return false
	}
	w.lost = 0
	return true
}

func (w *logWriter) put(line []byte) bool {
	if w.torn {
		line = append([]byte("\n"), line...)
	}
	n, err := w.to.Write(line)
	if n > 0 {
		w.torn = n < len(line)
	}
	return err == nil
}
