// Package logwriter writes log lines without ever making their author wait.
//
// An unread pipe, a full disk or a dead reader blocks or fails a write
// to standard error. In a gate that would hold up the sessions that log. The
// package knows lines and bytes only; it imports nothing but the standard library.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// The bounds of the queue.
const (
	maxQueued    = 1 << 20       // bytes; as many again may be being written
	maxLow       = maxQueued / 2 // what low priority may fill
	keptCapacity = 64 << 10
	closeTimeout = time.Second
)

// Writer queues lines and writes them in order from its own goroutine. Write
// never waits. A line that does not fit into the queue, or that cannot be written,
// is dropped and counted. As soon as lines can be written again, a report of their
// number is written in their place.
//
// Lines of low priority go into the same queue, but only into its first half. However
// many of them there are, they never take the place of another line.
//
// Make one with New. Write may be called concurrently.
type Writer struct {
	to      io.Writer
	dropped func()
	report  func(w io.Writer, n int64)

	mu     sync.Mutex
	queue  []byte // whole lines
	gap    int64  // lines dropped after the end of the queue
	lowGap int64  // the same of low priority
	closed bool
	wake   chan struct{} // there is work
	done   chan struct{} // closed when everything is written, after Close

	// Only run uses these.
	lost    int64 // lines that could not be written since the last that could
	midline bool  // the last write stopped in the middle of a line
}

// New returns a Writer to w, which must be closed. dropped is called once for each
// dropped line, report to write one line about n of them.
func New(w io.Writer, dropped func(), report func(w io.Writer, n int64)) *Writer {
	lw := &Writer{to: w, dropped: dropped, report: report, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go lw.run()
	return lw
}

// Write queues one line, its newline included. It always succeeds.
func (w *Writer) Write(line []byte) (int, error) {
	w.enqueue(line, maxQueued, &w.gap)
	return len(line), nil
}

// LowPriority returns a writer of lines that may be many, such as those that clients
// without a session cause. It never waits and always succeeds, as Write does.
func (w *Writer) LowPriority() io.Writer { return lowPriority{w} }

type lowPriority struct{ *Writer }

func (w lowPriority) Write(line []byte) (int, error) {
	w.enqueue(line, maxLow, &w.lowGap)
	return len(line), nil
}

// enqueue appends a line if the queue is not longer than limit with it. gap counts the
// dropped lines of its kind, and after one of them all up to their report are dropped.
func (w *Writer) enqueue(line []byte, limit int, gap *int64) {
	w.mu.Lock()
	if w.closed || *gap > 0 || len(w.queue)+len(line) > limit {
		*gap++
		w.mu.Unlock()
		w.dropped()
		return
	}
	w.queue = append(w.queue, line...)
	w.mu.Unlock()
	w.signal()
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// Close returns when every queued line is written, or after one second. Lines that
// are written later are dropped.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	select {
	case <-w.done:
	case <-time.After(closeTimeout):
	}
}

func (w *Writer) run() {
	defer close(w.done)
	var lines []byte
	for range w.wake {
		for {
			w.mu.Lock()
			if len(w.queue) == 0 && w.gap+w.lowGap == 0 {
				closed := w.closed
				w.mu.Unlock()
				if closed {
					return
				}
				break
			}
			gap := w.gap + w.lowGap
			lines, w.queue, w.gap, w.lowGap = w.queue, lines[:0], 0, 0
			w.mu.Unlock()
			// One line a write, as without a queue: other processes may write to the same pipe.
			for line := range bytes.Lines(lines) {
				w.write(line)
			}
			if w.lost += gap; w.lost > 0 {
				w.reportDropped()
			}
			if cap(lines) > keptCapacity {
				lines = nil
			}
		}
	}
}

// write writes one line, after the report about lines lost before it.
func (w *Writer) write(line []byte) {
	if w.lost > 0 && !w.reportDropped() || !w.put(line) {
		w.lost++
		w.dropped()
	}
}

// reportDropped writes the number of lost lines, and returns whether it could.
func (w *Writer) reportDropped() bool {
	var b bytes.Buffer
	w.report(&b, w.lost)
	if !w.put(b.Bytes()) {
		return false
	}
	w.lost = 0
	return true
}

func (w *Writer) put(line []byte) bool {
	if w.midline {
		line = append([]byte("\n"), line...)
	}
	n, err := w.to.Write(line)
	if n > 0 {
		w.midline = n < len(line)
	}
	return err == nil
}
