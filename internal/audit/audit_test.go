package audit_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/audit"
)

const patience = time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func open(t testing.TB, path string) *audit.Writer {
	t.Helper()
	w, err := audit.Open(path, audit.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// record writes n lines and waits until they are in the file.
func record(t testing.TB, w *audit.Writer, n int) {
	t.Helper()
	want := w.Head().Sequence + uint64(n)
	for i := range n {
		w.Record("admitted", []slog.Attr{slog.String("session", fmt.Sprintf("x-%d", i)), slog.Any("cert_san_dns", []string{"a", `b"`}), slog.Float64("seconds", 0.5)})
	}
	eventually(t, "the lines are written", func() bool { return w.Head().Sequence == want })
}

func lines(t testing.TB, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(bytes.Lines(text))
}

// verify expects a part of each problem, in order.
func verify(t testing.TB, files []string, want ...string) audit.Verified {
	t.Helper()
	v, err := audit.Verify(files)
	if err != nil {
		t.Fatal(err)
	}
	ok := len(v.Problems) == len(want)
	for i := range min(len(v.Problems), len(want)) {
		ok = ok && strings.Contains(v.Problems[i], want[i])
	}
	if !ok {
		t.Errorf("problems %q, want %q", v.Problems, want)
	}
	return v
}

// A trail goes on over restarts and renames, and is whole over all its files.
func TestTrail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, old := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.log.1")
	w := open(t, path)
	record(t, w, 3)
	w.Close()
	w = open(t, path)
	record(t, w, 2)
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	record(t, w, 4)
	w.Close()
	if n := len(lines(t, old)); n != 5 {
		t.Errorf("the old file has %d lines", n)
	}
	v := verify(t, []string{path, old})
	if v.Lines != 9 || v.First != 1 || v.Head != w.Head() || v.Trails != 1 {
		t.Errorf("%+v, head %+v", v, w.Head())
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	// A packed file is the same; a missing one is found, also where it is the oldest.
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	text, _ := os.ReadFile(old)
	_, _ = z.Write(text)
	_ = z.Close()
	if err := os.WriteFile(old+".gz", b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	verify(t, []string{old + ".gz", path})
	if v := verify(t, []string{path}); v.First != 6 {
		t.Errorf("the first line has number %d", v.First)
	}
}

// A gate that starts after a rotation, before there is a line in the new file, goes on with the trail. One that
// finds a head which is damaged, or none, begins another.
func TestStartAfterRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, old, heads := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.log.1"), filepath.Join(dir, ".audit.log.head")
	w := open(t, path)
	record(t, w, 3)
	w.Close()
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	w = open(t, path)
	record(t, w, 2)
	w.Close()
	if v := verify(t, []string{old, path}); v.Lines != 5 || v.Trails != 1 {
		t.Errorf("%+v", v)
	}
	saved, err := os.ReadFile(heads)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", string(saved[:len(saved)-2]), "x" + string(saved[1:]), strings.Replace(string(saved), " ", "\n", 1), strings.Repeat("z", len(saved))} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(heads, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		w = open(t, path)
		record(t, w, 1)
		w.Close()
		if v := verify(t, []string{path}); v.First != 1 {
			t.Errorf("%q: the first line has number %d", damaged, v.First)
		}
	}
}

// Two trails, because the file and its head were gone at a start, are no damage, in whatever order their
// files are named, and the break between them has its place.
func TestTwoTrails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	var files []string
	for trail, parts := range [][]string{{"a1", "a2"}, {"b1", "b2", "b3"}} {
		w := open(t, path)
		for i, part := range parts {
			record(t, w, 3+trail+2*i)
			if i == len(parts)-1 {
				w.Close()
			}
			if err := os.Rename(path, filepath.Join(dir, part)); err != nil {
				t.Fatal(err)
			}
			files = append(files, filepath.Join(dir, part))
		}
		if err := os.Remove(filepath.Join(dir, ".audit.log.head")); err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
		var named []string
		for _, i := range order {
			named = append(named, files[i])
		}
		v := verify(t, named)
		if v.Lines != 8+18 || v.Trails != 2 || v.Head.Sequence != 18 || len(v.Breaks) != 1 || !strings.HasPrefix(v.Breaks[0], files[2]+":1: another trail begins here; the one before ends with line 8, at "+files[1]+":5") {
			t.Errorf("%v: %+v", order, v)
		}
	}
	if v := verify(t, []string{files[4], files[1], files[2], files[3]}); v.First != 4 || v.Trails != 2 { // the oldest is deleted
		t.Errorf("%+v", v)
	}
	verify(t, []string{files[4], files[0], files[1], files[2]}, files[4]+":1: 6 lines are missing before it")
}

