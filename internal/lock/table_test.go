package lock_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgwicket/internal/lock"
	"pgwicket/internal/statefile"
)

// lockName is the file by which gates lock each other out.
const lockName = ".locks.lock"

// writeLocks writes a file with n locks, as the gate does.
func writeLocks(t testing.TB, dir string, n int) {
	t.Helper()
	type entry struct {
		ID      string    `json:"id"`
		User    string    `json:"user"`
		By      string    `json:"by"`
		Created time.Time `json:"created"`
	}
	locks := make([]entry, n)
	for i := range locks {
		locks[i] = entry{fmt.Sprintf("%08x", i), fmt.Sprintf("user%d", i), "test", noon}
	}
	text, err := json.Marshal(map[string]any{"version": 1, "locks": locks})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, string(text))
}

func write(t testing.TB, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, lock.FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, lock.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func open(t testing.TB, dir string) *lock.Table {
	t.Helper()
	table, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// add locks until an hour after noon.
func add(t testing.TB, table *lock.Table, text string) lock.Lock {
	t.Helper()
	until := noon.Add(time.Hour)
	l, _, err := table.Add(lock.Lock{Filter: filter(t, text), Reason: "stolen laptop", By: "uid 0", Until: &until}, noon)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Locks are the same after a restart, and nothing else is left in the directory.
func TestTableSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	one, two := add(t, table, "cn=alice source=10.0.0.0/8"), add(t, table, `serial=1a2b issuer=CN=CA,O=A\,+B`)
	forever, _, err := table.Add(lock.Lock{Filter: filter(t, "user=app"), By: "uid 0"}, noon.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	held := again.Set().At(noon)
	if len(held) != 3 || held[2].ID != forever.ID || held[2].Until != nil {
		t.Fatalf("%+v", held)
	}
	for _, l := range held[:2] {
		if l.ID != one.ID && l.ID != two.ID || l.Reason != "stolen laptop" || l.By != "uid 0" || !l.Until.Equal(noon.Add(time.Hour)) || !l.Created.Equal(noon) {
			t.Errorf("%+v", l)
		}
	}
	if again.Set().Find(request(t, "x cn=alice"), noon) == nil || again.Set().Find(request(t, "x cn=alice from=11.0.0.1"), noon) != nil {
		t.Error("the network of a lock was lost")
	}
	if l, _, err := again.Remove(strings.ToUpper(one.ID)); err != nil || l.ID != one.ID {
		t.Errorf("%+v, %v", l, err)
	}
	if _, _, err := again.Remove(one.ID); !errors.Is(err, lock.ErrNoLock) {
		t.Errorf("a second removal: %v", err)
	}
	if n := open(t, dir).Set().Len(); n != 2 {
		t.Errorf("%d locks are left", n)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 { // the locks, and the file by which gates lock each other out
		t.Errorf("%v, %v", entries, err)
	}
	for _, name := range []string{lock.FileName, lockName} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
}

const goodLock = `{"id":"00000001","cn":"alice","by":"uid 0","created":"2027-01-31T12:00:00Z"}`

// A file that is not exactly what a gate writes is not used at all.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	good := `{"version":1,"locks":[` + goodLock + `]}`
	field := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "cut off"},
		{"half", good[:len(good)/2], "cut off"},
		{"without its last byte", good[:len(good)-1], "cut off"},
		{"more behind it", good + "{}", "something behind the locks"},
		{"no JSON", "hello", "is not as the gate writes it"},
		{"a list", "[]", "is not as the gate writes it"},
		{"no version", `{"locks":[]}`, "version 0"},
		{"a newer version", `{"version":2,"locks":[]}`, "it has version 2, and this release reads version 1"},
		{"no locks", `{"version":1}`, "has no locks"},
		{"null", `{"version":1,"locks":null}`, "has no locks"},
		{"unknown key", field(`"cn"`, `"note":"x","cn"`), `unknown field "note"`},
		{"unknown key at the top", `{"version":1,"locks":[],"x":1}`, `unknown field "x"`},
		{"a key twice", field(`"cn":"alice"`, `"cn":"alice","cn":"bob"`), `the key "cn" is there twice`},
		{"a key twice, in two cases", field(`"cn":"alice"`, `"cn":"alice","CN":"bob"`), `the key "CN" is there twice`},
		{"locks twice", strings.Replace(good, `{"version"`, `{"locks":[`+goodLock+`],"version"`, 1), `the key "locks" is there twice`},
		{"duplicate id", `{"version":1,"locks":[` + goodLock + "," + goodLock + `]}`, "lock 2 has the id 00000001 of an earlier lock"},
		{"no id", field(`"00000001"`, `""`), "its id is not one of the gate's"},
		{"odd id", field(`"00000001"`, `"0000000G"`), "its id is not one of the gate's"},
		{"no condition", field(`"cn":"alice",`, ""), "it has no condition"},
		{"empty condition", field("alice", ""), "it has no condition"},
		{"control character", field("alice", `al\u001bice`), "control character"},
		{"serial", field(`"cn":"alice"`, `"serial":"0a1"`), "its serial is not in the form of the gate"},
		{"network", field(`"cn":"alice"`, `"source":"10.0.0.1/8"`), "bits set to the right"},
		{"no creation", field(`,"created":"2027-01-31T12:00:00Z"`, ""), "it lacks a time"},
		{"bad time", field("2027-01-31", "2027-02-31"), "is not as the gate writes it"},
		{"fraction", field(`"by"`, `"until":"2027-01-31T12:00:00.5Z","by"`), "not a whole second"},
		{"long reason", field(`"by"`, `"reason":"`+strings.Repeat("x", 1001)+`","by"`), "longer than 1000 bytes"},
		{"reason with a control character", field(`"by"`, `"reason":"a\nb","by"`), "control character"},
	} {
		dir := t.TempDir()
		write(t, dir, c.text)
		_, err := lock.Open(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "restore the file from a backup") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	dir := t.TempDir()
	write(t, dir, good)
	if n := open(t, dir).Set().Len(); n != 1 {
		t.Errorf("the good one has %d locks", n)
	}
}

// There is a bound, with a message at it; locks whose time is over make room.
func TestBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeLocks(t, dir, lock.MaxLocks+1)
	if _, err := lock.Open(dir); err == nil || !strings.Contains(err.Error(), "at most 10000 are possible") {
		t.Errorf("%v", err)
	}
	writeLocks(t, dir, lock.MaxLocks-1)
	table := open(t, dir)
	last := add(t, table, "cn=alice")
	before := read(t, dir)
	l := lock.Lock{Filter: filter(t, "cn=bob"), By: "uid 0"}
	if _, _, err := table.Add(l, noon); err == nil || !strings.Contains(err.Error(), "10000 locks already") {
		t.Errorf("one too many: %v", err)
	}
	if read(t, dir) != before || table.Set().Len() != lock.MaxLocks {
		t.Error("the table has changed")
	}
	if _, s, err := table.Add(l, *last.Until); err != nil || s.Len() != lock.MaxLocks {
		t.Errorf("an old lock makes no room: %v", err)
	}
}

// Locks stay for a day after their end, for a clock that was ahead, and no longer.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	l := add(t, table, "cn=alice")
	other := lock.Lock{Filter: filter(t, "cn=bob"), By: "uid 0"}
	q := request(t, "x cn=alice")
	if _, s, err := table.Add(other, l.Until.Add(23*time.Hour)); err != nil || s.Find(q, noon) == nil {
		t.Errorf("a clock that was ahead has ended a lock for good: %v", err)
	}
	if _, s, err := table.Add(other, l.Until.Add(25*time.Hour)); err != nil || s.Find(q, noon) != nil || s.Len() != 2 {
		t.Errorf("an old lock is kept forever: %v", err)
	}
}

