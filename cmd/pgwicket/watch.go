package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// A revoked client must be out within a second, and reading and judging
	// take some of it. Two files that belong together come closer than this,
	// or else the reload between them fails and the next one does not.
	settleTime = 100 * time.Millisecond
	// A file that somebody writes to without end must not hold up the others.
	patienceTime = 5 * time.Second
	// For what inotify does not see: network disks, bind mounts, its own limits.
	pollTime = 15 * time.Second

	// tlsconfig refuses what is longer.
	digestLimit = 1 << 30
)

// contents is what the files of a configuration held when they were looked at:
// of each one, those in directories included, a digest. They are compared file
// by file, so nothing that moves from one into the next goes unseen.
type contents struct {
	paths    []string // of files and directories, as config.Files names them
	digests  map[string][sha256.Size]byte
	restless bool // still being written to, when waiting came to its end
}

func (c contents) same(other contents) bool { return maps.Equal(c.digests, other.digests) }

// since names the files that are not what they were. What only one of the two
// has counts if it is in a directory of the other: else it is the configuration
// that has changed.
func (c contents) since(old contents) []string {
	names := []string{} // none is [] in the log, and not null
	for name, sum := range c.digests {
		if was, ok := old.digests[name]; ok && was != sum || !ok && slices.Contains(old.paths, filepath.Dir(name)) {
			names = append(names, name)
		}
	}
	for name := range old.digests {
		if _, ok := c.digests[name]; !ok && slices.Contains(c.paths, filepath.Dir(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func look(paths []string) contents {
	c := contents{paths: paths, digests: make(map[string][sha256.Size]byte)}
	buf := make([]byte, 64<<10)
	defer clear(buf) // private keys have gone through it
	for _, p := range paths {
		c.digests[p] = digest(p, buf)
		entries, err := visible(p)
		if err != nil {
			c.digests[p] = sha256.Sum256([]byte(err.Error()))
		}
		for _, e := range entries {
			name := filepath.Join(p, e.Name())
			c.digests[name] = digest(name, buf)
		}
	}
	return c
}

// visible lists what is in a directory, as far as tlsconfig looks at it; other
// files have nothing in them.
func visible(name string) ([]os.DirEntry, error) {
	if st, err := os.Stat(name); err != nil || !st.IsDir() {
		return nil, nil //nolint:nilerr // that it cannot be read is for digest to say
	}
	entries, err := os.ReadDir(name)
	return slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }), err
}

// digest stands for all that loading a file depends on: what is in it, or why
// that cannot be read; its mode and its owner too, for a key that others may
// read is refused, and chmod must be enough to mend it.
func digest(name string, buf []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	if err := feed(h, name, buf); err != nil {
		h.Reset()
		fmt.Fprintf(h, "error %v", err)
	}
	h.Sum(sum[:0])
	return sum
}

func feed(h io.Writer, name string, buf []byte) error {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would make it wait
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		_, err := fmt.Fprintf(h, "no file %v", st.Mode().Type())
		return err
	}
	owner := -1
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		owner = int(sys.Uid)
	}
	fmt.Fprintf(h, "file %v %d %d\n", st.Mode(), owner, st.Size())
	// Not to its end, which a file that grows as fast as it is read does not have.
	_, err = io.CopyBuffer(h, io.LimitReader(f, min(st.Size(), digestLimit)), buf)
	return err
}

// watcher says when the files that a configuration consists of have changed,
// and then been still for a moment. It only ever watches directories: a file
// that another one has been moved over, or that is behind the ..data of
// Kubernetes, would never be heard of again.
type watcher struct {
	config   string                       // the file that names the others
	list     func(config string) []string // config.Files
	tried    *atomic.Pointer[contents]    // what has been loaded last, or failed to; set by the receiver of changed
	log      *slog.Logger
	settle   time.Duration // how long is still
	patience time.Duration // how long to wait for that
	poll     time.Duration
	pollOnly bool // do without inotify

	changed chan contents // unlike tried

	notify *fsnotify.Watcher // nil: there is only the poll
	places places
	paths  []string
	listed [sha256.Size]byte // of the configuration that named the paths
	warned bool
	cancel context.CancelFunc
	done   chan struct{}
}

func (w *watcher) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	w.changed = make(chan contents)
	if w.paths = []string{w.config}; w.config == "" { // what the environment names does not change
		w.paths = w.list("")
	}
	go w.run(ctx)
}

func (w *watcher) stop() {
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(time.Second): // it reads from a network disk that is gone; the gate must not stay for that
	}
}

// round is the time from a change until the contents are still.
type round struct {
	begun time.Time // zero: there is none
	heard time.Time // the last event; zero: the change was found by the poll
	seen  contents  // the last look
	timer *time.Timer
	found chan<- contents // takes what was seen; nil: not yet
}

func (r *round) end() {
	r.timer.Stop()
	*r = round{timer: r.timer}
}

func (w *watcher) run(ctx context.Context) {
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
	r := round{timer: time.NewTimer(w.settle)}
	r.end()
	w.polled(&r) // what has happened since the load
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if w.places.touched(e.Name) {
				w.heard(&r, e.Op != fsnotify.Write)
			}
		case err := <-failures: // the kernel's queue has overflowed, and anything may have happened
			w.log.Debug("events of files are lost; they are read", "error", err)
			w.heard(&r, true)
		case <-poll.C:
			if r.begun.IsZero() {
				w.polled(&r)
			}
		case <-r.timer.C:
			w.judge(&r)
		case r.found <- r.seen:
			r.end()
		}
	}
}

