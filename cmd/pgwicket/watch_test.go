package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
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

	"pgwicket/internal/tlstest"
)

// disk is a directory to change things in.
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

// guard is a watcher of the files that the file conf names, and whoever loads
// what it has found.
type guard struct {
	disk
	w     *watcher
	tried atomic.Pointer[contents]
	log   *bytes.Buffer // to be read after stop
}

// guard watches with other durations than a gate would, if asked to.
func (d disk) guard(change func(*watcher)) *guard {
	g := &guard{disk: d, log: new(bytes.Buffer)}
	g.w = &watcher{
		config: d.path("conf"), list: named, tried: &g.tried, log: slog.New(slog.NewTextHandler(g.log, nil)),
		settle: settleTime, patience: patienceTime, poll: pollTime,
	}
	if change != nil {
		change(g.w)
	}
	files := look(named(g.w.config))
	g.tried.Store(&files)
	g.w.start()
	return g
}

// stop ends it, in time.
func (g *guard) stop() {
	g.w.stop()
	select {
	case <-g.w.done:
	default:
		g.t.Error("the watcher has not ended")
	}
}

// since is what c says of the changes since the last load.
func (g *guard) since(c contents) []string { return g.relative(c.since(*g.tried.Load())) }

func (g *guard) relative(paths []string) (names []string) {
	for _, p := range paths {
		rel, err := filepath.Rel(g.dir, p)
		g.check(err)
		names = append(names, rel)
	}
	return names
}

// next is the next change that is told of, and loads it.
func (g *guard) next() (files contents, names []string) {
	g.t.Helper()
	end := time.After(deadline)
	for files.digests == nil || files.same(*g.tried.Load()) { // as the gate does
		select {
		case files = <-g.w.changed:
		case <-end:
			g.t.Fatal("no change is told of")
		}
	}
	names = g.since(files)
	g.tried.Store(&files)
	return files, names
}

// wants waits until what is on the disk has been told of. On a busy machine the
// steps of one change may become several; that they need not is for
// TestDebounce.
func (g *guard) wants(names ...string) {
	g.t.Helper()
	before := *g.tried.Load()
	for {
		files, _ := g.next()
		if look(files.paths).same(files) {
			if got := g.relative(files.since(before)); !slices.Equal(got, names) {
				g.t.Errorf("told of %q, not of %q", got, names)
			}
			return
		}
	}
}

// quiet fails if a change is told of. It waits for what must not happen, so it
// may be too short on a busy machine, and then does not fail.
func (g *guard) quiet() {
	g.t.Helper()
	select {
	case files := <-g.w.changed:
		g.t.Errorf("told of %q", g.since(files))
	case <-time.After(3 * g.w.settle):
	}
}

const serverFiles = "server.crt server.key"

// changes are what people and programs do to files. Not one of them may be
// missed, with or without inotify (ghostunnel#219,
// crunchy#2353).
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

// ways are how a watcher may learn of a change: in either, the other one would
// come too late.
var ways = map[string]func(*watcher){
	"inotify": func(w *watcher) { w.poll, w.settle = time.Hour, 30*time.Millisecond },
	"poll":    func(w *watcher) { w.pollOnly, w.poll, w.settle = true, 5*time.Millisecond, 20*time.Millisecond },
}

