package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pgwicket/config"
	"pgwicket/internal/phrase"
	"pgwicket/internal/pki"
)

const caHelp = `A certificate authority for one team: certificates for servers and clients, and
revocation lists. A root signs an intermediate, which signs the rest. Their keys are
encrypted. The directory has the layout of "openssl ca" and easy-rsa, which can work in
it, too. docs/ca.md explains it.

One command works in a directory at a time. An interrupted command loses nothing: the
next one finishes or undoes it and prints which.`

// caFlags are those of every command below ca.
type caFlags struct{ dir, command string }

func caCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Make certificates and revocation lists", Long: caHelp}
	f := &caFlags{dir: cmp.Or(os.Getenv(config.CADirVariable), "ca"), command: os.Getenv(config.CAPassphraseVariable)}
	cmd.PersistentFlags().Var((*fileName)(&f.dir), "dir", "the `directory` of the CA (default $PGWICKET_CA_DIR, or else ca)")
	cmd.PersistentFlags().StringVar(&f.command, "passphrase-command", f.command,
		"a `command` that prints the passphrase of the key file in $PGWICKET_CA_KEY (default $PGWICKET_CA_PASSPHRASE_COMMAND, or else the terminal)")
	cmd.PersistentFlags().Lookup("dir").DefValue = ""
	cmd.PersistentFlags().Lookup("passphrase-command").DefValue = ""
	cmd.AddCommand(caInit(s, f), caServer(s, f), caClient(s, f), caSign(s, f), caRenew(s, f), caRevoke(s, f), caCRL(s, f), caList(s, f), caExport(s, f), caAdopt(s, f))
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("name a command, such as init")
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

func (f *caFlags) options(s streams) pki.Options {
	return pki.Options{Dir: f.dir, Secrets: pki.Secrets{Command: f.command, Ask: askAt(s), Attempts: 3}}
}

// askAt asks at the terminal of s; nil if it has none.
func askAt(s streams) func(string) ([]byte, error) {
	fd := int(s.in.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	return func(prompt string) ([]byte, error) {
		fmt.Fprint(s.err, prompt)
		secret, err := term.ReadPassword(fd)
		fmt.Fprintln(s.err)
		return secret, err
	}
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
func (f *caFlags) withCA(s streams, cmd *cobra.Command, run func(c *pki.CA, args []string) error) {
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := pki.Open(f.options(s))
		if err != nil {
			return exitStatus(fail(s, "ca "+cmd.Name(), err))
		}
		defer c.Close()
		for _, text := range c.Recovered {
			fmt.Fprintf(s.err, "pgwicket ca %s: %s\n", cmd.Name(), text)
		}
		if n := c.Unlisted(); n > 0 && cmd.Name() != "revoke" && cmd.Name() != "crl" {
			fmt.Fprintf(s.err, "pgwicket ca %s: the list lacks %s: run \"pgwicket ca crl\"\n", cmd.Name(), phrase.Count(n, "revoked certificate"))
		}
		if err := run(c, args); err != nil {
			return exitStatus(fail(s, "ca "+cmd.Name(), err))
		}
		return nil
	}
}

const caExit = "\n\nExit status: 0 done, 1 failed, 2 wrong usage."

func caInit(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "init", Short: "Make a CA",
		Long: `Make a root, an intermediate, and their first lists in a directory that does not exist
or is empty. With --offline-root the root's key has a passphrase of its own, and
root/private/ca.key can be moved to another place: it is needed again once a year, for
the root's list.` + caExit,
		Example: "  pgwicket ca init --name \"Example CA\"",
	}
	arguments(cmd, 0, 0, "")
	cmd.Args = cobra.NoArgs
	o := pki.InitOptions{}
	textFlag(cmd, &o.Name, "name", "pgwicket CA", "the `name` in the certificates of the CA")
	kind := keyTypeFlag(cmd)
	cmd.Flags().BoolVar(&o.OfflineRoot, "offline-root", false, "another passphrase for the root's key")
	cmd.RunE = func(*cobra.Command, []string) error {
		o.Options, o.KeyType = f.options(s), *kind
		if err := pki.Init(o); err != nil {
			return exitStatus(fail(s, "ca init", err))
		}
		c, err := pki.Open(f.options(s))
		if err != nil {
			return exitStatus(fail(s, "ca init", err))
		}
		defer c.Close()
		fmt.Fprintf(s.out, "ca_file   %s\ncrl_file  %s, until %s\n", c.TrustFile(), c.ListFile(), c.ListEnds().Format(time.DateOnly))
		if o.OfflineRoot {
			fmt.Fprintf(s.out, "move %s/root/private/ca.key to a place that is offline\n", f.dir)
		}
		return nil
	}
	return cmd
}

