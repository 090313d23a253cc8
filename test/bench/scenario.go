package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// burst puts a load on a gate for a while and measures it.
type burst func(context.Context, *lab, *endpoint, time.Duration) (sample, error)

// scenario is one kind of load.
type scenario struct {
	ID, Title string
	Unit      string // what is counted
	Beside    string // what sample.Beside is, if anything
	Main      string // the metric of the picture
	About     string

	cert  bool // with client certificates
	fair  bool // those with a choice may be set for latency beside bulk
	libpq bool // the client is a libpq that knows the SSLRequest only
	fake  int  // so many sessions before the fake backend, with a gate freshly started for each burst
	burst burst
}

// scenarios returns all of them, in the order of the report.
func scenarios(o options) []scenario {
	var all []scenario
	for _, n := range []int{1, 8, 32, 128} {
		all = append(all, scenario{
			ID: fmt.Sprintf("select-%d", n), Title: fmt.Sprintf("Select-only, %d %s", n, plural(n, "client")),
			Unit: "transaction", Main: "cpu", libpq: true, burst: pgbench{clients: n}.burst,
			About: fmt.Sprintf("`pgbench -S -M prepared -c %d`, `sslmode=require`, after all clients are in", n),
		})
	}
	for _, n := range []int{8, 32} {
		all = append(all, scenario{
			ID: fmt.Sprintf("answer-%d", n), Title: fmt.Sprintf("Query and answer, %d clients", n),
			Unit: "transaction", Main: "cpu", burst: asking{n, accounts, account}.burst,
			About: "the same transaction from our own client, which can do direct TLS, too",
		})
	}
	all = append(
		all,
		scenario{
			ID: "rate-500", Title: "500 transactions a second", Unit: "transaction", Main: "p99", libpq: true,
			burst: pgbench{clients: 8, rate: 500}.burst, About: "`pgbench -S -M prepared -c 8 -R 500`; latency without pgbench's own lag",
		},
		scenario{
			ID: "connect", Title: "Connect and one query", Unit: "connection", Main: "cpu", burst: reconnect,
			About: "8 clients, each time a full handshake, login, `select 1`, Terminate",
		},
		scenario{
			ID: "connect-cert", Title: "Connect with a client certificate and one query", Unit: "connection", Main: "cpu", cert: true,
			burst: reconnect, About: "the same, and the contender verifies a client certificate",
		},
		scenario{
			ID: "copy-out", Title: "COPY out", Unit: "GiB", Main: "cpu", burst: copyOut(o.copyMiB),
			About: fmt.Sprintf("`COPY … TO STDOUT` of %d MiB in rows of 1 KiB, one client", o.copyMiB),
		},
		scenario{
			ID: "copy-in", Title: "COPY in", Unit: "GiB", Main: "cpu", burst: copyIn(o.copyMiB),
			About: fmt.Sprintf("`COPY … FROM STDIN` of %d MiB in rows of 1 KiB, one client, written 8 KiB at a time as libpq does", o.copyMiB),
		},
	)
	for _, n := range o.idle {
		all = append(all, idleScenario(n, o))
	}
	for _, n := range o.idle {
		all = append(all, idleWithCertificates(n, o))
	}
	return append(
		all,
		scenario{
			ID: "mixed", Title: "32 small clients beside a COPY", Unit: "transaction", Main: "p99", Beside: "GiB/s of COPY", fair: true, burst: mixed,
			About: "one endless `COPY … TO STDOUT`, and 32 clients that ask as fast as they are answered; latency is theirs",
		},
		scenario{
			ID: "storm", Title: "Live clients in a storm of handshakes", Unit: "handshake", Main: "p99", Beside: "live queries/s", burst: storm,
			About: "16 clients do nothing but TLS handshakes, 8 others ask 100 times a second each; latency is theirs",
		},
	)
}

func idleScenario(n int, o options) scenario {
	id, less := fmt.Sprintf("idle-%d", n), ""
	if o.most > 0 && n > o.most {
		less = fmt.Sprintf(" (%d need more open files than this machine allows)", n)
		n = o.most
	}
	return scenario{
		ID: id, Title: fmt.Sprintf("%d idle sessions", n), Unit: "session", Main: "memory", fake: n, burst: idle(n, o.settle),
		About: fmt.Sprintf("proportional set size for each session, %v after all have asked once; a backend of our own%s", o.settle, less),
	}
}

// idleWithCertificates has clients that each have a certificate of their own: equal ones would be in memory once.
func idleWithCertificates(n int, o options) scenario {
	s := idleScenario(n, o)
	s.ID, s.cert = fmt.Sprintf("idle-cert-%d", n), true
	s.Title += ", each with a client certificate of its own"
	return s
}

func plural(n int, word string) string {
	if n == 1 || word == "GiB" {
		return word
	}
	return word + "s"
}

// chooseScenarios returns those whose name begins with one of the names.
func chooseScenarios(o options) ([]scenario, error) {
	all := scenarios(o)
	if o.scenarios == "" {
		return all, nil
	}
	want := strings.Split(o.scenarios, ",")
	matches := func(s scenario, name string) bool {
		exact := slices.ContainsFunc(all, func(s scenario) bool { return s.ID == name })
		return s.ID == name || !exact && strings.HasPrefix(s.ID, name)
	}
	for _, n := range want {
		if !slices.ContainsFunc(all, func(s scenario) bool { return matches(s, n) }) {
			return nil, fmt.Errorf("there is no scenario %q", n)
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool {
		return !slices.ContainsFunc(want, func(n string) bool { return matches(s, n) })
	}), nil
}

// most is how many sessions there may be at once, with some to spare: those that
// a contender has not yet noticed to be gone.
func (s scenario) most() int {
	if s.fake > 0 {
		return s.fake + 50 // the gate is a new one
	}
	return 400
}

// excludes says why a contender has no part in the scenario; empty if it has.
func (s scenario) excludes(c contender) string {
	switch {
	case s.libpq && c.dialect == directTLS:
		return "the client knows no direct TLS"
	case s.cert && c.noCert, s.ID == "connect" && c.dialect == plainText, s.ID == "storm" && c.dialect == plainText:
		return "it has no TLS"
	case s.fake > 0 && c.noIdle:
		return "a process for each session"
	}
	return ""
}
