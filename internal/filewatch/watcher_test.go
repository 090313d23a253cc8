//go:build unix

package filewatch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// deadline bounds every wait of a test; it only matters for one that fails.
const deadline = time.Minute

// disk is a directory whose files a test changes.
type disk struct {
	t   *testing.T
	dir string
}

func newDisk(t *testing.T, files ...string) disk {
	d := disk{t, t.TempDir()}
	for _, f := range files {
		d.write(f, f+" at first")
	}
	return d
}

func (d disk) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.dir, name)
}

func (d disk) check(err error) {
	if err != nil {
		d.t.Helper()
		d.t.Fatal(err)
	}
}

func (d disk) mkdir(name string) { d.check(os.MkdirAll(d.path(name), 0o755)) }

// write writes into a file, which is what cp and > do.
func (d disk) write(name, text string) {
	d.mkdir(filepath.Dir(name))
	d.check(os.WriteFile(d.path(name), []byte(text), 0o600))
}

// replace moves a new file over an old one.
func (d disk) replace(name, text string) {
	d.write(name+".new", text)
	d.move(name+".new", name)
}

func (d disk) move(from, to string) { d.check(os.Rename(d.path(from), d.path(to))) }
func (d disk) remove(name string)   { d.check(os.RemoveAll(d.path(name))) }

// link points at a target, by one rename if there is a link already.
func (d disk) link(name, target string) {
	d.mkdir(filepath.Dir(name))
	d.check(os.Symlink(target, d.path(name+"_tmp")))
	d.move(name+"_tmp", name)
}

// named is the list of a configuration of one path a line.
func named(config string) []string {
	paths := []string{config}
	text, _ := os.ReadFile(config)
	for name := range strings.FieldsSeq(string(text)) {
		paths = append(paths, filepath.Join(filepath.Dir(config), name))
	}
	return paths
}

// receiver has a Watcher of the files that the file conf names, and loads what it
// reports.
type receiver struct {
	disk
	w      *Watcher
	loaded atomic.Pointer[Snapshot]
	log    *bytes.Buffer // to be read after stop
}

// watch starts a Watcher; change may edit its durations.
func (d disk) watch(change func(*Watcher)) *receiver {
	g := &receiver{disk: d, log: new(bytes.Buffer)}
	g.w = newWatcher(Options{
		Config: d.path("conf"), List: named, Loaded: &g.loaded, Log: slog.New(slog.NewTextHandler(g.log, nil)),
	})
	if change != nil {
		change(g.w)
	}
	files := Take(named(g.w.Config))
	g.loaded.Store(&files)
	g.w.start()
	return g
}

// stop fails unless the Watcher ends in time.
func (g *receiver) stop() {
	g.w.Stop()
	select {
	case <-g.w.done:
	default:
		g.t.Error("the watcher has not ended")
	}
}

// changed returns the files of c that differ from the loaded ones.
func (g *receiver) changed(c Snapshot) []string { return g.relative(c.ChangedSince(*g.loaded.Load())) }

func (g *receiver) relative(paths []string) (names []string) {
	for _, p := range paths {
		rel, err := filepath.Rel(g.dir, p)
		g.check(err)
		names = append(names, rel)
	}
	return names
}

// next waits for the next change and loads it.
func (g *receiver) next() (files Snapshot, names []string) {
	g.t.Helper()
	end := time.After(deadline)
	for files.digests == nil || files.Equal(*g.loaded.Load()) { // as the gate does
		select {
		case files = <-g.w.changes:
		case <-end:
			g.t.Fatal("no change is reported")
		}
	}
	names = g.changed(files)
	g.loaded.Store(&files)
	return files, names
}

// wants waits until the state of the disk has been reported. On a busy machine the
// steps of one change may be reported one by one; TestDebounce holds that they need
// not be.
func (g *receiver) wants(names ...string) {
	g.t.Helper()
	before := *g.loaded.Load()
	for {
		files, _ := g.next()
		if Take(files.Paths).Equal(files) {
			if got := g.relative(files.ChangedSince(before)); !slices.Equal(got, names) {
				g.t.Errorf("reported %q, want %q", got, names)
			}
			return
		}
	}
}

