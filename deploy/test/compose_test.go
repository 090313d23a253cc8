package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

func TestCompose(t *testing.T) {
	review(t, reviewed{
		file:  "deploy/docker/compose.yaml",
		check: checkCompose,
		// Without these docker has its defaults, which would do.
		spare: []string{
			"shm_size:", "interval:", "timeout:", "retries:", "start_period:", "image: pgwicket",
		},
	})
}

// composeProject reads a compose.yaml as if it were the one in deploy/docker, which is dir.
func composeProject(path string) (project *types.Project, dir string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	if dir, err = filepath.Abs(filepath.Join(top, "deploy/docker")); err != nil {
		return nil, "", err
	}
	project, err = loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: text}},
		Environment: types.Mapping{},
	})
	return project, dir, err
}

func checkCompose(path string) error {
	project, dir, err := composeProject(path)
	if err != nil {
		return err
	}
	postgres, gate := project.Services["postgres"], project.Services["pgwicket"]
	if len(project.Services) != 2 || project.Name != "pgwicket" {
		return fmt.Errorf("services are %q of %q", project.ServiceNames(), project.Name)
	}
	return errors.Join(
		checkConfined(postgres), checkConfined(gate),
		checkDatabase(postgres), checkGate(gate, dir), checkShared(postgres, gate),
		checkFiles(project, dir),
	)
}

func checkConfined(s types.ServiceConfig) error {
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged ||
		!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.User == "" || strings.HasPrefix(s.User, "0") {
		return fmt.Errorf("%s may do more than it needs", s.Name)
	}
	if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 || s.Restart != "unless-stopped" {
		return fmt.Errorf("nobody looks after %s", s.Name)
	}
	return nil
}

// checkDatabase wants a PostgreSQL that listens to no network, and is in none.
func checkDatabase(s types.ServiceConfig) error {
	if s.NetworkMode != "none" || len(s.Ports) > 0 || len(s.Expose) > 0 || !slices.Contains(s.Command, "listen_addresses=") {
		return errors.New("PostgreSQL can be reached by network")
	}
	env := s.Environment.ToMapping()
	if _, open := env["POSTGRES_HOST_AUTH_METHOD"]; open || env["POSTGRES_PASSWORD_FILE"] != "/run/secrets/postgres_password" ||
		env["POSTGRES_INITDB_ARGS"] != "--auth-local=scram-sha-256 --auth-host=reject" || len(env) != 2 {
		return fmt.Errorf("PostgreSQL does not ask for passwords: %v", env)
	}
	if len(s.Tmpfs) != 1 || len(s.Secrets) != 1 || !strings.HasPrefix(s.Image, "postgres:17") ||
		!slices.Equal(s.HealthCheck.Test, []string{"CMD", "pg_isready", "--quiet", "--host=/var/run/postgresql"}) {
		return errors.New("PostgreSQL would not start")
	}
	return nil
}

func checkGate(s types.ServiceConfig, dir string) error {
	if s.Build == nil || filepath.Clean(s.Build.Context) != filepath.Join(dir, "../..") || s.Build.Dockerfile != dockerfile {
		return errors.New("the image is not built from our Dockerfile")
	}
	if s.DependsOn["postgres"].Condition != types.ServiceConditionHealthy {
		return errors.New("the gate would start before PostgreSQL has made its socket's directory")
	}
	if len(s.Ports) != 1 || s.Ports[0].Target != 5432 || s.User != fmt.Sprintf("%d:%[1]d", account) || s.NetworkMode != "" {
		return errors.New("clients would not reach the gate")
	}
	if !slices.Equal(s.HealthCheck.Test, []string{"CMD", "/usr/bin/pgwicket", "healthcheck", "--config", "/etc/pgwicket/pgwicket.yaml"}) {
		return fmt.Errorf("the health check is %q", s.HealthCheck.Test)
	}
	if len(s.Configs) != 1 || s.Configs[0].Target != "/etc/pgwicket/pgwicket.yaml" || len(s.Secrets) != 3 {
		return errors.New("files of the gate are missing")
	}
	if s.StopGracePeriod == nil || s.StopGracePeriod.String() != "45s" || s.Ulimits["nofile"] == nil {
		return errors.New("the gate could not drain, or not hold its connections")
	}
	return nil
}

