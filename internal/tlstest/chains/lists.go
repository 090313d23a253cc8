package chains

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Lists makes the cases with revocation lists: a client's certificate, and lists
// for every certificate of its chain but where the case is that one is missing.
func Lists(dir string) ([]Case, error) {
	k, err := makeKeys(dir)
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, group := range []func(*keys) []Case{
		presence, listDates, severalLists, listSigners, listNames, listScopes, listPoints, listPartitions,
		listDeltas, listEntries, listForms, listSignatures, listRollovers, listAnchors,
	} {
		all = append(all, group(k)...)
	}
	slices.SortFunc(all, func(a, b Case) int { return strings.Compare(a.Name, b.Name) }) // many are made in no order
	known := 0
	for i := range all {
		c := &all[i]
		c.Stricter, c.Laxer, c.Level = stricterLists[c.Name], laxerLists[c.Name], DefaultLevel
		if c.Stricter != "" || c.Laxer != "" {
			known++
		}
		if i > 0 && all[i-1].Name == c.Name {
			return nil, fmt.Errorf("two cases are called %q", c.Name)
		}
	}
	if known != len(stricterLists)+len(laxerLists) {
		return nil, errors.New("a difference has no case")
	}
	return all, nil
}

// lists adds revocation lists to a case.
func (c Case) lists(lists ...[]byte) Case { c.Lists = lists; return c }

// trioOf is a chain whose sub-CA and leaf have been made with options.
type trioOf struct {
	k              *keys
	root, sub, end *node
}

func (k *keys) listTrio(options ...option) trioOf {
	root, sub, _ := k.trio()
	return trioOf{k, root, sub, issue(sub, k.leaf, leafName, append([]option{leaf}, options...)...)}
}

// with is the case of these lists beside the root's.
func (t trioOf) with(name string, lists ...[]byte) Case {
	return chain(name, t.end, t.sub, t.root).lists(append([][]byte{list(t.root)}, lists...)...)
}

// one is the case of one list of the sub-CA, and of one that also revokes the leaf.
func (t trioOf) one(name string, options ...listOption) []Case {
	return []Case{
		t.with(name, list(t.sub, options...)),
		t.with(name+", which revokes", list(t.sub, append(options, revoke(t.end))...)),
	}
}

func presence(k *keys) []Case {
	t := k.listTrio()
	pinned := issue(nil, k.leaf, leafName, leaf)
	pinnedCA := issue(nil, k.leaf, leafName, ca)
	noUsage := issue(t.root, k.sub, subName, with(basic(true)))
	below := issue(noUsage, k.leaf, leafName, leaf)
	noSign := issue(t.root, k.sub, subName, with(basic(true), keyUsage(0x04, 2)))
	belowNoSign := issue(noSign, k.leaf, leafName, leaf)
	rootNoSign := issue(nil, k.root, rootName, with(basic(true), keyUsage(0x04, 2)))
	direct := issue(rootNoSign, k.leaf, leafName, leaf)
	oldRoot := issue(nil, k.root, rootName, plain, version(-1))
	ofOldRoot := issue(oldRoot, k.leaf, leafName, leaf)
	usual := func(name string, lists ...[]byte) Case { return chain(name, t.end, t.sub, t.root).lists(lists...) }
	return []Case{
		usual("of both", list(t.root), list(t.sub)),
		usual("leaf revoked", list(t.root), list(t.sub, revoke(t.end))),
		usual("sub-CA revoked", list(t.root, revoke(t.sub)), list(t.sub)),
		usual("root revoked by itself", list(t.root, revoke(t.root)), list(t.sub)),
		usual("sub-CA in the trusted file", list(t.root), list(t.sub)).trust(t.sub),
		usual("sub-CA in the trusted file, revoked", list(t.root, revoke(t.sub)), list(t.sub)).trust(t.sub),
		usual("none of the sub-CA", list(t.root)),
		usual("none of the root", list(t.sub)),
		usual("none of the root, leaf revoked", list(t.sub, revoke(t.end))),
		usual("of the sub-CA twice", list(t.root), list(t.sub), list(t.sub)),
		usual("of a stranger alone", list(issue(nil, k.other, dn("CN=Stranger"), ca))),
		chain("CA without keyUsage", below, noUsage, t.root).lists(list(t.root), list(noUsage)),
		chain("CA without cRLSign", belowNoSign, noSign, t.root).lists(list(t.root), list(noSign)),
		chain("CA without cRLSign, leaf revoked", belowNoSign, noSign, t.root).lists(list(t.root), list(noSign, revoke(belowNoSign))),
		chain("root without cRLSign", direct, rootNoSign).lists(list(rootNoSign)),
		chain("root of version 1", ofOldRoot, oldRoot).lists(list(oldRoot)),
		chain("root of version 1, leaf revoked", ofOldRoot, oldRoot).lists(list(oldRoot, revoke(ofOldRoot))),
		chain("pinned leaf without one", pinned, pinned).lists(list(t.root)),
		chain("pinned leaf with its own", pinned, pinned).lists(list(pinned)),
		chain("pinned leaf that is a CA with its own", pinnedCA, pinnedCA).lists(list(pinnedCA)),
		chain("pinned leaf that revokes itself", pinnedCA, pinnedCA).lists(list(pinnedCA, revoke(pinnedCA))),
	}
}

