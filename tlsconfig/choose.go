package tlsconfig

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// readVersions returns the range of protocol versions; ok is false if there is a mistake.
func readVersions(o Options, r *report) (v versions, ok bool) {
	v, ok = versions{tls.VersionTLS12, tls.VersionTLS13}, true
	for _, b := range []struct {
		key, name string
		bound     *uint16
	}{{"min_protocol_version", o.MinProtocolVersion, &v.min}, {"max_protocol_version", o.MaxProtocolVersion, &v.max}} {
		if b.name == "" {
			continue
		}
		version, known := findVersion(b.name)
		if !known {
			r.errorf(b.key, "%s", explainVersion(b.name))
			ok = false
			continue
		}
		*b.bound = version
	}
	switch {
	case !ok:
	case v.min > v.max && o.MinProtocolVersion == "":
		r.errorf("max_protocol_version", "%s is below the default of min_protocol_version, %s: set min_protocol_version too", versionName(v.max), versionName(v.min))
		return v, false
	case v.min > v.max:
		r.errorf("min_protocol_version", "%s is above max_protocol_version, %s: no client could connect", versionName(v.min), versionName(v.max))
		return v, false
	case v.min < tls.VersionTLS12:
		r.warnf("min_protocol_version", "%s is deprecated (RFC 8996): set TLSv1.2 unless an old client needs it", versionName(v.min))
	}
	return v, ok
}

// readSuites returns the suites of the list, or the default ones; ok is false if a name is wrong.
func readSuites(names []string, r *report) (chosen []suite, ok bool) {
	if len(names) == 0 {
		return defaultSuites, true
	}
	ok = true
	for i, name := range names {
		key := fmt.Sprintf("ciphers[%d]", i)
		s, known := findSuite(name)
		switch {
		case !known:
			r.errorf(key, "%s", explainSuite(name))
			ok = false
			continue
		case slices.Contains(chosen, s):
			r.warnf(key, "%s is in the list twice: remove one", s.openssl)
			continue
		case s.weakness() != "":
			r.warnf(key, "%s is weak: %s", s.openssl, s.weakness())
		}
		chosen = append(chosen, s)
	}
	return chosen, ok
}

// checkSuites compares the suites with the protocol versions: each suite needs a version and each version a suite, since
// no suite outside of the list is negotiated.
func checkSuites(o Options, chosen []suite, v versions, r *report) {
	for i, name := range o.Ciphers {
		if s, _ := findSuite(name); !s.versions().overlaps(v) {
			r.errorf(fmt.Sprintf("ciphers[%d]", i), "%s works with %v only, and the gate offers %v: remove it or change the versions",
				s.openssl, s.versions(), v)
		}
	}
	serves := func(w versions) bool {
		return slices.ContainsFunc(chosen, func(s suite) bool { return s.versions().overlaps(w) })
	}
	legacy := versions{v.min, min(v.max, tls.VersionTLS12)}
	switch {
	case v.contains(tls.VersionTLS13) && !serves(versions{tls.VersionTLS13, tls.VersionTLS13}):
		r.errorf("ciphers", "has no suite of TLSv1.3: add TLS_AES_256_GCM_SHA384, or set max_protocol_version: TLSv1.2")
	case legacy.max < tls.VersionTLS12 && !serves(legacy):
		r.errorf("ciphers", "has no suite that works with %v: add ECDHE-RSA-AES128-SHA (or ECDHE-ECDSA-AES128-SHA), or raise max_protocol_version", legacy)
	case legacy.min <= legacy.max && !serves(legacy):
		r.errorf("ciphers", "has no suite of TLSv1.2: add ECDHE-RSA-AES256-GCM-SHA384 and ECDHE-ECDSA-AES256-GCM-SHA384, or set min_protocol_version: TLSv1.3")
	case v.min < tls.VersionTLS12 && !serves(versions{v.min, tls.VersionTLS11}):
		r.warnf("min_protocol_version", "%s has no effect, no suite of ciphers works below TLSv1.2: set TLSv1.2", versionName(v.min))
	}
}

// checkKeys reports keys that no suite can use. This is about TLS 1.2 and below: the suites of TLS 1.3 work with any key.
func checkKeys(chosen []suite, v versions, infos []CertificateInfo, r *report) {
	legacy := slices.DeleteFunc(slices.Clone(chosen), func(s suite) bool { return s.is13() || !s.versions().overlaps(v) })
	if len(legacy) == 0 || len(infos) == 0 {
		return
	}
	var idle []CertificateInfo
	for _, c := range infos {
		isRSA := strings.HasPrefix(c.Key, "RSA")
		if !slices.ContainsFunc(legacy, func(s suite) bool { return s.needsECDSA() != isRSA }) {
			idle = append(idle, c)
		}
	}
	for _, c := range idle {
		if len(idle) < len(infos) {
			r.warnf("ciphers", "no suite below TLSv1.3 works with the %s key of %q: clients of those versions never get that certificate", c.Key, c.File)
			continue
		}
		family := "ECDHE-ECDSA"
		if strings.HasPrefix(c.Key, "RSA") {
			family = "ECDHE-RSA"
		}
		r.errorf("ciphers", "no suite below TLSv1.3 works with the %s key of %q: add %s-AES256-GCM-SHA384, or set min_protocol_version: TLSv1.3", c.Key, c.File, family)
	}
}

// readGroups returns the key exchanges of the list, or all; ok is false if a name is wrong.
func readGroups(names []string, r *report) (chosen []group, ok bool) {
	if len(names) == 0 {
		return groups, true
	}
	ok = true
	for i, name := range names {
		key := fmt.Sprintf("groups[%d]", i)
		g, known := findGroup(name)
		switch {
		case !known:
			r.errorf(key, "%s", explainGroup(name))
			ok = false
		case slices.ContainsFunc(chosen, func(c group) bool { return c.id == g.id }):
			r.warnf(key, "%s is in the list twice: remove one", g.names[0])
		default:
			chosen = append(chosen, g)
		}
	}
	return chosen, ok
}

// checkGroups reports groups that leave none for TLS 1.2.
func checkGroups(chosen []group, v versions, r *report) {
	if v.min < tls.VersionTLS13 && !slices.ContainsFunc(chosen, func(g group) bool { return !g.only13() }) {
		r.errorf("groups", "has only groups with ML-KEM, which TLSv1.2 does not have: add X25519, or set min_protocol_version: TLSv1.3")
	}
}
