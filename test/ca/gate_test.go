package ca_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// gate is a pgwicket in front of a real PostgreSQL, with the CA of its clients.
type gate struct {
	*process
	dir, address string
	psql         string
}

// newGate starts a gate with ca_file ca.crt and crl_dir crls of its directory, which the caller has filled. It admits a client
// as the user that its common name has.
func newGate(t *testing.T, dir string, settings ...string) *gate {
	t.Helper()
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Skip(err)
	}
	s, err := pgtest.Start(context.Background(), pgtest.Options{SQL: "create role app login; create role other login"})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(s.Stop)
	server := tlstest.NewCA("server CA")
	write(t, filepath.Join(dir, "server-ca.crt"), server.CertPEM())
	if err := server.Server("localhost").WriteFiles(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")); err != nil {
		t.Fatal(err)
	}
	address, admin := freeAddress(t), freeAddress(t)
	config := fmt.Sprintf(`listen: [{address: %q}]
backend: {host: %q, port: %d}
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_dir: crls%s}
acl: {allow: [127.0.0.0/8], rules: [{name: own, action: allow, users: [samename]}]}
admin: {address: %q}
`, address, s.SocketDir, s.Port, strings.Join(append([]string{""}, settings...), ", "), admin)
	write(t, filepath.Join(dir, "pgwicket.yaml"), []byte(config))
	g := &gate{dir: dir, address: address, psql: psql}
	g.serve(t, filepath.Join(dir, "pgwicket.yaml"), admin)
	return g
}

// serve starts the gate, and waits until it is ready.
func (g *gate) serve(t *testing.T, config, admin string) {
	t.Helper()
	g.process = start(t, exec.Command(gateBinary, "serve", "--config", config))
	g.wait(t, "readiness", func() bool {
		r, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := pgtest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// as returns psql with the certificate and key of a client: name.crt and name.key of the gate's directory.
func (g *gate) as(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	_, port, err := net.SplitHostPort(g.address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, g.psql, append([]string{"-XAtq"}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.dir, "LC_ALL=C", "PGHOST=localhost", "PGHOSTADDR=127.0.0.1", "PGPORT=" + port,
		"PGUSER=" + strings.SplitN(name, "-", 2)[0], "PGDATABASE=postgres", "PGSSLMODE=verify-full",
		"PGSSLROOTCERT=" + filepath.Join(g.dir, "server-ca.crt"),
		"PGSSLCERT=" + filepath.Join(g.dir, name+".crt"), "PGSSLKEY=" + filepath.Join(g.dir, name+".key"),
	}
	return cmd
}

// ask runs a statement as a client, and returns what psql prints.
func (g *gate) ask(t *testing.T, name, statement string) string {
	t.Helper()
	out, _ := g.as(t, name, "-c", statement).CombinedOutput()
	return strings.TrimSpace(string(out))
}

// admits fails unless the client gets in.
func (g *gate) admits(t *testing.T, name string) {
	t.Helper()
	if got := g.ask(t, name, "select 'in'"); got != "in" {
		t.Fatalf("%s: %s\nlog: %s", name, got, g.output())
	}
}

// refuses waits until the client is refused with a text.
func (g *gate) refuses(t *testing.T, name, text string) {
	t.Helper()
	var got string
	g.wait(t, name+" is refused with "+text, func() bool {
		got = g.ask(t, name, "select 'in'")
		return strings.Contains(got, text)
	})
}
