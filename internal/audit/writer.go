package audit

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"pgwicket/internal/statefile"
)

// The bounds of the queue, and how a file that cannot be written is tried again.
const (
	maxQueued  = 4 << 20       // bytes
	slowQueued = maxQueued / 2 // from here on the trail counts as failing
	retryPause = 200 * time.Millisecond
	syncPause  = time.Second
)

// Writer appends lines to a file, in order, from its own goroutine. Make one with Open.
// Its methods may be called concurrently, and none waits for the file.
//
// Lines that cannot be written wait in a bounded queue. Those beyond it are lost; the
// first line that can be written again says how many (event "lost").
type Writer struct {
	path string
	on   Observer

	mu       sync.Mutex
	queue    [][]byte // see encode
	queued   int      // bytes
	lost     int      // lines after the end of the queue
	head     Head
	err      error // of the last attempt to write; nil: it went well
	reported bool  // Observer knows that it is failing
	closed   bool

	wake chan struct{}
	done chan struct{}

	// Only run uses the rest.
	file  *os.File
	heads headFile
	size  int64 // of the file after the last line that is known
	stale bool  // there are lines that have not been synced
}

// Observer is told what happens to lines; each may be nil. They must not block, nor call the Writer.
type Observer struct {
	Written func(lines int)
	Lost    func()
	Failing func(error) // when writing begins to fail, or to be too slow
	Works   func()      // when it works again
	// Cut is told how many bytes of an incomplete last line were removed, which were being
	// written when the machine or the gate stopped.
	Cut func(bytes int64)
}

// Open opens the file, or makes it, and goes on with the trail in it. It fails if the
// file cannot be written or is no audit trail.
func Open(path string, on Observer) (*Writer, error) {
	w := &Writer{path: path, on: on, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := w.open(); err != nil {
		return nil, err
	}
	heads, err := openHeads(beside(path, "head"))
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	w.heads = heads
	unlock, err := w.lock()
	if err == nil {
		err = w.readHead()
		unlock()
	}
	if err != nil {
		_ = w.file.Close()
		_ = heads.Close()
		return nil, err
	}
	go w.run()
	return w, nil
}

// Record appends a line about an event.
func (w *Writer) Record(event string, attrs []slog.Attr) {
	line := encode(time.Now(), event, attrs)
	w.mu.Lock()
	if w.closed || w.lost > 0 || w.queued+len(line) > maxQueued {
		w.lost++
		w.mu.Unlock()
		call(w.on.Lost)
		return
	}
	w.queue, w.queued = append(w.queue, line), w.queued+len(line)
	w.reportState()
	w.mu.Unlock()
	w.signal()
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// Reopen looks at once whether another process has renamed the file. The Writer also looks every second.
func (w *Writer) Reopen() { w.signal() }

// Head returns the newest line that is in the file.
func (w *Writer) Head() Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head
}

// Err returns why lines cannot be written now, or not fast enough; nil: they can.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing()
}

// failing is Err. The caller holds mu.
func (w *Writer) failing() error {
	switch {
	case w.err != nil:
		return w.err
	case w.queued > slowQueued || w.lost > 0:
		return fmt.Errorf("%s is too slow: %d bytes wait to be written", w.path, w.queued)
	}
	return nil
}

// Close writes what waits, for at most a second, and closes the file.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// run writes until the Writer is closed and nothing waits, or nothing can be written.
func (w *Writer) run() {
	defer close(w.done)
	defer w.heads.Close()
	pause := time.NewTicker(syncPause)
	defer pause.Stop()
	for {
		select {
		case <-w.wake:
		case <-pause.C:
			if w.stale && w.file.Sync() == nil {
				w.stale = false
			}
		}
		w.follow()
		for w.pending() {
			if err := w.flush(); w.note(err) != nil {
				if w.isClosed() {
					return
				}
				time.Sleep(retryPause)
			}
		}
		if w.isClosed() {
			_ = w.file.Sync()
			_ = w.file.Close()
			return
		}
	}
}

func (w *Writer) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0 || w.lost > 0
}

func (w *Writer) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// note keeps the result of an attempt to write, and tells of a change.
func (w *Writer) note(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.reportState()
	return err
}

