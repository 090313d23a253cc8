//go:build linux

// Command siege breaks things around a pgwicket that serves real clients in front of a
// real PostgreSQL, as networks, clients, servers and machines break, and checks that
// no other session notices.
//
//	make faults    every fault once, with a table
//	make soak      many faults at once, for a given time, by a seeded plan
package main

import (
	"os"

	"pgwicket/test/harness"
)

func commands() []harness.Command {
	return []harness.Command{
		{Name: "faults", Args: "[--only NAMES] [--quick] [--list] [--into FILE]", Summary: "every fault once, with a table", Run: faults},
		{Name: "soak", Args: "[--time 10m] [--seed N] [--into FILE]", Summary: "mixed clients, reloads, revocations, kills and floods by a seeded plan; every answer is checked", Run: runSoak},
	}
}

const about = `siege starts a throw-away PostgreSQL and pgwickets in front of it, with the race
detector where there is a C compiler, and then breaks something, again and
again, while other sessions go on and check every answer.

It needs PostgreSQL's programs (postgres, psql, pgbench) and Go, and to be
started in the module. As root it can do more: PostgreSQL then runs under an
unprivileged account, and a network cable can be cut. What it starts it ends,
and what it writes it removes, at Ctrl-C too.
`

func main() {
	os.Exit(harness.Main("siege", harness.Dispatch("siege", about, commands()))) //nolint:forbidigo // this is main
}