func listDates(k *keys) (cases []Case) {
	t := k.listTrio()
	now := time.Now()
	for name, o := range map[string]listOption{
		"past its next update":        stale,
		"from the future":             early,
		"without next update":         func(s *listSpec) { s.next = nil },
		"next update before this one": dated(-time.Hour, -2*time.Hour),
		"as GeneralizedTime":          between(text(0x18, now.Add(-time.Hour).UTC().Format("20060102150405Z")), text(0x18, now.Add(day).UTC().Format("20060102150405Z"))),
		"in the year 2050":            dated(-time.Hour, 24*365*30*time.Hour),
		"in the year 9999":            between(date(now.Add(-time.Hour)), text(0x18, "99991231235959Z")),
		"without seconds":             between(text(0x17, now.Add(-day).UTC().Format("0601021504Z")), date(now.Add(day))),
		"with a zone":                 between(text(0x17, now.Add(-day).UTC().Format("060102150405+0000")), date(now.Add(day))),
		"with a fraction":             between(text(0x18, now.Add(-day).UTC().Format("20060102150405.5Z")), date(now.Add(day))),
		"that is no date":             between(text(0x17, "x"), date(now.Add(day))),
		"whose next is no date":       between(date(now.Add(-day)), text(0x17, "991332000000Z")),
		"that is an integer":          between(tlv(0x02, []byte{1}), date(now.Add(day))),
	} {
		cases = append(cases, t.one(name, o)...)
	}
	return append(cases,
		chain("root's past its next update", t.end, t.sub, t.root).lists(list(t.root, stale), list(t.sub)),
		chain("root's past its next update, which revokes", t.end, t.sub, t.root).lists(list(t.root, stale, revoke(t.sub)), list(t.sub)),
		chain("root's from the future", t.end, t.sub, t.root).lists(list(t.root, early), list(t.sub)))
}