// Each line is what somebody does to a whole trail of nine lines, and what Verify says.
func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	w := open(t, path)
	record(t, w, 9)
	w.Close()
	whole := lines(t, path)
	for _, c := range []struct {
		name string
		do   func(l [][]byte) [][]byte
		want []string
	}{
		{"nothing", func(l [][]byte) [][]byte { return l }, nil},
		{"a byte in the middle", func(l [][]byte) [][]byte { l[4] = bytes.Replace(l[4], []byte("x-4"), []byte("x-5"), 1); return l }, []string{":5: the line was changed"}},
		{"a byte of the first line", func(l [][]byte) [][]byte { l[0] = bytes.Replace(l[0], []byte("x-0"), []byte("x-1"), 1); return l }, []string{":1: the line was changed"}},
		{"a hash", func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], l[3][20:24], []byte("0000"), 1)
			return l
		}, []string{":4: the line was changed", ":4: the line was changed"}},
		{"a sequence number", func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], []byte(`"seq":5`), []byte(`"seq":7`), 1)
			return l
		}, []string{":5: ", ":6: "}},
		{"a line is missing", func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, []string{":5: 1 lines are missing before it: 6 follows 4"}},
		{"three lines are missing", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 5) }, []string{":3: 3 lines are missing before it: 6 follows 2"}},
		{"two lines change places", func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, []string{":4: 1 lines are missing", ":5: the lines are in another order: 4 follows 5", ":6: 1 lines are missing"}},
		{"a line is there twice", func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[3]) }, []string{":5: the lines are in another order: 4 follows 4"}},
		{"a line is no JSON", func(l [][]byte) [][]byte { l[4] = []byte("hello\n"); return l }, []string{":5: is not a line of an audit trail"}},
		{"an empty line", func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("\n")) }, []string{":5: is not a line of an audit trail"}},
		{"a line of another program", func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("{\"msg\":\"x\"}\n")) }, []string{":5: lacks its sequence number"}},
		{"the first lines are missing", func(l [][]byte) [][]byte { return l[3:] }, nil}, // they are in an older file
		{"the last line is missing", func(l [][]byte) [][]byte { return l[:8] }, nil},    // the head says so
		{"a second trail", func(l [][]byte) [][]byte { return append(l, l[0]) }, nil},
	} {
		file := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(file, bytes.Join(c.do(slices.Clone(whole)), nil), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := audit.Verify([]string{file})
		if err != nil {
			t.Fatal(err)
		}
		ok := len(v.Problems) == len(c.want) || c.name == "a hash" && len(v.Problems) > 0
		for i := range min(len(v.Problems), len(c.want)) {
			ok = ok && strings.Contains(v.Problems[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", c.name, v.Problems, c.want)
		}
		if whole := c.name == "nothing"; whole != (v.Head == w.Head() && v.First == 1 && v.Trails == 1) && c.want == nil {
			t.Errorf("%s: %+v looks like the whole trail", c.name, v)
		}
	}
	if _, err := audit.Verify([]string{"/nonexistent"}); err == nil {
		t.Error("a missing file is no error")
	}
}

// What was half written when the machine stopped was never a line. It is removed, and the
// observer learns of it. Some file systems leave zeros.
func TestTornLine(t *testing.T) {
	t.Parallel()
	for _, torn := range []string{`{`, `{"seq":4,"prev":"00`, `{"seq":4,"prev":"00` + "\x00\x00", "\x00\x00\x00"} {
		path := filepath.Join(t.TempDir(), "audit.log")
		w := open(t, path)
		record(t, w, 3)
		w.Close()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString(torn)
		_ = f.Close()
		var cut atomic.Int64
		if w, err = audit.Open(path, audit.Observer{Cut: func(n int64) { cut.Add(n) }}); err != nil {
			t.Fatalf("%q: %v", torn, err)
		}
		record(t, w, 1)
		w.Close()
		if v := verify(t, []string{path}); v.Lines != 4 || cut.Load() != int64(len(torn)) {
			t.Errorf("%q: %+v, %d bytes cut", torn, v, cut.Load())
		}
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(`{"seq":1,"pr`), 0o600); err != nil { // the first line of all
		t.Fatal(err)
	}
	w := open(t, path)
	record(t, w, 1)
	w.Close()
	if v := verify(t, []string{path}); v.Lines != 1 || v.First != 1 {
		t.Errorf("%+v", v)
	}
}

// A file that is something else is refused, and stays as it is, at the start and when
// it takes the place of the trail later.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good.log")
	w := open(t, good)
	record(t, w, 2)
	w.Close()
	trail := string(bytes.Join(lines(t, good), nil))
	path := filepath.Join(dir, "audit.log")
	for name, text := range map[string]string{
		"a text":                     "hello\n",
		"a text without a newline":   "hello",
		"one byte":                   "x",
		"a log of another program":   `{"msg":"x"}` + "\n",
		"JSON without a newline":     `{"seq":1,"msg":"x"}`,
		"a number of another length": `{"seq":` + strings.Repeat("1", 21),
		"a hash that is none":        `{"seq":1,"prev":"xx`,
		"zeros":                      "\x00\x00\x00\x00",
		"much without a newline":     strings.Repeat("x", 200<<10),
		"one line of ours, too long": trail[:110] + strings.Repeat("x", 100<<10),
		"a trail in a text":          "hello\n" + trail,
		"a text behind a trail":      trail + "hello\n",
		"a torn text behind a trail": trail + "hello",
		"JSON behind a trail":        trail + `{"msg":`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := audit.Check(path); err == nil || !strings.Contains(err.Error(), "is no audit trail; name another file") {
			t.Errorf("%s: the check says %v", name, err)
		}
		if _, err := audit.Open(path, audit.Observer{}); err == nil || !strings.Contains(err.Error(), "is no audit trail; name another file") {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%s: the file was changed: %d bytes, %v", name, len(now), err)
		}
	}
	for _, other := range []string{good, filepath.Join(dir, "missing.log")} {
		if err := audit.Check(other); err != nil {
			t.Error(err)
		}
	}
	if _, err := audit.Open(dir, audit.Observer{}); err == nil {
		t.Error("a directory is a file")
	}
	w = open(t, good)
	if err := os.Rename(path, good); err != nil {
		t.Fatal(err)
	}
	before := lines(t, good)
	w.Record("admitted", nil)
	eventually(t, "it fails", func() bool { return w.Err() != nil })
	if now := lines(t, good); !slices.EqualFunc(now, before, bytes.Equal) {
		t.Errorf("%q was made of %q", now, before)
	}
}

// Two gates, as in an upgrade, write one trail, over a rename, too.
func TestTwoGates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	const each = 500
	gates := []*audit.Writer{open(t, path), open(t, path)}
	var wg sync.WaitGroup
	for _, w := range gates {
		wg.Go(func() {
			for range each {
				w.Record("admitted", nil)
			}
		})
	}
	old := path + ".1"
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, w := range gates {
		w.Record("last", nil)
		w.Close()
	}
	v := verify(t, []string{path, old})
	if v.Lines != 2*(each+1) || v.Trails != 1 {
		t.Errorf("%+v", v)
	}
}

