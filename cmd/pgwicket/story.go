package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// scene is one line of the demo's story: a client, and what must come of it.
type scene struct {
	title   string
	changes []string // to the good client's conninfo
	prepare func(context.Context) error
	outcome string // in the log
	sees    string // what the client must see, in part
}

func (st *stage) scenes() []scene {
	return []scene{
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
			title:   "A stolen certificate, on the revocation list since today",
			changes: []string{"sslcert=" + st.file("stolen.crt"), "sslkey=" + st.file("stolen.key")},
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
			prepare: func(ctx context.Context) error { return st.reload(ctx, "192.0.2.0/24") },
			outcome: "source_not_allowed",
			sees:    "no pgwicket allowlist entry",
		},
	}
}

// play tells the story and says whether every line of it came out as it
// should.
func (st *stage) play(ctx context.Context) bool {
	good := true
	for i, sc := range st.scenes() {
		fmt.Fprintf(st.out, "\n%d. %s\n", i+1, sc.title)
		if err := st.act(ctx, sc); err != nil {
			if ctx.Err() != nil {
				return false
			}
			good = false
			fmt.Fprintf(st.out, "   NOT as it should be: %v\n", err)
		}
	}
	if err := st.reload(ctx, "127.0.0.0/8"); err != nil {
		good = false
		fmt.Fprintf(st.out, "   NOT as it should be: %v\n", err)
	}
	if good {
		fmt.Fprintf(st.out, "\nAll as it should be.\n")
	}
	return good
}

func (st *stage) act(ctx context.Context, sc scene) error {
	if sc.prepare != nil {
		if err := sc.prepare(ctx); err != nil {
			return err
		}
	}
	message := "connection refused"
	commands := []string{"select 1"}
	if sc.outcome == "client_closed" {
		message = "session ended"
		commands = []string{`\conninfo`, "select 'hello from PostgreSQL ' || current_setting('server_version') || ', which listens on TCP addresses: «' || current_setting('listen_addresses') || '»'"}
	}
	sees := st.run(ctx, st.conninfo(sc.changes...), commands...)
	for line := range strings.Lines(sees) {
		fmt.Fprintf(st.out, "   client: %s\n", strings.TrimSpace(line))
	}
	log, err := st.awaitLog(ctx, message)
	if err != nil {
		return err
	}
	fmt.Fprintf(st.out, "   log:    %s\n", inShort(log))
	switch {
	case log["outcome"] != sc.outcome:
		return fmt.Errorf("the outcome is %v, not %s", log["outcome"], sc.outcome)
	case !strings.Contains(sees, sc.sees):
		return fmt.Errorf("the client does not see %q", sc.sees)
	}
	return nil
}

// inShort prints the attributes of a log line that the story is about.
func inShort(line map[string]any) string {
	parts := []string{fmt.Sprint(line["msg"])}
	for _, key := range []string{"outcome", "reason", "client", "user", "tls_version", "tls_cipher", "tls_group", "cert_subject", "bytes_to_client"} {
		if v, ok := line[key]; ok && v != "" {
			parts = append(parts, fmt.Sprintf("%s=%v", key, v))
		}
	}
	return strings.Join(parts, " ")
}

// invite prints what to try.
func (st *stage) invite() {
	fmt.Fprintf(st.out, `
The gate stays up. Try it from another terminal:

  PGPASSWORD=%s psql '%s'

It shows itself:    http://%[3]s/
Its metrics:        curl http://%[3]s/metrics
Its configuration:  %[4]s
Is all well?        %[5]s doctor --user postgres --config %[4]s

Ctrl-C ends everything and removes all files.
`, st.password, st.conninfo(), st.admin, st.file("pgwicket.yaml"), os.Args[0])
}
