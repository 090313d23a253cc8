//go:build linux

// Command interop checks that what works with PostgreSQL works through pgwicket: with
// every maintained release, and with the libraries and tools that people use.
//
//	make interop                every client and feature, through a gate and straight
//	make interop-moments        limits, drains, revocations and restarts, as each client sees them
//	make interop-replication    backups, standbys, WAL and logical replication
//	make interop-tools          PostgreSQL's own tools
//	make interop-upgrades       long works that live through upgrades
package main

import (
	"os"

	"pgwicket/test/harness"
)

func commands() []harness.Command {
	return []harness.Command{
		{Name: "matrix", Args: "[--quick] [--only CLIENTS] [--servers RELEASES] [--into FILE]", Summary: "what each client sees through a gate, and straight; a difference is a failure", Run: runMatrix},
		{Name: "moments", Args: "[--only CLIENTS] [--server RELEASE] [--into FILE]", Summary: "what each client sees of a limit, a drain, a revocation and a restart", Run: runMoments},
		{Name: "replication", Args: "[--quick] [--into FILE]", Summary: "backups, standbys, WAL and logical replication through a gate, by checksum", Run: runReplication},
		{Name: "tools", Args: "[--quick] [--source DIR] [--into FILE]", Summary: "PostgreSQL's own tools through a gate, by checksum", Run: runTools},
		{Name: "upgrades", Args: "[--quick] [--into FILE]", Summary: "COPY, a pipeline, a backup and replication while the gate is upgraded, by checksum", Run: runUpgrades},
	}
}

const about = `interop installs servers and clients into .interop, starts each server, with a
pgwicket in front of it, and does the same things through the gate and straight
to the server. What works straight and not through the gate is a failure.

It needs Go, PostgreSQL's programs, npm, node, python3, perl and java, and a
checkout of pgwicket as its working directory. A client that is not available is listed with the reason. As root
on Debian it installs what is missing with apt-get. It ends what it starts, also
on Ctrl-C.
`

func main() {
	os.Exit(harness.Main("interop", harness.Dispatch("interop", about, commands()))) //nolint:forbidigo // this is main
}
