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
	"slices"
	"strings"
	"sync"
	"time"

	"pgwicket/test/harness"
)

// told is what one client has seen of one moment.
type told struct {
	client            string
	through, straight []reply
}

// album is all that was seen, by the title of the moment.
type album struct {
	server      string
	unavailable []string
	of          map[string][]told
	keys        []string // rows of JDBC and the limit of its keys
}

func runMoments(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("interop moments", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "the `clients` to run, by their names or the beginnings of them, with commas between")
	on := flags.String("server", "15", "the `release` of PostgreSQL")
	into := flags.String("into", "", "replace the tables in this Markdown `file`; default: standard output")
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
	all, _ := l.releases(ctx)
	i := slices.IndexFunc(all, func(r release) bool { return r.major == *on })
	if i < 0 {
		return fmt.Errorf("no PostgreSQL %s", *on)
	}
	rows := slices.DeleteFunc(momentClients(all[i]), func(c client) bool {
		return *only != "" && !slices.ContainsFunc(strings.Split(*only, ","), func(p string) bool { return strings.HasPrefix(c.name, p) })
	})
	if len(rows) == 0 {
		return errors.New("no such client")
	}
	a, failed := l.album(ctx, rows, all[i])
	if err := ctx.Err(); err != nil {
		return err
	}
	if *into == "" {
		fmt.Fprint(stdout, a.markdown())
	} else if err := harness.Renew(*into, "make interop-moments", a.markdown()); err != nil {
		return err
	}
	for _, f := range failed {
		fmt.Fprintln(stderr, "FAILED:", f)
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d moments are not as they should be", len(failed))
	}
	return nil
}

// momentClients are the clients with the libpq of the system.
func momentClients(r release) []client {
	rows := []client{{"psql", func(ctx context.Context, l *lab) ([]string, []string, error) {
		psql, _, err := debianClients()
		if err == nil {
			err = l.need(ctx, "python3", "/usr/bin/python3")
		}
		return []string{"/usr/bin/python3", "-E", "-s", "-B", l.script("python/with_psql.py")}, release{}.environ("PSQL=" + psql), err
	}}}
	for _, c := range clients([]release{{major: r.major}}) {
		if !strings.HasPrefix(c.name, "psql-") {
			rows = append(rows, client{strings.TrimSuffix(c.name, "-"+r.major), c.prepare})
		}
	}
	return rows
}

// album has every client see every moment, and returns what was not as it should be.
func (l *lab) album(ctx context.Context, rows []client, r release) (a *album, failed []string) {
	a = &album{of: make(map[string][]told)}
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, c := range rows {
		argv, env, err := c.prepare(ctx, l)
		if err != nil {
			a.unavailable = append(a.unavailable, fmt.Sprintf("| %s | %s |\n", c.name, tableCell(shorten(err.Error()))))
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			version, seen, err := l.moments(ctx, driver{c.name, argv, env}, r)
			var keys []string
			if c.name == "JDBC" && err == nil {
				keys, err = l.keyUpdates(ctx, driver{c.name, argv, env}, r)
			}
			mu.Lock()
			defer mu.Unlock()
			a.server = version
			a.keys = append(a.keys, keys...)
			for title, what := range seen {
				a.of[title] = append(a.of[title], what)
			}
			wrong := wrongMoments(seen)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %v", c.name, err))
			}
			failed = append(failed, wrong...)
			l.logf("  %s: %d failures, %v", c.name, len(wrong), time.Since(began).Round(time.Second))
		})
	}
	wg.Wait()
	order := func(name string) int { return slices.IndexFunc(rows, func(c client) bool { return c.name == name }) }
	for title := range a.of {
		slices.SortFunc(a.of[title], func(x, y told) int { return order(x.client) - order(y.client) })
	}
	slices.Sort(failed)
	return a, failed
}

// moments has one client see every moment, at a server and a gate of its own.
func (l *lab) moments(ctx context.Context, d driver, r release) (version string, seen map[string]told, err error) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	server, err := l.startServer(ctx, r, []string{"ssl_crl_file=ca.crl"})
	if err != nil {
		return "", nil, err
	}
	defer server.Stop()
	crlFile := l.file(fmt.Sprintf("%d.crl", server.Port))
	if err := os.WriteFile(crlFile, l.ca.CRL(nil), 0o600); err != nil {
		return "", nil, err
	}
	keys := bySocket(server.SocketDir, server.Port)
	maps.Copy(keys, map[string]string{"tls.crl_file": crlFile, "limits.drain_timeout": "30s"})
	g, err := l.startGate(ctx, keys)
	if err != nil {
		return "", nil, err
	}
	defer g.Kill()
	seen = make(map[string]told)
	for _, gated := range []bool{true, false} {
		port := server.Port
		if gated {
			port = g.Port
		}
		t, err := l.talk(ctx, d, port)
		if err != nil {
			return server.version, seen, err
		}
		s := &stage{l, t, server, g, crlFile, d, port}
		for _, m := range moments() {
			what := seen[m.title]
			what.client = d.name
			if gated {
				what.through, err = m.through(ctx, s)
			} else {
				what.straight, err = m.direct(ctx, s)
			}
			if err != nil {
				return server.version, seen, errors.Join(fmt.Errorf("%s (gate: %v): %w", m.title, gated, err), t.end())
			}
			seen[m.title] = what
		}
		if err := t.end(); err != nil {
			return server.version, seen, err
		}
	}
	return server.version, seen, g.Check()
}