// quiet fails if a change is reported. The wait may be too short on a busy machine;
// then it does not fail.
func (g *receiver) quiet() {
	g.t.Helper()
	select {
	case files := <-g.w.changes:
		g.t.Errorf("reported %q", g.changed(files))
	case <-time.After(3 * g.w.settle):
	}
}

const serverFiles = "server.crt server.key"

// changes are what people and programs do to files. Not one of them may be
// missed, with or without inotify (ghostunnel/ghostunnel#219,
// CrunchyData/postgres-operator#2353).
var changes = []struct {
	name   string
	before func(disk)
	change func(disk)
	want   []string
}{
	{
		"a file is moved over another",
		func(d disk) { d.write("conf", serverFiles) },
		func(d disk) { d.replace("server.crt", "new") },
		[]string{"server.crt"},
	},
	{
		"a pair is moved over another",
		func(d disk) { d.write("conf", serverFiles) },
		func(d disk) { d.replace("server.key", "new"); d.replace("server.crt", "new") },
		[]string{"server.crt", "server.key"},
	},
	{
		"a file is emptied and written",
		func(d disk) { d.write("conf", serverFiles) },
		func(d disk) { d.write("server.crt", ""); d.write("server.crt", "new") },
		[]string{"server.crt"},
	},
	{
		"a file is written with as many bytes as before",
		func(d disk) { d.write("conf", serverFiles); d.write("server.crt", "old") },
		func(d disk) { d.write("server.crt", "new") },
		[]string{"server.crt"},
	},
	{
		"two files change places",
		func(d disk) { d.write("conf", serverFiles) },
		func(d disk) {
			d.move("server.crt", "aside")
			d.move("server.key", "server.crt")
			d.move("aside", "server.key")
		},
		[]string{"server.crt", "server.key"},
	},
	{
		"a file goes",
		func(d disk) { d.write("conf", serverFiles) },
		func(d disk) { d.remove("server.crt") },
		[]string{"server.crt"},
	},
	{
		"a file that was missing comes",
		func(d disk) { d.write("conf", serverFiles+" ca.crl") },
		func(d disk) { d.write("ca.crl", "") },
		[]string{"ca.crl"},
	},
	{
		"the first file of a directory that was missing comes",
		func(d disk) { d.write("conf", "tls/lists/ca.crl") },
		func(d disk) { d.write("tls/lists/ca.crl", "new") },
		[]string{"tls/lists/ca.crl"},
	},
	{
		"a key that others could read is made private",
		func(d disk) { d.write("conf", serverFiles); d.check(os.Chmod(d.path("server.key"), 0o644)) },
		func(d disk) { d.check(os.Chmod(d.path("server.key"), 0o600)) },
		[]string{"server.key"},
	},
	{
		"the configuration names another file",
		func(d disk) { d.write("conf", "server.crt"); d.write("new/server.crt", "") },
		func(d disk) { d.replace("conf", "new/server.crt") },
		[]string{"conf"},
	},
	{
		"the directory of a file goes and returns",
		func(d disk) { d.write("conf", "tls/server.crt"); d.write("tls/server.crt", "old") },
		func(d disk) { d.remove("tls"); d.write("tls/server.crt", "new") },
		[]string{"tls/server.crt"},
	},
	{
		"another directory comes in place of one",
		func(d disk) {
			d.write("conf", "tls/server.crt")
			d.write("tls/server.crt", "old")
			d.write("next/server.crt", "new")
		},
		func(d disk) { d.move("tls", "last"); d.move("next", "tls") },
		[]string{"tls/server.crt"},
	},
	{
		"Kubernetes changes a secret",
		func(d disk) {
			d.write("conf", "secret/tls.crt secret/tls.key")
			d.write("secret/..1/tls.crt", "old")
			d.write("secret/..1/tls.key", "old")
			d.link("secret/..data", "..1")
			d.link("secret/tls.crt", "..data/tls.crt")
			d.link("secret/tls.key", "..data/tls.key")
		},
		func(d disk) {
			d.write("secret/..2/tls.crt", "new")
			d.write("secret/..2/tls.key", "new")
			d.link("secret/..data", "..2")
			d.remove("secret/..1")
		},
		[]string{"secret/tls.crt", "secret/tls.key"},
	},
	{
		"Kubernetes changes a directory of lists",
		func(d disk) {
			d.write("conf", "lists")
			d.write("lists/..1/one.crl", "old")
			d.link("lists/..data", "..1")
			d.link("lists/one.crl", "..data/one.crl")
		},
		func(d disk) {
			d.write("lists/..2/one.crl", "new")
			d.write("lists/..2/two.crl", "new")
			d.link("lists/..data", "..2")
			d.link("lists/two.crl", "..data/two.crl")
			d.remove("lists/..1")
		},
		[]string{"lists/one.crl", "lists/two.crl"},
	},
	{
		"a link leads elsewhere",
		func(d disk) {
			d.write("conf", "server.crt")
			d.write("live/1.crt", "old")
			d.write("live/2.crt", "new")
			d.link("server.crt", "live/1.crt")
		},
		func(d disk) { d.link("server.crt", d.path("live/2.crt")) },
		[]string{"server.crt"},
	},
	{
		"what a link leads to is written",
		func(d disk) {
			d.write("conf", "etc/server.crt")
			d.write("var/live/1.crt", "old")
			d.link("etc/server.crt", "../var/current/1.crt")
			d.link("var/current", "live")
		},
		func(d disk) { d.write("var/live/1.crt", "new") },
		[]string{"etc/server.crt"},
	},
	{
		"a list comes into a directory",
		func(d disk) { d.write("conf", "lists"); d.write("lists/one.crl", "") },
		func(d disk) { d.write("lists/two.crl", "") },
		[]string{"lists/two.crl"},
	},
	{
		"a list goes from a directory",
		func(d disk) { d.write("conf", "lists"); d.write("lists/one.crl", "") },
		func(d disk) { d.remove("lists/one.crl") },
		[]string{"lists/one.crl"},
	},
	{
		"a list gets another name",
		func(d disk) { d.write("conf", "lists"); d.write("lists/one.crl", "") },
		func(d disk) { d.move("lists/one.crl", "lists/two.crl") },
		[]string{"lists/one.crl", "lists/two.crl"},
	},
	{
		"what a link in a directory leads to is written",
		func(d disk) {
			d.write("conf", "lists")
			d.write("ca/one.crl", "")
			d.link("lists/one.crl", "../ca/one.crl")
		},
		func(d disk) { d.write("ca/one.crl", "new") },
		[]string{"lists/one.crl"},
	},
	{
		"a directory of lists goes and returns",
		func(d disk) { d.write("conf", "lists"); d.write("lists/one.crl", "old") },
		func(d disk) { d.remove("lists"); d.write("lists/one.crl", "new") },
		[]string{"lists/one.crl"},
	},
	{
		"a directory of lists is moved away",
		func(d disk) { d.write("conf", "lists"); d.write("lists/one.crl", "old") },
		func(d disk) { d.move("lists", "gone") },
		[]string{"lists", "lists/one.crl"},
	},
}

