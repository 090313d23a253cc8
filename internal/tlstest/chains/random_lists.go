package chains

import "fmt"

// fault is what may be wrong with a list that revokes a certificate, and which good
// lists may stand beside it so that it still revokes.
type fault struct {
	name   string
	option listOption
	beside besideRule
}

type besideRule int

const (
	anyGood   besideRule = iota
	olderGood            // none that is newer
	noGood
)

// faults are those of a list that revokes n.
func faults(n *node) []fault {
	other := revokeOther
	return []fault{
		{"in date", func(*listSpec) {}, anyGood},
		{"older", older, anyGood},
		{"newer", newer, anyGood},
		{"from the future", early, anyGood},
		{"without next update", func(s *listSpec) { s.next = nil }, anyGood},
		{"without authority", unnamed, anyGood},
		{"version 1", listVersion(-1), anyGood},
		{"of its point", scope(fullName(uriName(partOne))), anyGood}, // which the leaf names
		{"of users", scope(onlyUsers), anyGood},
		{"long", func(s *listSpec) { hundred(s, n) }, anyGood},
		{"of another authority", otherAuthority, anyGood},
		{"of some reasons", scope(keyCompromise), olderGood},
		{"of users and CAs", scope(onlyUsers, onlyCAs), olderGood},
		{"of CAs", scope(onlyCAs), noGood},
		{"of another point", scope(fullName(uriName(partTwo))), noGood},
		{"stale", stale, noGood},
		{"with a critical extension", extended(ext("1.2.3.4", true, null)), olderGood},
		{"with a critical number", extended(ext("2.5.29.20", true, tlv(0x02, []byte{1}))), olderGood},
		{"with a broken number", extended(ext("2.5.29.20", false, null)), olderGood},
		{"with a broken scope", extended(ext("2.5.29.28", true, null)), olderGood},
		{"with a critical extension of an entry", other(ext("1.2.3.4", true, null)), olderGood},
		{"with a broken reason", other(ext("2.5.29.21", false, null)), olderGood},
		{"delta", deltaOf(1), olderGood},
	}
}

// otherAuthority names another key as the list's.
func otherAuthority(s *listSpec) {
	s.noAKI = true
	s.extensions = append(s.extensions, ext("2.5.29.35", false, seq(tlv(0x80, []byte("other")))))
}

// revokeOther adds an entry for another certificate.
func revokeOther(extensions ...[]byte) listOption {
	return listed(entry(tlv(0x02, []byte{0x55}), extensions...))
}

// Revoked makes a chain whose leaf is revoked by a list that the key of its issuer
// has signed, whatever else is wrong with that list, with the CA and with the other
// lists. No option may admit the leaf.
func (g *Random) Revoked() Case {
	g.n++
	r, k := g.r, g.keys
	name := func() []byte { return pick(r, subName, dn("O=OURS,CN=sub")) }
	usual := pick(r, option(ca), with(basic(true), keyUsage(0x04, 2))) // without cRLSign
	root := issue(nil, k.root, rootName, ca)
	sub := issue(root, k.sub, name(), usual)
	signer, nodes := sub, []*node{sub, root}
	if r.IntN(4) == 0 { // the CA has changed its key, and has signed the list with either
		after := issue(root, k.other, name(), ca)
		sub = issue(after, k.sub, name(), usual)
		nodes = []*node{sub, after, root}
		signer = pick(r, sub, after)
	}
	end := issue(sub, pick(r, k.leaf, k.rsaLeaf), leafName, leaf, issuedBy(name()), points(point(fullName(uriName(partOne)))),
		pick(r, none, serial(0x85), serial(0), serial([]byte("s of 31 bytes, which is too long")...)))
	all := faults(end)
	f := all[r.IntN(len(all))]
	c := chain(fmt.Sprintf("revoked %d by a list %s", g.n, f.name), append([]*node{end}, nodes...)...)
	c.Lists = append(c.Lists, list(signer, revoke(end), listIssuer(name()), f.option))
	g.addLists(&c, f.beside, sub, root)
	r.Shuffle(len(c.Lists), func(i, j int) { c.Lists[i], c.Lists[j] = c.Lists[j], c.Lists[i] })
	if r.IntN(3) == 0 {
		c.CA, c.Sent = append(c.CA, c.Sent...), nil
	}
	c.Partial = signer == sub && r.IntN(4) == 0
	c.Level = DefaultLevel
	return c
}

// addLists adds lists that do not revoke the leaf.
func (g *Random) addLists(c *Case, rule besideRule, sub, root *node) {
	r := g.r
	inDate := func(*listSpec) {}
	add := func(by *node, options ...listOption) { c.Lists = append(c.Lists, list(by, options...)) }
	if r.IntN(4) > 0 {
		add(root, pick(r, inDate, stale, early, older))
	}
	switch r.IntN(3) {
	case 0:
		add(issue(nil, g.keys.p384, sub.name, ca), newer) // a stranger of that name
	case 1:
		add(sub, extended(ext("1.2.3.4", true, null)), dated(-3*day, 9*day))
	}
	if r.IntN(2) == 0 {
		return
	}
	switch rule {
	case anyGood:
		add(sub, pick(r, inDate, newer, older, stale))
	case olderGood:
		add(sub, pick(r, older, stale))
	case noGood: // nor a stale one, which crl_grace makes a good one
	}
}
