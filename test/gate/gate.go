package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
)

// Timeout bounds every wait for something that takes a moment, on a slow and busy
// machine.
const Timeout = 90 * time.Second

// Options are how a gate is started.
type Options struct {
	Binary string
	Dir    string            // where the gate's own directory is made
	Listen string            // empty: a free port of 127.0.0.1
	Keys   map[string]string // of the configuration, as Config takes them
	Before []string          // a command that becomes the gate, such as prlimit
	Env    []string
	Stderr *os.File // nil: a file that Records reads
}

// Gate is a pgwicket that runs, or has run. Its methods are for one goroutine,
// except those that only read: Metrics, Get, Records.
type Gate struct {
	*Process

	Dir     string // its configuration and its log
	Address string // where clients connect
	Host    string
	Port    int
	Admin   string // the admin address

	options Options
}

// Start starts a gate and waits until it is ready. Where only the wait fails, the
// gate is returned with the error. The caller must call Stop or Kill.
func Start(ctx context.Context, o Options) (g *Gate, err error) {
	g = &Gate{options: o, Address: o.Listen}
	if g.Address == "" {
		if g.Address, err = pgtest.FreeAddress(); err != nil {
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		return nil, err
	}
	g.Host = host
	if g.Port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if g.Admin, err = pgtest.FreeAddress(); err != nil {
		return nil, err
	}
	if g.Dir, err = os.MkdirTemp(o.Dir, "gate-"); err != nil {
		return nil, err
	}
	if err := g.Configure(nil); err != nil {
		return nil, err
	}
	if err := g.Launch(ctx); err != nil {
		if g.Process == nil {
			return nil, err
		}
		return g, err
	}
	return g, nil
}

// Configure writes the configuration: the keys of the options, and more.
func (g *Gate) Configure(more map[string]string) error {
	keys := map[string]string{"admin.address": g.Admin, "log.format": "json", "log.level": "debug"}
	maps.Copy(keys, g.options.Keys)
	maps.Copy(keys, more)
	return os.WriteFile(filepath.Join(g.Dir, "pgwicket.yaml"), Config(g.Address, keys), 0o600)
}

// Socket is the path of the admin socket; empty: the options have none.
func (g *Gate) Socket() string { return g.options.Keys["admin.socket"] }

// Config makes a configuration file. A key is written as in
// limits.startup_timeout, and a value as YAML: on one line, or on lines below its key
// that are indented by four.
func Config(address string, keys map[string]string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "listen:\n  - address: %q\n", address)
	section := ""
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		in, name, nested := strings.Cut(key, ".")
		if !nested {
			fmt.Fprintf(&b, "%s: %s\n", key, keys[key])
			continue
		}
		if in != section {
			section = in
			fmt.Fprintf(&b, "%s:\n", section)
		}
		fmt.Fprintf(&b, "  %s: %s\n", name, keys[key])
	}
	return []byte(b.String())
}

// Launch starts the process again, on the same addresses and with the
// configuration as it stands, and waits until it is ready.
func (g *Gate) Launch(ctx context.Context) (err error) {
	o := g.options
	g.Process, err = Run(Command{
		Argv:   append(slices.Clone(o.Before), o.Binary, "serve", "--config", filepath.Join(g.Dir, "pgwicket.yaml")),
		Dir:    g.Dir,
		Env:    g.environment(),
		Stderr: o.Stderr,
	})
	if err != nil {
		return err
	}
	return Eventually(ctx, "the gate is ready", Timeout, func() error {
		if err := g.Unexpected(); err != nil {
			return Never(err)
		}
		_, err := g.Get("/readyz")
		return err
	})
}

// environment is that of the gate's processes.
func (g *Gate) environment() []string {
	// Every race is reported, and none ends the gate; a crash shows all goroutines.
	races := "GORACE=halt_on_error=0 exitcode=66"
	if g.options.Stderr != nil {
		races += " log_path=" + filepath.Join(g.Dir, "race")
	}
	return pgtest.Environ(append([]string{races, "GOTRACEBACK=all", "LC_ALL=C"}, g.options.Env...)...)
}

// Reload writes the configuration with more keys, sends SIGHUP and waits until it
// is in force.
func (g *Gate) Reload(ctx context.Context, more map[string]string) error {
	const loads = `pgwicket_config_reloads_total{result="success"}`
	before, err := g.Metrics()
	if err != nil {
		return err
	}
	if err := g.Configure(more); err != nil {
		return err
	}
	if err := g.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return Eventually(ctx, "the gate has reloaded", Timeout, func() error {
		now, err := g.Metrics()
		if err == nil && now[loads] <= before[loads] {
			err = errors.New("no reload has succeeded since")
		}
		return err
	})
}

// Stop is Process.Stop by SIGTERM, with a generous time.
func (g *Gate) Stop() error { return g.Process.Stop(syscall.SIGTERM, Timeout) }

// Check fails if the gate has exited unexpectedly, or if it has logged a data
// race, a panic, an internal error or a line that is not JSON.
func (g *Gate) Check() error {
	if err := g.Unexpected(); err != nil {
		return err
	}
	races, err := filepath.Glob(filepath.Join(g.Dir, "race.*"))
	if err != nil {
		return err
	}
	for _, name := range races {
		if b, err := os.ReadFile(name); err != nil || len(b) > 0 {
			return errors.Join(fmt.Errorf("a data race:\n%s", b[:min(len(b), 4000)]), err)
		}
	}
	return CheckLog(g.RawLog())
}