// checkShared wants the socket, and nothing else, to be common to both.
func checkShared(postgres, gate types.ServiceConfig) error {
	volumes := func(s types.ServiceConfig) (all []string) {
		for _, v := range s.Volumes {
			source := v.Source
			if v.Type == types.VolumeTypeBind {
				source = filepath.Base(source)
			}
			all = append(all, fmt.Sprintf("%s %s:%s %t", v.Type, source, v.Target, v.ReadOnly))
		}
		return all
	}
	return errors.Join(
		like("volumes of postgres", volumes(postgres), []string{"volume data:/var/lib/postgresql/data false", "volume socket:/var/run/postgresql false"}),
		like("volumes of pgwicket", volumes(gate), []string{"volume socket:/run/postgresql true", "bind crl:/etc/pgwicket/crl true"}),
	)
}

// checkFiles wants each file to be the one that the comments and pgwicket.yaml speak of.
func checkFiles(p *types.Project, dir string) error {
	var files []string
	for name, s := range p.Secrets {
		if s.File != filepath.Join(dir, "secrets", name) {
			return fmt.Errorf("secret %s is in %s", name, s.File)
		}
		files = append(files, name)
	}
	slices.Sort(files)
	if c := p.Configs["pgwicket.yaml"]; c.File != filepath.Join(dir, "pgwicket.yaml") {
		return fmt.Errorf("the configuration is in %q", c.File)
	}
	return like("secrets", files, []string{"ca.crt", "postgres_password", "server.crt", "server.key"})
}

// TestComposeConfig: the gate takes the configuration that compose.yaml mounts.
func TestComposeConfig(t *testing.T) {
	pgwicket := program(t)
	secrets := t.TempDir()
	pki(t, secrets, filepath.Join(secrets, "crl"))
	review(t, reviewed{
		file: "deploy/docker/pgwicket.yaml",
		check: func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			there := strings.NewReplacer("/run/secrets", secrets, "crl_dir: crl", "crl_dir: "+secrets+"/crl").Replace(string(text))
			if err := os.WriteFile(path, []byte(there), 0o600); err != nil {
				return err
			}
			out, err := exec.Command(pgwicket, "check", "--config", path).CombinedOutput()
			if err != nil {
				return fmt.Errorf("pgwicket check: %w: %s", err, out)
			}
			for _, says := range []string{"0.0.0.0:5432", "revocation list", "/run/postgresql"} {
				if !strings.Contains(string(out), says) {
					return fmt.Errorf("pgwicket check says nothing of %s: %s", says, out)
				}
			}
			if strings.Contains(string(out), "acl.allow") {
				return fmt.Errorf("pgwicket check: %s", out)
			}
			return nil
		},
		// The default.
		spare: []string{"backend:", "host:"},
	})
}

// TestImage: what the Dockerfile makes starts as the account that it names, with
// nothing around it, and takes its configuration and files as compose.yaml mounts them.
func TestImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may change the root directory")
	}
	root, err := image()
	if err != nil {
		t.Fatal(err)
	}
	out, err := inImage(root, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "pgwicket 1.2.3 ") {
		t.Fatalf("version: %v: %s", err, out)
	}

	secrets, config := filepath.Join(root, "run/secrets"), filepath.Join(root, "etc/pgwicket/pgwicket.yaml")
	pki(t, secrets, filepath.Join(root, "etc/pgwicket/crl"))
	if err := os.Chown(filepath.Join(secrets, "server.key"), account, account); err != nil {
		t.Fatal(err)
	}
	write(t, config, read(t, "deploy/docker/pgwicket.yaml"))
	if out, err := inImage(root, "check").CombinedOutput(); err != nil {
		t.Fatalf("check: %v: %s", err, out)
	}

	// It serves, on ports that are free here.
	admin := freeAddress(t)
	write(t, config, swap(t, read(t, "deploy/docker/pgwicket.yaml"), "0.0.0.0:5432", freeAddress(t))+
		"admin:\n  address: "+admin+"\n")
	serve := start(t, inImage(root, "serve"))
	waitReady(t, serve, admin)
	t.Run("healthcheck", func(t *testing.T) {
		help, err := inImage(root, "help").Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(help), "healthcheck") {
			t.Skip("this build has no healthcheck")
		}
		if out, err := inImage(root, "healthcheck").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// pki writes server.crt, server.key, ca.crt and a client's pair into dir, and the CA's
// revocation list into lists.
func pki(t *testing.T, dir, lists string) {
	t.Helper()
	ca := tlstest.NewCA("Example CA")
	write(t, filepath.Join(dir, "ca.crt"), string(ca.CertPEM()))
	write(t, filepath.Join(lists, "ca.crl"), string(ca.CRL(nil)))
	for name, pair := range map[string]*tlstest.Pair{"server": ca.Server("localhost", "127.0.0.1"), "client": ca.Client("app")} {
		if err := pair.WriteFiles(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")); err != nil {
			t.Fatal(err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := pgtest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