func TestChanges(t *testing.T) {
	for way, set := range ways {
		for _, c := range changes {
			t.Run(way+"/"+c.name, func(t *testing.T) {
				leaks := goleak.IgnoreCurrent()
				d := newDisk(t, "server.crt", "server.key")
				c.before(d)
				g := d.guard(set)
				c.change(d)
				g.wants(c.want...)

				// It is not deaf now.
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

// A directory may be away for a while, and its mount with it; so may the
// directory of that one.
func TestDirectoryReturns(t *testing.T) {
	for way, set := range ways {
		t.Run(way, func(t *testing.T) {
			d := newDisk(t, "etc/tls/server.crt", "etc/tls/lists/one.crl")
			d.write("conf", "etc/tls/server.crt etc/tls/lists")
			g := d.guard(set)
			defer g.stop()
			for round := range 3 {
				d.remove([]string{"etc/tls", "etc", "etc/tls/lists"}[round])
				g.next()
				for !look(named(g.w.config)).same(*g.tried.Load()) {
					g.next()
				}
				d.mkdir("etc")
				d.write("etc/tls/lists/one.crl", "back")
				d.write("etc/tls/server.crt", fmt.Sprint("back ", round))
				for !look(named(g.w.config)).same(*g.tried.Load()) {
					g.next()
				}
			}
		})
	}
}

// pgbouncer#1157: who writes the same again, or touches a file, has
// changed nothing. What is beside the files does not matter either.
func TestNoChange(t *testing.T) {
	for way, set := range ways {
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
			"read by somebody": func(d disk) { _, _ = os.ReadFile(d.path("tls/server.crt")) },
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				d := newDisk(t, "tls/server.crt", "tls/lists/one.crl")
				d.write("conf", "tls/server.crt tls/lists tls/ca.crl")
				d.write("tls/..1/ca.crl", "the list")
				d.link("tls/..data", "..1")
				d.link("tls/ca.crl", "..data/ca.crl")
				g := d.guard(set)
				defer g.stop()
				do(d)
				g.quiet()
				d.write("tls/ca.crl", "another list")
				g.wants("tls/ca.crl")
			})
		}
	}
}

// Time is virtual here, so nothing depends on how busy the machine is. There is
// no inotify in it.
func virtual(t *testing.T, do func(t *testing.T, g *guard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(t, "server.crt", "server.key")
		d.write("conf", serverFiles)
		g := d.guard(func(w *watcher) { w.pollOnly = true })
		defer g.stop()
		do(t, g)
	})
}

// A certificate or a list that is being written is not loaded, as
// long as its writer does not pause for longer than a moment.
func TestDebounce(t *testing.T) {
	virtual(t, func(t *testing.T, g *guard) {
		time.Sleep(pollTime - time.Second)
		written := make(chan struct{})
		go func() {
			defer close(written)
			for i := range 50 { // past the poll, which finds half of it
				g.write("server.crt", strings.Repeat("a line\n", i+1))
				g.write("server.key", strings.Repeat("a line\n", i+1))
				time.Sleep(settleTime * 7 / 10)
			}
		}()
		select {
		case <-g.w.changed:
			t.Fatal("told of what is not yet written")
		case <-written:
		}
		if _, names := g.next(); !slices.Equal(names, []string{"server.crt", "server.key"}) {
			t.Errorf("told of %q", names)
		}
		select {
		case files := <-g.w.changed:
			t.Errorf("told of %q again", g.since(files))
		case <-time.After(time.Hour):
		}
	})
}

// A load that has failed is not tried again until something is changed, and
// back to what it was is a change, too.
func TestTriedOnce(t *testing.T) {
	virtual(t, func(t *testing.T, g *guard) {
		good := *g.tried.Load()
		g.write("server.crt", "broken")
		bad, names := g.next()
		if !slices.Equal(names, []string{"server.crt"}) || bad.restless {
			t.Errorf("told of %q, restless %t", names, bad.restless)
		}
		select {
		case <-g.w.changed:
			t.Error("told of the same again")
		case <-time.After(time.Hour):
		}
		g.write("server.crt", "server.crt at first")
		if again, _ := g.next(); !again.same(good) {
			t.Errorf("told of %q, which is not what it was", again.since(good))
		}
	})
}

// A file that somebody writes to for ever does not hold up the others for ever.
func TestRestless(t *testing.T) {
	virtual(t, func(t *testing.T, g *guard) {
		done := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				g.replace("server.crt", fmt.Sprint("line ", i)) // never what it was, which would end the wait
				select {
				case <-done:
					return
				case <-time.After(settleTime * 7 / 10):
				}
			}
		}()
		begin := time.Now()
		for i := range 3 {
			files, _ := g.next()
			if took := time.Since(begin); !files.restless || took > time.Duration(i+1)*(pollTime+patienceTime) {
				t.Errorf("told after %v, restless %t", took, files.restless)
			}
		}
		close(done)
		<-ended
		g.write("server.crt", "the end")
		if files, _ := g.next(); files.restless {
			t.Error("restless, although nobody writes")
		}
	})
}

// Who is busy with a load gets the newest state, not the one of when it began.
func TestSlowReceiver(t *testing.T) {
	virtual(t, func(t *testing.T, g *guard) {
		for i := range 10 {
			g.write("server.crt", fmt.Sprint("version ", i))
			time.Sleep(2 * pollTime)
		}
		var last contents
		for last.digests == nil || !last.same(look(last.paths)) {
			last, _ = g.next()
		}
		select {
		case files := <-g.w.changed:
			t.Errorf("told of %q", g.since(files))
		case <-time.After(time.Hour):
		}
	})
}