func severalLists(k *keys) (cases []Case) {
	t := k.listTrio()
	sub := func(o ...listOption) []byte { return list(t.sub, o...) }
	revoked := revoke(t.end)
	cases = []Case{
		t.with("stale and fresh", sub(stale), sub()),
		t.with("stale that revokes and fresh", sub(stale, revoked), sub()),
		t.with("stale and fresh that revokes", sub(stale), sub(revoked)),
		t.with("early and fresh", sub(early), sub()),
		t.with("early that revokes and fresh", sub(early, revoked), sub()),
		t.with("early and fresh that revokes", sub(early), sub(revoked)),
		t.with("stale and early", sub(stale), sub(early)),
		t.with("older and newer", sub(older), sub(newer)),
		t.with("older that revokes and newer", sub(older, revoked), sub(newer)),
		t.with("older and newer that revokes", sub(older), sub(newer, revoked)),
		t.with("newer that revokes and older", sub(newer, revoked), sub(older)),
		t.with("two halves, the second revokes", sub(revoke(t.root)), sub(revoked)),
	}
	// One of two cannot be used. OpenSSL takes the newest alone.
	for name, bad := range map[string][]listOption{
		"with an unknown critical extension":           {extended(ext("1.2.3.4", true, null))},
		"with an entry of an unknown critical one":     {revokeWith(t.sub, ext("1.2.3.4", true, null))},
		"by another key":                               {signedBy(k.other)},
		"by another key, without authority":            {signedBy(k.other), unnamed},
		"of some reasons":                              {scope(keyCompromise)},
		"that is indirect":                             {scope(indirect)},
		"of attribute certificates":                    {scope(onlyAttributes)},
		"of users and CAs":                             {scope(onlyUsers, onlyCAs)},
		"of another point":                             {scope(fullName(uriName("http://other.example/")))},
		"of CAs alone":                                 {scope(onlyCAs)},
		"with a broken scope":                          {extended(ext("2.5.29.28", true, null))},
		"with a broken number":                         {extended(ext("2.5.29.20", false, null))},
		"with a signature algorithm that is not known": {func(s *listSpec) { s.inner = seq(oid("1.2.3.4")) }},
	} {
		for when, o := range map[string]listOption{"an older one ": older, "a newer one ": newer} {
			cases = append(cases,
				t.with(when+name+" beside a good one", sub(append(bad, o)...), sub()),
				t.with(when+name+" that revokes beside a good one", sub(append(bad, o, revoked)...), sub()),
				t.with(when+name+" beside a good one that revokes", sub(append(bad, o)...), sub(revoked)))
		}
	}
	return cases
}

func listSigners(k *keys) (cases []Case) {
	t := k.listTrio()
	akid := func(parts ...[]byte) listOption {
		return func(s *listSpec) {
			s.noAKI = true
			s.extensions = append(s.extensions, ext("2.5.29.35", false, seq(parts...)))
		}
	}
	for name, o := range map[string][]listOption{
		"by another key":                           {signedBy(k.other)},
		"by another key without authority":         {signedBy(k.other), unnamed},
		"without authority":                        {unnamed},
		"with another key identifier":              {akid(tlv(0x80, []byte("other")))},
		"with an empty authority":                  {akid()},
		"with the issuer's issuer and serial":      {akid(tlv(0xa1, dirName(rootName)), tlv(0x82, t.sub.serialNumber()))},
		"with another serial":                      {akid(tlv(0xa1, dirName(rootName)), tlv(0x82, []byte{9}))},
		"with another issuer":                      {akid(tlv(0xa1, dirName(dn("CN=Other"))), tlv(0x82, t.sub.serialNumber()))},
		"with a broken authority":                  {func(s *listSpec) { s.noAKI = true }, extended(ext("2.5.29.35", false, null))},
		"by the root for the sub-CA":               {signedBy(k.root)},
		"by the leaf for the sub-CA":               {signedBy(k.leaf), unnamed},
		"of the root's name by the sub-CA":         {listIssuer(rootName)},
		"of another name":                          {listIssuer(dn("CN=Other"))},
		"of an empty name":                         {listIssuer(seq())},
		"whose authority names a uniform resource": {akid(tlv(0xa1, uriName("http://x")), tlv(0x82, t.sub.serialNumber()))},
	} {
		cases = append(cases, t.one(name, o...)...)
	}
	// Two CAs of one name, each with its list.
	twin := issue(nil, k.other, rootName, ca)
	direct := issue(t.root, k.leaf, leafName, leaf)
	of := func(name string, lists ...[]byte) Case {
		return chain(name, direct, t.root).trust(twin).lists(lists...)
	}
	return append(cases,
		of("twin CAs, both", list(t.root), list(twin)),
		of("twin CAs, the other's is newer", list(t.root), list(twin, newer)),
		of("twin CAs, the other's revokes", list(t.root), list(twin, newer, revoke(direct))),
		of("twin CAs, the other's is missing", list(t.root)),
		of("twin CAs, its own is missing", list(twin)),
		of("twin CAs, its own is missing and the other's revokes", list(twin, revoke(direct))))
}

