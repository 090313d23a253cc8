//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgwicket/internal/docpage"
	"pgwicket/internal/pgtest"
)

// TestQuickStart does what docs/quickstart.md says, command by command, with a
// PostgreSQL for each of its two ways. Only what its reader must adapt is
// adapted, and systemd is not asked.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	g := newGuide(t)
	g.follow(production(t))
	if g.asked != 2 {
		t.Errorf("%d blocks of values, want two", g.asked)
	}
}

// production is the quick start without its ten lines.
func production(t *testing.T) []docpage.Block {
	t.Helper()
	return slices.DeleteFunc(blocks(t, "quickstart.md"), func(b docpage.Block) bool { return b.Section == tenLines })
}

// rotation are the sections of docs that continue from a gate of the quick start, in
// the order in which they are tried.
var rotation = []string{
	"A new server certificate", "A new passphrase", "A fresh revocation list", "Revoking a client certificate", "A new CA",
	"Draining", "Upgrading",
}

// TestRotation does what they say. It is not parallel to TestQuickStart, for both
// build bin/pgwicket.
func TestRotation(t *testing.T) {
	start := production(t)
	var manual []docpage.Block
	for _, section := range rotation {
		for _, page := range pages(t) {
			manual = append(manual, slices.DeleteFunc(blocks(t, page), func(b docpage.Block) bool { return b.Section != section })...)
		}
	}
	end := slices.IndexFunc(start, func(b docpage.Block) bool { return b.Section == "Revoke" })
	var sections []string
	for _, b := range manual {
		sections = append(sections, b.Section)
	}
	if end < 0 || !slices.Equal(slices.Compact(sections), rotation) {
		t.Fatalf("the quick start without Revoke, or the manual with %q", slices.Compact(sections))
	}
	g := newGuide(t)
	g.follow(start[:end])
	g.follow(manual)
}

