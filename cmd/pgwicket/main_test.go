//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pgwicket/config"
	"pgwicket/internal/account"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/sandbox"
)

// deadline is how long anything may take that a test waits for. It only bounds
// a failure: the machine may be slow and shared.
const deadline = time.Minute

// TestMain makes this binary the command too: the scripts run it as pgwicket,
// in a process of its own, with the race detector if the tests have it.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"pgwicket": main, "confined": confined})
}

// neutralEnvironment keeps the settings of the account from clients inside this process.
func neutralEnvironment() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGWICKET") {
			_ = os.Unsetenv(name)
		}
	}
	for _, variable := range pgtest.Neutral() {
		name, value, _ := strings.Cut(variable, "=")
		_ = os.Setenv(name, value)
	}
}

// tests are all of this package's, and what they have in common.
type tests struct{ *testing.M }

func (t tests) Run() int {
	flag.Parse()
	neutralEnvironment()
	if n := flag.Lookup("test.parallel"); runtime.GOMAXPROCS(0) < 4 && n.Value.String() == n.DefValue {
		_ = n.Value.Set("4") // a script mostly waits for other processes
	}
	// A data race ends the gate with its report and a status that no script
	// expects; and without one it need not wait a second for its exit.
	_ = os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=20")
	defer database.stop()
	return t.M.Run()
}

// database is one PostgreSQL for all the tests: initdb takes longer than most
// of them.
var database shared

// The role and database that the scripts' clients use.
const (
	role     = "app"
	password = "correct horse"
)

type shared struct {
	once   sync.Once
	server *pgtest.Server
	err    error
}

func (s *shared) get() (*pgtest.Server, error) {
	s.once.Do(func() {
		s.server, s.err = pgtest.Start(context.Background(), pgtest.Options{
			HBA: "local all " + pgtest.Superuser + " trust\nlocal all all scram-sha-256",
			SQL: fmt.Sprintf("create role %s login password '%s'; create database %[1]s owner %[1]s", role, password),
		})
	})
	return s.server, s.err
}

func (s *shared) stop() {
	if s.server != nil {
		s.server.Stop()
	}
}

// TestScripts runs testdata/script, each file of which is one behaviour of the
// command. The verbs that testscript does not have are in verbs_test.go.
func TestScripts(t *testing.T) {
	for _, name := range []string{"psql", "pgbench"} {
		path, err := pgtest.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		// First, because Debian's psql in /usr/bin chooses a cluster itself where no port is given.
		if dir := filepath.Dir(path); !strings.HasPrefix(os.Getenv("PATH"), dir+string(os.PathListSeparator)) {
			t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		}
	}
	example, err := filepath.Abs("../../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Cmds:                verbs,
		Condition:           condition,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[stateKey{}] = newState(e.T().(testing.TB))
			for _, variable := range pgtest.Neutral() {
				name, value, _ := strings.Cut(variable, "=")
				e.Setenv(name, value)
			}
			e.Setenv("EXAMPLE", example)
			e.Setenv("PGPASSWORD", password)
			e.Setenv("LC_ALL", "C")
			e.Setenv("PGCONNECT_TIMEOUT", "60")
			return nil
		},
	})
}

// alone runs a program in a network namespace, as the same account.
const alone = "unshare --map-current-user --net"

// condition adds [root], [proc], [landlock], [userns], [netns], [alone] and
// [configured] to testscript's own.
func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "proc":
		_, err := os.Stat("/proc/self/cmdline")
		return err == nil, nil
	case "landlock": // as much of it as the scripts count on
		abi, err := sandbox.ABI()
		return err == nil && abi >= 6 && os.Getenv("GOCOVERDIR") == "" && testing.CoverMode() == "", nil
	case "userns": // with its own limits
		return exec.Command("unshare", "-Ur", "sh", "-c", "echo 1 >/proc/sys/user/max_inotify_instances").Run() == nil, nil
	case "netns":
		return os.Geteuid() == 0 && exec.Command("unshare", "--net", "nft", "list", "ruleset").Run() == nil, nil
	case "configured": // a machine with a configuration of pgwicket
		_, err := os.Stat(config.DefaultFile)
		return err == nil, nil
	case "alone": // for PostgreSQL's account, too
		cmd := exec.Command("sh", "-c", alone+" true")
		if nobody, err := account.Find("nobody"); os.Geteuid() == 0 && err == nil {
			cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(nobody.UID), Gid: uint32(nobody.GID)}}
		}
		return cmd.Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
