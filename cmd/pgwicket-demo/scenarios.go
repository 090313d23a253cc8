//go:build unix

package main

import (
	"context"
	"fmt"
	"strings"
)

// scenario is one client, and what must happen to it.
type scenario struct {
	title   string
	changes []string // to the conninfo of a good client
	prepare func(context.Context) error
	outcome string // in the log
	sees    string // part of what psql must print
}

func (d *demo) scenarios() []scenario {
	return []scenario{
		{
			title:   "A good client: its certificate is valid and its network allowed",
			outcome: "client_closed",
			sees:    "hello from PostgreSQL",
		},
		{
			title:   "No client certificate",
			changes: []string{"sslcert=/nonexistent", "sslkey=/nonexistent"},
			outcome: "certificate_missing",
			sees:    "connection requires a valid client certificate",
		},
		{
			title:   "A stolen certificate, which is on the revocation list",
			changes: []string{"sslcert=" + d.file("stolen.crt"), "sslkey=" + d.file("stolen.key")},
			outcome: "certificate_revoked",
			sees:    "client certificate was revoked on",
		},
		{
			title:   "TLS 1.1",
			changes: []string{"ssl_min_protocol_version=TLSv1", "ssl_max_protocol_version=TLSv1.1"},
			outcome: "tls_version",
			sees:    "alert protocol version",
		},
		{
			title:   "No TLS at all",
			changes: []string{"sslmode=disable"},
			outcome: "plaintext",
			sees:    "connection requires TLS",
		},
		{
			title:   "A forbidden network: acl.allow is narrowed to 192.0.2.0/24 and reloaded",
			prepare: func(ctx context.Context) error { return d.reload(ctx, "192.0.2.0/24") },
			outcome: "source_not_allowed",
			sees:    "no pgwicket allowlist entry",
		},
	}
}

// run runs all scenarios, and returns whether each had its expected result.
func (d *demo) run(ctx context.Context) bool {
	good := true
	for i, sc := range d.scenarios() {
		fmt.Fprintf(d.out, "\n%d. %s\n", i+1, sc.title)
		if err := d.runScenario(ctx, sc); err != nil {
			if ctx.Err() != nil {
				return false
			}
			good = false
			fmt.Fprintf(d.out, "   UNEXPECTED: %v\n", err)
		}
	}
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			good = false
			fmt.Fprintf(d.out, "   UNEXPECTED: %v\n", err)
		}
	}
	fail(d.reload(ctx, "127.0.0.0/8"))
	fmt.Fprintf(d.out, "\n%d. A live session, whose certificate is revoked\n", len(d.scenarios())+1)
	fail(d.runLive(ctx))
	if ctx.Err() != nil {
		return false
	}
	if good {
		fmt.Fprintf(d.out, "\nAll results are as expected.\n")
	}
	return good
}

func (d *demo) runScenario(ctx context.Context, sc scenario) error {
	if sc.prepare != nil {
		if err := sc.prepare(ctx); err != nil {
			return err
		}
	}
	message := "connection refused"
	commands := []string{"select 1"}
	if sc.outcome == "client_closed" {
		message = "session ended"
		commands = []string{`\conninfo`, "select 'hello from PostgreSQL ' || current_setting('server_version') || ', listen_addresses = \"' || current_setting('listen_addresses') || '\"'"}
	}
	sees := d.psqlOutput(ctx, d.conninfo(sc.changes...), commands...)
	for line := range strings.Lines(sees) {
		fmt.Fprintf(d.out, "   client: %s\n", strings.TrimSpace(line))
	}
	log, err := d.awaitLog(ctx, message)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   log:    %s\n", summary(log))
	switch {
	case log["outcome"] != sc.outcome:
		return fmt.Errorf("the outcome is %v, not %s", log["outcome"], sc.outcome)
	case !strings.Contains(sees, sc.sees):
		return fmt.Errorf("the client does not see %q", sc.sees)
	}
	return nil
}

// summary returns the attributes of a log line that matter here.
func summary(line map[string]any) string {
	parts := []string{fmt.Sprint(line["msg"])}
	for _, key := range []string{"outcome", "reason", "client", "user", "tls_version", "tls_cipher", "tls_group", "cert_subject", "bytes_to_client"} {
		if v, ok := line[key]; ok && v != "" {
			parts = append(parts, fmt.Sprintf("%s=%v", key, v))
		}
	}
	return strings.Join(parts, " ")
}

// printHints prints what to try.
func (d *demo) printHints() {
	fmt.Fprintf(d.out, `
The gate keeps running. Try it from another terminal:

  PGPASSWORD=%[1]s psql '%[2]s'

Leave that session open, and revoke its certificate with these two commands. The
session then ends, and says why:

  openssl ca -config %[6]s/ca.cnf -revoke %[6]s/app.crt
  openssl ca -config %[6]s/ca.cnf -gencrl -out %[6]s/ca.crl

From then on this certificate is refused. For a new one, end the demo and start it again.

Its sessions:       %[5]s sessions --config %[4]s
Its status page:    http://%[3]s/
Its metrics:        curl http://%[3]s/metrics
Its configuration:  %[4]s
Load it again:      %[5]s reload --config %[4]s
Examine it:         PGPASSWORD=%[1]s %[5]s doctor --user postgres --config %[4]s --session-user app --session-cert %[6]s/app.crt --session-key %[6]s/app.key
                    (It warns that the passphrase lies beside the key, as it must not in earnest.)

Ctrl-C ends everything and removes all files.
`, d.password, d.conninfo(), d.admin, d.file("pgwicket.yaml"), d.pgwicket, d.dir)
}
