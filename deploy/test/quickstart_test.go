package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/docpage"
)

// debianPackages are what a machine has on which somebody follows docs/quickstart.md.
var debianPackages = []string{"systemd", "systemd-sysv", "sudo", "make", "openssl", "ca-certificates", "postgresql", "iproute2", "git"}

// debianSetup makes the account of a reader who may use sudo, the addresses of the page, and a source
// of the gate's connections as if it had a machine to itself. The checkout and Go come by the
// copies of the disk.
const debianSetup = `
useradd --create-home --shell /bin/bash reader
echo 'reader ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/reader
chmod 0755 /root /home/reader
for cache in /cache/build /cache/build/* /cache/mod /cache/mod/cache; do [ ! -d $cache ] || chmod 1777 $cache; done
chmod -f 0666 /cache/mod/cache/lock || true
tar -C /home/reader -xf /stage/source.tar
chown -R reader: /home/reader
ip link set lo up
for address in 10.0.0.5 10.0.1.5 10.0.1.9; do ip address add $address/32 dev lo; done
ip route replace local 10.0.1.9 dev lo table local src 10.0.1.5
systemctl mask systemd-logind getty@tty1 systemd-timesyncd systemd-resolved 2>/dev/null
`

// debianTree returns the directory of a fresh Debian 12 with debianPackages, to which nobody may write.
func debianTree(t *testing.T) string {
	t.Helper()
	maker := exec.Command(filepath.Join(top, ".ci/debian"), append([]string{"systemd"}, debianPackages...)...)
	maker.Stderr = os.Stderr
	tree, err := maker.Output()
	if err != nil {
		t.Skipf("no fresh Debian can be made here: %v", err)
	}
	return strings.TrimSpace(string(tree))
}

// debian boots a Debian 12 with its own PostgreSQL, which runs.
func debian(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make and boot a Debian")
	}
	tree := debianTree(t)
	source := exec.Command("bash", "-c", "git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - --transform 's|^|pgwicket/|'")
	source.Dir = top
	tar, err := source.Output()
	if err != nil {
		t.Fatal(err)
	}
	goEnv := func(name string) string {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	m := boot(t, disk{
		tree:   tree,
		copies: []string{goEnv("GOROOT") + "=/usr/local/go", goEnv("GOCACHE") + "=/cache/build", goEnv("GOMODCACHE") + "=/cache/mod"},
		stage:  map[string]string{"setup": debianSetup, "source.tar": string(tar)},
	})
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.command("journalctl", "--no-pager", "--lines=30", "--unit=postgresql*", "--unit=pgwicket*").CombinedOutput()
			t.Logf("the machine's journal: %s", out)
		}
	})
	for end := time.Now().Add(deadline); ; time.Sleep(100 * time.Millisecond) {
		out, err := m.asPostgres("psql", "-c", "select 1").CombinedOutput()
		if err == nil {
			return m
		}
		if time.Now().After(end) {
			clusters, _ := m.command("pg_lsclusters").CombinedOutput()
			t.Fatalf("PostgreSQL does not start: %v: %s\n%s", err, out, clusters)
		}
	}
}

// asPostgres is a command of PostgreSQL's account.
func (m *machine) asPostgres(args ...string) *exec.Cmd {
	return m.command(append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "env", "-C", "/"}, args...)...)
}

// reader is the bash of an account in a checkout.
func (m *machine) reader(t *testing.T, account string) *docpage.Shell {
	t.Helper()
	cmd := m.command("setpriv", "--reuid="+account, "--regid="+account, "--init-groups", "env", "-C", "/home/reader/pgwicket", "bash", "--noprofile", "--norc")
	home := "/home/reader"
	if account == "root" {
		home = "/root"
	}
	cmd.Env = []string{
		"PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + home, "USER=" + account, "LC_ALL=C.UTF-8",
		"GOCACHE=/cache/build", "GOMODCACHE=/cache/mod", "GOPROXY=off", "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false",
	}
	inside := "/var/lib/page"
	outside := fmt.Sprintf("/proc/%d/root%s", m.init, inside)
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	return docpage.StartShell(t, cmd, inside, outside)
}

