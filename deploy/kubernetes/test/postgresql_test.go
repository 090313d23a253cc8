package kubernetes_test

import (
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// TestSidecarWithPostgreSQL starts a real server by the patch's arguments, on a socket in what the kubelet makes of an
// emptyDir, with a data directory that trusts every local session as the image's does; and the gate before it, each
// as an account of its own.
func TestSidecarWithPostgreSQL(t *testing.T) {
	account, err := user.Lookup("postgres")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("only root can change to the account postgres and others")
	}
	bin, err := pgtest.Find()
	if err != nil {
		t.Skip(err)
	}
	r := renderings()[2]
	o, err := r.objects(readTree(t))
	if err != nil {
		t.Fatal(err)
	}
	g, err := findGate(o, r.external)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, gate: g, bin: bin, base: sharedDir(t), uid: number(account.Uid), gid: number(account.Gid)}
	s.start()
	if got := s.psql("show listen_addresses"); got != "" {
		t.Errorf("PostgreSQL listens on %s", got)
	}
	s.psql("create role app login password 'secret'")
	socket, err := os.Stat(filepath.Join(s.base, "run/.s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	if got := socket.Sys().(*syscall.Stat_t); socket.Mode().Perm() != 0o770 || int64(got.Gid) != *g.workload.template.Spec.SecurityContext.FSGroup {
		t.Errorf("the socket is %v, of group %d", socket.Mode(), got.Gid)
	}
	s.throughTheGate(&r)
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

type server struct {
	t         *testing.T
	gate      *gate
	bin, base string
	uid, gid  uint32
}

// command runs a program of PostgreSQL's as the container with PostgreSQL would.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	group := uint32(*s.gate.workload.template.Spec.SecurityContext.FSGroup)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.gid, Groups: []uint32{group}}}
	cmd.Dir = s.base
	return cmd
}

func (s *server) start() {
	s.t.Helper()
	data, run, hba := filepath.Join(s.base, "data"), filepath.Join(s.base, "run"), filepath.Join(s.base, "pg_hba.conf")
	group := int(*s.gate.workload.template.Spec.SecurityContext.FSGroup)
	for _, err := range []error{
		os.Mkdir(data, 0o700), os.Chown(data, int(s.uid), int(s.gid)),
		os.Mkdir(run, 0o700), os.Chown(run, 0, group), os.Chmod(run, 0o777|fs.ModeSetgid),
		os.WriteFile(hba, []byte(s.gate.objects.configMap("postgresql-hba").Data["pg_hba.conf"]), 0o644),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	if out, err := s.command("initdb", "--pgdata="+data, "--username=postgres", "--auth=trust", "--no-sync").CombinedOutput(); err != nil {
		s.t.Fatalf("initdb: %v\n%s", err, out)
	}
	args := []string{"-D", data, "-c", "fsync=off"}
	for _, arg := range s.gate.workload.template.Spec.Containers[0].Args {
		args = append(args, strings.NewReplacer("=/run/postgresql", "="+run, "=/etc/postgresql/pg_hba.conf", "="+hba).Replace(arg))
	}
	cmd := s.command("postgres", args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGQUIT)
		cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); s.command("psql", s.session("select 1")...).Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("PostgreSQL does not answer")
		}
	}
}

func (s *server) session(query string) []string {
	return []string{"--host=" + filepath.Join(s.base, "run"), "--username=postgres", "--no-psqlrc", "--tuples-only", "--no-align", "--command=" + query}
}

func (s *server) psql(query string) string {
	s.t.Helper()
	out, err := s.command("psql", s.session(query)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// throughTheGate: whoever has a certificate still needs the password, and is not the superuser.
func (s *server) throughTheGate(r *rendering) {
	t, g, p := s.t, s.gate, newPKI("pgwicket")
	files, mode, err := g.files(r.external, p.text)
	if err != nil {
		t.Fatal(err)
	}
	listen := freePort(t)
	files["pgwicket.yaml"] = onLoopback(t, files["pgwicket.yaml"], listen, freePort(t), filepath.Join(s.base, "run"))
	volume := g.mount(t, mode)
	if err := volume.write(files); err != nil {
		t.Fatal(err)
	}
	serve(t, g, filepath.Join(volume.dir, "pgwicket.yaml")).wait(t, `"msg":"ready"`)
	client := p.ca.Client("app")
	for as, sqlstate := range map[string]string{"user=app password=secret": "", "user=app password=guess": "28P01", "user=postgres password=secret": "28000"} {
		if _, err := connect(t, p, client, listen, as); sqlstate == "" && err != nil || sqlstate != "" && !code(err, sqlstate) {
			t.Errorf("%s: %v", as, err)
		}
	}
}