// modes are the two ways to notice a change; in each the other is too slow to help.
var modes = map[string]func(*Watcher){
	"inotify": func(w *Watcher) { w.poll, w.settle = time.Hour, 30*time.Millisecond },
	"poll":    func(w *Watcher) { w.pollOnly, w.poll, w.settle = true, 5*time.Millisecond, 20*time.Millisecond },
}

func TestChanges(t *testing.T) {
	for mode, set := range modes {
		for _, c := range changes {
			t.Run(mode+"/"+c.name, func(t *testing.T) {
				leaks := goleak.IgnoreCurrent()
				d := newDisk(t, "server.crt", "server.key")
				c.before(d)
				g := d.watch(set)
				c.change(d)
				g.wants(c.want...)

				// Later changes are still noticed.
				d.replace("conf", "other")
				g.wants("conf")
				d.write("other", "1")
				g.wants("other")
				g.stop()
				goleak.VerifyNone(t, leaks)
				if g.log.Len() > 0 {
					t.Errorf("the log has %s", g.log)
				}
			})
		}
	}
}

// A directory, its mount or its parent may be missing for a while.
func TestDirectoryReturns(t *testing.T) {
	t.Parallel()
	for mode, set := range modes {
		t.Run(mode, func(t *testing.T) {
			d := newDisk(t, "etc/tls/server.crt", "etc/tls/lists/one.crl")
			d.write("conf", "etc/tls/server.crt etc/tls/lists")
			g := d.watch(set)
			defer g.stop()
			for round := range 3 {
				d.remove([]string{"etc/tls", "etc", "etc/tls/lists"}[round])
				g.next()
				for !Take(named(g.w.Config)).Equal(*g.loaded.Load()) {
					g.next()
				}
				d.mkdir("etc")
				d.write("etc/tls/lists/one.crl", "back")
				d.write("etc/tls/server.crt", fmt.Sprint("back ", round))
				for !Take(named(g.w.Config)).Equal(*g.loaded.Load()) {
					g.next()
				}
			}
		})
	}
}

