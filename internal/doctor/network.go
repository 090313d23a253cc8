package doctor

import (
	"fmt"
	"net"
	"net/netip"

	"pgwicket/internal/pgconf"
)

// gateName is the address of the gate, or words for it.
func (b *tcpBackend) gateName() string {
	if b.gate.IsValid() {
		return b.gate.String()
	}
	return "whose address is not known here"
}

// serverName is the address of the server, or its name if that has none.
func (b *tcpBackend) serverName() string {
	if b.server.IsValid() {
		return b.server.String()
	}
	host, _, _ := net.SplitHostPort(b.host.Address)
	return host
}

// setAddress returns the statements that let the server listen where the gate connects to.
func (s *server) setAddress() string {
	fix := "listen_addresses = '" + s.backend.serverName() + "'"
	if !s.byFiles {
		fix = "alter system set " + fix + ";"
	}
	return fix + "\n-- then restart PostgreSQL"
}

// reached reports whether a setting of listen_addresses has the address that the gate connects to. It
// is for files, which may say anything; where it is not known, it has.
func (b *tcpBackend) reached(setting string) bool {
	for _, a := range list(setting) {
		ip, err := netip.ParseAddr(a)
		if a == "localhost" && b.loopback() || err != nil && a != "localhost" || ip == b.server {
			return true
		}
	}
	return !b.server.IsValid()
}

// checkGateAddress checks where the server listens besides the address that the gate uses.
func (s *server) checkGateAddress(setting string) (out []Finding) {
	b := s.backend
	switch {
	case everyAddress(setting):
		return []Finding{finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on every network of its machine (%s), and the gate needs %s", setting, b.serverName()), s.setAddress())}
	case s.byFiles && !b.reached(setting):
		return []Finding{finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on %s, and the gate connects to %s", setting, b.serverName()), s.setAddress())}
	}
	for _, a := range list(setting) {
		if ip, err := netip.ParseAddr(a); err == nil && b.server.IsValid() && ip != b.server && !ip.IsLoopback() {
			out = append(out, finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL also listens on %v, and the gate needs %s only", ip, b.serverName()), s.setAddress()))
		}
	}
	return orPass(out, "PostgreSQL listens on %s, where the gate connects to it", setting)
}

// checkLines finds the lines of pg_hba.conf that let others than the gate in, or the gate
// in clear.
func (b *tcpBackend) checkLines(rules []pgconf.Rule) (out []Finding) {
	for _, r := range rules {
		own := r
		own.Type = "hostssl"
		switch {
		case b.gate.IsValid():
			own.Address = netip.PrefixFrom(b.gate, b.gate.BitLen()).String()
		case !b.isOnly(&r):
			own.Address = "ADDRESS_OF_THE_GATE/32"
		}
		p, err := netip.ParsePrefix(r.Address)
		switch {
		case r.Mistake != "":
			out = append(out, mistaken(r))
		case !r.Remote() || r.Method == "reject":
		case b.isOnly(&r) && r.Type != "host" && r.Type != "hostnossl":
		case b.isOnly(&r):
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" also accepts connections in clear`, publicPart(r)), correct(own)))
		case err == nil && p.IsSingleIP():
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" allows another machine than this gate (%v)`, publicPart(r), b.gate), "remove the line, unless it is for another gate\nselect pg_reload_conf();"))
		case err != nil && r.Address != "all" && r.Address != "samenet":
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" allows what the DNS says, not the address of the gate (%s)`, publicPart(r), b.gateName()), correct(own)))
		default:
			out = append(out, finding(Fail, r.At(), fmt.Sprintf(`"%s" allows other machines than the gate (%s), which bypass it`, publicPart(r), b.gateName()), correct(own)))
		}
	}
	if !b.gate.IsValid() {
		return orPass(out, "no line allows more than one address, or connections in clear; whether it is that of the gate is not known here")
	}
	return orPass(out, "no line allows another machine than the gate (%v), or the gate in clear", b.gate)
}