// While nothing can be written, lines wait, the writer says why, and nobody waits for
// it; what does not fit is counted in the trail.
func TestFailing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	var lost, works, failing atomic.Int64
	w, err := audit.Open(path, audit.Observer{Lost: func() { lost.Add(1) }, Works: func() { works.Add(1) }, Failing: func(error) { failing.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	record(t, w, 1)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil { // the new file cannot be made
		t.Fatal(err)
	}
	text := slog.String("text", strings.Repeat("x", 20<<10))
	for range 300 {
		w.Record("refused", []slog.Attr{text})
	}
	eventually(t, "it fails", func() bool { return w.Err() != nil && failing.Load() == 1 })
	if lost.Load() == 0 || lost.Load() > 200 {
		t.Errorf("%d lines are lost", lost.Load())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it works again", func() bool { return w.Err() == nil && works.Load() == 1 })
	w.Close()
	v := verify(t, []string{path, path + ".1"})
	all := lines(t, path)
	if last := string(all[len(all)-1]); v.Lines != 302-int(lost.Load()) || !strings.Contains(last, fmt.Sprintf(`"event":"lost","lines":%d}`, lost.Load())) {
		t.Errorf("%d lines and %d lost; the last is %.200s", v.Lines, lost.Load(), last)
	}
}
