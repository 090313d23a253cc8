package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/gate"
	"pgwicket/internal/lock"
	"pgwicket/internal/outcome"
	"pgwicket/internal/phrase"
	"pgwicket/internal/policy"
	"pgwicket/internal/printable"
	"pgwicket/internal/sandbox"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

const explainHelp = `Print the decision on a client and the reasons for it, by the code that serves and
from the files as they are now. Where rules name a role with +, its members are asked
for as the gate does. No gate needs to run, and the key of the certificate is not
needed.

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
	request, state, unreadable, err := q.read(cfg)
	if err == nil && q.at != "" {
		now, err = time.Parse(time.RFC3339, q.at)
	}
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket explain: %v; see \"pgwicket explain --help\"\n", err)
		return exitUsage
	}
	locks, err := lock.Open(cfg.StateDir)
	if err != nil { // an answer without the locks could be wrong
		return fail(s, "explain", err)
	}
	cfg.Policy.Locks = locks.Set()
	account, _ := sandbox.AccountFor(cfg, path)
	cfg.Policy.Groups, problems = gate.TryGroups(context.Background(), cfg, account)
	printProblems(s.err, problems)
	if len(unreadable) > 0 {
		explainUnreadable(s.out, unreadable)
		if request.Certificate == nil {
			return exitFailed
		}
		fmt.Fprint(s.out, "\nWith certificates that Go can read it would be\n\n")
		answer(s.out, cfg, request, state, now)
		return exitFailed
	}
	return answer(s.out, cfg, request, state, now)
}

// explainUnreadable prints why crypto/tls fails the handshake of a client, before the
// gate can judge it.
func explainUnreadable(w io.Writer, problems []error) {
	fmt.Fprintf(w, "refused: %s\n  the client is told  the TLS alert decode_error\n", outcome.TLSFailed)
	for i, err := range problems {
		what := ""
		if i == 0 {
			what = "the reason"
		}
		fmt.Fprintf(w, "  %-19s %v\n", what, err)
	}
}

// read returns what the gate would know of the client.
func (q question) read(cfg *config.Config) (r *acl.Request, state tls.ConnectionState, unreadable []error, err error) {
	state = cfg.TLS.Finished()
	r = &acl.Request{Listener: q.listener, User: q.user, Database: q.database, SNI: q.sni}
	if q.source == "" || q.user == "" {
		return r, state, nil, errors.New("--source and --user must be given")
	}
	source, err := netip.ParseAddr(q.source)
	if err != nil {
		return r, state, nil, fmt.Errorf("--source: %q is not an IP address", q.source)
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
		return r, state, nil, fmt.Errorf("--replication: %q must be database or physical", q.replication)
	}
	if q.cert != "" {
		file, err := tlsconfig.ReadClientFile(q.cert)
		if err != nil {
			return r, state, nil, fmt.Errorf("--cert: %w", err)
		}
		state.PeerCertificates, unreadable = file.Certificates, file.Unreadable
		if len(file.Certificates) > 0 {
			id := acl.IdentityOf(file.Certificates[0])
			r.Certificate = &id
		}
	}
	state.ServerName = q.sni
	return r, state, unreadable, nil
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
	explainLocks(w, cfg, q, at)
	explainRules(w, cfg, q, at)
	return status
}

// told returns what a refused client is told.
func told(cfg *config.Config, r *proxy.Refusal) string {
	sqlstate, text := r.Message()
	bySource := r.Outcome == outcome.SourceNotAllowed || r.Outcome == outcome.SourceDenied
	switch {
	case bySource && cfg.Policy.SourceRefusal == policy.Close:
		return "nothing: the connection is closed (acl.refusal: close), and psql says \"server closed the connection unexpectedly\""
	case bySource && cfg.Policy.SourceRefusal == policy.Reset:
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
	fmt.Fprintf(w, "certificate cn      %s\n", commonName(id))
	fmt.Fprintf(w, "            dn      %s\n", id.DN)
	for _, n := range []struct {
		kind  string
		names []string
	}{{"dns", id.DNS}, {"email", id.Email}, {"uri", id.URI}} {
		for _, name := range n.names {
			fmt.Fprintf(w, "            %-7s %s\n", n.kind, printable.Text(name))
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

func commonName(id *acl.Identity) string {
	switch {
	case id.CN != "":
		return printable.Text(id.CN)
	case id.CNText != "":
		return strconv.Quote(id.CNText) + ", which cn compares and no role can have (samename, \\1): it has over 63 bytes, or is a T61String"
	}
	return "none that can be compared (it takes exactly one, without control characters)"
}

// explainLocks prints the lock that refuses the client. Those of a gate without a state
// directory are only known to the gate.
func explainLocks(w io.Writer, cfg *config.Config, q *acl.Request, at time.Time) {
	held := cfg.Policy.Locks.At(at)
	switch l := cfg.Policy.Locks.Find(q, at); {
	case l != nil:
		fmt.Fprintf(w, "locks       %s, %s\n", l.Describe(), lockEnd(*l))
	case len(held) > 0:
		fmt.Fprintf(w, "locks       none of the %d in force matches\n", len(held))
	}
}

// explainGroups prints of which of the roles in the rules the user is a member.
func explainGroups(w io.Writer, cfg *config.Config, q *acl.Request) {
	for _, l := range cfg.Groups {
		var of []string
		for _, role := range l.Roles {
			if cfg.Policy.Groups[l.Backend].Has(role, q.User) {
				of = append(of, "+"+role)
			}
		}
		what := "no role in the rules"
		if len(of) > 0 {
			what = strings.Join(of, ", ")
		}
		if cfg.Policy.Groups[l.Backend] == nil {
			what = "not known"
		}
		where := ""
		if l.Backend != "" {
			where = " (backend " + l.Backend + ")"
		}
		fmt.Fprintf(w, "  member of %s%s\n", what, where)
	}
}

// explainRules prints the rules even if something before them has refused, as the
// client would reach them next.
func explainRules(w io.Writer, cfg *config.Config, q *acl.Request, at time.Time) {
	if cfg.Policy.Rules == nil {
		fmt.Fprintln(w, "rules       none")
		return
	}
	fmt.Fprintln(w, "rules")
	q.At, q.Groups = at, cfg.Policy.Groups
	explainGroups(w, cfg, q)
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
