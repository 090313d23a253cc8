package chains

import "bytes"

// listForms are lists in other forms than usual, and extensions of lists.
func listForms(k *keys) (cases []Case) {
	t := k.listTrio()
	for name, o := range map[string][]listOption{
		"version 1":                        {listVersion(-1)},
		"version 1 with its number":        {listVersion(0)},
		"version 1 with extensions":        {listVersion(-1), listNumber(1)},
		"version 1 with an entry's":        {listVersion(-1), revokeWith(t.root, reasonCode(1))},
		"version 3":                        {listVersion(2)},
		"version 128":                      {func(s *listSpec) { s.version = 0x7f }},
		"number 0":                         {listNumber(0)},
		"negative number":                  {listNumber(0xff)},
		"number of 20 bytes":               {listNumber(bytes.Repeat([]byte{0x11}, 20)...)},
		"number of 40 bytes":               {listNumber(bytes.Repeat([]byte{0x11}, 40)...)},
		"number with a leading zero":       {listNumber(0, 1)},
		"empty number":                     {listNumber()},
		"broken number":                    {extended(ext("2.5.29.20", false, null))},
		"critical number":                  {extended(ext("2.5.29.20", true, tlv(0x02, []byte{1})))},
		"two numbers":                      {listNumber(1), listNumber(2)},
		"unknown extension":                {extended(ext("1.2.3.4", false, null))},
		"unknown critical extension":       {extended(ext("1.2.3.4", true, null))},
		"critical authority":               {unnamed, extended(ext("2.5.29.35", true, seq(tlv(0x80, k.sub.id))))},
		"critical issuerAltName":           {extended(ext("2.5.29.18", true, seq(uriName("http://x"))))},
		"issuerAltName":                    {extended(ext("2.5.29.18", false, seq(uriName("http://x"))))},
		"AD CS's extensions":               {extended(ext("1.3.6.1.4.1.311.21.1", false, tlv(0x02, []byte{0})), ext("1.3.6.1.4.1.311.21.4", false, text(0x17, "301231000000Z")))},
		"critical authorityInfoAccess":     {extended(ext("1.3.6.1.5.5.7.1.1", true, seq()))},
		"TRUE of 1":                        {extended(seq(oid("1.2.3.4"), tlv(0x01, []byte{1}), tlv(0x04, null)))},
		"FALSE written out":                {extended(seq(oid("1.2.3.4"), tlv(0x01, []byte{0}), tlv(0x04, null)))},
		"two unknown extensions of a kind": {extended(ext("1.2.3.4", false, null), ext("1.2.3.4", false, null))},
		"two authorities":                  {extended(ext("2.5.29.35", false, seq(tlv(0x80, k.sub.id))))},
	} {
		cases = append(cases, t.one(name, o...)...)
	}
	whole := list(t.sub)
	revoking := list(t.sub, revoke(t.end))
	for _, l := range [][]byte{whole, revoking} {
		kind := map[bool]string{true: ", which revokes", false: ""}[&l[0] == &revoking[0]]
		inside := contents(l)
		flipped := bytes.Clone(l)
		flipped[len(flipped)-3] ^= 1
		cases = append(cases,
			t.with("bytes behind the list"+kind, append(bytes.Clone(l), 0, 0)),
			t.with("half a list"+kind, l[:len(l)/2]),
			t.with("indefinite length"+kind, append(append([]byte{0x30, 0x80}, inside...), 0, 0)),
			t.with("length of too many bytes"+kind, append([]byte{0x30, 0x84, 0, 0, byte(len(inside) >> 8), byte(len(inside))}, inside...)),
			t.with("broken signature"+kind, flipped),
			t.with("a certificate in place of the list"+kind, t.sub.der))
	}
	return append(cases, t.with("nothing"))
}

// listRollovers are CAs that have changed their keys (RFC 5280 section 6.3.3 (f)).
func listRollovers(k *keys) []Case {
	root := issue(nil, k.root, rootName, ca)
	before := issue(root, k.sub, subName, ca)
	after := issue(root, k.other, subName, ca)
	link := issue(after, k.sub, subName, ca)        // the old key, signed by the new one
	linkBack := issue(before, k.other, subName, ca) // the new key, signed by the old one
	end := issue(before, k.leaf, leafName, leaf)
	fresh := issue(after, k.leaf, leafName, leaf)
	forLists := issue(root, k.other, subName, with(basic(false), keyUsage(0x02, 1)))
	return []Case{
		chain("new key, list of the old one", fresh, after, root).lists(list(root), list(before)),
		chain("old key, list of the new one", end, before, root).lists(list(root), list(after)),
		chain("old key below the new one, list of the new one", end, link, after, root).lists(list(root), list(after)),
		chain("old key below the new one, list of the new one revokes", end, link, after, root).lists(list(root), list(after, revoke(end))),
		chain("old key below the new one, lists of both", end, link, after, root).lists(list(root), list(after), list(before)),
		chain("old key below the new one, lists of both, the old one revokes", end, link, after, root).lists(list(root), list(after), list(before, revoke(end))),
		chain("old key below the new one, list of the old one", end, link, after, root).lists(list(root), list(before)),
		chain("new key below the old one, list of the old one", fresh, linkBack, before, root).lists(list(root), list(before)),
		chain("new key below the old one, list of the new one", fresh, linkBack, before, root).lists(list(root), list(after)),
		chain("new key below the old one, lists of both", fresh, linkBack, before, root).lists(list(root), list(after), list(before)),
		chain("another certificate for lists, sent", end, before, forLists, root).lists(list(root), list(forLists)),
		chain("another certificate for lists, sent, revokes", end, before, forLists, root).lists(list(root), list(forLists, revoke(end))),
	}
}

// listAnchors are chains that end in a certificate which is not self-signed.
func listAnchors(k *keys) []Case {
	t := k.listTrio()
	upper := issue(t.root, k.other, dn("O=Ours,CN=Upper"), ca)
	lower := issue(upper, k.sub, subName, ca)
	end := issue(lower, k.leaf, leafName, leaf)
	direct := issue(t.root, k.leaf, leafName, leaf)
	return []Case{
		chain("partial: sub-CA with its list", t.end, t.sub).lists(list(t.sub)).partial(),
		chain("partial: sub-CA with its list, which revokes", t.end, t.sub).lists(list(t.sub, revoke(t.end))).partial(),
		chain("partial: sub-CA and root's list", t.end, t.sub).lists(list(t.sub), list(t.root)).partial(),
		chain("partial: sub-CA and root's list, which revokes it", t.end, t.sub).lists(list(t.sub), list(t.root, revoke(t.sub))).partial(),
		chain("partial: sub-CA, its root and both lists", t.end, t.sub).trust(t.root).lists(list(t.sub), list(t.root)).partial(),
		chain("partial: sub-CA, its root and both lists, which revoke it", t.end, t.sub).trust(t.root).lists(list(t.sub), list(t.root, revoke(t.sub))).partial(),
		chain("partial: upper CA with two lists", end, lower, upper).lists(list(lower), list(upper)).partial(),
		chain("partial: upper CA with one list", end, lower, upper).lists(list(lower)).partial(),
		chain("partial: leaf alone", direct, direct).lists(list(t.root)).partial(),
		chain("partial: leaf alone, revoked", direct, direct).lists(list(t.root, revoke(direct))).partial(),
		chain("partial: leaf and its root", direct, direct).trust(t.root).lists(list(t.root)).partial(),
		chain("partial: leaf and its root, revoked", direct, direct).trust(t.root).lists(list(t.root, revoke(direct))).partial(),
	}
}
