package nftables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"pgwicket/internal/phrase"
	"pgwicket/proxy"
)

// ErrNoTable is what Compare returns if the kernel has no table inet pgwicket.
var ErrNoTable = errors.New("the kernel has no table inet pgwicket; load it with: pgwicket firewall --config FILE | nft -f -")

// Compare asks nft for the table in the kernel, and returns where it differs from
// that of a policy; nothing if it is the same. Either action counts as the same. It
// needs the program nft and CAP_NET_ADMIN.
func Compare(ctx context.Context, p *proxy.Policy, listeners []string) ([]string, error) {
	listing, err := list(ctx)
	if err != nil {
		return nil, err
	}
	return compare(p, listeners, listing)
}

// list returns the table as JSON.
func list(ctx context.Context) ([]byte, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "nft", "-j", "list", "table", "inet", tableName)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("the program nft is missing; install nftables")
	case err != nil && strings.Contains(stderr.String(), "No such file or directory"):
		return nil, ErrNoTable
	case err != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("nft cannot list the table inet pgwicket, which takes CAP_NET_ADMIN: %s (%w)", line, err)
	}
	return out, nil
}

// compare returns where a listing differs from the table of a policy.
func compare(p *proxy.Policy, listeners []string, listing []byte) ([]string, error) {
	kernel, err := readTable(listing)
	if err != nil {
		return nil, fmt.Errorf("the output of nft cannot be parsed: %w", err)
	}
	rejecting := kernel.differences(tableOf(p, listeners, Reject))
	if dropping := kernel.differences(tableOf(p, listeners, Drop)); len(dropping) < len(rejecting) {
		return dropping, nil
	}
	return rejecting, nil
}

// differences returns where t differs from want.
func (t table) differences(want table) (found []string) {
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, s := range want.sets {
		i := slices.IndexFunc(t.sets, func(o set) bool { return o.name == s.name })
		if i < 0 {
			add("set %s is missing", s.name)
			continue
		}
		if less := missing(t.sets[i].spans, s.spans); len(less) > 0 {
			add("set %s lacks %s", s.name, join(less))
		}
		if more := missing(s.spans, t.sets[i].spans); len(more) > 0 {
			add("set %s also has %s", s.name, join(more))
		}
	}
	for _, c := range want.chains {
		i := slices.IndexFunc(t.chains, func(o chain) bool { return o.name == c.name })
		switch {
		case i < 0:
			add("chain %s is missing", c.name)
		case t.chains[i].base != c.base:
			add("chain %s is %q, want %q", c.name, t.chains[i].base, c.base)
		case !slices.Equal(t.chains[i].rules, c.rules):
			add("chain %s has the rules %q, want %q", c.name, strings.Join(t.chains[i].rules, "; "), strings.Join(c.rules, "; "))
		}
	}
	for _, c := range t.chains {
		if !slices.ContainsFunc(want.chains, func(o chain) bool { return o.name == c.name }) {
			add("chain %s is unexpected", c.name)
		}
	}
	return found
}

// missing returns the spans that are not in set.
func missing(set, spans []span) (out []span) {
	in := make(map[span]bool, len(set))
	for _, s := range set {
		in[s] = true
	}
	for _, s := range spans {
		if !in[s] {
			out = append(out, s)
		}
	}
	return out
}

// join shortens a list of spans to the length of a line.
func join(spans []span) string {
	var names []string
	for _, s := range spans {
		names = append(names, s.String())
	}
	return strings.Join(phrase.Shorten(names), ", ")
}