// heard begins a round, or makes it longer.
func (w *watcher) heard(r *round, moved bool) {
	now := time.Now()
	if r.begun.IsZero() || r.found != nil { // what nobody has taken yet is old now
		r.end()
		r.begun = now
	}
	r.heard = now
	if moved {
		w.arm() // at once: the next event may come from a new directory
	}
	w.wait(r)
}

// polled begins a round if there is a change that nothing has told of.
func (w *watcher) polled(r *round) {
	if now, _ := w.look(); !now.same(*w.tried.Load()) {
		r.begun, r.seen = time.Now(), now
		w.wait(r)
	}
}

func (w *watcher) wait(r *round) {
	r.timer.Reset(min(w.settle, time.Until(r.begun.Add(w.patience))))
}

// judge ends a round if nothing has happened for a while, by the events or, if
// there were none, by the contents.
func (w *watcher) judge(r *round) {
	now, moved := w.look()
	still := now.same(r.seen) || !r.heard.IsZero() && time.Since(r.heard) >= w.settle && !moved
	r.seen = now
	switch {
	case now.same(*w.tried.Load()):
		r.end()
	case still:
		r.found = w.changed
	case time.Since(r.begun) >= w.patience:
		r.seen.restless = true
		r.found = w.changed
	default:
		w.wait(r)
	}
}

// look sees to it that later changes are heard, and then reads. It also says
// whether there are other paths than before, whose events nobody has heard.
func (w *watcher) look() (c contents, moved bool) {
	w.arm()
	c = look(w.paths)
	if of := c.digests[w.config]; of != w.listed { // else it would be parsed every time
		paths := w.list(w.config)
		moved = !slices.Equal(paths, w.paths)
		w.listed, w.paths = of, paths
		w.arm()
		c = look(w.paths)
	}
	return c, moved
}

// arm watches every directory that matters now, and no other. It is done once
// nothing has come or gone meanwhile.
func (w *watcher) arm() {
	if w.notify == nil {
		return
	}
	const enough = 5
	for range enough {
		next := findPlaces(w.paths)
		same := maps.Equal(next.dirs, w.places.dirs)
		w.places = next
		for _, dir := range w.notify.WatchList() {
			if _, ok := next.dirs[dir]; !ok {
				_ = w.notify.Remove(dir) // fails if it has gone already
			}
		}
		for dir := range next.dirs {
			// Known ones too: there may be another directory under the name.
			if err := w.notify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.warn(dir, err)
			}
		}
		if same {
			return
		}
	}
}

func (w *watcher) warn(dir string, err error) {
	if w.warned {
		return
	}
	w.warned = true
	why := err.Error()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		why += "; see the limits fs.inotify.max_user_watches and fs.inotify.max_user_instances of the system"
	}
	w.log.Warn("the system does not tell of changed files; they are only noticed by reading all of them now and then",
		"every", w.poll.String(), "directory", dir, "error", why)
}

// places is where a change of some paths shows itself.
type places struct {
	dirs  map[string]bool // to be watched; true: all that is in them matters
	names map[string]bool // the entries that matter in the others
}

// touched says whether something at name matters: an entry, or the directory
// itself.
func (p places) touched(name string) bool {
	name = filepath.Clean(name) // of the root directory it begins with two slashes
	_, dir := p.dirs[name]
	return dir || p.names[name] || p.dirs[filepath.Dir(name)]
}

func findPlaces(paths []string) places {
	p := places{dirs: make(map[string]bool), names: make(map[string]bool)}
	for _, path := range paths {
		dir := p.follow(path)
		if dir == "" {
			continue
		}
		p.dirs[dir] = true
		entries, _ := visible(dir) // what cannot be read can be watched all the same
		for _, e := range entries {
			if e.Type() == fs.ModeSymlink {
				p.follow(filepath.Join(dir, e.Name()))
			}
		}
	}
	return p
}

// follow goes the way of the kernel to a file and notes the entries that
// decide where it leads: the file's own, each symbolic link on the way (for
// Kubernetes, ..data), and, where there is nothing, what would have to come. If
// the path is one of a directory, it returns the directory.
func (p places) follow(path string) (directory string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	const root, maxLinks = "/", 40 // as in Linux
	at, way, links := root, parts(path), 0
	for len(way) > 0 {
		var name string
		name, way = way[0], way[1:]
		if name == ".." { // of a link
			at = filepath.Dir(at)
			continue
		}
		full := filepath.Join(at, name)
		st, err := os.Lstat(full)
		switch {
		case err == nil && st.IsDir():
			at = full
			continue
		case err == nil && st.Mode().Type() == fs.ModeSymlink && links < maxLinks:
			p.entry(at, full)
			links++
			target, _ := os.Readlink(full)
			if filepath.IsAbs(target) {
				at = root
			}
			way = append(parts(target), way...)
			continue
		}
		p.entry(at, full)
		return ""
	}
	return at
}

func (p places) entry(dir, full string) {
	if _, ok := p.dirs[dir]; !ok {
		p.dirs[dir] = false
	}
	p.names[full] = true
}

func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}
