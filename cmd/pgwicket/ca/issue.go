package ca

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/pki"
)

func keyTypeFlag(cmd *cobra.Command) *string {
	return cli.ChoiceFlag(cmd, "key-type", "the type of the new `key`", pki.ECDSA, pki.RSA)
}

// issueFlags are those of commands that issue.
func issueFlags(cmd *cobra.Command, r *pki.Request) {
	cmd.Flags().IntVar(&r.Days, "days", pki.DefaultDays, "how many `days` it is valid")
	cli.CompleteWords(cmd, "days")
	cmd.Flags().BoolVar(&r.Again, "again", false, "also if a valid certificate has the name")
}

// issue issues, asks whether to issue another where there is a terminal, and prints what
// was issued.
func issue(s cli.Streams, c *pki.CA, r pki.Request, flags pki.Request, kind string) error {
	r.Days, r.Again, r.KeyType = flags.Days, flags.Again, kind
	issued, err := c.Issue(r)
	var valid *pki.IssuedError
	if errors.As(err, &valid) && term.IsTerminal(int(s.In.Fd())) {
		fmt.Fprintf(s.Err, "%s has a valid certificate, %s until %s. Issue another? [y/N] ", valid.Name, valid.Serial, valid.Expires.Format(time.DateOnly))
		if answer, _ := bufio.NewReader(s.In).ReadString('\n'); strings.EqualFold(strings.TrimSpace(answer), "y") {
			r.Again = true
			issued, err = c.Issue(r)
		}
	}
	if err == nil {
		printIssued(s, c, issued)
	}
	return err
}

func printIssued(s cli.Streams, c *pki.CA, i *pki.Issued) {
	fmt.Fprintf(s.Out, "serial       %s, until %s\ncertificate  %s\n", i.Serial, i.Expires.Format(time.DateOnly), i.CertFile)
	if i.KeyFile != "" {
		fmt.Fprintf(s.Out, "key          %s\n", i.KeyFile)
	}
	switch {
	case i.Shortened && c.HasIntermediate():
		fmt.Fprintln(s.Out, `it ends with its CA, before the days that were asked for; "pgwicket ca renew --intermediate" renews that`)
	case i.Shortened:
		fmt.Fprintln(s.Out, "it ends with its CA, before the days that were asked for")
	}
}

func serverCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "server NAME...", Short: "Issue a certificate for a server",
		Long: `Make a key and a certificate for a server with all names and addresses by which clients
connect to it. Its key is not encrypted, with mode 0600. --write-config writes a
configuration for a gate that uses it: it listens on port 6432 of the first address,
admits clients of private networks to the role of their certificate, and forwards to the
socket of PostgreSQL in $PGHOST, or else /run/postgresql.` + exitHelp,
		Example: "  pgwicket ca server db.example.com 10.0.0.5 --write-config pgwicket.yaml",
	}
	arguments(cmd, 1, 0, "name the server as clients connect to it, such as db.example.com or 10.0.0.5")
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := keyTypeFlag(cmd)
	var configPath string
	cli.FileFlag(cmd, &configPath, "write-config", "write a configuration into this `file`, which must not exist")
	f.withCA(s, cmd, func(c *pki.CA, names []string) error {
		r, err := pki.ServerRequest(names...)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(configPath); configPath != "" && err == nil {
			return fmt.Errorf("%s exists, and is not replaced", configPath)
		}
		if err := issue(s, c, r, flags, *kind); err != nil || configPath == "" {
			return err
		}
		listen, err := c.WriteGateConfig(configPath, &r, backendSocket())
		if err == nil {
			fmt.Fprintf(s.Out, "wrote        %s, which listens on %s\n", configPath, listen)
		}
		return err
	})
	return cmd
}

// backendSocket is where libpq would look for the socket of PostgreSQL.
func backendSocket() string {
	if host := os.Getenv("PGHOST"); strings.HasPrefix(host, "/") {
		return host
	}
	return "/run/postgresql"
}

func clientCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "client NAME", Short: "Issue a certificate for a client",
		Long: `Make a key and a certificate for a client. Its common name is the role that it may use:
NAME, or --user. The key is not encrypted, with mode 0600. --to-gate prints the rule of
acl.rules that admits it.` + exitHelp,
		Example: "  pgwicket ca client app\n  pgwicket ca client laptop --user alice --days 90 --to-gate",
	}
	arguments(cmd, 1, 1, "name the client, such as its role")
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := keyTypeFlag(cmd)
	var user string
	cli.TextFlag(cmd, &user, "user", "", "the `role`, if it is not the name")
	uris := cmd.Flags().StringArray("uri", nil, "a `URI` of the client, such as spiffe://example.com/app; may be repeated")
	cli.CompleteWords(cmd, "uri")
	rule := cmd.Flags().Bool("to-gate", false, "print the rule that admits it")
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		r, err := pki.ClientRequest(args[0], user, *uris...)
		if err != nil {
			return err
		}
		if err := issue(s, c, r, flags, *kind); err != nil || !*rule {
			return err
		}
		fmt.Fprintf(s.Out, "\n# in acl.rules; replace all by the databases that it needs\n%s\n", r.Rule())
		return nil
	})
	return cmd
}

func signCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Issue a certificate for a key on another machine",
		Long: `Issue a certificate for a certificate request (CSR), so that the key never leaves its
machine. Of a client the common name is used, of a server also the names and addresses in
subjectAltName. They are printed: the author of the request has chosen them. Other
extensions are not copied, and are printed, too. FILE may be - for the standard input.` + exitHelp,
		Example: "  pgwicket ca sign app.csr --for client",
	}
	arguments(cmd, 1, 1, "name the file of the certificate request")
	cmd.ValidArgsFunction = nil
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := cli.ChoiceFlag(cmd, "for", "the `kind` of the certificate", string(pki.Client), string(pki.Server))
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		csr, err := readRequest(s, args[0])
		if err != nil {
			return err
		}
		r, notCopied, err := pki.SigningRequest(pki.Kind(*kind), csr)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if err := issue(s, c, r, flags, ""); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "names        %s\n", strings.Join(r.Names(), ", "))
		for _, what := range notCopied {
			fmt.Fprintf(s.Out, "not copied   %s\n", what)
		}
		return nil
	})
	return cmd
}

// maxRequest is far above a request with a hundred names.
const maxRequest = 1 << 20

// readRequest reads a file, or the standard input: /dev/stdin is out of reach of a process that hides its memory.
func readRequest(s cli.Streams, path string) ([]byte, error) {
	var from io.Reader = s.In
	if path != "-" && path != "/dev/stdin" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	return io.ReadAll(io.LimitReader(from, maxRequest))
}

func renewCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "renew NAME...", Short: "Issue certificates again",
		Long: `Issue the certificate of a name again, with the same names and a new key. If its key is
on another machine, it is for the same key. The old certificate stays valid until it ends
or is revoked. A revoked one is not renewed.

With --intermediate and no name, the root issues the certificate of the intermediate
again, for the same key. What it has issued stays valid. The new root.crt must be at every
gate and client before the old certificate ends.` + exitHelp,
		Example: "  pgwicket ca renew db.example.com",
	}
	days := cmd.Flags().Int("days", pki.DefaultDays, "how many `days` it is valid")
	cli.CompleteWords(cmd, "days")
	above := cmd.Flags().Bool("intermediate", false, "renew the intermediate, with the root's key")
	arguments(cmd, 1, 0, "name the certificate, as \"pgwicket ca list\" prints it")
	named := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case !*above:
			return named(cmd, args)
		case len(args) > 0:
			return fmt.Errorf("unexpected argument %q: --intermediate takes no name", args[0])
		case cmd.Flags().Changed("days"):
			return errors.New("--days is not for the intermediate")
		}
		return nil
	}
	f.withCA(s, cmd, func(c *pki.CA, names []string) error {
		if *above {
			return renewIntermediate(s, c)
		}
		for _, name := range names {
			issued, err := c.Renew(name, *days)
			if err != nil {
				return err
			}
			printIssued(s, c, issued)
		}
		return nil
	})
	return cmd
}

func renewIntermediate(s cli.Streams, c *pki.CA) error {
	all := c.Authorities()
	before := all[len(all)-1].Expires
	issued, err := c.RenewIntermediate()
	if issued == nil {
		return err
	}
	fmt.Fprintf(s.Out, "serial       %s, until %s\ncertificate  %s\n", issued.Serial, issued.Expires.Format(time.DateOnly), issued.CertFile)
	if issued.Shortened {
		fmt.Fprintln(s.Out, "it ends with the root")
	}
	fmt.Fprintf(s.Out, "copy         %s to each ca_file and sslrootcert before %s\n", c.TrustFile(), before.Format(time.DateOnly))
	return err
}
