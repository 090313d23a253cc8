//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/harness"
	"pgwicket/internal/pgtest"
)

// feature is a column of the table: what a driver is asked for by name.
type feature struct{ name, title string }

// features are all columns. What they pin of other projects' bugs: «direct», with
// and without ALPN, neon#12783, lib/pq#1354, caddy-l4#256, databasus#722;
// «cancel» and «protocol-3.2», whose keys are longer, teleport#68711, pgx#2489;
// «application-name», of 70 bytes, multigres#689; «channel-binding», pgt-proxy#6.
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
// speaks for it and its environment.
type client struct {
	name    string
	prepare func(ctx context.Context, l *lab) (argv, env []string, err error)
}

// A driver is called with features as arguments. For each it prints a line: the
// feature, one of ok, unsupported and error, and what it has seen, with tabs
// between. A line with the name «version» says what it is.

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
	quick   bool
	timeout time.Duration
	size    int
	idle    int
}

func runMatrix(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("interop matrix", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "a value of 8 MiB instead of 256, and an idle second instead of 60")
	only := flags.String("only", "", "the `clients` to run, by their names or the beginnings of them, with commas between")
	servers := flags.String("servers", "", "the `releases` to run, with commas between; default: all")
	into := flags.String("into", "", "the `file` of the documentation that the table is written to; default: standard output")
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
	m := &matrix{lab: l, quick: *quick, timeout: 10 * time.Minute, size: 256 << 20, idle: 60}
	if *quick {
		m.timeout, m.size, m.idle = 2*time.Minute, 8<<20, 1
	}
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
	} else if err := os.WriteFile(*into, []byte(p.markdown()), 0o644); err != nil { //nolint:gosec // documentation
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
	type ready struct {
		client
		argv, env []string
	}
	var drivers []ready
	for _, c := range rows {
		argv, env, err := c.prepare(ctx, m.lab)
		if err != nil {
			m.say("%s cannot be had: %v", c.name, err)
			p.missing(c.name, err)
			continue
		}
		drivers = append(drivers, ready{c, argv, env})
		p.rows = append(p.rows, c.name)
	}
	for _, r := range chosen {
		s, err := m.startServer(ctx, r, nil, "")
		if err != nil {
			return nil, err
		}
		g, err := m.startGate(ctx, s, "")
		if err != nil {
			return nil, err
		}
		m.say("PostgreSQL %s", s.version)
		p.server(s)
		raw, err := m.rawTable(ctx, s, g)
		if err != nil {
			return nil, err
		}
		failed = append(failed, p.raw(s, raw)...)
		// Two at a time: more would only make them wait for a processor.
		turns := make(chan struct{}, 2)
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, d := range drivers {
			wg.Go(func() {
				turns <- struct{}{}
				straight := m.drive(ctx, d.argv, d.env, s.Port, false)
				through := m.drive(ctx, d.argv, d.env, g.port, true)
				<-turns
				mu.Lock()
				defer mu.Unlock()
				bad := p.client(s, d.name, straight, through)
				failed = append(failed, bad...)
				m.say("  %s (%s): %d of %d cells failed", d.name, through.version, len(bad), len(features()))
			})
		}
		wg.Wait()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := g.sound(); err != nil {
			failed = append(failed, err.Error())
		}
		g.kill()
		s.Stop()
	}
	slices.Sort(failed)
	return failed, nil
}

// drive runs a client's driver, for all features, at a port.
func (m *matrix) drive(ctx context.Context, argv, env []string, port int, gated bool) answers {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	args := slices.Clone(argv)
	for _, f := range features() {
		args = append(args, f.name)
	}
	way := "straight"
	if gated {
		way = "gate"
	}
	home, err := os.MkdirTemp(m.dir, "home-")
	if err != nil {
		return answers{}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(slices.Clone(env), "HOME="+home, "INTEROP_HOST=localhost", "INTEROP_PORT="+strconv.Itoa(port), "INTEROP_WAY="+way,
		"INTEROP_CA="+m.caFile, "INTEROP_CERT="+m.clientCert, "INTEROP_KEY="+m.clientKey, "INTEROP_KEY_DER="+m.file("client.der"),
		"INTEROP_PASSWORD="+password, "INTEROP_SIZE="+strconv.Itoa(m.size), "INTEROP_IDLE="+strconv.Itoa(m.idle))
	harness.Bound(cmd)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	result := answers{cells: make(map[string]cell)}
	for line := range strings.Lines(string(out)) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		state, seen, _ := strings.Cut(rest, "\t")
		if name == "version" {
			result.version = state
			continue
		}
		result.cells[name] = cell{state, seen}
	}
	for _, f := range features() {
		if _, said := result.cells[f.name]; !said {
			last := complaints.String()
			result.cells[f.name] = cell{"error", fmt.Sprintf("the driver said nothing: %v %s", err, last[max(0, len(last)-300):])}
		}
	}
	return result
}

// clients are the rows, in the order of the table.
func clients(all []release) (rows []client) {
	script := func(name string) string { return filepath.Join("interop", "clients", name) }
	for _, r := range all {
		rows = append(rows, client{"psql-" + r.major, func(context.Context, *lab) ([]string, []string, error) {
			psql, pgbench, err := debianClients()
			return []string{"bash", script("psql.sh")}, r.environ("PSQL="+psql, "PGBENCH="+pgbench), err
		}})
	}
	rows = append(rows, client{"pgx", func(ctx context.Context, l *lab) ([]string, []string, error) {
		binary, err := l.buildGo(ctx, "pgx")
		return []string{binary}, pgtest.Environ(), err
	}})
	rows = append(rows, client{"node-postgres", func(ctx context.Context, l *lab) ([]string, []string, error) {
		if err := l.installNpm(ctx); err != nil {
			return nil, nil, err
		}
		return []string{"node", script("node-postgres.js")}, pgtest.Environ("NODE_PATH=" + filepath.Join(l.store, "npm", "node_modules")), nil
	}})
	for _, r := range all {
		rows = append(rows, client{"psycopg3-" + r.major, func(ctx context.Context, l *lab) ([]string, []string, error) {
			err := l.need(ctx, "python3-psycopg", "/usr/lib/python3/dist-packages/psycopg/__init__.py")
			return []string{"/usr/bin/python3", "-I", script("psycopg.py")}, r.environ(), err
		}})
	}
	return append(rows, client{"JDBC", func(ctx context.Context, l *lab) ([]string, []string, error) {
		const jar = "/usr/share/java/postgresql.jar"
		if _, err := exec.LookPath("javac"); err != nil {
			return nil, nil, errors.New("javac is missing; install it with «apt-get install default-jdk-headless»")
		}
		if err := l.need(ctx, "libpostgresql-jdbc-java", jar); err != nil {
			return nil, nil, err
		}
		key := []string{"openssl", "pkcs8", "-topk8", "-nocrypt", "-in", l.clientKey, "-outform", "DER", "-out", l.file("client.der")}
		if _, err := harness.Output(ctx, "", os.Environ(), key...); err != nil {
			return nil, nil, err
		}
		classes := filepath.Join(l.store, "java")
		_, err := harness.Output(ctx, "", os.Environ(), "javac", "-cp", jar, "-d", classes, script("Jdbc.java"))
		return []string{"java", "-Xmx4g", "-cp", jar + ":" + classes, "Jdbc"}, pgtest.Environ(), err
	}})
}