// The same as TestDebounce with real events and in real time: whoever gets a
// file in pieces would load half of it.
func TestPieces(t *testing.T) {
	const settle, pieces = time.Second, 60
	d := newDisk(t, "server.crt")
	d.write("conf", "server.crt")
	g := d.guard(func(w *watcher) { w.settle, w.poll, w.patience = settle, time.Hour, time.Hour })
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
			if !look(files.paths).same(files) {
				t.Error("told of half a file")
			}
			return
		}
		t.Logf("once more: the writer was held up for %v", pause)
		for !look(files.paths).same(*g.tried.Load()) {
			g.next()
		}
	}
	t.Skip("the machine is too busy for this test")
}

// Events without end put off the reload no longer than the writes that nothing
// tells of.
func TestRestlessEvents(t *testing.T) {
	d := newDisk(t, "server.crt", "server.key")
	d.write("conf", serverFiles)
	g := d.guard(func(w *watcher) { w.settle, w.poll, w.patience = time.Minute, time.Hour, 300*time.Millisecond })
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
		if files, _ := g.next(); !files.restless {
			t.Error("a minute has passed, or the file counts as still")
		}
	}
	close(done)
	<-ended
}

func TestContents(t *testing.T) {
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
	seen := map[string]contents{}
	for name, make := range states {
		d.remove("a")
		d.remove("b")
		make()
		c := look([]string{a, b})
		for other, was := range seen {
			if c.same(was) {
				t.Errorf("«%s» looks like «%s»", name, other)
			}
		}
		seen[name] = c
		if again := look([]string{a, b}); !again.same(c) || len(again.since(c)) > 0 {
			t.Errorf("«%s» does not look like itself: %q", name, again.since(c))
		}
	}

	// A digest is of what is in the file, and not of more than there was to begin with.
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

func TestListed(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprint(i))
	}
	if got := fmt.Sprint(listed(names), len(names), listed(names[:10]), listed(nil)); got !=
		"[0 1 2 3 4 5 6 7 8 9 and 2 more] 12 [0 1 2 3 4 5 6 7 8 9] []" {
		t.Error(got)
	}
}

// Certificate and key are two files, and whoever renews them moves
// one after the other into place. No client ever notices.
func TestRenewal(t *testing.T) {
	g := startGate(t, "", nil, onlyECDSA)
	ca := tlstest.NewCA("renewal CA")
	g.roots.AddCert(ca.Cert)
	dir := disk{t, filepath.Dir(g.log)}

	done, ended := make(chan struct{}), make(chan error, 1)
	handshakes := 0
	go func() {
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			if _, err := goClient(g, &tls.Config{}); err != nil {
				ended <- err
				return
			}
			handshakes++
		}
	}()
	late := 0
	for range 5 {
		pair := ca.Server("localhost")
		dir.check(pair.WriteFiles(dir.path("next.crt"), dir.path("next.key")))
		begin := time.Now()
		dir.move("next.key", "ecdsa.key")
		time.Sleep(settleTime / 3) // as a program might take; longer, and the gate would report that the two do not match
		dir.move("next.crt", "ecdsa.crt")
		moved := time.Now()
		for end := moved.Add(deadline); ; time.Sleep(5 * time.Millisecond) {
			state, err := goClient(g, &tls.Config{})
			dir.check(err)
			if state.PeerCertificates[0].Equal(pair.Leaf()) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the new certificate is not served")
			}
		}
		t.Logf("served %v after it was there", time.Since(moved).Round(time.Millisecond))
		log, err := os.ReadFile(g.log)
		dir.check(err)
		if moved.Sub(begin) >= settleTime/2 {
			late++ // the machine is busy, and a reload between the two was due
		}
		if n := bytes.Count(log, []byte(reloadFailed)); n > late {
			t.Errorf("%d reloads between the two", n-late)
		}
	}
	close(done)
	if err := <-ended; err != nil {
		t.Errorf("handshake %d has failed: %v", handshakes, err)
	}
	t.Logf("%d handshakes meanwhile", handshakes)
}

// An endless file is read as far as it was long, and no further.
func TestDigestEnds(t *testing.T) {
	d := newDisk(t, "endless")
	f, err := os.OpenFile(d.path("endless"), os.O_APPEND|os.O_WRONLY, 0)
	d.check(err)
	defer f.Close()
	grows := writerFunc(func(p []byte) (int, error) {
		_, err := f.Write(bytes.Repeat([]byte{'x'}, 2*len(p)))
		return len(p), err
	})
	if err := feed(grows, d.path("endless"), make([]byte, 4)); err != nil {
		t.Error(err)
	}
	if err := feed(io.Discard, d.path("missing"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
