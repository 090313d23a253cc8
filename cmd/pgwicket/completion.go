package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
)

func completionCommand(s cli.Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a completion script for a shell",
		Long: `Print a script that completes the commands, flags and values of pgwicket in a shell.
The script for bash needs the package bash-completion.`,
		Example: `  source <(pgwicket completion bash)
  pgwicket completion bash >/usr/share/bash-completion/completions/pgwicket
  pgwicket completion zsh >/usr/share/zsh/vendor-completions/_pgwicket
  pgwicket completion fish >/usr/share/fish/vendor_completions.d/pgwicket.fish`,
		DisableFlagsInUseLine: true,
		ValidArgs:             []cobra.Completion{"bash", "zsh", "fish"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(cmd.ValidArgs, args[0]) {
				return errors.New("write bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			err := map[string]func() error{
				"bash": func() error { return root.GenBashCompletionV2(s.Out, true) },
				"zsh":  func() error { return root.GenZshCompletion(s.Out) },
				"fish": func() error { return root.GenFishCompletion(s.Out, true) },
			}[args[0]]()
			if err != nil {
				fmt.Fprintf(s.Err, "pgwicket completion: %v\n", err)
				return cli.Status(cli.Failed)
			}
			return nil
		},
	}
}