func keyTypeFlag(cmd *cobra.Command) *string {
	return choiceFlag(cmd, "key-type", "the type of the new `key`", pki.ECDSA, pki.RSA)
}

// issueFlags are those of commands that issue.
func issueFlags(cmd *cobra.Command, r *pki.Request) {
	cmd.Flags().IntVar(&r.Days, "days", pki.DefaultDays, "how many `days` it is valid")
	completeWords(cmd, "days")
	cmd.Flags().BoolVar(&r.Again, "again", false, "also if a valid certificate has the name")
}

// issue issues, asks whether to issue another where there is a terminal, and prints what
// was issued.
func issue(s streams, c *pki.CA, r pki.Request, flags pki.Request, kind string) error {
	r.Days, r.Again, r.KeyType = flags.Days, flags.Again, kind
	issued, err := c.Issue(r)
	var valid *pki.IssuedError
	if errors.As(err, &valid) && term.IsTerminal(int(s.in.Fd())) {
		fmt.Fprintf(s.err, "%s has a valid certificate, %s until %s. Issue another? [y/N] ", valid.Name, valid.Serial, valid.Expires.Format(time.DateOnly))
		if answer, _ := bufio.NewReader(s.in).ReadString('\n'); strings.EqualFold(strings.TrimSpace(answer), "y") {
			r.Again = true
			issued, err = c.Issue(r)
		}
	}
	if err == nil {
		printIssued(s, issued)
	}
	return err
}

func printIssued(s streams, i *pki.Issued) {
	fmt.Fprintf(s.out, "serial       %s, until %s\ncertificate  %s\n", i.Serial, i.Expires.Format(time.DateOnly), i.CertFile)
	if i.KeyFile != "" {
		fmt.Fprintf(s.out, "key          %s\n", i.KeyFile)
	}
	if i.Shortened {
		fmt.Fprintln(s.out, "it ends with its CA, before the days that were asked for")
	}
}

func caServer(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "server NAME...", Short: "Issue a certificate for a server",
		Long: `Make a key and a certificate for a server with all names and addresses by which clients
connect to it. Its key is not encrypted, with mode 0600. --write-config writes a
configuration for a gate that uses it: it listens on port 6432 of the first address,
admits clients of private networks to the role of their certificate, and forwards to the
socket of PostgreSQL in $PGHOST, or else /run/postgresql.` + caExit,
		Example: "  pgwicket ca server db.example.com 10.0.0.5 --write-config pgwicket.yaml",
	}
	arguments(cmd, 1, 0, "name the server as clients connect to it, such as db.example.com or 10.0.0.5")
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := keyTypeFlag(cmd)
	var configPath string
	fileFlag(cmd, &configPath, "write-config", "write a configuration into this `file`, which must not exist")
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
			fmt.Fprintf(s.out, "wrote        %s, which listens on %s\n", configPath, listen)
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

