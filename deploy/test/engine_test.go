package deploy_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// engine is a Docker engine of this test, with containers in the network of the host. It needs neither
// iptables nor a bridge.
type engine struct {
	*process
	socket string
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a Docker engine")
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	for _, name := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed; OPTIONAL=1 make deploy-test installs it as root on Debian", name)
		}
	}
	dir, err := os.MkdirTemp("", "pgw-docker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e := &engine{socket: "unix://" + dir + "/docker.sock"}
	e.process = start(t, exec.Command("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", storageDriver(t),
		"--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "--host", e.socket))
	t.Cleanup(func() { // before start kills it: it ends containerd and the containers
		_ = e.Process.Signal(os.Interrupt)
		select {
		case <-e.exited:
		case <-time.After(deadline):
		}
	})
	for end := time.Now().Add(deadline); ; time.Sleep(100 * time.Millisecond) {
		out, err := e.docker("info", "--format", "{{.ServerVersion}}").CombinedOutput()
		if err == nil {
			return e
		}
		select {
		case <-e.exited:
			t.Skipf("no Docker engine starts here: %s", lastLine(e.output()))
		default:
		}
		if time.Now().After(end) {
			t.Skipf("no Docker engine starts here: %s", out)
		}
	}
}

// storageDriver is overlay2 where an overlay can be mounted, which vfs replaces at the price of a
// copy of the whole image for each line of a Dockerfile.
func storageDriver(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mount := exec.Command("unshare", "--mount", "mount", "-t", "overlay", "-o", "lowerdir=lower,upperdir=upper,workdir=work", "overlay", "root")
	mount.Dir = dir
	if mount.Run() != nil {
		return "vfs"
	}
	return "overlay2"
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (e *engine) docker(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", append([]string{"--host", e.socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	return cmd
}

func (e *engine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.docker(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// importGo makes an image with this machine's Go and a shell, in the place of the one from a registry that
// the Dockerfile begins with.
func (e *engine) importGo(t *testing.T, name string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	script := `set -eu
mkdir -p "$1/bin" "$1/tmp" "$1/etc/ssl/certs" "$1/usr/local"
chmod 1777 "$1/tmp"
cp "$(readlink -f /bin/sh)" "$1/bin/sh"
for library in $(ldd /bin/sh "$(go env GOROOT)/bin/go" | grep -o '/[^ :]*' | grep '\.so' | sort -u); do
	mkdir -p "$1$(dirname "$library")"
	cp -L "$library" "$1$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
cp -a "$(go env GOROOT)" "$1/usr/local/go"
cp /etc/resolv.conf /etc/hosts "$1/etc/"
rm -rf "$1/usr/local/go/test" "$1/usr/local/go/doc" "$1/usr/local/go/api"
`
	if out, err := exec.Command("bash", "-c", script, "import", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	proxy, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	e.importTree(t, exec.Command("tar", "-C", root, "-c", "."), name, "ENV PATH=/usr/local/go/bin:/bin", "ENV HOME=/tmp",
		"ENV GOTOOLCHAIN=local", "ENV GOPROXY="+strings.TrimSpace(string(proxy)))
}

// importTree makes an image of what a tar writes, with these changes.
func (e *engine) importTree(t *testing.T, tar *exec.Cmd, name string, changes ...string) {
	t.Helper()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	into := e.docker(append(args, "-", name)...)
	var err error
	if into.Stdin, err = tar.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := into.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v: %s", err, out)
	}
	if err := tar.Wait(); err != nil {
		t.Fatal(err)
	}
}

// buildImage builds the Dockerfile by the builder that Debian's docker.io has. It is as it is, but for what only
// BuildKit knows: the reader of Dockerfiles, which a registry would have to send, and the platforms.
func (e *engine) buildImage(t *testing.T) {
	t.Helper()
	stages, err := parseDockerfile(filepath.Join(top, dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	e.importGo(t, stages[0].BaseName)
	text := swap(t, swap(t, read(t, dockerfile), "# syntax=docker/dockerfile:1\n", ""), "--platform=$BUILDPLATFORM ", "")
	path := filepath.Join(t.TempDir(), "Dockerfile")
	write(t, path, text)
	if out, err := e.docker("build", "--network", "host", "-f", path, "--build-arg", "VERSION=1.2.3",
		"--build-arg", "TARGETOS=linux", "--build-arg", "TARGETARCH="+runtime.GOARCH, "-t", "pgwicket", top).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "dial tcp") || strings.Contains(string(out), "connection refused") {
			t.Skipf("the modules cannot be fetched in a container: %s", lastLine(string(out)))
		}
		t.Fatalf("docker build: %v\n%s", err, out)
	}
}

// TestEngine: a Docker engine builds the Dockerfile, and runs the image as compose.yaml says, without a
// root that can be written, capabilities or new privileges. A session goes through it to
// PostgreSQL's socket, its health check passes, and it drains when it is stopped.
func TestEngine(t *testing.T) {
	e := startEngine(t)
	e.buildImage(t)
	if out := e.run(t, "run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", "pgwicket", "version"); !strings.HasPrefix(out, "pgwicket 1.2.3 ") {
		t.Errorf("version: %s", out)
	}

	db, err := pgtest.Start(context.Background(), pgtest.Options{SQL: "create role app login"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	if err := os.Chmod(db.SocketDir, 0o755); err != nil { // the account of the image is no other here
		t.Fatal(err)
	}
	project, _, err := composeProject(filepath.Join(top, "deploy/docker/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	gate := project.Services["pgwicket"]
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	pki(t, filepath.Join(dir, "secrets"), filepath.Join(dir, "crl"))
	if err := os.Chown(filepath.Join(dir, "secrets/server.key"), account, account); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	config := swap(t, read(t, "deploy/docker/pgwicket.yaml"), "0.0.0.0:5432", address)
	write(t, filepath.Join(dir, "pgwicket.yaml"), swap(t, config, "allow: [10.20.0.0/16,", "allow: [127.0.0.0/8, 10.20.0.0/16,")+"admin:\n  address: "+freeAddress(t)+"\n")

	args := []string{
		"run", "--detach", "--name", "gate", "--network", "host", "--user", gate.User,
		fmt.Sprintf("--read-only=%t", gate.ReadOnly), "--volume", db.SocketDir + ":/run/postgresql:ro", "--volume", dir + "/crl:/etc/pgwicket/crl:ro",
		"--volume", dir + "/pgwicket.yaml:" + gate.Configs[0].Target + ":ro",
		"--health-interval", "1s", // of the image's health check: the command line can only give one that needs a shell
	}
	for _, c := range gate.CapDrop {
		args = append(args, "--cap-drop", c)
	}
	for _, o := range gate.SecurityOpt {
		args = append(args, "--security-opt", strings.Replace(o, "no-new-privileges:true", "no-new-privileges", 1))
	}
	for _, s := range gate.Secrets {
		args = append(args, "--volume", dir+"/secrets/"+s.Source+":/run/secrets/"+s.Source+":ro")
	}
	e.run(t, append(args, "pgwicket")...)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := e.docker("logs", "gate").CombinedOutput()
			t.Logf("the gate: %s", out)
		}
	})
	e.wait(t, "the gate", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})

	host, port, _ := net.SplitHostPort(address)
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command(psql, "-XAt", "-c", "select current_user", fmt.Sprintf(
		"host=localhost hostaddr=%s port=%s user=app dbname=postgres sslmode=verify-full sslrootcert=%[3]s/ca.crt sslcert=%[3]s/client.crt sslkey=%[3]s/client.key",
		host, port, filepath.Join(dir, "secrets")))
	client.Env = pgtest.Environ()
	if out, err := client.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "app" {
		t.Errorf("through the container: %v: %s", err, out)
	}
	if out, err := e.docker(append([]string{"exec", "gate"}, gate.HealthCheck.Test[1:]...)...).CombinedOutput(); err != nil {
		t.Errorf("the health check of compose.yaml: %v: %s", err, out)
	}
	e.wait(t, "the health check of the image", func() bool {
		out, _ := e.docker("inspect", "--format", "{{.State.Health.Status}}", "gate").Output()
		return strings.TrimSpace(string(out)) == "healthy"
	})
	e.run(t, "stop", "--time", fmt.Sprint(int(time.Duration(*gate.StopGracePeriod).Seconds())), "gate")
	if out := e.run(t, "inspect", "--format", "{{.State.ExitCode}}", "gate"); out != "0" {
		t.Errorf("it ends with %s", out)
	}
	t.Run("compose", e.testCompose)
}
