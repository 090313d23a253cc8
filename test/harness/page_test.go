package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestResults fails if a make target that writes into docs/results would not find its
// place there.
func TestResults(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for page, commands := range map[string][]string{
		"performance.md": {"make bench-peers", "make bench-scale", "make bench-scale, profiles"},
		"reliability.md": {"make faults", "make soak", "make interop-upgrades"},
		"interop.md":     {"make interop", "make interop-moments", "make interop-replication", "make interop-tools"},
	} {
		text, err := os.ReadFile(filepath.Join(root, "docs", "results", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range commands {
			copied := filepath.Join(t.TempDir(), page)
			if err := os.WriteFile(copied, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Renew(copied, command, "new"); err != nil {
				t.Error(err)
			}
			target, _, _ := strings.Cut(strings.TrimPrefix(command, "make "), ",")
			if !strings.Contains(string(makefile), "\n"+target+": ##") {
				t.Errorf("the Makefile has no target %s", target)
			}
		}
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	begin, end := Marks("make something")
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("before\n"+begin+"\nold\n"+end+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Renew(file, "make something", "new\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "before\n"+begin+"\n\nnew\n\n"+end+"\nafter\n" {
		t.Errorf("%s", got)
	}
	if err := Renew(file, "make another", "new\n"); err == nil {
		t.Error("a page without the marks was accepted")
	}
}