func caClient(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "client NAME", Short: "Issue a certificate for a client",
		Long: `Make a key and a certificate for a client. Its common name is the role that it may use:
NAME, or --user. The key is not encrypted, with mode 0600. --to-gate prints the rule of
acl.rules that admits it.` + caExit,
		Example: "  pgwicket ca client app\n  pgwicket ca client laptop --user alice --days 90 --to-gate",
	}
	arguments(cmd, 1, 1, "name the client, such as its role")
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := keyTypeFlag(cmd)
	var user string
	textFlag(cmd, &user, "user", "", "the `role`, if it is not the name")
	uris := cmd.Flags().StringArray("uri", nil, "a `URI` of the client, such as spiffe://example.com/app; may be repeated")
	completeWords(cmd, "uri")
	rule := cmd.Flags().Bool("to-gate", false, "print the rule that admits it")
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		r, err := pki.ClientRequest(args[0], user, *uris...)
		if err != nil {
			return err
		}
		if err := issue(s, c, r, flags, *kind); err != nil || !*rule {
			return err
		}
		fmt.Fprintf(s.out, "\n# in acl.rules; replace all by the databases that it needs\n%s\n", r.Rule())
		return nil
	})
	return cmd
}

func caSign(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Issue a certificate for a key on another machine",
		Long: `Issue a certificate for a certificate request (CSR), so that the key never leaves its
machine. Of a client the common name is used, of a server also the names and addresses in
subjectAltName. Other extensions are not copied, and are printed.` + caExit,
		Example: "  pgwicket ca sign app.csr --for client",
	}
	arguments(cmd, 1, 1, "name the file of the certificate request")
	cmd.ValidArgsFunction = nil
	var flags pki.Request
	issueFlags(cmd, &flags)
	kind := choiceFlag(cmd, "for", "what the certificate is `for`", string(pki.Client), string(pki.Server))
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		csr, err := os.ReadFile(args[0])
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
		for _, what := range notCopied {
			fmt.Fprintf(s.out, "not copied   %s\n", what)
		}
		return nil
	})
	return cmd
}

func caRenew(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "renew NAME...", Short: "Issue certificates again",
		Long: `Issue the certificate of a name again, with the same names and a new key. If its key is
on another machine, it is for the same key. The old certificate stays valid until it ends
or is revoked. A revoked one is not renewed.` + caExit,
		Example: "  pgwicket ca renew db.example.com",
	}
	arguments(cmd, 1, 0, "name the certificate, as \"pgwicket ca list\" prints it")
	days := cmd.Flags().Int("days", pki.DefaultDays, "how many `days` it is valid")
	completeWords(cmd, "days")
	f.withCA(s, cmd, func(c *pki.CA, names []string) error {
		for _, name := range names {
			issued, err := c.Renew(name, *days)
			if err != nil {
				return err
			}
			printIssued(s, issued)
		}
		return nil
	})
	return cmd
}

func caCRL(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "crl", Short: "Make a new revocation list",
		Long: `Make a new revocation list before the old one ends: a gate refuses every client when its
list has ended. pgwicket-ca-crl.timer does it every day. The root's list is made with it
when half of its year is over, if the root's key is there.` + caExit,
		Example: "  pgwicket ca crl --if-older 1d",
	}
	cmd.Args = cobra.NoArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	days := cmd.Flags().Int("days", 0, "how many `days` it is valid (default as many as the last one, at first 7)")
	completeWords(cmd, "days")
	cmd.Flags().Lookup("days").DefValue = ""
	var older ageFlag
	cmd.Flags().Var(&older, "if-older", "only if the list is older than this `age`, such as 1d or 12h, or lacks a revoked certificate")
	completeWords(cmd, "if-older")
	var publish string
	fileFlag(cmd, &publish, "publish", "copy the lists into this `file` from now on")
	f.withCA(s, cmd, func(c *pki.CA, _ []string) error {
		if publish != "" {
			if err := c.Publish(publish); err != nil {
				return err
			}
		}
		if age, ok := c.ListAge(); older == 0 || !ok || age > time.Duration(older) {
			if err := c.WriteLists(*days); err != nil {
				return err
			}
		}
		fmt.Fprintf(s.out, "%s until %s\n", c.ListFile(), c.ListEnds().Format(time.RFC3339))
		return c.CheckRootList()
	})
	return cmd
}

