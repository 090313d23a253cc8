//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
)

// setting is how a gate differs from the plainest one: TLS with client
// certificates and a revocation list, 127.0.0.0/8, no limit of connections, the
// lab's PostgreSQL.
type setting struct {
	plain   bool              // as released, without the race detector
	listen  string            // empty: a free port of 127.0.0.1
	backend string            // the directory of another server's socket
	keys    map[string]string // of the configuration, as limits.startup_timeout: 2s
	before  []string          // a command that becomes the gate, such as prlimit
	env     []string
	stderr  *os.File // nil: a file that log reads
}

// gate is a pgwicket that runs, or has run.
type gate struct {
	lab        *lab
	setting    setting
	dir        string
	address    string // that clients connect to
	host, port string
	admin      string // its admin address
	cmd        *exec.Cmd
	exited     chan struct{} // closed when the process has ended
	expected   bool          // that it has, because we have told it to
}

// start starts a gate and waits until it is ready.
func (l *lab) start(ctx context.Context, s setting) (g *gate, err error) {
	g = &gate{lab: l, setting: s, address: s.listen}
	if g.address == "" {
		if g.address, err = pgtest.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if g.host, g.port, err = net.SplitHostPort(g.address); err != nil {
		return nil, err
	}
	if g.admin, err = pgtest.FreeAddress(); err != nil {
		return nil, err
	}
	if g.dir, err = os.MkdirTemp(l.dir, "gate-"); err != nil {
		return nil, err
	}
	if err := g.configure(nil); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.gates = append(l.gates, g)
	l.mu.Unlock()
	return g, g.launch(ctx)
}

// configure writes the configuration, with more keys than the setting has.
func (g *gate) configure(more map[string]string) error {
	l := g.lab
	keys := map[string]string{
		"tls.cert_file": l.file("server.crt"), "tls.key_file": l.file("server.key"), "tls.ca_file": l.file("ca.crt"), "tls.crl_file": l.file("ca.crl"),
		"acl.allow":                         "[127.0.0.0/8]",
		"backend.host":                      l.db.SocketDir,
		"admin.address":                     g.admin,
		"limits.max_connections":            "0",
		"limits.max_connections_per_source": "0",
		"limits.connection_rate":            "0",
		"log.format":                        "json",
		"log.level":                         "debug",
	}
	if g.setting.backend != "" {
		keys["backend.host"] = g.setting.backend
	}
	maps.Copy(keys, g.setting.keys)
	maps.Copy(keys, more)
	var b bytes.Buffer
	fmt.Fprintf(&b, "listen:\n  - address: %q\n", g.address)
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
	return os.WriteFile(filepath.Join(g.dir, "pgwicket.yaml"), b.Bytes(), 0o600)
}

// launch starts the process, on the addresses and with the configuration of
// before if there was one.
func (g *gate) launch(ctx context.Context) error {
	binary := g.lab.raced
	if g.setting.plain {
		binary = g.lab.plain
	}
	argv := append(slices.Clone(g.setting.before), binary, "serve", "--config", filepath.Join(g.dir, "pgwicket.yaml"))
	g.cmd = exec.Command(argv[0], argv[1:]...)
	g.cmd.Dir = g.dir
	// Every race is reported, and none ends the gate; a crash shows all goroutines.
	races := "GORACE=halt_on_error=0 exitcode=66"
	if g.setting.stderr != nil {
		races += " log_path=" + filepath.Join(g.dir, "race")
	}
	g.cmd.Env = pgtest.Environ(append([]string{races, "GOTRACEBACK=all", "LC_ALL=C"}, g.setting.env...)...)
	g.cmd.Stderr = g.setting.stderr
	if g.setting.stderr == nil {
		log, err := os.OpenFile(filepath.Join(g.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		g.cmd.Stderr = log
	}
	// A process group of its own: Ctrl-C is for us, who then end it.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g.expected = false
	if err := g.cmd.Start(); err != nil {
		return err
	}
	cmd, exited := g.cmd, make(chan struct{})
	g.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	err := eventually(ctx, "the gate is ready", patience, func() error {
		if g.ended() {
			return nil
		}
		return g.ask("/readyz")
	})
	if g.ended() {
		return fmt.Errorf("the gate has ended: %v; its log ends with: %s", g.cmd.ProcessState, g.tail())
	}
	return err
}

func (g *gate) pid() int { return g.cmd.Process.Pid }

func (g *gate) ended() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

// signal sends a signal to the gate itself.
func (g *gate) signal(sig syscall.Signal) error { return g.cmd.Process.Signal(sig) }

// kill ends it as a crash would, and waits for that. It may be called more than
// once.
func (g *gate) kill() {
	g.expected = true
	if g.cmd == nil || g.cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
	if g.exited != nil {
		<-g.exited
	}
}

// stop ends it in order. An error is an exit status other than 0, or that it
// does not end.
func (g *gate) stop() error {
	if g.ended() {
		return nil
	}
	g.expected = true
	if err := g.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-g.exited:
	case <-time.After(patience):
		g.kill()
		return errors.New("the gate does not end at SIGTERM; its log ends with: " + g.tail())
	}
	if code := g.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the gate has left with status %d; its log ends with: %s", code, g.tail())
	}
	return nil
}

// reload writes the configuration with more keys, sends SIGHUP and waits until
// it is in force.
func (g *gate) reload(ctx context.Context, more map[string]string) error {
	const loads = `pgwicket_config_reloads_total{result="success"}`
	before, err := g.metrics()
	if err != nil {
		return err
	}
	if err := g.configure(more); err != nil {
		return err
	}
	if err := g.signal(syscall.SIGHUP); err != nil {
		return err
	}
	return eventually(ctx, "the gate has reloaded", patience, func() error {
		now, err := g.metrics()
		if err == nil && now[loads] <= before[loads] {
			err = errors.New("no load has succeeded since")
		}
		return err
	})
}

// readings are what /metrics says: values by name, with labels as they stand there.
type readings map[string]float64

// sum adds up what a series has by all its labels.
func (s readings) sum(name string) (total float64) {
	for key, v := range s {
		if key == name || strings.HasPrefix(key, name+"{") {
			total += v
		}
	}
	return total
}

// unaccounted is how many connections are counted in and nowhere else, which is
// 0 but for the moment in which one passes from one state to the next.
func (s readings) unaccounted() float64 {
	return s.sum("pgwicket_connections_accepted_total") - s.sum("pgwicket_connections_refused_total") - s.sum("pgwicket_cancel_requests_total") -
		s.sum("pgwicket_sessions_ended_total") - s["pgwicket_connections_starting"] - s["pgwicket_sessions_open"]
}

// metrics scrapes the gate.
func (g *gate) metrics() (readings, error) {
	body, err := g.get("/metrics")
	if err != nil {
		return nil, err
	}
	return parseReadings(body), nil
}

func parseReadings(text string) readings {
	s := make(readings)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			s[line[:i]] = v
		}
	}
	return s
}

