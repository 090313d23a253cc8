//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/config"
	"pgwicket/internal/docpage"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// TestHardening takes every block of docs/hardening.md to the program that it is
// for.
func TestHardening(t *testing.T) {
	tryBlocks(t, "hardening.md", "postgresql.conf", "pg_hba.conf", "pg_ident.conf", "sql", "yaml", "nft")
}

// TestComingFrom does so with docs/coming-from.md.
func TestComingFrom(t *testing.T) {
	tryBlocks(t, "coming-from.md", "postgresql.conf", "pg_hba.conf", "sql", "yaml")
}

// tryBlocks tries those of a page, which must have some of each of these kinds.
func tryBlocks(t *testing.T, name string, kinds ...string) {
	t.Parallel()
	page := blocks(t, name)
	h := newHardened(t)
	tried := make(map[string]int)
	for i, b := range page {
		b.Text = strings.TrimSpace(b.Text)
		kind := b.Lang
		if kind == "conf" {
			kind = strings.Fields(b.Text)[1]
		}
		tried[kind]++
		t.Run(fmt.Sprintf("%s, line %d", b.Section, b.Line), func(t *testing.T) {
			switch kind {
			case "postgresql.conf":
				h.conf(t, b)
			case "pg_hba.conf":
				h.hba(t, b)
			case "pg_ident.conf":
				h.ident(t, b)
			case "sql":
				out := h.sql(t, b)
				if i+1 < len(page) && page[i+1].Lang == "text" && !docpage.Matches(out, page[i+1].Text) {
					t.Errorf("%s\nprints\n%s\nand the page shows\n%s", b.Text, out, page[i+1].Text)
				}
			case "yaml":
				loads(t, b)
			case "nft":
				loadsInNFT(t, b)
			case "console", "text": // see TestPagesCommands
			default:
				t.Errorf("there is no test for a block of %q", kind)
			}
		})
	}
	for _, kind := range kinds {
		if tried[kind] == 0 {
			t.Errorf("no block of %s", kind)
		}
	}
}

// hardened is the PostgreSQL that the page is tried on.
type hardened struct {
	db      *pgtest.Server
	data    string
	release int
}

// ours admits this test, whatever the page says.
const (
	ourHBA   = "local all " + pgtest.Superuser + " peer map=ours\n"
	ourIdent = "ours %s " + pgtest.Superuser + "\n"
)

func newHardened(t *testing.T) *hardened {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ca := tlstest.NewCA("hardening CA")
	pair := ca.Server("localhost")
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA: ourHBA, Ident: fmt.Sprintf(ourIdent, me.Username),
		Files: map[string][]byte{
			"server.crt": pair.CertPEM(), "server.key": pair.KeyPEM(), "root.crt": ca.CertPEM(), "root.crl": ca.CRL(nil), "page.conf": nil,
		},
		Settings: []string{"ssl=on", "ssl_ca_file=root.crt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	h := &hardened{db: db}
	h.data = h.ask(t, "show data_directory")
	if h.release, err = strconv.Atoi(h.ask(t, "show server_version_num")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(h.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\ninclude = 'page.conf'\n"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hardened) ask(t *testing.T, sql string) string {
	t.Helper()
	out, err := h.db.SQL(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// write replaces a file in the data directory, whose owner stays.
func (h *hardened) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.data, name), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload waits until the server has read its files: its time of the last one is
// to the microsecond.
func (h *hardened) reload(t *testing.T) {
	t.Helper()
	before := h.ask(t, "select pg_conf_load_time()")
	h.ask(t, "select pg_reload_conf()")
	for end := time.Now().Add(deadline); h.ask(t, "select pg_conf_load_time()") == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("PostgreSQL does not reload")
		}
	}
}

var (
	forRelease = regexp.MustCompile(`of PostgreSQL (\d+)`)
	// unloadable is in the log, where pg_file_settings only has that a setting has not
	// been applied.
	unloadable = regexp.MustCompile(`could not load|not reloaded|invalid value|outside the valid range|requires a`)
	setting    = regexp.MustCompile(`(?m)^([a-z_0-9]+) = '?([^'\n]*)'?`)
)

// conf puts a block into a file that postgresql.conf includes. A setting that
// waits for a restart has been read all the same; one that the command line of
// the test has is read, and does not come into force.
func (h *hardened) conf(t *testing.T, b docpage.Block) {
	if m := forRelease.FindStringSubmatch(b.Text); m != nil {
		if n, _ := strconv.Atoi(m[1]); h.release < n*10000 {
			t.Skipf("for PostgreSQL %s, and here is %d", m[1], h.release)
		}
	}
	logged := len(h.db.Log())
	h.write(t, "page.conf", b.Text)
	wrong := h.ask(t, "select name, error from pg_file_settings where sourcefile like '%/page.conf' and error is not null and error <> 'setting could not be applied'")
	h.reload(t)
	if said := h.db.Log()[logged:]; wrong != "" || unloadable.MatchString(said) {
		t.Errorf("%s\n%s\n%s", b.Text, wrong, said)
	}
	read := h.ask(t, "select count(*) from pg_file_settings where sourcefile like '%/page.conf'")
	settings := setting.FindAllStringSubmatch(b.Text, -1)
	if read != strconv.Itoa(len(settings)) || len(settings) == 0 {
		t.Errorf("PostgreSQL reads %s settings in\n%s", read, b.Text)
	}
	for _, s := range settings {
		if s[1] == "shared_preload_libraries" { // PostgreSQL loads these at a restart only
			h.ask(t, "load '"+s[2]+"'")
		}
	}
}

// hba has PostgreSQL read the block, and refuse none of its lines.
func (h *hardened) hba(t *testing.T, b docpage.Block) {
	h.write(t, "pg_hba.conf", ourHBA+b.Text)
	if wrong := h.ask(t, "select line_number, error from pg_hba_file_rules where error is not null"); wrong != "" {
		t.Errorf("%s\n%s", b.Text, wrong)
	}
	lines := len(strings.Split(b.Text, "\n")) // the comment is not one, and ours is
	if got := h.ask(t, "select count(*) from pg_hba_file_rules"); got != strconv.Itoa(lines) {
		t.Errorf("PostgreSQL sees %s lines in\n%s", got, b.Text)
	}
	h.reload(t)
}

func (h *hardened) ident(t *testing.T, b docpage.Block) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "pg_ident.conf", b.Text+"\n"+fmt.Sprintf(ourIdent, me.Username))
	if h.release >= 150000 {
		lines := len(strings.Split(b.Text, "\n"))
		if got := h.ask(t, "select count(*) from pg_ident_file_mappings where error is null"); got != strconv.Itoa(lines) {
			t.Errorf("PostgreSQL sees %s lines in\n%s", got, b.Text)
		}
	}
	h.reload(t)
}

