// Package explain judges a client that is described in words, and prints the decision and
// the reasons for it.
package explain

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/certs"
	"pgwicket/internal/gate"
	"pgwicket/internal/outcome"
	"pgwicket/internal/phrase"
	"pgwicket/internal/policy"
	"pgwicket/internal/printable"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// Question describes the client to decide on, in the words of an administrator. Only
// Source and User are required.
type Question struct {
	Source      string // address
	Listener    string // address; empty: the first one
	User        string
	Database    string // empty: the name of the user
	Cert        string // file; empty: no certificate
	SNI         string
	Replication string // database or physical; empty: none
}

// Client is what the gate would know of a client.
type Client struct {
	request    *acl.Request
	state      tls.ConnectionState
	unreadable []error // why crypto/tls fails its handshake
}

// Client returns what the gate would know of the client. An error begins with the name of
// what is wrong.
func (q Question) Client(cfg *config.Config) (*Client, error) {
	source, err := netip.ParseAddr(q.Source)
	if err != nil {
		return nil, fmt.Errorf("source: %q is not an IP address", q.Source)
	}
	r := &acl.Request{Source: source.Unmap().WithZone(""), Listener: q.Listener, User: q.User, Database: cmp.Or(q.Database, q.User), SNI: q.SNI}
	if r.Listener == "" {
		r.Listener = cfg.Listen[0]
	}
	switch q.Replication {
	case "":
	case "database":
		r.Replication = acl.LogicalReplication
	case "physical":
		r.Replication = acl.PhysicalReplication
	default:
		return nil, fmt.Errorf("replication: %q must be database or physical", q.Replication)
	}
	c := &Client{request: r, state: cfg.TLS.Finished()}
	c.state.ServerName = q.SNI
	if q.Cert == "" {
		return c, nil
	}
	file, err := tlsconfig.ReadClientFile(q.Cert)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	c.state.PeerCertificates, c.unreadable = file.Certificates, file.Unreadable
	if len(file.Certificates) > 0 {
		id := acl.IdentityOf(file.Certificates[0])
		r.Certificate = &id
	}
	return c, nil
}

// Write prints the decision at a time and its reasons, by the locks and groups in the
// policy of cfg, and reports whether the client is admitted.
func (c *Client) Write(w io.Writer, cfg *config.Config, at time.Time) (admitted bool) {
	if len(c.unreadable) == 0 {
		return answer(w, cfg, c.request, c.state, at)
	}
	writeUnreadable(w, c.unreadable)
	if c.request.Certificate != nil {
		fmt.Fprint(w, "\nWith certificates that Go can read it would be\n\n")
		answer(w, cfg, c.request, c.state, at)
	}
	return false
}

// writeUnreadable prints why crypto/tls fails the handshake of a client, before the
// gate can judge it.
func writeUnreadable(w io.Writer, problems []error) {
	fmt.Fprintf(w, "refused: %s\n  the client is told  the TLS alert decode_error\n", outcome.TLSFailed)
	for i, err := range problems {
		what := ""
		if i == 0 {
			what = "the reason"
		}
		fmt.Fprintf(w, "  %-19s %v\n", what, err)
	}
}

// answer prints the decision and its reasons, and reports whether it is to admit.
func answer(w io.Writer, cfg *config.Config, q *acl.Request, state tls.ConnectionState, at time.Time) (admitted bool) {
	admitted = true
	rule, err := cfg.Policy.Judge(q, state, certs.DER(state.PeerCertificates), at)
	var refusal *proxy.Refusal
	switch {
	case errors.As(err, &refusal):
		admitted = false
		fmt.Fprintf(w, "refused: %s\n", refusal.Outcome)
		fmt.Fprintf(w, "  the client is told  %s\n", told(cfg, refusal))
		fmt.Fprintf(w, "  the log says        %s\n", refusal.Detail)
	case rule != nil:
		fmt.Fprintf(w, "admitted by rule %q (%s)\n", rule.Name, cfg.At(rule.Line))
	default:
		fmt.Fprintln(w, "admitted: there are no rules, and the allowlist and the certificate allow it")
	}
	if to, err := cfg.Policy.BackendOf(rule); admitted && err == nil && len(cfg.Policy.Hosts()) > 1 {
		fmt.Fprintf(w, "goes to     %s\n", strings.Join(gate.Addresses(&proxy.Policy{Backend: to}), ", else "))
	}
	if admitted && rule != nil && rule.DatabaseAs != "" {
		fmt.Fprintf(w, "there       database %q\n", rule.DatabaseAs)
	}
	fmt.Fprintf(w, "\nsource      %v is %s\n", q.Source, cfg.Policy.Networks.Explain(q.Source))
	writeCertificate(w, cfg, q, state, at)
	writeLocks(w, cfg, q, at)
	writeRules(w, cfg, q, at)
	return admitted
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

func writeCertificate(w io.Writer, cfg *config.Config, q *acl.Request, state tls.ConnectionState, at time.Time) {
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

// writeLocks prints the lock that refuses the client. Those of a gate without a state
// directory are only known to the gate.
func writeLocks(w io.Writer, cfg *config.Config, q *acl.Request, at time.Time) {
	held := cfg.Policy.Locks.At(at)
	switch l := cfg.Policy.Locks.Find(q, at); {
	case l != nil:
		fmt.Fprintf(w, "locks       %s, %s\n", l.Describe(), l.Ends())
	case len(held) > 0:
		fmt.Fprintf(w, "locks       none of the %d in force matches\n", len(held))
	}
}

// writeGroups prints of which of the roles in the rules the user is a member.
func writeGroups(w io.Writer, cfg *config.Config, q *acl.Request) {
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

// writeRules prints the rules even if something before them has refused, as the
// client would reach them next.
func writeRules(w io.Writer, cfg *config.Config, q *acl.Request, at time.Time) {
	if cfg.Policy.Rules == nil {
		fmt.Fprintln(w, "rules       none")
		return
	}
	fmt.Fprintln(w, "rules")
	q.At, q.Groups = at, cfg.Policy.Groups
	writeGroups(w, cfg, q)
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
