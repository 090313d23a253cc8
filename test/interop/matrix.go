//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// feature is a column of the table: what a driver is asked for by name.
type feature struct{ name, title string }

// features are all columns. What they pin of other projects' bugs: "direct", with
// and without ALPN, neon#12783, lib/pq#1354, caddy-l4#256, databasus#722;
// "cancel" and "protocol-3.2", whose keys are longer, teleport#68711, pgx#2489;
// "application-name", of 70 bytes, multigres#689; "channel-binding", pgt-proxy#6,
// multigres#986, pgjdbc#4272.
// What no library does is in raw.go.
func features() []feature {
	return []feature{
		{"sslrequest", "TLS by SSLRequest"},
		{"direct", "direct TLS"},
		{"sslmode-disable", "sslmode=disable"},
		{"sslmode-allow", "sslmode=allow"},
		{"sslmode-prefer", "sslmode=prefer"},
		{"sslmode-require", "sslmode=require"},
		{"sslmode-verify-ca", "sslmode=verify-ca"},
		{"sslmode-verify-full", "sslmode=verify-full"},
		{"gssencmode", "gssencmode=prefer"},
		{"scram", "SCRAM-SHA-256"},
		{"channel-binding", "channel_binding=require"},
		{"md5", "password: md5"},
		{"clear", "password: cleartext"},
		{"cert", "client certificate"},
		{"simple", "simple query"},
		{"extended", "extended query"},
		{"prepared", "prepared statement"},
		{"pipeline", "pipeline"},
		{"copy-in", "COPY in"},
		{"copy-out", "COPY out"},
		{"notify", "LISTEN, NOTIFY"},
		{"lo", "large object"},
		{"large", "large value"},
		{"cancel", "cancel"},
		{"protocol-3.0", "protocol 3.0"},
		{"protocol-3.2", "protocol 3.2"},
		{"protocol-latest", "protocol latest"},
		{"error", "error"},
		{"notice", "notice"},
		{"idle", "idle session"},
		{"options", "options"},
		{"application-name", "application_name"},
		{"client-encoding", "client_encoding"},
		{"search-path", "search_path"},
	}
}

// byDesign says why a feature that works straight need not work through a gate.
func byDesign(name string) string {
	if name == "channel-binding" {
		return "pgwicket ends TLS, and SCRAM's channel binding is made to notice that"
	}
	return ""
}

// client is a row of the table. prepare installs it, and returns the program that
// drives it, and its environment.
type client struct {
	name    string
	prepare func(ctx context.Context, l *lab) (argv, env []string, err error)
}

// driver is a client that is installed. It is called with features as arguments.
// For each it prints a line: the feature, one of ok, unsupported and error, and
// what it has seen, with tabs between. A line with the name "version" says what it
// is.
type driver struct {
	name      string
	argv, env []string
}

// answers are what a client said at one server by one way.
type answers struct {
	version string
	cells   map[string]cell
}

type cell struct {
	state string // ok, unsupported, error
	seen  string
}

type matrix struct {
	*lab
	timeout time.Duration
	size    int
	idle    int
	// Clients compete for the processor, and too many at once would time out. An idle
	// session only waits, so more of them may run.
	slots, idleSlots chan struct{}
}

func newMatrix(l *lab, quick bool) *matrix {
	m := &matrix{lab: l, timeout: 20 * time.Minute, size: 256 << 20, idle: 60, slots: make(chan struct{}, 2), idleSlots: make(chan struct{}, 8)}
	if quick {
		m.timeout, m.size, m.idle = 2*time.Minute, 8<<20, 1
	}
	return m
}

func runMatrix(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("interop matrix", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "a value of 8 MiB instead of 256, and an idle second instead of 60")
	only := flags.String("only", "", "the `clients` to run, by their names or the beginnings of them, with commas between")
	servers := flags.String("servers", "", "the `releases` to run, with commas between; default: all")
	into := flags.String("into", "", "replace the matrix in this Markdown `file`; default: standard output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected %q", flags.Arg(0))
	}
	l, err := newLab(ctx, stderr)
	if err != nil {
		return err
	}
	defer l.remove()
	m := newMatrix(l, *quick)
	all, missing := l.releases(ctx)
	if missing != nil {
		return missing
	}
	chosen := all
	if *servers != "" {
		chosen = slices.DeleteFunc(slices.Clone(all), func(r release) bool { return !slices.Contains(strings.Split(*servers, ","), r.major) })
	}
	rows := clients(all)
	if *only != "" {
		rows = slices.DeleteFunc(rows, func(c client) bool {
			return !slices.ContainsFunc(strings.Split(*only, ","), func(p string) bool { return strings.HasPrefix(c.name, p) })
		})
	}
	if len(chosen) == 0 || len(rows) == 0 {
		return errors.New("no such client or release")
	}
	p := &page{quick: *quick}
	failed, err := m.all(ctx, rows, chosen, p)
	if err != nil {
		return err
	}
	if *into == "" {
		fmt.Fprint(stdout, p.markdown())
	} else if err := harness.Renew(*into, "make interop", p.markdown()); err != nil {
		return err
	}
	for _, f := range failed {
		fmt.Fprintln(stderr, "FAILED:", f)
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d cells work straight and not through the gate, or differ", len(failed))
	}
	return nil
}

