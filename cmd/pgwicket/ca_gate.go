package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
	"pgwicket/internal/pki"
)

// revocationWait is how long a revocation waits for the gate to end sessions. It takes a
// second where the gate watches the list.
const revocationWait = 10 * time.Second

func caRevoke(s streams, f *caFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke NAME|SERIAL", Short: "Revoke certificates",
		Long: `Revoke all valid certificates of a name, or the one of a serial number, and make a new
list. A gate that watches the list ends their sessions within a second; with its
admin.socket, the command prints how many.` + caExit,
		Example: "  pgwicket ca revoke app --reason keyCompromise",
	}
	arguments(cmd, 1, 1, "name the certificate, as \"pgwicket ca list\" prints it")
	config := configFlag(cmd)
	reason := cmd.Flags().String("reason", "", "why: a `word`, "+strings.Join(pki.Reasons(), ", "))
	completeWords(cmd, "reason", pki.Reasons()...)
	f.withCA(s, cmd, func(c *pki.CA, args []string) error {
		before, gateErr := sessionsOf(*config, c.Find(args[0]))
		revoked, err := c.Revoke(args[0], *reason, 0)
		for _, e := range revoked {
			fmt.Fprintf(s.out, "revoked %s (%s)\n", e.Serial, e.Subject)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "list    %s until %s\n", c.ListFile(), c.ListEnds().Format(time.DateOnly))
		return reportSessions(s, c, *config, args[0], before, gateErr)
	})
	return cmd
}

// reportSessions waits for the sessions to end, and prints how many have.
func reportSessions(s streams, c *pki.CA, config, name string, before int, err error) error {
	left := before
	for end := time.Now().Add(revocationWait); err == nil && left > 0; time.Sleep(100 * time.Millisecond) {
		if left, err = sessionsOf(config, c.Find(name)); time.Now().After(end) {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(s.out, "no gate was asked for open sessions: there is no configuration")
	case err != nil:
		fmt.Fprintf(s.out, "no gate was asked for open sessions: %v\n", err)
	case left > 0:
		return fmt.Errorf("%s still open: the gate does not watch the list; \"pgwicket ca crl --publish FILE\" copies it into its crl_file", isOpen(left))
	default:
		fmt.Fprintf(s.out, "%s ended\n", phrase.Count(before, "open session"))
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
		answer, err := askGate(config, true, http.MethodGet, gate.SessionsPath+"?"+query.Encode(), answerTimeout)
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

const gateConfig = `# Written by "pgwicket ca server". config.example.yaml explains every key.
listen:
  - address: %s
tls:
  cert_file: %s
  key_file: %s
  ca_file: %s
  crl_file: %s
acl:
  # The networks that clients come from.
  allow: [127.0.0.0/8, "::1", 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "fc00::/7"]
  rules:
    # Each client may use the role that its certificate names.
    - {name: own, action: allow, databases: [all], users: [samename]}
backend:
  host: %s
admin:
  socket: %s
`

// gatePort is beside the 5432 of PostgreSQL.
const gatePort = "6432"

// writeGateConfig writes a configuration for a gate with the certificate of a server.
func writeGateConfig(s streams, c *pki.CA, r *pki.Request, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	listen := "0.0.0.0:" + gatePort
	if len(r.IPs) > 0 {
		listen = r.IPs[0].String() + ":" + gatePort
		if r.IPs[0].Is6() {
			listen = "[" + r.IPs[0].String() + "]:" + gatePort
		}
	}
	backend := "/run/postgresql"
	if host := os.Getenv("PGHOST"); filepath.IsAbs(host) {
		backend = host
	}
	var files []any
	for _, file := range []string{c.CertFile(r.Name), c.KeyFile(r.Name), c.TrustFile(), c.ListFile(), backend, filepath.Join(filepath.Dir(path), "admin.sock")} {
		if file, err = filepath.Abs(file); err != nil {
			return err
		}
		quoted, err := json.Marshal(file) // which is YAML, too
		if err != nil {
			return err
		}
		files = append(files, string(quoted))
	}
	address, _ := json.Marshal(listen)
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, gateConfig, append([]any{string(address)}, files...)...)
	if closing := out.Close(); err == nil {
		err = closing
	}
	if err == nil {
		fmt.Fprintf(s.out, "wrote        %s, which listens on %s\n", path, listen)
	}
	return err
}

// printRule prints the rule that admits a client.
func printRule(s streams, r *pki.Request) {
	quote := func(text string) string {
		quoted, _ := json.Marshal(text)
		return string(quoted)
	}
	certificate := "cn: " + quote(r.CommonName)
	if len(r.URIs) > 0 {
		certificate += ", uri: " + quote(r.URIs[0].String())
	}
	fmt.Fprintf(s.out, "\n# in acl.rules; replace all by the databases that it needs\n- {name: %s, action: allow, databases: [all], users: [%s], certificate: {%s}}\n", quote(r.Name), quote(r.CommonName), certificate)
}
