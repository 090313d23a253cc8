package doctor

import (
	"fmt"
	"slices"

	"pgwicket/internal/pgconf"
)

// tcp reports whether the server listens on TCP anywhere, and on addresses that are
// not loopback. Where that is not known, it does.
func (s *server) tcp() (anywhere, remote bool) {
	setting, known := s.settings["listen_addresses"]
	if !known {
		return true, true
	}
	for _, a := range list(setting) {
		anywhere = true
		remote = remote || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, a)
	}
	return anywhere, remote
}

// noTCP is the fix of a server whose gate could use its socket.
func (s *server) noTCP() string {
	const fix = "listen_addresses = '' in postgresql.conf, and restart PostgreSQL"
	if s.backend != nil {
		return "name the directory of its Unix socket in backend.host, reload the gate, and then " + fix
	}
	return fix
}

func (s *server) checkListenAddresses() []Finding {
	setting := s.settings["listen_addresses"]
	anywhere, remote := s.tcp()
	switch {
	case !anywhere:
		return []Finding{pass("PostgreSQL listens on no TCP address")}
	case s.alone:
		return s.checkAddressesAlone(setting)
	case s.backend != nil && !s.backend.loopback():
		return s.checkGateAddress(setting)
	case everyAddress(setting):
		return []Finding{finding(Fail, "listen_addresses", fmt.Sprintf("PostgreSQL listens on every network of its machine (%s), so clients can bypass the gate", setting), s.noTCP())}
	case remote:
		return []Finding{finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on %s, where clients may bypass the gate", setting), s.noTCP())}
	}
	return []Finding{finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on %s, where every account of its machine can bypass the gate", setting), s.noTCP())}
}

// checkAddressesAlone is the same for a server without a gate, whose clients need an
// address.
func (s *server) checkAddressesAlone(setting string) []Finding {
	if everyAddress(setting) {
		return []Finding{finding(Warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on every network of its machine (%s)", setting), "name the addresses that clients use: alter system set listen_addresses = '127.0.0.1, ...';\n-- then restart PostgreSQL")}
	}
	return []Finding{pass("PostgreSQL listens on %s only", setting)}
}

func everyAddress(setting string) bool {
	return slices.ContainsFunc(list(setting), func(a string) bool { return slices.Contains([]string{"*", "0.0.0.0", "::"}, a) })
}

func mistaken(r pgconf.Rule) Finding {
	return finding(Warn, r.At(), "PostgreSQL cannot use this line: "+r.Mistake, "correct it: PostgreSQL does not load a file with a mistake")
}

// checkNetwork finds the lines that allow other machines.
func (s *server) checkNetwork() (out []Finding) {
	if s.unknown[hbaRules] != "" {
		return s.skipUnknown(hbaRules)
	}
	if s.alone {
		return s.checkNetworkAlone()
	}
	if s.backend != nil && !s.backend.loopback() {
		return s.backend.checkLines(s.rules)
	}
	_, remote := s.tcp()
	for _, r := range s.rules {
		switch {
		case r.Mistake != "":
			out = append(out, mistaken(r))
		case !r.Remote() || r.Method == "reject":
		case remote:
			out = append(out, finding(Fail, r.At(), fmt.Sprintf(`"%s" allows other machines to bypass the gate`, r), "remove the line, and reload PostgreSQL"))
		default:
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" would allow other machines to bypass the gate if PostgreSQL listened on TCP`, r), "remove the line, and reload PostgreSQL"))
		}
	}
	return orPass(out, "no line allows other machines")
}
