//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/docpage"
	"pgwicket/internal/pgtest"
)

// tenLines is the section of docs/quickstart.md with the shortest way.
const tenLines = "Ten lines"

// TestTenLines does what that section says: from nothing to a session with a client
// certificate, and to its end by a revocation.
func TestTenLines(t *testing.T) {
	t.Parallel()
	section := slices.DeleteFunc(blocks(t, "quickstart.md"), func(b docpage.Block) bool { return b.Section != tenLines })
	var script, shown string
	for i, b := range section {
		if b.Lang == "sh" {
			script, shown = b.Text, section[i+1].Text
		}
	}
	if n := strings.Count(script, "\n"); n > 10 || n == 0 {
		t.Fatalf("it has %d lines", n)
	}
	l := newLab(t)
	begin := time.Now()
	out, failed := l.shell.Run(strings.ReplaceAll(script, "port=6432", fmt.Sprintf("port=%d", l.port)))
	t.Logf("it took %v", time.Since(begin).Round(100*time.Millisecond))
	if !strings.HasPrefix(failed, "wait") && failed != "" {
		t.Errorf("%s has failed", failed)
	}
	if !strings.Contains(out, "1 open session ended") || !docpage.Matches(out, shown) {
		log, _ := os.ReadFile(filepath.Join(l.dir, "gate.log"))
		t.Errorf("it prints\n%s\nand the page shows\n%s\n%s", out, shown, log)
	}
	if took := time.Since(begin); took > 3*time.Minute {
		t.Errorf("it took %v", took)
	}
	l.shell.Run("kill %1; wait")
}

// lab is a PostgreSQL with the role app, and a shell in an empty directory whose gate
// listens on the port.
type lab struct {
	shell *docpage.Shell
	dir   string
	port  int
}

func newLab(t *testing.T, environ ...string) *lab {
	t.Helper()
	db, err := pgtest.Start(context.Background(), pgtest.Options{HBA: "local all all trust"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	if _, err := db.SQL("create role app login"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	shell := docpage.NewShell(t, dir, append(pgtest.Environ("PATH="+programDir(t)+":"+os.Getenv("PATH")+":"+filepath.Dir(psql), "LC_ALL=C",
		"PGHOST="+db.SocketDir, "PGCONNECT_TIMEOUT=60",
		// Other tests run beside this one, and the ports of the page may be taken.
		fmt.Sprintf("PGWICKET_LISTEN=[{address: '127.0.0.1:%d'}]", port), fmt.Sprintf("PGWICKET_BACKEND_PORT=%d", db.Port),
		fmt.Sprintf("PGWICKET_ADMIN_ADDRESS=127.0.0.1:%d", admin)), environ...))
	return &lab{shell, dir, port}
}

// programDir is a directory in which this binary is the command pgwicket.
func programDir(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("pgwicket") // testscript has put it there
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

// TestCAPage does what docs/ca.md says.
func TestCAPage(t *testing.T) {
	t.Parallel()
	l := newLab(t, "PGWICKET_CONFIG=none.yaml")
	l.shell.Follow(blocks(t, "ca.md"), func(b docpage.Block) string { return b.Text }, func(docpage.Block) {})
}
