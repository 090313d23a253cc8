package ca_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// svidSeconds is how long an SVID of the test is valid. SPIRE renews it when half of that is over.
const svidSeconds = 60

// spire is a SPIRE server and agent with workloads, which are told apart by the path of their program.
type spire struct {
	server, agent *process
	dir           string
	programs      map[string]string
}

func (s *spire) at(name string) string { return filepath.Join(s.dir, name) }

// startSPIRE builds SPIRE, which takes ten minutes and more when it is not cached, and starts it with a database in PostgreSQL:
// without cgo it has no SQLite.
func startSPIRE(t *testing.T, db *pgtest.Server) *spire {
	t.Helper()
	if os.Getenv("SPIRE") == "" {
		t.Skip("SPIRE takes long to build: make spire-test")
	}
	s := &spire{dir: t.TempDir(), programs: map[string]string{}}
	for _, name := range []string{"spire-server", "spire-agent"} {
		s.programs[name] = s.at(name)
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", s.at(name), "github.com/spiffe/spire/cmd/"+name)
		build.Dir, build.Env = "spire", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.at("server.conf"), fmt.Appendf(nil, `server {
  bind_address = "127.0.0.1"
  bind_port = %q
  socket_path = %q
  trust_domain = "example.org"
  data_dir = %q
}
plugins {
  DataStore "sql" { plugin_data {
    database_type = "postgres"
    connection_string = "host=%s port=%d user=%s dbname=spire sslmode=disable"
  } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
`, port, s.at("server.sock"), s.dir, db.SocketDir, db.Port, pgtest.Superuser))
	write(t, s.at("agent.conf"), fmt.Appendf(nil, `agent {
  server_address = "127.0.0.1"
  server_port = %q
  socket_path = %q
  trust_domain = "example.org"
  trust_bundle_path = %q
  data_dir = %q
}
plugins {
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`, port, s.at("agent.sock"), s.at("bundle.pem"), s.at("agent")))
	s.wrap(t, s.at("bin"), "spire-server", s.programs["spire-server"], "server.sock")
	s.server = start(t, exec.Command(s.programs["spire-server"], "run", "-config", s.at("server.conf")))
	var bundle string
	s.server.wait(t, "the bundle", func() bool { return s.try(s.dir, &bundle, "spire-server bundle show") })
	write(t, s.at("bundle.pem"), []byte(bundle))
	_, token, _ := strings.Cut(s.run(t, s.dir, "spire-server token generate -spiffeID spiffe://example.org/host"), "Token: ")
	s.agent = start(t, exec.Command(s.programs["spire-agent"], "run", "-config", s.at("agent.conf"), "-joinToken", strings.TrimSpace(token)))
	return s
}