// guide follows the quick start.
type guide struct {
	t     *testing.T
	dir   string
	shell *docpage.Shell
	db    *pgtest.Server
	asked int
	texts []string // what stands in the page, and here instead
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	for _, name := range []string{"bash", "make", "openssl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	g := &guide{t: t}
	var err error
	// As root the gate runs under another account, which does not get through
	// to a directory of t.TempDir.
	if g.dir, err = os.MkdirTemp("", "pgw-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(g.dir) })
	bin := filepath.Join(g.dir, "bin")
	for _, err := range []error{os.Chmod(g.dir, 0o755), os.Mkdir(bin, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{bin, os.Getenv("PATH"), filepath.Dir(psql)}, string(os.PathListSeparator))
	g.shell = docpage.NewShell(t, "../..", pgtest.Environ("PATH="+path, "LC_ALL=C", "PGCONNECT_TIMEOUT=60"))
	return g
}

// follow does what stands in blocks. What systemd would do is done here.
func (g *guide) follow(page []docpage.Block) {
	var section string
	g.shell.Follow(page, func(b docpage.Block) string {
		if b.Section != section && b.Lang == "sh" {
			section = b.Section
			if values := g.values(section); values != nil {
				return docpage.Adapt(g.t, b, values)
			}
		}
		return g.adapt(b.Text)
	}, func(b docpage.Block) {
		// Before either there is no gate here, so a reload cannot hand over.
		if strings.Contains(b.Text, "systemctl restart pgwicket") || strings.Contains(b.Text, "systemctl reload pgwicket") {
			g.shell.Run(`$AS_GATE pgwicket serve --config "$ETC/pgwicket.yaml" 2>"$CA/gate.log" &
until grep -q ready "$CA/gate.log"; do sleep 0.1; done`)
		}
	})
}

// values are those of a section that asks its reader for some.
func (g *guide) values(section string) map[string]string {
	switch section {
	case "What to adapt":
		g.start(pgtest.Options{HBA: "local all all trust"})
		gate, admin := g.freeAddress(), g.freeAddress()
		host, port, _ := net.SplitHostPort(gate)
		owner, asOwner := g.owner()
		g.texts = []string{
			"10.0.0.5:5432", gate, "127.0.0.1:10432", admin, "/run/pgwicket-db", g.db.SocketDir,
			"/etc/pgwicket", g.dir + "/etc", "10.0.1.5", "127.0.0.1",
		}
		return map[string]string{
			"GATE": host, "PORT": port, "ADMIN": admin, "CLIENTS": "127.0.0.0/8, 10.20.0.0/16",
			"SOCKETS": g.db.SocketDir, "CA": g.dir + "/ca", "ETC": g.dir + "/etc", "BIN": g.dir + "/bin",
			"GATE_USER": owner, "AS_ROOT": "env", "AS_GATE": asOwner, "AS_POSTGRES": g.asPostgres(), "RESTART_POSTGRES": g.restart(),
		}
	case "Bastion":
		g.start(pgtest.Options{HBA: "local all all trust", Host: "127.0.0.1"})
		owner, _ := g.owner()
		port := strconv.Itoa(g.db.Port)
		g.texts = append(g.texts, "10.0.1.9:5432", "127.0.0.1:"+port)
		return map[string]string{
			"DB": "127.0.0.1", "DB_PORT": port, "BASTION": "127.0.0.1", "DB_OWNER": owner,
			"AS_POSTGRES": g.asPostgres(), "RESTART_POSTGRES": g.restart(),
		}
	}
	return nil
}

func (g *guide) start(o pgtest.Options) {
	g.t.Helper()
	g.asked++
	db, err := pgtest.Start(context.Background(), o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(db.Stop)
	g.db = db
	// Debian's postgresql.conf includes this directory. What is in it cannot change what the
	// command line of this server sets.
	config := g.sql("show config_file")
	if err := os.Mkdir(filepath.Join(filepath.Dir(config), "conf.d"), 0o755); err != nil {
		g.t.Fatal(err)
	}
	file, err := os.OpenFile(config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("include_dir = 'conf.d'\n"); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guide) sql(query string) string {
	g.t.Helper()
	out, err := g.db.SQL(query)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// restart is a command that restarts the server as often as it is called, and waits for it.
func (g *guide) restart() string {
	ctx, cancel := context.WithCancel(context.Background())
	db, ended := g.db, make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = db.Restart(ctx) // waits for its end
		}
	}()
	pidFile := filepath.Join(g.sql("show data_directory"), "postmaster.pid")
	g.t.Cleanup(func() { // before the server is stopped
		cancel()
		text, _ := os.ReadFile(pidFile)
		line, _, _ := strings.Cut(string(text), "\n")
		if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGINT)
			<-ended
		}
	})
	script := fmt.Sprintf("pid=%s\nold=$(head -1 $pid)\nkill -INT $old\n"+
		"until [ \"$(head -1 $pid 2>/dev/null)\" != \"$old\" ] && %s psql -Xc 'select 1'; do sleep 0.1; done >/dev/null 2>&1\n",
		pidFile, g.asPostgres())
	path := filepath.Join(g.dir, fmt.Sprintf("restart-%d", g.asked))
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return "bash " + path
}

func (g *guide) freeAddress() string {
	g.t.Helper()
	port, err := freePort()
	if err != nil {
		g.t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func (g *guide) asPostgres() string {
	return fmt.Sprintf("env PGHOST=%s PGPORT=%d PGUSER=%s", g.db.SocketDir, g.db.Port, pgtest.Superuser)
}

// owner is the account that PostgreSQL runs under, the only one beside root that
// gets through to its socket, and how to become it.
func (g *guide) owner() (name, how string) {
	g.t.Helper()
	st, err := os.Stat(g.db.SocketDir)
	if err != nil {
		g.t.Fatal(err)
	}
	id := st.Sys().(*syscall.Stat_t)
	u, err := user.LookupId(fmt.Sprint(id.Uid))
	if err != nil {
		g.t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return u.Username, "env"
	}
	return u.Username, fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups", id.Uid, id.Gid)
}

// peerLine asks for an account of PostgreSQL's own, which may have another name
// here or not be ours.
var peerLine = regexp.MustCompile(`(local\s+all\s+postgres\s+|local\|\{all}\|\{postgres}\|\|?)peer`)

func (g *guide) adapt(text string) string {
	return strings.NewReplacer(g.texts...).Replace(peerLine.ReplaceAllString(text, "${1}trust"))
}

// TestQuickStartNames: what the page has systemd do is about the files of
// deploy/systemd, and its values are theirs.
func TestQuickStartNames(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/pgwicket.service")
	if err != nil {
		t.Fatal(err)
	}
	page := blocks(t, "quickstart.md")
	value := func(name string) string {
		for _, b := range page {
			if m := regexp.MustCompile(`(?m)^` + name + `=(\S+)`).FindStringSubmatch(b.Text); b.Lang == "sh" && m != nil {
				return m[1]
			}
		}
		t.Fatalf("no variable %s", name)
		return ""
	}
	for _, line := range []string{
		"User=" + value("GATE_USER"),
		"ExecStart=" + value("BIN") + "/pgwicket serve --config " + value("ETC") + "/pgwicket.yaml",
		"file:///usr/share/doc/pgwicket/docs/operations.md",
	} {
		if !strings.Contains(string(unit), line+"\n") {
			t.Errorf("%s is not in the unit", line)
		}
	}
	commands := ""
	for _, b := range page {
		if b.Lang == "console" {
			commands += b.Text
		}
	}
	for _, line := range []string{
		"useradd --system --home /nonexistent --shell /usr/sbin/nologin " + value("GATE_USER"),
		"'d " + value("SOCKETS") + " 0750 postgres " + value("GATE_USER") + "'",
	} {
		if !strings.Contains(commands, line) {
			t.Errorf("%s is not among\n%s", line, commands)
		}
	}
	for _, path := range regexp.MustCompile(`deploy/\S+[a-z]`).FindAllString(commands, -1) {
		if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
			t.Error(err)
		}
	}
}