// listNames are lists whose issuer is in another encoding.
func listNames(k *keys) (cases []Case) {
	root := issue(nil, k.root, rootName, ca)
	for name, issuer := range map[string][]byte{
		"PrintableString": seq(set(attribute(organization, printable, "Ours")), set(attribute(commonName, printable, "Sub"))),
		"case":            dn("O=OURS,CN=sub"),
		"spaces":          dn("O= Ours ,CN=Sub  "),
		"T61String":       seq(set(attribute(organization, t61, "Ours")), set(attribute(commonName, t61, "Sub"))),
		"BMPString":       seq(set(attribute(organization, bmp, wide("Ours", 2))), set(attribute(commonName, utf8String, "Sub"))),
		"other order":     dn("CN=Sub,O=Ours"),
		"one part less":   dn("CN=Sub"),
	} {
		sub := issue(root, k.sub, subName, ca)
		end := issue(sub, k.leaf, leafName, leaf)
		t := trioOf{k, root, sub, end}
		cases = append(cases, t.one("issuer in "+name, listIssuer(issuer))...)
		// And all three differ: the CA's subject, the leaf's issuer, the list's.
		upper := issue(root, k.sub, dn("O=OURS,CN=SUB"), ca)
		t = trioOf{k, root, upper, issue(upper, k.leaf, leafName, leaf, issuedBy(subName))}
		cases = append(cases, t.one("issuer in "+name+", the CA's in capitals", listIssuer(issuer))...)
	}
	return cases
}