// ageFlag is a duration that may be in days.
type ageFlag time.Duration

func (a *ageFlag) String() string { return "" }

func (*ageFlag) Type() string { return "age" }

func (a *ageFlag) Set(text string) error {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d <= 0 || d > 36500*24*time.Hour {
		return errors.New("it must be a time such as 30d or 12h")
	}
	*a = ageFlag(d)
	return nil
}

func caList(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the certificates",
		Long: "List the certificates that were issued: serial number, status, end, name and subject." + caExit,
	}
	cmd.Args = cobra.NoArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	var expiring ageFlag
	cmd.Flags().Var(&expiring, "expiring", "only valid ones that end within this `time`, such as 30d")
	completeWords(cmd, "expiring")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	f.withCA(s, cmd, func(c *pki.CA, _ []string) error {
		all := []pki.Entry{}
		for _, e := range c.List() {
			if expiring == 0 || e.Status == pki.StatusValid && time.Until(e.Expires) < time.Duration(expiring) {
				all = append(all, e)
			}
		}
		if *asJSON {
			e := json.NewEncoder(s.out)
			e.SetIndent("", "  ")
			return e.Encode(all)
		}
		w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SERIAL\tSTATUS\tUNTIL\tNAME\tSUBJECT")
		for _, e := range all {
			status := e.Status
			if e.Reason != "" {
				status += " (" + e.Reason + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Serial, status, e.Expires.Format(time.DateOnly), e.Name, e.Subject)
		}
		return w.Flush()
	})
	return cmd
}

func caExport(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write a certificate and its key for a program",
		Long: `Write the certificate of a name, its key and the certificates of the CA, with mode 0600:
libpq for ~/.postgresql, pkcs12 with a random password in a file beside it, pem as one
file, kubernetes as a Secret of type kubernetes.io/tls, jdbc with a key in DER.` + caExit,
		Example: "  pgwicket ca export app --format libpq --out ~/.postgresql",
	}
	arguments(cmd, 1, 1, "name the certificate, as \"pgwicket ca list\" prints it")
	format := choiceFlag(cmd, "format", "the `format`", pki.Formats()...)
	var out string
	fileFlag(cmd, &out, "out", "the `directory` of the files (default NAME)")
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		paths, err := c.Export(args[0], *format, cmp.Or(out, args[0]))
		for _, path := range paths {
			fmt.Fprintln(s.out, path)
		}
		return err
	})
	return cmd
}

func caAdopt(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "adopt DIR", Short: "Take over a CA of openssl or easy-rsa",
		Long: `Prepare the directory of a CA that "openssl ca" or easy-rsa has made, so that pgwicket ca
can work in it with --dir DIR. It adds what is missing and makes keys private. The other
program can go on.` + caExit,
		Example: "  pgwicket ca adopt /etc/easy-rsa/pki",
	}
	arguments(cmd, 1, 1, "name the directory of the CA")
	cmd.ValidArgsFunction = nil
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		o := f.options(s)
		o.Dir = args[0]
		changes, err := pki.Adopt(o)
		for _, change := range changes {
			fmt.Fprintln(s.out, change)
		}
		if err != nil {
			return exitStatus(fail(s, "ca adopt", err))
		}
		c, err := pki.Open(o)
		if err != nil {
			return exitStatus(fail(s, "ca adopt", err))
		}
		defer c.Close()
		fmt.Fprintf(s.out, "adopted %s with %s; use --dir %[1]s\n", o.Dir, phrase.Count(len(c.List()), "certificate"))
		return nil
	}
	return cmd
}