func (m *machine) runAsPostgres(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.asPostgres(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

var prompt = regexp.MustCompile(`(?m)^\$ `)

// followPage runs every block as it is, those with a prompt as well.
func (m *machine) followPage(t *testing.T, s *docpage.Shell, page []docpage.Block) {
	t.Helper()
	asIs := func(b docpage.Block) string { return b.Text }
	s.Follow(page, asIs, func(b docpage.Block) {
		if b.Lang != "console" {
			return
		}
		if out, failed := s.Run(prompt.ReplaceAllString(b.Text, "")); failed != "" {
			t.Fatalf("line %d: %s\nhas failed in\n%s\n%s\n%s", b.Line, failed, b.Text, out, m.journal())
		}
		// Debian's own programs still know their cluster after each step.
		if out := m.run(t, "pg_lsclusters", "--no-header"); !strings.Contains(out, " online ") {
			t.Errorf("after line %d: %s", b.Line, out)
		}
	})
}

// part returns the blocks of the sections from one to another.
func part(t *testing.T, page []docpage.Block, from, to string) []docpage.Block {
	t.Helper()
	at := func(section string) int {
		i := slices.IndexFunc(page, func(b docpage.Block) bool { return b.Section == section })
		if i < 0 {
			t.Fatalf("no blocks in %q", section)
		}
		return i
	}
	end := at(to)
	for end < len(page) && page[end].Section == to {
		end++
	}
	return page[at(from):end]
}

// TestQuickStartTenLines does the ten lines on a fresh Debian 12 with its own PostgreSQL, as an account with sudo.
func TestQuickStartTenLines(t *testing.T) {
	page := docpage.Read(t, filepath.Join(top, "docs/quickstart.md"))
	m := debian(t)
	s := m.reader(t, "reader")
	if out, failed := s.Run("make build && sudo install bin/pgwicket /usr/bin/ && mkdir ~/try && cd ~/try"); failed != "" {
		t.Fatalf("%s has failed: %s", failed, out)
	}
	m.followPage(t, s, part(t, page, "Ten lines", "Ten lines"))
}

// TestQuickStartSidecar follows docs/quickstart.md to the letter on a fresh Debian 12 that runs its own
// PostgreSQL under systemd, as an account with sudo. postgresql-common reads the
// configuration itself and does not know the quotes of "alter system" (pg_ctlcluster then
// says that a server that runs has failed).
func TestQuickStartSidecar(t *testing.T) {
	page := docpage.Read(t, filepath.Join(top, "docs/quickstart.md"))
	m := debian(t)
	s := m.reader(t, "reader")
	m.followPage(t, s, part(t, page, "What to adapt", "Only the socket"))

	// What the page says of local programs.
	if out := m.runAsPostgres(t, "psql", "-d", "postgres", "-Atc", "select 'as before'"); out != "as before" {
		t.Errorf("Debian's psql without -h: %s", out)
	}
	plain := m.asPostgres("/usr/lib/postgresql/15/bin/psql", "-c", "select 1")
	if out, err := plain.CombinedOutput(); err == nil || !strings.Contains(string(out), "No such file") {
		t.Errorf("a plain psql without -h: %v %s", err, out)
	}
	m.runAsPostgres(t, "/usr/lib/postgresql/15/bin/psql", "-h", "/run/pgwicket-db", "-c", "select 1")
	m.run(t, "pg_ctlcluster", "15", "main", "restart")
	m.run(t, "pg_ctlcluster", "15", "main", "status")

	m.followPage(t, s, part(t, page, "The gate", "As a service"))
	if state := m.show(t, "ActiveState"); state != "active" {
		t.Fatalf("the service is %s: %s", state, m.journal())
	}
	m.followPage(t, s, part(t, page, "Undo", "Undo"))
	m.runAsPostgres(t, "/usr/lib/postgresql/15/bin/psql", "-c", "select 1")
	if out := m.run(t, "ss", "-Hltn", "sport = :5432"); !strings.Contains(out, "127.0.0.1:5432") {
		t.Errorf("after Undo PostgreSQL does not listen on TCP again: %s", out)
	}
}

// TestQuickStartBastion: the same for the bastion, by root. Both machines of the page are one
// here, and the gate's connections come from the bastion's address.
func TestQuickStartBastion(t *testing.T) {
	page := docpage.Read(t, filepath.Join(top, "docs/quickstart.md"))
	m := debian(t)
	s := m.reader(t, "root")
	m.followPage(t, s, part(t, page, "What to adapt", "A CA"))
	m.followPage(t, s, part(t, page, "Bastion", "Through both"))
	m.run(t, "pg_ctlcluster", "15", "main", "restart")
	if n, err := strconv.Atoi(m.runAsPostgres(t, "psql", "-Atc", "select count(*) from pg_file_settings where error is not null")); err != nil || n != 0 {
		t.Errorf("%d settings that PostgreSQL refuses (%v)", n, err)
	}
}
