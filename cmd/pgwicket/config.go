package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
)

const configHelp = `Print the effective configuration: every key with its value, and in a comment the
source of each value, which is a line of the file, a variable of the environment
or the default. Where an empty value stands for something, the comment has that. The
output can be used as a configuration file.

The variable of a key has its name: PGWICKET_TLS_CERT_FILE is cert_file in tls. It
wins over the file. A list is written with commas, as in
PGWICKET_ACL_ALLOW=10.20.0.0/16,fd00::/8, or as in the file, [a, b]. A list of
sections, such as listen, is written as in the file only.

The files that it names are not read; "pgwicket check" reads them.

Exit status: 0 printed, 2 wrong usage, 78 the file or a variable has a wrong form.`

func configCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print the effective configuration and the source of each value", Long: configHelp}
	path := cli.ConfigFlag(cmd)
	return cli.Runs(cmd, func() int {
		text, problems := config.Effective(*path)
		printProblems(s.Err, problems)
		if config.Failed(problems) {
			return cli.BadConfig
		}
		fmt.Fprintf(s.Out, "%s", text)
		return cli.OK
	})
}