// ask fails unless the admin address answers a path with 200.
func (g *gate) ask(path string) error {
	_, err := g.get(path)
	return err
}

// get opens a connection of its own, so that none is left to be counted.
func (g *gate) get(path string) (string, error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + g.admin + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, r.Status)
	}
	return string(body), err
}

// level is what a gate holds.
type level struct {
	goroutines, descriptors, backends int
}

// level reads it. Two readings are alike if the gate holds as much.
func (g *gate) level() (n level, err error) {
	m, err := g.metrics()
	if err != nil {
		return n, err
	}
	n.goroutines = int(m["go_goroutines"])
	if n.backends, err = g.lab.backends(); err != nil {
		return n, err
	}
	n.descriptors, err = g.descriptors()
	return n, err
}

// settles waits until the gate holds no more than before and every connection
// is accounted for. A loss of backends is an error, too.
func (g *gate) settles(ctx context.Context, before level, within time.Duration) error {
	return eventually(ctx, "the gate holds what it held before", within, func() error {
		now, err := g.level()
		if err != nil {
			return err
		}
		m, err := g.metrics()
		if err != nil {
			return err
		}
		if now.goroutines > before.goroutines || now.descriptors > before.descriptors || now.backends != before.backends {
			return fmt.Errorf("%+v, was %+v", now, before)
		}
		if n := m.unaccounted(); n != 0 {
			return fmt.Errorf("%v connections are counted in and nowhere else", n)
		}
		return nil
	})
}

// descriptors counts the open ones.
func (g *gate) descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid()))
	return len(entries), err
}

// resident is the memory that the process has, in bytes.
func (g *gate) resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the process has no memory any more")
}

// busy is the processor time that the gate has used so far.
func (g *gate) busy() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.pid()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the name may hold anything
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", g.pid())
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2) // ticks, on every Linux
}

// record is a line of the log.
type record map[string]any

// is says whether it has that message and these attributes, as pairs.
func (r record) is(message string, pairs ...string) bool {
	if r["msg"] != message {
		return false
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if fmt.Sprint(r[pairs[i]]) != pairs[i+1] {
			return false
		}
	}
	return true
}

func (g *gate) rawLog() []byte {
	b, _ := os.ReadFile(filepath.Join(g.dir, "log"))
	return b
}

// log returns what the gate has logged so far, through all its starts.
func (g *gate) log() []record { return parseLog(g.rawLog()) }

func parseLog(raw []byte) (all []record) {
	for line := range bytes.Lines(raw) {
		var r record
		if json.Unmarshal(line, &r) == nil {
			all = append(all, r)
		}
	}
	return all
}

// tail returns the end of the log, for error messages.
func (g *gate) tail() string {
	b := g.rawLog()
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}

// sound fails if the gate has ended by itself, or its log has a data race, a
// panic or a line that is none of a log.
func (g *gate) sound() error {
	if g.ended() && !g.expected {
		return fmt.Errorf("the gate has ended by itself: %v; its log ends with: %s", g.cmd.ProcessState, g.tail())
	}
	races, err := filepath.Glob(filepath.Join(g.dir, "race.*"))
	if err != nil {
		return err
	}
	for _, name := range races {
		if b, err := os.ReadFile(name); err != nil || len(b) > 0 {
			return errors.Join(fmt.Errorf("a data race:\n%s", b[:min(len(b), 4000)]), err)
		}
	}
	return soundLog(g.rawLog())
}

func soundLog(raw []byte) error {
	for line := range bytes.Lines(raw) {
		var r record
		text := string(bytes.TrimSpace(line))
		switch {
		case text == "":
		case json.Unmarshal(line, &r) != nil:
			i := bytes.Index(raw, line)
			what := "what is no line of a log"
			if bytes.HasPrefix(line, []byte("==================")) {
				what = "a data race"
			}
			return fmt.Errorf("the log has %s:\n%s", what, raw[i:min(len(raw), i+4000)])
		case r["msg"] == "panic in a session; please report this", r["outcome"] == "internal_error":
			return fmt.Errorf("an error in the gate: %.300s", text)
		}
	}
	return nil
}
