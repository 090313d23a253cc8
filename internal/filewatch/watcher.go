// Package filewatch reports when the files of a configuration have changed and
// then stayed unchanged for a moment.
//
// It watches directories, never files: a watch on a file hears nothing more after
// the file has been replaced by a rename, or when it lies behind the ..data link of
// Kubernetes. Events only say when to look; what counts is a digest of each file.
// Where the system sends no events (network disks, bind mounts, exhausted inotify
// limits), all files are read every 15 seconds.
//
// It is the only package that imports fsnotify, and imports nothing of pgwicket.
package filewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// SettleTime is how long files must stay unchanged before they count as
	// written. A revoked client must be out within a second, of which reading and
	// judging take a part. Files that belong together arrive within this time, or
	// the reload between them fails and the next one succeeds.
	SettleTime = 100 * time.Millisecond
	// maxWait bounds the wait: a file that is written without end must not delay
	// the others.
	maxWait      = 5 * time.Second
	pollInterval = 15 * time.Second
)

// Options say what a Watcher watches.
type Options struct {
	// Config is the file that names the others; empty if there is none.
	Config string
	// List returns every path of the configuration, Config included. It is called
	// again when Config changes.
	List func(config string) []string
	// Loaded is the snapshot of the last load, successful or not. The receiver of
	// the changes stores it; changes are differences from it.
	Loaded *atomic.Pointer[Snapshot]
	Log    *slog.Logger
}

// Watcher reports changes until it is stopped.
type Watcher struct {
	Options
	settle, maxWait, poll time.Duration
	pollOnly              bool // do without fsnotify

	changes chan Snapshot
	notify  *fsnotify.Watcher // nil: only poll
	set     watchSet
	paths   []string
	listed  [sha256.Size]byte // digest of the Config that paths are from
	warned  bool
	cancel  context.CancelFunc
	done    chan struct{}
}

// Start starts a Watcher, which must be stopped.
func Start(o Options) *Watcher {
	w := newWatcher(o)
	w.start()
	return w
}

func newWatcher(o Options) *Watcher {
	return &Watcher{Options: o, settle: SettleTime, maxWait: maxWait, poll: pollInterval}
}

// Changes delivers a snapshot that differs from the loaded one, once it has
// settled. Until it is received, newer ones replace it.
func (w *Watcher) Changes() <-chan Snapshot { return w.changes }

func (w *Watcher) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	w.changes = make(chan Snapshot)
	if w.paths = []string{w.Config}; w.Config == "" { // the paths of the environment do not change
		w.paths = w.List("")
	}
	go w.run(ctx)
}

// Stop ends the Watcher. It returns after at most a second, as a read from a lost
// network disk may never return.
func (w *Watcher) Stop() {
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}

// change is the state between the first sign of a change and its delivery.
type change struct {
	begun     time.Time // zero: there is none
	lastEvent time.Time // zero: the poll has found it
	seen      Snapshot  // the last one taken
	timer     *time.Timer
	deliver   chan<- Snapshot // takes seen; nil: not settled yet
}

func (c *change) reset() {
	c.timer.Stop()
	*c = change{timer: c.timer}
}

func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	var events <-chan fsnotify.Event
	var failures <-chan error
	if !w.pollOnly {
		notify, err := fsnotify.NewWatcher()
		if err != nil {
			w.warn("", err)
		} else {
			defer notify.Close()
			w.notify, events, failures = notify, notify.Events, notify.Errors
		}
	}
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	c := change{timer: time.NewTimer(w.settle)}
	c.reset()
	w.handlePoll(&c) // what has happened since the load
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if w.set.matters(e.Name) {
				w.handleEvent(&c, e.Op != fsnotify.Write)
			}
		case err := <-failures: // the kernel's queue has overflowed, so anything may have happened
			w.Log.Debug("file events were lost, reading the files", "error", err)
			w.handleEvent(&c, true)
		case <-poll.C:
			if c.begun.IsZero() {
				w.handlePoll(&c)
			}
		case <-c.timer.C:
			w.handleTimer(&c)
		case c.deliver <- c.seen:
			c.reset()
		}
	}
}

// handleEvent begins a change or prolongs it.
func (w *Watcher) handleEvent(c *change, moved bool) {
	now := time.Now()
	if c.begun.IsZero() || c.deliver != nil { // what was not received is outdated
		c.reset()
		c.begun = now
	}
	c.lastEvent = now
	if moved {
		w.updateWatches() // at once: the next event may come from a new directory
	}
	w.wait(c)
}

// handlePoll begins a change that caused no event.
func (w *Watcher) handlePoll(c *change) {
	if now, _ := w.take(); !now.Equal(*w.Loaded.Load()) {
		c.begun, c.seen = time.Now(), now
		w.wait(c)
	}
}

func (w *Watcher) wait(c *change) {
	c.timer.Reset(min(w.settle, time.Until(c.begun.Add(w.maxWait))))
}

// handleTimer delivers a change that has settled: no event for a while or, if there
// were none, two equal snapshots.
func (w *Watcher) handleTimer(c *change) {
	now, moved := w.take()
	settled := now.Equal(c.seen) || !c.lastEvent.IsZero() && time.Since(c.lastEvent) >= w.settle && !moved
	c.seen = now
	switch {
	case now.Equal(*w.Loaded.Load()):
		c.reset()
	case settled:
		c.deliver = w.changes
	case time.Since(c.begun) >= w.maxWait:
		c.seen.Unsettled = true
		c.deliver = w.changes
	default:
		w.wait(c)
	}
}

// take makes sure that later changes cause events, and then takes a snapshot. moved
// reports other paths than before, whose events were not heard.
func (w *Watcher) take() (s Snapshot, moved bool) {
	w.updateWatches()
	s = Take(w.paths)
	if of := s.digests[w.Config]; of != w.listed { // List parses, so not every time
		paths := w.List(w.Config)
		moved = !slices.Equal(paths, w.paths)
		w.listed, w.paths = of, paths
		w.updateWatches()
		s = Take(w.paths)
	}
	return s, moved
}

// updateWatches watches every directory that matters now, and no other. It repeats
// until no directory has appeared or gone meanwhile.
func (w *Watcher) updateWatches() {
	if w.notify == nil {
		return
	}
	const maxRounds = 5
	for range maxRounds {
		next := watchSetOf(w.paths)
		same := maps.Equal(next.dirs, w.set.dirs)
		w.set = next
		for _, dir := range w.notify.WatchList() {
			if _, ok := next.dirs[dir]; !ok {
				_ = w.notify.Remove(dir) // fails if the directory has gone
			}
		}
		for dir := range next.dirs {
			// Watched names too: another directory may have taken the name.
			if err := w.notify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.warn(dir, err)
			}
		}
		if same {
			return
		}
	}
}

func (w *Watcher) warn(dir string, err error) {
	if w.warned {
		return
	}
	w.warned = true
	reason := err.Error()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		reason += "; see the limits fs.inotify.max_user_watches and fs.inotify.max_user_instances of the system"
	}
	w.Log.Warn("the system does not report changed files, so all of them are read at intervals",
		"every", w.poll.String(), "directory", dir, "error", reason)
}
