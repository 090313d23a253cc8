package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/nftables"
	"pgwicket/internal/phrase"
)

// firewallState is how the kernel's table compares with that of "pgwicket firewall".
type firewallState struct {
	differences []string // from the configuration
	err         error    // why it is not known
}

func firewallStateOf(ctx context.Context, cfg *config.Config) (f firewallState) {
	f.differences, f.err = nftables.Compare(ctx, cfg.Policy, cfg.Listen)
	return f
}

func (g gateState) checkListen() (out []Finding) {
	for i, address := range g.listen {
		if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsUnspecified() {
			out = append(out, finding(Warn, fmt.Sprintf("listen[%d].address", i), address+" accepts connections on every network of this machine",
				"name the address that clients use"))
		}
	}
	return orPass(out, "listens on %s and nowhere else", strings.Join(g.listen, ", "))
}

// Prefixes of these lengths are too wide for the networks of clients: a half of all
// addresses, or a block that only a regional registry holds.
const (
	half   = 1
	broad4 = 8
	broad6 = 32
)

func (g gateState) checkAllowlist() (out []Finding) {
	const fix = "list the networks of the clients"
	for _, p := range g.allowed {
		broad := broad6
		if p.Addr().Is4() {
			broad = broad4
		}
		switch {
		case p.Bits() <= half:
			out = append(out, finding(Fail, "acl.allow", fmt.Sprintf("%v allows the whole internet", p), fix))
		case p.Bits() <= broad && !p.Addr().IsLoopback():
			out = append(out, finding(Warn, "acl.allow", fmt.Sprintf("%v is a very wide network", p), fix))
		}
	}
	if len(g.allowed) == 0 {
		out = append(out, finding(Warn, "acl.allow", "is empty, so no client can connect", fix))
	}
	return orPass(out, "no network of acl.allow is very wide")
}

// checkFirewall compares the kernel's firewall with the allowlist.
func (g gateState) checkFirewall() []Finding {
	const load = "pgwicket firewall --config FILE | nft -f -"
	switch f := g.firewall; {
	case !slices.ContainsFunc(g.listen, reachable):
		return []Finding{pass("not needed: the gate listens on loopback addresses only")}
	case errors.Is(f.err, nftables.ErrNoTable):
		return []Finding{finding(Warn, "nftables", "the kernel has no table inet pgwicket, so connections from every source reach the gate before it refuses them", load+", unless another firewall does this")}
	case f.err != nil:
		return []Finding{{Status: Skip, Where: "nftables", Reason: f.err.Error()}}
	case len(f.differences) > 0:
		return []Finding{finding(Warn, "nftables", "the table inet pgwicket of the kernel differs from the configuration: "+strings.Join(phrase.Shorten(f.differences), "; "), load)}
	}
	return []Finding{pass("the kernel refuses the sources that the configuration does not allow")}
}

// reachable reports whether other machines can connect to an address.
func reachable(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	return err == nil && !ap.Addr().IsLoopback()
}
