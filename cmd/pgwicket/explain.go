package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
	"pgwicket/proxy"
)

const explainHelp = `Print the decision on a client and the reasons for it, by the code that serves and
from the files as they are now. No gate needs to run, and the key of the certificate
is not needed.

Exit status: 0 admitted, 1 refused, 2 wrong usage, 78 the configuration is wrong.`

// question describes the client to decide on.
type question struct {
	source, listener, user, database, cert, sni, replication, at string
}

func explainCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain", Short: "Print whether a client would be admitted, and why", Long: explainHelp,
		Example: `  pgwicket explain --config pgwicket.yaml --source 10.20.1.7 \
                   --user app --database shop --cert app.crt`,
	}
	var q question
	path := configFlag(cmd)
	textFlag(cmd, &q.source, "source", "", "the `address` of the client (required)")
	textFlag(cmd, &q.user, "user", "", "the `role` that it asks for (required)")
	textFlag(cmd, &q.database, "database", "", "the `database` (default: the name of the user)")
	fileFlag(cmd, &q.cert, "cert", "a `file` with its certificate and intermediates in PEM (default: no certificate)")
	textFlag(cmd, &q.listener, "listener", "", "the `address` that it connects to (default: the first in listen)")
	textFlag(cmd, &q.sni, "sni", "", "the server `name` that it sends (default: none)")
	cmd.Flags().StringVar(&q.replication, "replication", "", "the `kind` of replication, database or physical (default: none)")
	completeWords(cmd, "replication", "database", "physical")
	textFlag(cmd, &q.at, "at", "", "the `time` to decide at, as in 2027-01-31T12:00:00Z (default: now)")
	return runs(cmd, func() int { return explain(s, *path, q) })
}

func explain(s streams, path string, q question) int {
	now := time.Now()
	cfg, problems := config.Load(path, nil, passphrasePrompt(s), now)
	if cfg == nil {
		printProblems(s.err, problems)
		return exitConfig
	}
	request, state, err := q.read(cfg)
	if err == nil && q.at != "" {
		now, err = time.Parse(time.RFC3339, q.at)
	}
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket explain: %v; see \"pgwicket explain --help\"\n", err)
		return exitUsage
	}
	return answer(s.out, cfg, request, state, now)
}

// read returns what the gate would know of the client.
func (q question) read(cfg *config.Config) (*acl.Request, tls.ConnectionState, error) {
	state := cfg.TLS.Finished()
	r := &acl.Request{Listener: q.listener, User: q.user, Database: q.database, SNI: q.sni}
	if q.source == "" || q.user == "" {
		return r, state, errors.New("--source and --user must be given")
	}
	source, err := netip.ParseAddr(q.source)
	if err != nil {
		return r, state, fmt.Errorf("--source: %q is not an IP address", q.source)
	}
	r.Source = source.Unmap().WithZone("")
	if r.Listener == "" {
		r.Listener = cfg.Listen[0]
	}
	if r.Database == "" {
		r.Database = r.User
	}
	switch q.replication {
	case "":
	case "database":
		r.Replication = acl.LogicalReplication
	case "physical":
		r.Replication = acl.PhysicalReplication
	default:
		return r, state, fmt.Errorf("--replication: %q must be database or physical", q.replication)
	}
	if q.cert != "" {
		if state.PeerCertificates, err = readChain(q.cert); err != nil {
			return r, state, fmt.Errorf("--cert: %w", err)
		}
		id := acl.IdentityOf(state.PeerCertificates[0])
		r.Certificate = &id
	}
	state.ServerName = q.sni
	return r, state, nil
}

func readChain(path string) (chain []*x509.Certificate, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return chain, nil
}