// all runs every client at every server, and returns the cells that failed.
func (m *matrix) all(ctx context.Context, rows []client, chosen []release, p *page) (failed []string, err error) {
	var drivers []driver
	for _, c := range rows {
		argv, env, err := c.prepare(ctx, m.lab)
		if err != nil {
			m.logf("%s is not available: %v", c.name, err)
			p.missing(c.name, err)
			continue
		}
		drivers = append(drivers, driver{c.name, argv, env})
		p.rows = append(p.rows, c.name)
	}
	for _, r := range chosen {
		bad, err := m.one(ctx, drivers, r, p)
		if err != nil {
			return nil, err
		}
		failed = append(failed, bad...)
	}
	slices.Sort(failed)
	return failed, nil
}

// one runs the clients at one server, and returns the cells that failed.
func (m *matrix) one(ctx context.Context, drivers []driver, r release, p *page) (failed []string, err error) {
	s, err := m.startServer(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	g, err := m.startGate(ctx, bySocket(s.SocketDir, s.Port))
	if err != nil {
		return nil, err
	}
	far, err := m.startGate(ctx, m.byTLS(s))
	if err != nil {
		return nil, err
	}
	m.logf("PostgreSQL %s", s.version)
	p.server(s)
	raw, err := m.rawTable(ctx, s, g, far)
	if err != nil {
		return nil, err
	}
	failed = p.raw(s, raw)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, d := range drivers {
		wg.Go(func() {
			straight, through := m.collect(ctx, d, s.Port, false), m.collect(ctx, d, g.Port, true)
			mu.Lock()
			defer mu.Unlock()
			bad := p.client(s, d.name, straight(), through())
			failed = append(failed, bad...)
			m.logf("  %s (%s): %d of %d cells failed", d.name, p.version[d.name], len(bad), len(features()))
			for _, cell := range bad {
				m.logf("    %s", cell)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, g := range []*gate.Gate{g, far} {
		if err := g.Check(); err != nil {
			failed = append(failed, err.Error())
		}
		g.Kill()
	}
	s.Stop()
	return failed, nil
}

// collect starts to ask a client for all features at a port. The answers are there
// when what is returned returns.
func (m *matrix) collect(ctx context.Context, d driver, port int, gated bool) func() answers {
	var all, idle answers
	var wg sync.WaitGroup
	var busy []string
	for _, f := range features() {
		if f.name != "idle" {
			busy = append(busy, f.name)
		}
	}
	wg.Go(func() {
		m.slots <- struct{}{}
		defer func() { <-m.slots }()
		all = m.drive(ctx, d, port, gated, busy...)
	})
	wg.Go(func() {
		m.idleSlots <- struct{}{}
		defer func() { <-m.idleSlots }()
		idle = m.drive(ctx, d, port, gated, "idle")
	})
	return func() answers {
		wg.Wait()
		maps.Copy(all.cells, idle.cells)
		return all
	}
}

// drive runs a client's driver, for some features, at a port.
func (m *matrix) drive(ctx context.Context, d driver, port int, gated bool, asked ...string) answers {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	args := slices.Concat(d.argv, asked)
	result := answers{cells: make(map[string]cell)}
	way := "straight"
	if gated {
		way = "gate"
	}
	home, err := os.MkdirTemp(m.dir, "home-")
	if err != nil {
		return result
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(slices.Clone(d.env), "HOME="+home, "INTEROP_HOST=localhost", "INTEROP_PORT="+strconv.Itoa(port), "INTEROP_WAY="+way,
		"INTEROP_CA="+m.caFile, "INTEROP_CERT="+m.clientCert, "INTEROP_KEY="+m.clientKey, "INTEROP_KEY_DER="+m.file("client.der"),
		"INTEROP_PASSWORD="+password, "INTEROP_SIZE="+strconv.Itoa(m.size), "INTEROP_IDLE="+strconv.Itoa(m.idle))
	harness.Bound(cmd)
	var errorOutput strings.Builder
	cmd.Stderr = &errorOutput
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		state, seen, _ := strings.Cut(rest, "\t")
		if name == "version" {
			result.version = state
			continue
		}
		result.cells[name] = cell{state, seen}
	}
	for _, name := range asked {
		if _, said := result.cells[name]; !said {
			last := errorOutput.String()
			result.cells[name] = cell{"error", fmt.Sprintf("the driver said nothing: %v %s", err, last[max(0, len(last)-300):])}
		}
	}
	return result
}

// script is the path of a driver.
func (l *lab) script(name string) string { return filepath.Join(l.clients, name) }

// clients are the rows, in the order of the table.
func clients(all []release) (rows []client) {
	for _, r := range all {
		rows = append(rows, client{"psql-" + r.major, func(_ context.Context, l *lab) ([]string, []string, error) {
			psql, pgbench, err := debianClients()
			return []string{"bash", l.script("psql.sh")}, r.environ("PSQL="+psql, "PGBENCH="+pgbench), err
		}})
	}
	for _, name := range []string{"pgx", "lib/pq"} {
		rows = append(rows, client{name, func(ctx context.Context, l *lab) ([]string, []string, error) {
			binary, err := l.buildGo(ctx, path.Base(name))
			return []string{binary}, pgtest.Environ(), err
		}})
	}
	for _, name := range []string{"node-postgres", "postgres.js"} {
		rows = append(rows, client{name, func(ctx context.Context, l *lab) ([]string, []string, error) {
			file := l.script("node/" + strings.TrimSuffix(name, ".js") + ".js")
			return []string{"node", file}, pgtest.Environ("NODE_PATH=" + filepath.Join(l.store, "npm", "node_modules")), l.installNpm(ctx)
		}})
	}
	python := func(name, module string, r release) client {
		return client{name, func(ctx context.Context, l *lab) ([]string, []string, error) {
			// Not the user's modules: -I would leave out those beside the script, too.
			argv := []string{"/usr/bin/python3", "-E", "-s", "-B", l.script("python/with_" + module + ".py")}
			return argv, r.environ(), l.need(ctx, "python3-"+module, "/usr/lib/python3/dist-packages/"+module+"/__init__.py")
		}}
	}
	for _, r := range all {
		rows = append(rows, python("psycopg3-"+r.major, "psycopg", r))
	}
	for i, r := range all {
		if r.libDir == "" || i == len(all)-1 { // the libpq that it was built with, and the newest
			rows = append(rows, python("psycopg2-"+r.major, "psycopg2", r))
		}
	}
	rows = append(rows, python("asyncpg", "asyncpg", release{}), client{"DBD::Pg", func(ctx context.Context, l *lab) ([]string, []string, error) {
		err := l.need(ctx, "libdbd-pg-perl", "/usr/lib/*/perl5/*/DBD/Pg.pm")
		return []string{"/usr/bin/perl", l.script("dbd-pg.pl")}, release{}.environ(), err
	}})
	return append(rows, jdbc())
}

// jdbc is PostgreSQL's driver for Java.
func jdbc() client {
	return client{"JDBC", func(ctx context.Context, l *lab) ([]string, []string, error) {
		const jar = "/usr/share/java/postgresql.jar"
		if _, err := exec.LookPath("javac"); err != nil {
			return nil, nil, errors.New("javac is missing; install it with \"apt-get install default-jdk-headless\"")
		}
		if err := l.need(ctx, "libpostgresql-jdbc-java", jar); err != nil {
			return nil, nil, err
		}
		key := []string{"openssl", "pkcs8", "-topk8", "-nocrypt", "-in", l.clientKey, "-outform", "DER", "-out", l.file("client.der")}
		if _, err := harness.Output(ctx, "", os.Environ(), key...); err != nil {
			return nil, nil, err
		}
		classes := filepath.Join(l.store, "java")
		_, err := harness.Output(ctx, "", os.Environ(), "javac", "-cp", jar, "-d", classes, l.script("Jdbc.java"))
		return []string{"java", "-Xmx4g", "-cp", jar + ":" + classes, "Jdbc"}, pgtest.Environ(), err
	}}
}
