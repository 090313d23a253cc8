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
		{Name: "faults", Args: "[--only NAMES] [--quick] [--for DURATION] [--list] [--before PGWICKET] [--into FILE]", Summary: "every fault once, with a table", Run: faults},
		{Name: "soak", Args: "[--time 10m] [--seed N] [--into FILE]", Summary: "mixed clients, reloads, revocations, kills and floods by a seeded plan; every answer is checked", Run: runSoak},
		{Name: "successor", Args: "SOCKET STEPS", Summary: "for soak: the first steps of an upgrade of a gate, by a process that ends then", Run: runSuccessor},
		{Name: "upgrade-pause", Args: "[--sessions 10000] [--busy 100] [--rounds 5]", Summary: "how long sessions wait for an answer while the gate is upgraded", Run: runPause},
	}
}

const about = `siege starts a throw-away PostgreSQL and pgwickets in front of it, with the race
detector where there is a C compiler. Then it breaks things, while other sessions
go on and check every answer.

It needs PostgreSQL's programs (postgres, psql, pgbench) and Go, and a checkout
of pgwicket as its working directory. As root it can also cut a network;
PostgreSQL then runs under an unprivileged account. It ends what it starts and
removes what it writes, also on Ctrl-C.
`

func main() {
	os.Exit(harness.Main("siege", harness.Dispatch("siege", about, commands()))) //nolint:forbidigo // this is main
}
