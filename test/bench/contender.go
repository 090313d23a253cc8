package main

import (
	"fmt"
	"slices"
	"strings"

	"pgwicket/test/gate"
)

// dialect is how clients begin.
type dialect int

const (
	sslRequest dialect = iota // as every libpq can
	directTLS                 // a ClientHello at once, with ALPN; libpq 17 and later
	plainText                 // no TLS at all
)

// contender is one of those that are compared. One contender is one small file.
type contender struct {
	id, title string
	about     string // its configuration, as text, for the report
	dialect   dialect
	program   string // that Debian's package pkg brings
	pkg       string
	only      string // has a part in the scenarios that begin so
	noCert    bool   // cannot ask for certificates
	noIdle    bool   // cannot stand before the fake backend with thousands of sessions
	marks     bool   // wants a SIGUSR1 when a meter starts, and when it stops
	start     func(*lab, setting) (*gate.Process, error)
	version   func(*lab) string
}

// contenders returns them in the order of the tables.
func contenders() []contender {
	return []contender{
		pgwicket("pgwicket", "pgwicket"), pgwicket(controlID, "pgwicket again (control)"),
		pgbouncer(), pgbouncerNotReusing(), stunnel(), haproxy(), postgresTLS(), plainGo(), forwarder(),
	}
}

// controlID is the same binary once more: what it differs by is noise.
const controlID = "control"

// other is pgwicket as another binary, such as that of an earlier commit.
func other(binary string) contender {
	c := tuned("other", "pgwicket of --other", func(s *setting) { s.binary = binary })
	c.version = func(*lab) string { return firstLine(binary, "version") }
	return c
}

// choose returns those that are named, or all, and the other binary if there is one.
func choose(names, binary string) ([]contender, error) {
	all := contenders()
	if binary != "" {
		all = slices.Insert(all, 2, other(binary))
	}
	if names == "" {
		return all, nil
	}
	want := strings.Split(names, ",")
	for _, n := range want {
		if !slices.ContainsFunc(all, func(c contender) bool { return c.id == n }) {
			return nil, fmt.Errorf("there is no contender %q", n)
		}
	}
	return slices.DeleteFunc(all, func(c contender) bool { return !slices.Contains(want, c.id) }), nil
}
