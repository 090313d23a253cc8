//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/docpage"
	"pgwicket/internal/pgtest"
)

var (
	firstCell = regexp.MustCompile("(?m)^\\| (`[^|]*) \\|")
	inQuotes  = regexp.MustCompile("`([^`]*)`")
)

// theirs are the keys in the first column of the table of docs/coming-from.md that
// begins with that file.
func theirs(t *testing.T, file string) (keys []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/coming-from.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| `"+file+"` |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range firstCell.FindAllStringSubmatch(table, -1) {
		for _, m := range inQuotes.FindAllStringSubmatch(row[1], -1) {
			keys = append(keys, m[1])
		}
	}
	if len(keys) < 5 {
		t.Fatalf("the table of %s has %q", file, keys)
	}
	return keys
}

// otherProgram finds what is often installed where only root looks.
func otherProgram(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}

// What the page says of PostgreSQL's parameters is of some that it has.
func TestComingFromPostgreSQL(t *testing.T) {
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	known, err := db.SQL("select name from pg_settings")
	if err != nil {
		t.Fatal(err)
	}
	settings := strings.Fields(known)
	for _, key := range theirs(t, "postgresql.conf") {
		if key == "ssl_ecdh_curve" && slices.Contains(settings, "ssl_groups") {
			continue // as on the page
		}
		if !slices.Contains(settings, key) {
			t.Errorf("PostgreSQL has no parameter %s", key)
		}
	}
}

// The lines of pg_hba.conf beside our rules are lines that PostgreSQL takes.
func TestComingFromHBA(t *testing.T) {
	lines := theirs(t, "pg_hba.conf")
	newHardened(t).hba(t, docpage.Block{Text: "# pg_hba.conf\n" + strings.Join(lines, "\n")})
}

// stunnel lists its options itself.
func TestComingFromStunnel(t *testing.T) {
	out, err := exec.Command(otherProgram(t, "stunnel4", "stunnel"), "-help").CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	for _, key := range theirs(t, "stunnel.conf") {
		if !regexp.MustCompile(`(?m)^` + key + ` `).Match(out) {
			t.Errorf("stunnel has no option %s", key)
		}
	}
}

// PgBouncer lists its settings on its console.
func TestComingFromPgBouncer(t *testing.T) {
	known := pgbouncerSettings(t, otherProgram(t, "pgbouncer"))
	for _, key := range theirs(t, "pgbouncer.ini") {
		if !slices.Contains(known, key) {
			t.Errorf("PgBouncer has no setting %s", key)
		}
	}
}

// pgbouncerSettings starts one, which refuses to run as root.
func pgbouncerSettings(t *testing.T, path string) (names []string) {
	t.Helper()
	address := freeTestAddress(t)
	host, port, _ := net.SplitHostPort(address)
	dir, err := os.MkdirTemp("", "pgw-bouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ini := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[pgbouncer]\nlisten_addr = %s\nlisten_port = %s\nunix_socket_dir =\nauth_type = any\n", host, port)
	if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, ini)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	for {
		ask := exec.CommandContext(ctx, psql, "-XAt", "host="+host+" port="+port+" user=pgbouncer dbname=pgbouncer", "-c", "show config")
		ask.Env = pgtest.Environ()
		out, err := ask.CombinedOutput()
		if err == nil {
			for line := range strings.Lines(string(out)) {
				name, _, _ := strings.Cut(line, "|")
				names = append(names, name)
			}
			return names
		}
		if ctx.Err() != nil {
			t.Fatalf("PgBouncer does not answer: %v\n%s", err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