// wrap puts a program into a directory under its name, with the socket of the test.
func (s *spire) wrap(t *testing.T, bin, name, program, socket string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(bin, name), fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\" -socketPath %s\n", program, s.at(socket)))
	if err := os.Chmod(filepath.Join(bin, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

// workload makes the directory of a workload with an agent's program of its own.
func (s *spire) workload(t *testing.T, name string) (dir, program string) {
	t.Helper()
	dir = s.at(name)
	program = filepath.Join(dir, "program")
	data, err := os.ReadFile(s.programs["spire-agent"])
	if err != nil {
		t.Fatal(err)
	}
	s.wrap(t, filepath.Join(dir, "bin"), "spire-agent", program, "agent.sock")
	write(t, program, data)
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

func (s *spire) try(dir string, out *string, block string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -e\n"+block)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("PATH=%s:%s:%s", filepath.Join(dir, "bin"), s.at("bin"), os.Getenv("PATH")))
	text, err := cmd.CombinedOutput()
	*out = string(text)
	return err == nil
}

func (s *spire) run(t *testing.T, dir, block string) (out string) {
	t.Helper()
	if !s.try(dir, &out, block) {
		t.Fatalf("%s: %s\n%s", block, out, s.server.output())
	}
	return out
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// The lines of docs/certificates.md: gate and client have SVIDs of a real SPIRE, which are renewed while a session is open. It
// outlives the SVID that it has begun with, the old SVID is refused, and so is that of another workload.
func TestSPIRE(t *testing.T) {
	db, err := pgtest.Start(context.Background(), pgtest.Options{SQL: "create role app login; create database spire"})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(db.Stop)
	s := startSPIRE(t, db)
	gateDir, gateProgram := s.workload(t, "gate")
	appDir, appProgram := s.workload(t, "app")
	page := commands(t)["SPIRE"]
	if len(page) != 2 {
		t.Fatalf("%d blocks, want one that registers and one that fetches", len(page))
	}
	s.run(t, s.dir, strings.NewReplacer("unix:user:pgwicket", "unix:path:"+gateProgram, "unix:user:app", "unix:path:"+appProgram,
		"db.example.com", "localhost", "-spiffeID", fmt.Sprintf("-x509SVIDTTL %d -spiffeID", svidSeconds)).Replace(page[0]))
	fetch := func(dir string) {
		t.Helper()
		var out string
		s.agent.wait(t, "an SVID", func() bool { return s.try(dir, &out, page[1]) })
	}
	fetch(gateDir)
	fetch(appDir)
	copied := func(from, name string) { // to where g.as looks
		t.Helper()
		s.run(t, appDir, fmt.Sprintf("cp %s/bundle.0.pem server-ca.crt; cp %[1]s/svid.0.pem %s.crt; cp %[1]s/svid.0.key %[2]s.key", from, name))
	}
	copied(".", "app")
	g := s.gate(t, gateDir, db)
	g.admits(t, "app")
	live := g.session(t, "app")
	old := certificate(t, filepath.Join(appDir, "svid.0.pem"))
	copied(".", "app-old")
	stop := s.keepFetching(page[1], gateDir, appDir)
	<-time.After(time.Until(old.NotAfter.Add(2 * time.Second)))
	stop()
	if now := certificate(t, filepath.Join(appDir, "svid.0.pem")); now.SerialNumber.Cmp(old.SerialNumber) == 0 {
		t.Fatalf("SPIRE has not renewed the SVID: %v", now.NotAfter)
	}
	copied(".", "app")
	copied(gateDir, "app-other")
	defer s.keepFetching(page[1], gateDir)()
	g.admits(t, "app") // who verifies the gate's new SVID, for its first one has ended, too
	g.refuses(t, "app-old", "FATAL:  client certificate expired")
	g.refuses(t, "app-other", "FATAL:  ")
	select {
	case <-live.exited:
		t.Errorf("the session has ended with its SVID: %s", live.output())
	default:
	}
}

// keepFetching does in each directory what a timer does, until stop is called.
func (s *spire) keepFetching(block string, dirs ...string) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Second):
			}
			for _, dir := range dirs {
				var out string
				s.try(dir, &out, block)
			}
		}
	}()
	return func() { close(done); <-stopped }
}

// gate starts a gate with the configuration of the page, in the directory of its workload. Its clients have theirs in the other.
func (s *spire) gate(t *testing.T, dir string, db *pgtest.Server) *gate {
	t.Helper()
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Skip(err)
	}
	address, admin := freeAddress(t), freeAddress(t)
	config := fmt.Sprintf("listen: [{address: %q}]\nbackend: {host: %q, port: %d}\nadmin: {address: %q}\n%s", address, db.SocketDir, db.Port, admin,
		strings.NewReplacer("acl:\n", "acl:\n  allow: [127.0.0.0/8]\n", "[shop]", "[postgres]").Replace(configurationOf(t, "SPIRE")))
	write(t, filepath.Join(dir, "pgwicket.yaml"), []byte(config))
	g := &gate{dir: s.at("app"), address: address, psql: psql}
	g.serve(t, filepath.Join(dir, "pgwicket.yaml"), admin)
	return g
}
