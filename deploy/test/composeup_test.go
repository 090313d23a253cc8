package deploy_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// compose returns a command of Docker's compose: the plugin of this machine or, as Debian 12 has none that
// reads this file, one that is built from the module in the directory compose.
func (e *engine) compose(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	program := []string{"docker", "compose"}
	if err := e.docker("compose", "version").Run(); err != nil {
		out, err := exec.Command("go", "-C", "compose", "tool", "-n", "github.com/docker/compose/v2/cmd").CombinedOutput()
		if err != nil {
			t.Skipf("docker compose is not installed and cannot be built: %v: %s", err, lastLine(string(out)))
		}
		program = []string{lastLine(string(out))}
	}
	return func(args ...string) *exec.Cmd {
		args = append(program[1:], args...)
		cmd := exec.Command(program[0], args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.socket, "DOCKER_BUILDKIT=0")
		return cmd
	}
}

// entrypoint does for compose.yaml what that of the official image of PostgreSQL does.
const entrypoint = `#!/bin/bash
set -euo pipefail
chmod 0700 "$PGDATA"
chmod 3775 /var/run/postgresql
[ -s "$PGDATA/PG_VERSION" ] || initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
exec "$@"
`

// postgresImage has the account, the directories and the entrypoint of the official image, on Debian's PostgreSQL.
const postgresImage = `FROM debian
RUN sed -i '/^postgres:/d; /:x:999:/d' /etc/passwd /etc/group && \
	echo 'postgres:x:999:999::/var/lib/postgresql:/bin/bash' >>/etc/passwd && echo 'postgres:x:999:' >>/etc/group && \
	install -d -o 999 -g 999 -m 1777 /var/lib/postgresql /var/lib/postgresql/data && install -d -o 999 -g 999 -m 3777 /var/run/postgresql && \
	ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
COPY entrypoint /entrypoint
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["/entrypoint"]
CMD ["postgres"]
`

// importPostgres makes an image in the place of the one from a registry that compose.yaml names.
func (e *engine) importPostgres(t *testing.T, name string) {
	t.Helper()
	e.importTree(t, exec.Command("tar", "-C", debianTree(t), "--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./var/cache/*", "-c", "."), "debian")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "Dockerfile"), postgresImage)
	write(t, filepath.Join(dir, "entrypoint"), entrypoint)
	if err := os.Chmod(filepath.Join(dir, "entrypoint"), 0o755); err != nil {
		t.Fatal(err)
	}
	e.run(t, "build", "--network", "none", "-t", name, dir)
}

// testCompose: "docker compose up" with compose.yaml as it is, but for a free port, the limit of open files where this
// machine has a lower one, and the image of PostgreSQL, starts both services, healthy and in their order; a session goes through them; PostgreSQL is in no
// network; "down" stops the gate in its time.
func (e *engine) testCompose(t *testing.T) {
	compose := e.compose(t)
	project, _, err := composeProject(filepath.Join(top, "deploy/docker/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	e.importPostgres(t, project.Services["postgres"].Image)

	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(dir, "secrets")
	pki(t, secrets, filepath.Join(dir, "crl"))
	write(t, filepath.Join(secrets, "postgres_password"), "of the superuser")
	for name, owner := range map[string]int{"server.key": account, "postgres_password": 999} {
		if err := os.Chown(filepath.Join(secrets, name), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"compose.yaml", "pgwicket.yaml"} {
		write(t, filepath.Join(dir, name), read(t, "deploy/docker/"+name))
	}
	address := freeAddress(t)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "here.yaml"), fmt.Sprintf("services:\n  pgwicket:\n    ports: !override [%q]\n    ulimits: !override {nofile: %d}\n",
		address+":5432", min(files.Max, uint64(project.Services["pgwicket"].Ulimits["nofile"].Single))))
	run := func(args ...string) string {
		t.Helper()
		out, err := compose(append([]string{"-f", filepath.Join(dir, "compose.yaml"), "-f", filepath.Join(dir, "here.yaml")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", run("logs", "--no-color"))
		}
		run("down", "--volumes")
	})
	run("up", "--detach", "--no-build", "--wait", "--wait-timeout", fmt.Sprint(int(deadline.Seconds())))

	run("exec", "--env", "PGPASSWORD=of the superuser", "postgres", "psql", "-U", "postgres", "-c", "create role app login password 'of the client'")
	if out := e.run(t, "inspect", "--format", "{{.HostConfig.NetworkMode}}", "pgwicket-postgres-1"); out != "none" {
		t.Errorf("PostgreSQL is in the network %s", out)
	}
	host, port, _ := net.SplitHostPort(address)
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command(psql, "-XAt", "-c", "select current_user", fmt.Sprintf(
		"host=localhost hostaddr=%s port=%s user=app dbname=postgres sslmode=verify-full sslrootcert=%[3]s/ca.crt sslcert=%[3]s/client.crt sslkey=%[3]s/client.key",
		host, port, secrets))
	client.Env = pgtest.Environ("PGPASSWORD=of the client")
	if out, err := client.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "app" {
		t.Errorf("through the containers: %v: %s", err, out)
	}
	began := time.Now()
	run("stop", "pgwicket")
	if out := e.run(t, "inspect", "--format", "{{.State.ExitCode}}", "pgwicket-pgwicket-1"); out != "0" {
		t.Errorf("the gate ends with %s after %v", out, time.Since(began))
	}
}
