// Package ca is "pgwicket ca": its commands make certificates and revocation lists by
// internal/pki.
package ca

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/phrase"
	"pgwicket/internal/pki"
	"pgwicket/internal/sandbox"
)

const help = `A certificate authority for one team: certificates for servers and clients, and
revocation lists. A root signs an intermediate, which signs the rest. Their keys are
encrypted. The directory has the layout of "openssl ca" and easy-rsa, which can work in
it, too. docs/ca.md explains it.

One command works in a directory at a time. An interrupted command loses nothing: the
next one finishes or undoes it and prints which.`

// commonFlags are those of every command below ca.
type commonFlags struct {
	dir, command string
	ask          func(prompt string) ([]byte, error)
}

// Command is "pgwicket ca". ask asks at the terminal for a passphrase; nil: there is none.
func Command(s cli.Streams, ask func(prompt string) ([]byte, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Make certificates and revocation lists", Long: help,
		Example: `  pgwicket ca init
  pgwicket ca server db.example.com --write-config pgwicket.yaml
  pgwicket ca client app
  pgwicket ca revoke app`,
	}
	f := &commonFlags{dir: cmp.Or(os.Getenv(config.CADirVariable), "ca"), command: os.Getenv(config.CAPassphraseVariable), ask: ask}
	cmd.PersistentFlags().Var((*cli.FileName)(&f.dir), "dir", "the `directory` of the CA (default $PGWICKET_CA_DIR, or else ca)")
	cmd.PersistentFlags().StringVar(&f.command, "passphrase-command", f.command,
		"a `command` that prints the passphrase of the key file in $PGWICKET_CA_KEY (default $PGWICKET_CA_PASSPHRASE_COMMAND, or else the terminal)")
	cmd.PersistentFlags().Lookup("dir").DefValue = ""
	cmd.PersistentFlags().Lookup("passphrase-command").DefValue = ""
	cmd.AddCommand(initCommand(s, f), serverCommand(s, f), clientCommand(s, f), signCommand(s, f), renewCommand(s, f), revokeCommand(s, f), crlCommand(s, f), listCommand(s, f), exportCommand(s, f), adoptCommand(s, f))
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("name a command, such as init")
		}
		return cli.UnknownCommand(cmd, args[0])
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

// options are for every command: keys and passphrases are in its memory from then on.
func (f *commonFlags) options() pki.Options {
	_ = sandbox.HideMemory() // a filter of system calls may forbid it
	return pki.Options{Dir: f.dir, Secrets: pki.Secrets{Command: f.command, Ask: f.ask, Attempts: 3}}
}

// arguments has a command take between low and high of them; 0 is no limit.
func arguments(cmd *cobra.Command, low, high int, missing string) {
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return errors.New(missing)
		case high > 0 && len(args) > high:
			return fmt.Errorf("unexpected argument %q", args[high])
		}
		return nil
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
}

// withCA opens the CA for a command.
func (f *commonFlags) withCA(s cli.Streams, cmd *cobra.Command, run func(c *pki.CA, args []string) error) {
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := pki.Open(f.options())
		if err != nil {
			return cli.Status(cli.Fail(s, "ca "+cmd.Name(), err))
		}
		defer c.Close()
		for _, text := range c.Recovered {
			fmt.Fprintf(s.Err, "pgwicket ca %s: %s\n", cmd.Name(), text)
		}
		if n := c.Unlisted(); n > 0 && cmd.Name() != "revoke" && cmd.Name() != "crl" {
			fmt.Fprintf(s.Err, "pgwicket ca %s: the list lacks %s: run \"pgwicket ca crl\"\n", cmd.Name(), phrase.Count(n, "revoked certificate"))
		}
		if err := run(c, args); err != nil {
			return cli.Status(cli.Fail(s, "ca "+cmd.Name(), err))
		}
		return nil
	}
}

const exitHelp = "\n\nExit status: 0 done, 1 failed, 2 wrong usage."

func initCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "init", Short: "Make a CA",
		Long: `Make a root, an intermediate, and their first lists in a directory that does not exist
or is empty. With --offline-root the root's key has a passphrase of its own, and
root/private/ca.key can be moved to another place: it is needed again once a year, for
the root's list.` + exitHelp,
		Example: "  pgwicket ca init --name \"Example CA\"",
	}
	arguments(cmd, 0, 0, "")
	cmd.Args = cobra.NoArgs
	o := pki.InitOptions{}
	cli.TextFlag(cmd, &o.Name, "name", "pgwicket CA", "the `name` in the certificates of the CA")
	kind := keyTypeFlag(cmd)
	cmd.Flags().BoolVar(&o.OfflineRoot, "offline-root", false, "another passphrase for the root's key")
	cmd.RunE = func(*cobra.Command, []string) error {
		o.Options, o.KeyType = f.options(), *kind
		if err := pki.Init(o); err != nil {
			return cli.Status(cli.Fail(s, "ca init", err))
		}
		c, err := pki.Open(f.options())
		if err != nil {
			return cli.Status(cli.Fail(s, "ca init", err))
		}
		defer c.Close()
		fmt.Fprintf(s.Out, "ca_file   %s\ncrl_file  %s, until %s\n", c.TrustFile(), c.ListFile(), c.ListEnds().Format(time.DateOnly))
		if o.OfflineRoot {
			fmt.Fprintf(s.Out, "move %s/root/private/ca.key to a place that is offline\n", f.dir)
		}
		return nil
	}
	return cmd
}

func exportCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write a certificate and its key for a program",
		Long: `Write the certificate of a name, its key and the certificates of the CA, with mode 0600:
libpq for ~/.postgresql, pkcs12 with a random password in a file beside it, pem as one
file, kubernetes as a Secret of type kubernetes.io/tls, jdbc with a key in DER.` + exitHelp,
		Example: "  pgwicket ca export app --format libpq --out ~/.postgresql",
	}
	arguments(cmd, 1, 1, "name the certificate, as \"pgwicket ca list\" prints it")
	format := cli.ChoiceFlag(cmd, "format", "the `format`", pki.Formats()...)
	var out string
	cli.FileFlag(cmd, &out, "out", "the `directory` of the files (default NAME)")
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		paths, err := c.Export(args[0], *format, cmp.Or(out, args[0]))
		for _, path := range paths {
			fmt.Fprintln(s.Out, path)
		}
		return err
	})
	return cmd
}

func adoptCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "adopt DIR", Short: "Take over a CA of openssl or easy-rsa",
		Long: `Prepare the directory of a CA that "openssl ca" or easy-rsa has made, so that pgwicket ca
can work in it with --dir DIR. It adds what is missing and makes keys private. The other
program can go on.` + exitHelp,
		Example: "  pgwicket ca adopt /etc/easy-rsa/pki",
	}
	arguments(cmd, 1, 1, "name the directory of the CA")
	cmd.ValidArgsFunction = nil
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		o := f.options()
		o.Dir = args[0]
		changes, err := pki.Adopt(o)
		for _, change := range changes {
			fmt.Fprintln(s.Out, change)
		}
		if err != nil {
			return cli.Status(cli.Fail(s, "ca adopt", err))
		}
		c, err := pki.Open(o)
		if err != nil {
			return cli.Status(cli.Fail(s, "ca adopt", err))
		}
		defer c.Close()
		fmt.Fprintf(s.Out, "adopted %s with %s; use --dir %[1]s\n", o.Dir, phrase.Count(len(c.List()), "certificate"))
		return nil
	}
	return cmd
}