// Two operators, at two gates with one directory: each lock counts, and each gate sees
// those of the other. A gate that cannot change the file because the other holds it for long, as
// on a slow disk, has changed nothing, and its operator tries again.
func TestTwoOperatorsAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tables := []*lock.Table{open(t, dir), open(t, dir)}
	const each = 20
	var wg sync.WaitGroup
	for i, table := range tables {
		for j := range each {
			one := lock.Lock{Filter: filter(t, fmt.Sprintf("cn=c%d-%d", i, j)), By: "uid 0"}
			wg.Go(func() {
				_, _, err := table.Add(one, noon)
				for errors.Is(err, statefile.ErrHeld) {
					_, _, err = table.Add(one, noon)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := open(t, dir).Set().Len(); n != 2*each {
		t.Errorf("%d locks, want %d", n, 2*each)
	}
	for _, table := range tables {
		if _, err := table.Refresh(); err != nil || table.Set().Len() != 2*each {
			t.Errorf("%d locks, %v", table.Set().Len(), err)
		}
		if s, err := table.Refresh(); s != nil || err != nil {
			t.Errorf("a second look finds a change: %v", err)
		}
	}
}

// What happens to the file behind the gate's back never ends a lock.
func TestFileChangesUnderneath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	add(t, table, "cn=alice")
	good := read(t, dir)
	q := request(t, "x cn=alice")
	write(t, dir, good[:len(good)/2])
	if _, err := table.Refresh(); err == nil || !strings.Contains(err.Error(), "is damaged") || table.Set().Find(q, noon) == nil {
		t.Errorf("damaged: %v", err)
	}
	if _, _, err := table.Add(lock.Lock{Filter: filter(t, "cn=bob"), By: "uid 0"}, noon); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a lock on top of a damaged file: %v", err)
	}
	if read(t, dir) != good[:len(good)/2] {
		t.Error("the damaged file was replaced, and with it what a person could find out")
	}
	if err := os.Remove(filepath.Join(dir, lock.FileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Refresh(); err == nil || !strings.Contains(err.Error(), "is gone; its 1 locks stay in force, and the file was written again") || table.Set().Find(q, noon) == nil {
		t.Errorf("removed: %v", err)
	}
	if n := open(t, dir).Set().Len(); n != 1 {
		t.Errorf("a gate that starts now has %d locks", n)
	}
	if s, err := table.Refresh(); s != nil || err != nil {
		t.Errorf("it is reported again: %v", err)
	}
	add(t, table, "cn=bob")
	if n := open(t, dir).Set().Len(); n != 2 {
		t.Errorf("%d locks in the new file, want both", n)
	}
}

// Without a directory locks end with the process; a directory must be there.
func TestStateDirectory(t *testing.T) {
	t.Parallel()
	if open(t, "").Persistent() || open(t, "").CheckWritable() != nil {
		t.Error("no directory keeps locks")
	}
	dir := t.TempDir()
	if table := open(t, dir); !table.Persistent() || table.CheckWritable() != nil {
		t.Error("the directory is not good")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != lockName {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := lock.Open(filepath.Join(dir, "no")); err == nil || !strings.Contains(err.Error(), "make the directory") {
		t.Errorf("%v", err)
	}
}
