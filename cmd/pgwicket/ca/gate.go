package ca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
	"pgwicket/internal/pki"
	"pgwicket/internal/printable"
)

// revocationWait is how long a revocation waits for the gate to end sessions. It takes a
// second where the gate watches the list.
const revocationWait = 10 * time.Second

func revokeCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME|SERIAL", Short: "Revoke certificates",
		Long: `Revoke all valid certificates of a name, or the one of a serial number, and make a new
list. A gate that watches the list ends their sessions within a second; with its
admin.socket, the command prints how many.` + exitHelp,
		Example: "  pgwicket ca revoke app --reason keyCompromise",
	}
	arguments(cmd, 1, 1, "name the certificate, as \"pgwicket ca list\" prints it")
	config := cli.ConfigFlag(cmd)
	reason := cmd.Flags().String("reason", "", "the reason, a `word`: "+strings.Join(pki.Reasons(), ", "))
	cli.CompleteWords(cmd, "reason", pki.Reasons()...)
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		before, gateErr := sessionsOf(*config, c.Find(args[0]))
		revoked, err := c.Revoke(args[0], *reason, 0)
		for _, e := range revoked {
			fmt.Fprintf(s.Out, "revoked %s (%s)\n", e.Serial, printable.Escape(e.Subject))
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "list    %s until %s\n", c.ListFile(), c.ListEnds().Format(time.DateOnly))
		return reportSessions(s, c, *config, args[0], before, gateErr)
	})
	return cmd
}

// reportSessions waits for the sessions to end, and prints how many have.
func reportSessions(s cli.Streams, c *pki.CA, config, name string, before int, err error) error {
	left := before
	for end := time.Now().Add(revocationWait); err == nil && left > 0; time.Sleep(100 * time.Millisecond) {
		if left, err = sessionsOf(config, c.Find(name)); time.Now().After(end) {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(s.Out, "no gate was asked for open sessions: there is no configuration")
	case err != nil:
		fmt.Fprintf(s.Out, "no gate was asked for open sessions: %v\n", err)
	case left > 0:
		return fmt.Errorf("%s still open: the gate does not watch the list; \"pgwicket ca crl --publish FILE\" copies it into its crl_file", isOpen(left))
	default:
		fmt.Fprintf(s.Out, "%s ended\n", phrase.Count(before, "open session"))
	}
	return nil
}

func isOpen(n int) string {
	if n == 1 {
		return "1 session is"
	}
	return phrase.Count(n, "session") + " are"
}

// sessionsOf asks the gate for the number of open sessions of certificates.
func sessionsOf(config string, certs []pki.Entry) (n int, err error) {
	if config != "" {
		if _, err := os.Stat(config); err != nil {
			return 0, err
		}
	}
	for _, e := range certs {
		query := url.Values{"serial": {e.Serial}}
		answer, err := adminclient.Ask(config, http.MethodGet, gate.SessionsPath+"?"+query.Encode(), adminclient.Timeout)
		if err != nil {
			return 0, err
		}
		var all []gate.OpenSession
		if err := json.Unmarshal(answer, &all); err != nil {
			return 0, err
		}
		n += len(all)
	}
	return n, nil
}