// answer prints the decision and its reasons.
func answer(w io.Writer, cfg *config.Config, q *acl.Request, state tls.ConnectionState, at time.Time) int {
	status := exitOK
	rule, err := cfg.Policy.Judge(q, state, at)
	var refusal *proxy.Refusal
	switch {
	case errors.As(err, &refusal):
		status = exitFailed
		fmt.Fprintf(w, "refused: %s\n", refusal.Outcome)
		fmt.Fprintf(w, "  the client is told  %s\n", told(cfg, refusal))
		fmt.Fprintf(w, "  the log says        %s\n", refusal.Detail)
	case rule != nil:
		fmt.Fprintf(w, "admitted by rule %q (%s)\n", rule.Name, cfg.At(rule.Line))
	default:
		fmt.Fprintln(w, "admitted: there are no rules, and the allowlist and the certificate allow it")
	}
	if to, err := cfg.Policy.BackendOf(rule); status == exitOK && err == nil && len(cfg.Policy.Hosts()) > 1 {
		fmt.Fprintf(w, "goes to     %s\n", strings.Join(gate.Addresses(&proxy.Policy{Backend: to}), ", else "))
	}
	if status == exitOK && rule != nil && rule.DatabaseAs != "" {
		fmt.Fprintf(w, "there       database %q\n", rule.DatabaseAs)
	}
	fmt.Fprintf(w, "\nsource      %v is %s\n", q.Source, cfg.Policy.Networks.Explain(q.Source))
	explainCertificate(w, cfg, q, state, at)
	explainRules(w, cfg, q)
	return status
}

// told returns what a refused client is told.
func told(cfg *config.Config, r *proxy.Refusal) string {
	sqlstate, text := r.Message()
	bySource := r.Outcome == proxy.SourceNotAllowed || r.Outcome == proxy.SourceDenied
	switch {
	case bySource && cfg.Policy.SourceRefusal == proxy.Close:
		return "nothing: the connection is closed (acl.refusal: close), and psql says \"server closed the connection unexpectedly\""
	case bySource && cfg.Policy.SourceRefusal == proxy.Reset:
		return "nothing: the connection is reset (acl.refusal: reset), and psql says \"could not receive data from server: Connection reset by peer\""
	case sqlstate == "":
		return "nothing: the connection is closed"
	}
	return fmt.Sprintf("FATAL %s: %s", sqlstate, text)
}

func explainCertificate(w io.Writer, cfg *config.Config, q *acl.Request, state tls.ConnectionState, at time.Time) {
	if q.Certificate == nil {
		fmt.Fprintln(w, "certificate none")
		return
	}
	id := q.Certificate
	fmt.Fprintf(w, "certificate cn      %s\n", orNone(id.CN))
	fmt.Fprintf(w, "            dn      %s\n", id.DN)
	for _, n := range []struct {
		kind  string
		names []string
	}{{"dns", id.DNS}, {"email", id.Email}, {"uri", id.URI}} {
		for _, name := range n.names {
			fmt.Fprintf(w, "            %-7s %s\n", n.kind, name)
		}
	}
	fmt.Fprintf(w, "            issuer  %s\n            spki    %s\n", id.Issuer, id.SPKI)
	chain, err := cfg.TLS.Explain(state.PeerCertificates, at)
	for i, link := range chain {
		what := "chain      "
		if i > 0 {
			what = "           "
		}
		fmt.Fprintf(w, "%s %s, until %s\n            %s\n", what, link.Subject, phrase.Until(link.NotAfter, at), link.Status)
	}
	if len(chain) == 0 && err != nil {
		fmt.Fprintf(w, "chain       none: %v\n", err)
	}
}

func orNone(name string) string {
	if name == "" {
		return "none that can be compared (it takes exactly one, of 1 to 63 bytes, without control characters)"
	}
	return name
}

// explainRules prints the rules even if something before them has refused, as the
// client would reach them next.
func explainRules(w io.Writer, cfg *config.Config, q *acl.Request) {
	if cfg.Policy.Rules == nil {
		fmt.Fprintln(w, "rules       none")
		return
	}
	fmt.Fprintln(w, "rules")
	var last acl.Step
	for i, step := range cfg.Policy.Rules.Trace(q) {
		verdict := "does not fit: " + step.Mismatch
		if step.Mismatch == "" {
			verdict = "fits: " + map[bool]string{true: "allow", false: "reject"}[step.Rule.Allow]
		}
		fmt.Fprintf(w, "  %d %q (%s) %s\n", i+1, step.Rule.Name, cfg.At(step.Rule.Line), verdict)
		last = step
	}
	if last.Mismatch != "" {
		fmt.Fprintln(w, "  none fits: reject")
	}
}