// Writing the same content again or touching a file changes nothing
// (pgbouncer/pgbouncer#1157), nor does a file beside those that are watched.
func TestNoChange(t *testing.T) {
	t.Parallel()
	for mode, set := range modes {
		for name, do := range map[string]func(disk){
			"touch":             func(d disk) { d.check(os.Chtimes(d.path("tls/server.crt"), time.Now(), time.Now())) },
			"written again":     func(d disk) { d.write("tls/server.crt", "tls/server.crt at first") },
			"moved over again":  func(d disk) { d.replace("tls/server.crt", "tls/server.crt at first") },
			"a file beside it":  func(d disk) { d.write("tls/gate.log", "a line") },
			"a file of the dot": func(d disk) { d.write("tls/lists/.one.crl.swp", "an editor's") },
			"a secret with the same in it": func(d disk) {
				d.write("tls/..2/ca.crl", "the list")
				d.link("tls/..data", "..2")
				d.remove("tls/..1")
			},
			"read": func(d disk) { _, _ = os.ReadFile(d.path("tls/server.crt")) },
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				d := newDisk(t, "tls/server.crt", "tls/lists/one.crl")
				d.write("conf", "tls/server.crt tls/lists tls/ca.crl")
				d.write("tls/..1/ca.crl", "the list")
				d.link("tls/..data", "..1")
				d.link("tls/ca.crl", "..data/ca.crl")
				g := d.watch(set)
				defer g.stop()
				do(d)
				g.quiet()
				d.write("tls/ca.crl", "another list")
				g.wants("tls/ca.crl")
			})
		}
	}
}

// virtual runs a test in virtual time, without inotify.
func virtual(t *testing.T, do func(t *testing.T, g *receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(t, "server.crt", "server.key")
		d.write("conf", serverFiles)
		g := d.watch(func(w *Watcher) { w.pollOnly = true })
		defer g.stop()
		do(t, g)
	})
}