// reportState tells the observer when Err begins or ceases to return an error. The caller holds mu, so
// that the observer gets both in order.
func (w *Writer) reportState() {
	switch err := w.failing(); {
	case err != nil && !w.reported:
		w.reported = true
		if w.on.Failing != nil {
			w.on.Failing(err)
		}
	case err == nil && w.reported:
		w.reported = false
		call(w.on.Works)
	}
}

// maxBatch bounds the lines of one write.
const maxBatch = 512

// flush writes a batch, all of it or nothing, at the end of what this or another gate has
// written.
func (w *Writer) flush() error {
	unlock, err := w.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := w.readHead(); err != nil {
		return err
	}
	w.mu.Lock()
	batch, lost := w.queue[:min(len(w.queue), maxBatch)], 0
	if len(batch) == len(w.queue) {
		lost = w.lost
	}
	head := w.head
	w.mu.Unlock()
	var text []byte
	for _, rest := range batch {
		var line []byte
		line, head = head.next(rest)
		text = append(text, line...)
	}
	if lost > 0 {
		var line []byte
		line, head = head.next(encode(time.Now(), "lost", []slog.Attr{slog.Int("lines", lost)}))
		text = append(text, line...)
	}
	if _, err := w.file.Write(text); err != nil {
		_ = w.file.Truncate(w.size) // a part of a line would be damage
		return err
	}
	w.heads.write(head)
	w.size, w.stale = w.size+int64(len(text)), true
	w.mu.Lock()
	for _, rest := range batch {
		w.queued -= len(rest)
	}
	w.queue, w.lost, w.head = append([][]byte(nil), w.queue[len(batch):]...), w.lost-lost, head
	w.mu.Unlock()
	if w.on.Written != nil {
		w.on.Written(len(batch))
	}
	return nil
}

// open opens the file that has the path now.
func (w *Writer) open() (err error) {
	w.file, err = statefile.Open(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	w.size = -1 // it is not known
	return err
}

// follow goes on in the file that has the path now. A gate without lines must not stay behind while another
// one fills the next file: it would not find the last line once that is renamed, too.
func (w *Writer) follow() {
	if !w.renamed() {
		return
	}
	if unlock, err := w.lock(); err == nil { // else the next line reports it
		unlock()
	}
}

// renamed reports whether another file has the path than the one that is open, or none.
func (w *Writer) renamed() bool {
	now, there := os.Lstat(w.path)
	mine, err := w.file.Stat()
	return there != nil || err != nil || !os.SameFile(now, mine)
}

// lock keeps other gates from writing, and opens the file that has the path now. After a
// rename (logrotate) that is another one than before; the trail goes on in it. The lock is
// on a file beside it, which only this account can open.
func (w *Writer) lock() (unlock func(), err error) {
	locked, err := statefile.Lock(beside(w.path, "lock"), statefile.MaxWait)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			locked()
		}
	}()
	const most = 10 // renames at the same time
	for range most {
		if !w.renamed() {
			return locked, nil
		}
		if err := w.readHead(); err != nil { // another gate may have written last
			return nil, err
		}
		_ = w.file.Sync()
		old := w.file
		if err := w.open(); err != nil {
			w.file = old
			return nil, err
		}
		_ = old.Close()
	}
	return nil, fmt.Errorf("%s is renamed again and again", w.path)
}

// readHead reads the end of the file if another process has written to it. What it finds
// behind the last newline was never a line, and is removed. The caller holds the lock of
// the file.
func (w *Writer) readHead() error {
	st, err := w.file.Stat()
	if err != nil || st.Size() == w.size {
		return err
	}
	h, whole, err := tail(w.file, st.Size())
	if err != nil {
		return err
	}
	if whole < st.Size() {
		if err := w.file.Truncate(whole); err != nil {
			return err
		}
		if w.on.Cut != nil {
			w.on.Cut(st.Size() - whole)
		}
	}
	w.size = whole
	w.mu.Lock()
	defer w.mu.Unlock()
	if whole == 0 { // it goes on where the one before has ended, which this gate may not have seen
		h = w.heads.read()
	}
	if whole > 0 || h.Sequence > w.head.Sequence {
		w.head = h
	}
	return nil
}
