//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTransaction(t *testing.T) {
	t.Parallel()
	took, at, ok := transaction("3 41 1250 0 1764022409 500000")
	if !ok || took != 1250*time.Microsecond || !at.Equal(time.Unix(1764022409, 500_000_000)) {
		t.Errorf("%v %v %v", took, at, ok)
	}
	for _, line := range []string{"", "3 41 1250 0 1764022409", "3 41 failed 0 1764022409 500000"} {
		if _, _, ok := transaction(line); ok {
			t.Errorf("%q was taken for a transaction", line)
		}
	}
}

// A transaction belongs to the window in which it ended, or to none.
func TestWindows(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	all := []window{
		{begin: start, end: start.Add(2 * time.Second), gate: time.Second},
		{begin: start.Add(3 * time.Second), end: start.Add(4 * time.Second), floodKind: floodHere, own: time.Second},
		{begin: start.Add(5 * time.Second), end: start.Add(7 * time.Second)},
	}
	name := filepath.Join(t.TempDir(), "log")
	log := "0 1 100 0 1000001 0\n0 2 200 0 1000001 5\n0 3 999 0 1000002 500000\n0 4 5000 0 1000003 5\n0 5 300 0 1000006 0\n0 6 3"
	if err := os.WriteFile(name, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sortInto(all, name); err != nil {
		t.Fatal(err)
	}
	if got, want := summary(all, noFlood), (pace{200 * time.Microsecond, 300 * time.Microsecond, 0.75, 0.25, 0}); got != want {
		t.Errorf("without: %+v, want %+v", got, want)
	}
	if got, want := summary(all, floodHere), (pace{5 * time.Millisecond, 5 * time.Millisecond, 1, 0, 1}); got != want {
		t.Errorf("with: %+v, want %+v", got, want)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "page.md")
	page := "# Page\n\n<!-- begin: written by make faults -->\nold\n<!-- end: written by make faults -->\n\nrest\n"
	if err := os.WriteFile(name, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	table := faultsTable([]result{{"a | b", "done\ntwice", "passed"}})
	for range 2 { // the second changes nothing
		if err := renew(name, "faults", table); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(name)
	want := "# Page\n\n<!-- begin: written by make faults -->\n\n" +
		"| fault | what was done | result |\n|---|---|---|\n| a \\| b | done twice | passed |\n\n" +
		"<!-- end: written by make faults -->\n\nrest\n"
	if string(got) != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if err := renew(name, "soak", table); err == nil {
		t.Error("a page without the block was taken")
	}
}

// Rows that were not run stay, in the order of the faults.
func TestRenewFaults(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "page.md")
	all := scenarios()
	page := "<!-- begin: written by make faults -->\n\n" + faultsTable([]result{{all[1].title, "one", "passed"}, {all[3].title, "three", "passed"}, {"A fault of old", "x", "passed"}}) + "\n<!-- end: written by make faults -->\n"
	if err := os.WriteFile(name, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := renewFaults(name, []result{{all[2].title, "two", "passed"}, {all[3].title, "again", "failed"}}); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(name)
	want := "<!-- begin: written by make faults -->\n\n" + faultsTable([]result{{all[1].title, "one", "passed"}, {all[2].title, "two", "passed"}, {all[3].title, "again", "failed"}}) + "\n<!-- end: written by make faults -->\n"
	if string(got) != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range scenarios() {
		if seen[s.name] {
			t.Errorf("%s stands there twice", s.name)
		}
		seen[s.name] = true
	}
	if got, err := choose("log-,reset"); err != nil || len(got) != 4 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := choose("nothing"); err == nil {
		t.Error("an unknown name was taken")
	}
}
