package main

import (
	"fmt"

	"pgwicket/config"
)

const configHelp = `Print the configuration that the file, the environment and the defaults come to,
every key of it, as a file that can be used in place of them. A comment behind
each value says where it is from: the file with the line, the variable, or
default. An empty text is the default that config.example.yaml names.

A key is set by a variable that is called after it, PGWICKET_TLS_CERT_FILE for
cert_file below tls, which wins over the file. A list is written with commas
(PGWICKET_ACL_ALLOW=10.20.0.0/16,fd00::/8) or as in the file ([a, b]), and one of
sections, such as listen, only as in the file.

No file that it names is read: whether it is any good is for «pgwicket check».

Exit status: 0 printed, 78 the form of the file or of a variable is wrong.
`

func printConfig(args []string, s streams) int {
	f := flags("config")
	path := configFlag(f)
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	text, problems := config.Effective(*path)
	printProblems(s.err, problems)
	if config.Failed(problems) {
		return exitConfig
	}
	fmt.Fprintf(s.out, "%s", text)
	return exitOK
}
