package systemd

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/proxy"
)

// AddressFilter returns a drop-in of the service that has systemd filter addresses by
// a policy, its listeners and the admin address. IPAddressAllow= wins over
// IPAddressDeny= (systemd.resource-control(5)), so it names the networks of acl.allow
// without those of acl.deny. gaps are the lines that the administrator must add.
func AddressFilter(p *proxy.Policy, listeners []string, admin string) (text string, gaps []string) {
	var b strings.Builder
	fmt.Fprint(&b, `# Made by "pgwicket firewall --format systemd" from the configuration. Run it again
# when that changes, then: systemctl daemon-reload && systemctl restart pgwicket
[Service]
IPAddressDeny=
IPAddressAllow=
IPAddressDeny=any
# This machine: the watchdog, metrics, the resolver.
IPAddressAllow=localhost
`)
	allow(&b, "Clients.", p.Networks.Admitted())
	var balancers []netip.Prefix
	for _, listener := range listeners {
		if from := p.Proxies[listener]; from != nil {
			balancers = append(balancers, from.Admitted()...)
		}
		if ap, err := netip.ParseAddrPort(listener); err == nil && !ap.Addr().IsUnspecified() && !ap.Addr().IsLoopback() {
			own := ap.Addr().WithZone("")
			allow(&b, "The listener's own address, for the watchdog.", []netip.Prefix{netip.PrefixFrom(own, own.BitLen())})
		}
	}
	allow(&b, "Load balancers of every listener.", balancers)
	backends, gaps := backendAddresses(p)
	allow(&b, "PostgreSQL.", backends)
	if ap, err := netip.ParseAddrPort(admin); err == nil && !ap.Addr().IsLoopback() {
		gaps = append(gaps, "admin.address "+admin+": add an IPAddressAllow= for each machine that reads the metrics")
	}
	return b.String(), gaps
}

func allow(w io.Writer, why string, networks []netip.Prefix) {
	if len(networks) == 0 {
		return
	}
	fmt.Fprintf(w, "# %s\n", why)
	for _, p := range networks {
		fmt.Fprintf(w, "IPAddressAllow=%v\n", p)
	}
}

// backendAddresses returns the addresses of the backends on TCP. Names have none here:
// their addresses may change.
func backendAddresses(p *proxy.Policy) (known []netip.Prefix, gaps []string) {
	for _, h := range p.Hosts() {
		if h.Network == "unix" {
			continue
		}
		host, _, _ := net.SplitHostPort(h.Address)
		addr, err := netip.ParseAddr(host)
		if err != nil {
			gaps = append(gaps, "backend "+h.Address+" has a name: add an IPAddressAllow= for each of its addresses, and for the DNS server, or write addresses")
			continue
		}
		addr = addr.Unmap().WithZone("")
		if one := netip.PrefixFrom(addr, addr.BitLen()); !slices.Contains(known, one) {
			known = append(known, one)
		}
	}
	return known, gaps
}