// A file that is being written is not reported, as long as its writer does not pause
// for longer than SettleTime.
func TestDebounce(t *testing.T) {
	virtual(t, func(t *testing.T, g *receiver) {
		time.Sleep(pollInterval - time.Second)
		written := make(chan struct{})
		go func() {
			defer close(written)
			for i := range 50 { // past the poll, which finds half of it
				g.write("server.crt", strings.Repeat("a line\n", i+1))
				g.write("server.key", strings.Repeat("a line\n", i+1))
				time.Sleep(SettleTime * 7 / 10)
			}
		}()
		select {
		case <-g.w.changes:
			t.Fatal("reported while it was being written")
		case <-written:
		}
		if _, names := g.next(); !slices.Equal(names, []string{"server.crt", "server.key"}) {
			t.Errorf("reported %q", names)
		}
		select {
		case files := <-g.w.changes:
			t.Errorf("reported %q again", g.changed(files))
		case <-time.After(time.Hour):
		}
	})
}

// A failed load is not tried again until a file changes; changing it back is a
// change, too.
func TestFailedLoadIsTriedOnce(t *testing.T) {
	virtual(t, func(t *testing.T, g *receiver) {
		good := *g.loaded.Load()
		g.write("server.crt", "broken")
		bad, names := g.next()
		if !slices.Equal(names, []string{"server.crt"}) || bad.Unsettled {
			t.Errorf("reported %q, unsettled %t", names, bad.Unsettled)
		}
		select {
		case <-g.w.changes:
			t.Error("reported twice")
		case <-time.After(time.Hour):
		}
		g.write("server.crt", "server.crt at first")
		if again, _ := g.next(); !again.Equal(good) {
			t.Errorf("reported %q, want what was there at first", again.ChangedSince(good))
		}
	})
}

// A file that is written without end delays the others by at most maxWait.
func TestUnsettled(t *testing.T) {
	virtual(t, func(t *testing.T, g *receiver) {
		done := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				g.replace("server.crt", fmt.Sprint("line ", i)) // never what it was, which would end the wait
				select {
				case <-done:
					return
				case <-time.After(SettleTime * 7 / 10):
				}
			}
		}()
		begin := time.Now()
		for i := range 3 {
			files, _ := g.next()
			if took := time.Since(begin); !files.Unsettled || took > time.Duration(i+1)*(pollInterval+maxWait) {
				t.Errorf("reported after %v, unsettled %t", took, files.Unsettled)
			}
		}
		close(done)
		<-ended
		g.write("server.crt", "the end")
		if files, _ := g.next(); files.Unsettled {
			t.Error("unsettled, although nothing is written")
		}
	})
}

// After a slow load the receiver gets the newest state.
func TestSlowReceiver(t *testing.T) {
	virtual(t, func(t *testing.T, g *receiver) {
		for i := range 10 {
			g.write("server.crt", fmt.Sprint("version ", i))
			time.Sleep(2 * pollInterval)
		}
		var last Snapshot
		for last.digests == nil || !last.Equal(Take(last.Paths)) {
			last, _ = g.next()
		}
		select {
		case files := <-g.w.changes:
			t.Errorf("reported %q", g.changed(files))
		case <-time.After(time.Hour):
		}
	})
}

// The same as TestDebounce with real events in real time: a file that arrives in
// pieces is not loaded in part.
func TestPieces(t *testing.T) {
	t.Parallel()
	const settle, pieces = time.Second, 60
	d := newDisk(t, "server.crt")
	d.write("conf", "server.crt")
	g := d.watch(func(w *Watcher) { w.settle, w.poll, w.maxWait = settle, time.Hour, time.Hour })
	defer g.stop()
	for range 5 {
		var pause time.Duration // the longest; the machine may be busy
		last := time.Now()
		f, err := os.Create(d.path("server.crt"))
		g.check(err)
		for i := range pieces {
			_, err := fmt.Fprintf(f, "piece %d at %v\n", i, time.Now())
			g.check(err)
			time.Sleep(10 * time.Millisecond)
			pause, last = max(pause, time.Since(last)), time.Now()
		}
		g.check(f.Close())
		files, _ := g.next()
		if pause < settle/2 {
			if !Take(files.Paths).Equal(files) {
				t.Error("half a file was reported")
			}
			return
		}
		t.Logf("again: the writer was delayed by %v", pause)
		for !Take(files.Paths).Equal(*g.loaded.Load()) {
			g.next()
		}
	}
	t.Skip("the machine is too busy for this test")
}