func listEntries(k *keys) (cases []Case) {
	t := k.listTrio()
	other := tlv(0x02, []byte{0x55})
	for name, o := range map[string]listOption{
		"empty revokedCertificates":         func(s *listSpec) { s.empty = true },
		"removeFromCRL":                     revokeWith(t.end, reasonCode(8)),
		"certificateHold":                   revokeWith(t.end, reasonCode(6)),
		"reason 7":                          revokeWith(t.end, reasonCode(7)),
		"reason 99":                         revokeWith(t.end, reasonCode(99)),
		"broken reason":                     revokeWith(t.end, ext("2.5.29.21", false, null)),
		"broken reason of another":          revokeWith(t.root, ext("2.5.29.21", false, null)),
		"two reasons":                       revokeWith(t.end, reasonCode(1), reasonCode(8)),
		"reason as INTEGER":                 revokeWith(t.end, ext("2.5.29.21", false, tlv(0x02, []byte{1}))),
		"unknown extension of an entry":     revokeWith(t.root, ext("1.2.3.4", false, null)),
		"critical extension of an entry":    revokeWith(t.root, ext("1.2.3.4", true, null)),
		"critical extension of its entry":   revokeWith(t.end, ext("1.2.3.4", true, null)),
		"critical reason":                   revokeWith(t.root, ext("2.5.29.21", true, tlv(0x0a, []byte{1}))),
		"invalidityDate":                    revokeWith(t.end, ext("2.5.29.24", false, text(0x18, "20200101000000Z"))),
		"critical invalidityDate":           revokeWith(t.root, ext("2.5.29.24", true, text(0x18, "20200101000000Z"))),
		"certificateIssuer":                 revokeWith(t.end, ext("2.5.29.29", true, seq(dirName(dn("CN=Other"))))),
		"certificateIssuer of itself":       revokeWith(t.end, ext("2.5.29.29", true, seq(dirName(subName)))),
		"certificateIssuer of another":      revokeWith(t.root, ext("2.5.29.29", true, seq(dirName(dn("CN=Other"))))),
		"serial with a leading zero":        listed(entry(tlv(0x02, append([]byte{0}, t.end.serialNumber()...)))),
		"negative serial":                   listed(entry(tlv(0x02, []byte{0x85}))),
		"serial 0":                          listed(entry(tlv(0x02, []byte{0}))),
		"empty serial":                      listed(entry(tlv(0x02))),
		"serial of 32 bytes":                listed(entry(tlv(0x02, []byte(strings.Repeat("x", 32))))),
		"serial twice, removed first":       listed(entry(tlv(0x02, t.end.serialNumber()), reasonCode(8)), entry(tlv(0x02, t.end.serialNumber()))),
		"serial twice, removed second":      listed(entry(tlv(0x02, t.end.serialNumber())), entry(tlv(0x02, t.end.serialNumber()), reasonCode(8))),
		"revoked in the future":             listed(seq(tlv(0x02, t.end.serialNumber()), date(time.Now().Add(day)))),
		"revoked at no date":                listed(seq(other, text(0x17, "x"))),
		"revoked at a date of another type": listed(seq(other, tlv(0x02, []byte{1}))),
		"entry without a date":              listed(seq(other)),
		"entry with too much":               listed(seq(other, date(time.Now()), seq(), null)),
		"entry with empty extensions":       listed(seq(other, date(time.Now()), seq())),
		"a hundred entries":                 func(s *listSpec) { hundred(s, t.end) },
	} {
		cases = append(cases, t.with(name, list(t.sub, o)))
	}
	for _, serial := range [][]byte{{0x80}, {0xff, 0x7f}, {0}, []byte(strings.Repeat("\x7f", 32)), {0, 0x80}} {
		end := issue(t.sub, k.leaf, leafName, leaf, func(s *spec) { s.serial = serial })
		t := trioOf{k, t.root, t.sub, end}
		cases = append(cases, t.one("serial number "+hexOf(serial))...)
	}
	return cases
}

func hundred(s *listSpec, n *node) {
	for i := range 100 {
		s.entries = append(s.entries, entry(tlv(0x02, []byte{0x30, byte(i)}), reasonCode(1)))
	}
	revoke(n)(s)
}

func listSignatures(k *keys) (cases []Case) {
	t := k.listTrio()
	wrong := k.sub.algorithm(crypto.SHA384)
	for name, o := range map[string]listOption{
		"SHA-1":                            hashed(crypto.SHA1),
		"SHA-224":                          hashed(crypto.SHA224),
		"SHA-384":                          hashed(crypto.SHA384),
		"SHA-512":                          hashed(crypto.SHA512),
		"another algorithm outside":        func(s *listSpec) { s.outer = wrong },
		"another algorithm inside":         func(s *listSpec) { s.inner, s.outer = wrong, s.key.algorithm(crypto.SHA256) },
		"another algorithm on both sides":  func(s *listSpec) { s.inner = wrong },
		"unknown algorithm":                func(s *listSpec) { s.inner = seq(oid("1.2.3.4")) },
		"NULL where ECDSA has none":        func(s *listSpec) { s.inner = seq(oid("1.2.840.10045.4.3.2"), null) },
		"unused bits of the signature":     func(s *listSpec) { s.unused = 1 },
		"algorithm of a key of other kind": func(s *listSpec) { s.inner = seq(oid("1.2.840.113549.1.1.11"), null) },
	} {
		cases = append(cases, t.one("signature: "+name, o)...)
	}
	for name, key := range map[string]*key{"RSA": k.rsa, "P-384": k.p384, "P-521": k.p521, "P-224": k.p224, "Ed25519": k.ed25519, "RSA with exponent 3": k.rsa3} {
		sub := issue(t.root, key, subName, ca)
		cases = append(cases, trioOf{k, t.root, sub, issue(sub, k.leaf, leafName, leaf)}.one("signature by "+name)...)
	}
	return cases
}
