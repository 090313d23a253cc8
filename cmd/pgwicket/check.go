package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"pgwicket/config"
	"pgwicket/internal/phrase"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/status"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

const checkHelp = `Read the configuration and every file it names, exactly as serve does up to the
point where it would listen, and print each mistake and each warning with its
line; as root, also whether the gate would become another account, or stay
root. What is good about the configuration follows in a few lines.

Exit status: 0 serve would start, 78 it would not.
`

func check(args []string, s streams) int {
	f := flags("check")
	path := configFlag(f)
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	now := time.Now()
	cfg, problems := config.Load(*path, nil, passphrasePrompt(s), now)
	var account *sandbox.Account
	if cfg != nil {
		var mistakes []config.Problem
		account, mistakes = sandbox.AccountFor(cfg, *path)
		problems = append(problems, mistakes...)
	}
	printProblems(s.err, problems)
	if config.Failed(problems) {
		return exitConfig
	}
	describe(s.out, cfg, now)
	if account != nil {
		fmt.Fprintf(s.out, "becomes         %s, once it listens\n", account.Name)
	}
	fmt.Fprintf(s.out, "%s is valid", cmp.Or(*path, "the environment"))
	if n := len(problems); n > 0 {
		fmt.Fprintf(s.out, ", with %s", phrase.Count(n, "warning"))
	}
	fmt.Fprintln(s.out)
	return exitOK
}

func printProblems(w io.Writer, problems []config.Problem) {
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
}

// describe says in words what the gate would enforce.
func describe(w io.Writer, cfg *config.Config, now time.Time) {
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-15s %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, a := range cfg.Listen {
		say("listens on", "%s", a)
	}
	for _, c := range cfg.TLS.Certificates {
		say("certificate", "%s, %s, until %s", c.Subject, c.Key, phrase.Until(c.NotAfter, now))
	}
	for _, l := range policyOf(cfg) {
		say(l.What, "%s", l.Text)
	}
	for _, c := range cfg.TLS.CRLs {
		next := "no next update"
		if !c.NextUpdate.IsZero() {
			next = "fresh until " + phrase.Until(c.NextUpdate, now)
		}
		say("revocation list", "%s, %s, %s", c.Issuer, phrase.Count(c.Entries, "entry"), next)
	}
	for _, name := range cfg.Variables {
		say("environment", "%s", name)
	}
	if a := cfg.Admin; a.Address != "" {
		scheme := "http"
		if a.TLS != nil {
			scheme = "https"
		}
		say("metrics", "%s://%s/metrics", scheme, a.Address)
		say("status page", "%s://%s/", scheme, a.Address)
	}
	if cfg.Admin.Socket != "" {
		say("admin socket", "%s", cfg.Admin.Socket)
	}
}

// backendsOf tells where sessions go: to those without a name first.
func backendsOf(p *proxy.Policy) (lines []status.Line) {
	one := func(b *proxy.Backend, name string) {
		for _, h := range b.Hosts {
			lines = append(lines, status.Line{What: "forwards to", Text: h.Address + overTLS(h) + name})
		}
	}
	if p.Backend != nil {
		one(p.Backend, "")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Backends)) {
		one(p.Backends[name], fmt.Sprintf(" (rules with backend: %s)", name))
	}
	return lines
}

func overTLS(h proxy.Host) string {
	switch {
	case h.Network == "unix":
		return ""
	case h.TLS == nil:
		return ", in clear"
	case h.Clear:
		return ", with TLS if it has any"
	case h.SSLMode == string(tlsconfig.SSLRequire):
		return ", with TLS, whoever it is"
	case h.SSLMode == string(tlsconfig.SSLVerifyCA):
		return ", with TLS, verified but for its name"
	}
	return ", with TLS, verified"
}