// Events without end delay the report by at most maxWait.
func TestUnsettledEvents(t *testing.T) {
	t.Parallel()
	d := newDisk(t, "server.crt", "server.key")
	d.write("conf", serverFiles)
	g := d.watch(func(w *Watcher) { w.settle, w.poll, w.maxWait = time.Minute, time.Hour, 300*time.Millisecond })
	defer g.stop()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				g.write("server.crt", fmt.Sprint("line ", i))
			}
		}
	}()
	for range 2 {
		if files, _ := g.next(); !files.Unsettled {
			t.Error("reported as settled")
		}
	}
	close(done)
	<-ended
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	a, b := d.path("a"), d.path("b")
	// Each of them is a state of a and b unlike all others.
	states := map[string]func(){
		"nothing":                 func() {},
		"empty":                   func() { d.write("a", "") },
		"both empty":              func() { d.write("a", ""); d.write("b", "") },
		"all in the first":        func() { d.write("a", "12"); d.write("b", "") },
		"some in each":            func() { d.write("a", "1"); d.write("b", "2") },
		"all in the second":       func() { d.write("a", ""); d.write("b", "12") },
		"the other way round":     func() { d.write("a", "2"); d.write("b", "1") },
		"others may read it":      func() { d.write("a", "12"); d.write("b", ""); d.check(os.Chmod(a, 0o644)) },
		"an empty directory":      func() { d.mkdir("a") },
		"a directory":             func() { d.write("a/x", "1") },
		"a file of another name":  func() { d.write("a/y", "1") },
		"a directory in it":       func() { d.mkdir("a/x") },
		"a link to nowhere in it": func() { d.link("a/x", "nowhere") },
		"a link to itself":        func() { d.link("a", "a") },
		"a link to nowhere, twice": func() { // as good as nothing, but the error is another one
			d.link("a", "b/c")
			d.write("b", "")
		},
		"a FIFO": func() { d.check(syscall.Mkfifo(a, 0o600)) },
	}
	seen := map[string]Snapshot{}
	for name, make := range states {
		d.remove("a")
		d.remove("b")
		make()
		c := Take([]string{a, b})
		for other, was := range seen {
			if c.Equal(was) {
				t.Errorf("%q looks like %q", name, other)
			}
		}
		seen[name] = c
		if again := Take([]string{a, b}); !again.Equal(c) || len(again.ChangedSince(c)) > 0 {
			t.Errorf("%q does not look like itself: %q", name, again.ChangedSince(c))
		}
	}

	// A digest covers the content.
	d.remove("a")
	d.write("a", "text")
	for _, c := range []struct {
		text string
		same bool
	}{{"text", true}, {"texu", false}, {"text\n", false}} {
		before := digest(a, make([]byte, 2))
		d.write("a", c.text)
		if same := digest(a, make([]byte, 1<<16)) == before; same != c.same {
			t.Errorf("%q: the same: %t", c.text, same)
		}
		d.write("a", "text")
	}
	if digest(a, make([]byte, 1)) == sha256.Sum256([]byte("text")) {
		t.Error("the digest is that of the text alone")
	}
}

// A file that grows while it is read is read up to its size at the start.
func TestDigestEnds(t *testing.T) {
	t.Parallel()
	d := newDisk(t, "endless")
	f, err := os.OpenFile(d.path("endless"), os.O_APPEND|os.O_WRONLY, 0)
	d.check(err)
	defer f.Close()
	grows := writerFunc(func(p []byte) (int, error) {
		_, err := f.Write(bytes.Repeat([]byte{'x'}, 2*len(p)))
		return len(p), err
	})
	if err := hashFile(grows, d.path("endless"), make([]byte, 4)); err != nil {
		t.Error(err)
	}
	if err := hashFile(io.Discard, d.path("missing"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