var (
	extension = regexp.MustCompile(`create extension (\w+)`)
	// ourMapping is the one that a question of the page must not find.
	ourMapping = regexp.MustCompile(`(?m)^ours\|.*\n?`)
)

func (h *hardened) sql(t *testing.T, b docpage.Block) string {
	if m := extension.FindStringSubmatch(b.Text); m != nil &&
		h.ask(t, "select count(*) from pg_available_extensions where name = '"+m[1]+"'") == "0" {
		t.Skipf("PostgreSQL has come without %s", m[1])
	}
	if strings.Contains(b.Text, "pg_ident_file_mappings") && h.release < 150000 {
		t.Skip("pg_ident_file_mappings is of PostgreSQL 15")
	}
	return ourMapping.ReplaceAllString(h.ask(t, b.Text), "")
}

// loads reads a part of a configuration, with what must stand in every one
// added to it and the files that it names beside it.
func loads(t *testing.T, b docpage.Block) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pgwicket.yaml")
	if err := os.WriteFile(path, []byte(complete(b.Text)), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := tlstest.NewCA("hardening CA")
	for name, pair := range map[string]*tlstest.Pair{"server": ca.Server("db.example.com"), "gate": ca.Client("gate")} {
		if err := pair.WriteFiles(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string][]byte{"ca.crt": ca.CertPEM(), "db-ca.crt": ca.CertPEM(), "ca.crl": ca.CRL(nil)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, problems := config.Load(path, nil, nil, time.Now())
	for _, p := range problems {
		if !p.Warning || p.Key != "backend.host" { // there is no such PostgreSQL here
			t.Error(p)
		}
	}
	if cfg == nil {
		t.Fatalf("does not load:\n%s", complete(b.Text))
	}
}

// complete adds what a configuration must have to a part of one.
func complete(part string) string {
	text := part + "\n"
	for section, lines := range map[string]string{
		"listen:":  "  - address: 10.0.0.5:5432\n",
		"tls:":     "  cert_file: server.crt\n  key_file: server.key\n  ca_file: ca.crt\n  crl_file: ca.crl\n",
		"acl:":     "  allow: [10.20.0.0/16]\n",
		"backend:": "  host: /run/pgwicket-db\n",
	} {
		if !strings.Contains("\n"+text, "\n"+section) {
			text += section + "\n"
		}
		before, after, _ := strings.Cut("\n"+text, "\n"+section+"\n")
		for line := range strings.Lines(lines) {
			key, _, _ := strings.Cut(line, ":")
			if !strings.Contains("\n"+after, "\n"+key+":") {
				after = line + after
			}
		}
		text = strings.TrimPrefix(before+"\n"+section+"\n"+after, "\n")
	}
	return text
}

// loadsInNFT has nft read the rules in a network namespace, where they do no
// harm.
func loadsInNFT(t *testing.T, b docpage.Block) {
	for _, name := range []string{"nft", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	if err := exec.Command("unshare", "-Urn", "true").Run(); err != nil {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	cmd := exec.Command("unshare", "-Urn", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(b.Text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("nft: %v\n%s", err, out)
	}
}

var pageCommand = regexp.MustCompile(`pgwicket ([a-z]+)((?: --?[a-z-]+(?: [^-\s|]\S*)?)*)`)

// promptLine is a command and the lines that continue it.
var promptLine = regexp.MustCompile(`(?m)^[$#] (?:.*\\\n)*.*$`)

// TestPagesCommands: each command of pgwicket in a block that no test runs exists, with
// its flags.
func TestPagesCommands(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if b.Lang != "console" {
				continue
			}
			text := b.Text
			if prompted := promptLine.FindAllString(text, -1); prompted != nil { // the other lines are output
				text = strings.Join(prompted, "\n")
			}
			for _, m := range pageCommand.FindAllStringSubmatch(text, -1) {
				t.Run(fmt.Sprintf("%s, line %d, %s", page, b.Line, m[1]), func(t *testing.T) { hasFlags(t, m[1], m[2]) })
			}
		}
	}
}

func hasFlags(t *testing.T, name, args string) {
	t.Helper()
	i := slices.IndexFunc(commands(), func(c *cobra.Command) bool { return c.Name() == name })
	if i < 0 {
		t.Fatalf("there is no command %s", name)
	}
	for word := range strings.FieldsSeq(args) {
		if flag, ok := strings.CutPrefix(word, "--"); ok && commands()[i].Flags().Lookup(flag) == nil {
			t.Errorf("pgwicket %s has no flag %s", name, word)
		}
	}
}
