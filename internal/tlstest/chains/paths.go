package chains

import (
	"bytes"
	"crypto"
	"strconv"
	"time"
)

var (
	rootName = dn("O=Ours,CN=Root")
	subName  = dn("O=Ours,CN=Sub")
	leafName = dn("O=Ours,CN=app_user")
)

// trio is the usual chain.
func (k *keys) trio() (root, sub, end *node) {
	root = issue(nil, k.root, rootName, ca)
	sub = issue(root, k.sub, subName, ca)
	return root, sub, issue(sub, k.leaf, leafName, leaf)
}

// paths are chains of every shape, complete and not.
func paths(k *keys) []Case {
	root, sub, end := k.trio()
	direct := issue(root, k.leaf, leafName, leaf)
	stranger := issue(nil, k.other, rootName, ca)
	self := issue(nil, k.leaf, leafName, leaf)
	selfCA := issue(nil, k.leaf, leafName, ca)
	cases := []Case{
		chain("leaf of the root", direct, root),
		chain("leaf of a sub-CA", end, sub, root),
		chain("sub-CA in the trusted file", end, root).trust(sub),
		chain("sub-CA neither sent nor trusted", end, root),
		chain("sub-CA alone in the trusted file", end, sub),
		chain("sub-CA alone and partial chain", end, sub).partial(),
		chain("leaf itself in the trusted file", direct, direct),
		chain("leaf itself and partial chain", direct, direct).partial(),
		chain("leaf itself and partial chain beside its root", direct, root).trust(direct).partial(),
		chain("root and sub-CA with partial chain", end, sub, root).partial(),
		chain("sub-CA trusted, root sent, no partial chain", end, root, sub),
		chain("another root of the same name and other key identifier", direct, stranger),
		chain("pinned self-signed leaf", self, self),
		chain("pinned self-signed leaf that is a CA", selfCA, selfCA),
		chain("self-signed leaf that is not trusted", self, root),
		chain("self-signed leaf of a trusted name", issue(nil, k.other, rootName, leaf), root),
		chain("root sent as well", end, sub, root, root),
		chain("leaf sent twice", end, end, sub, root),
		chain("sub-CA sent twice", end, sub, sub, root),
		chain("sent in the wrong order", end, root, sub, root),
		chain("the root as leaf", root, root),
		chain("the root as leaf of a server", root, root).server(),
		chain("root of an empty name", issue(issue(nil, k.root, seq(), ca), k.leaf, leafName, leaf), issue(nil, k.root, seq(), ca)),
		chain("leaf of an empty name", issue(root, k.leaf, seq(), leaf), root),
		chain("self-signed leaf of an empty name", issue(nil, k.leaf, seq(), leaf), root),
		chain("21 surplus certificates", append([]*node{end}, k.surplus(sub, root)...)...),
	}
	deep := []*node{root}
	for i := range 8 {
		key := k.sub
		if i%2 == 1 {
			key = k.other
		}
		deep = append([]*node{issue(deep[0], key, dn("CN=Sub "+strconv.Itoa(i)), ca)}, deep...)
	}
	end = issue(deep[0], k.leaf, leafName, leaf)
	cases = append(cases, chain("eight sub-CAs", append([]*node{end}, deep...)...))
	forged := issue(issue(root, k.sub, subName, ca), k.leaf, leafName, leaf)
	forged.der[len(forged.der)-5] ^= 0x40
	return append(cases, chain("leaf with a broken signature", forged, sub, root))
}

func (k *keys) surplus(sub, root *node) []*node {
	list := []*node{sub}
	for i := range 21 {
		list = append(list, issue(nil, k.other, dn("CN=Surplus "+strconv.Itoa(i)), ca))
	}
	return append(list, root)
}

// pinned are leaves that are in the trusted file, with partial chains.
func pinned(k *keys) (cases []Case) {
	root, sub, _ := k.trio()
	weakSub, expiredSub := issue(root, k.rsa1024, subName, ca), issue(root, k.sub, subName, ca, expired)
	for name, l := range map[string]*node{
		"usual":                   issue(sub, k.leaf, leafName, leaf),
		"expired":                 issue(sub, k.leaf, leafName, leaf, expired),
		"from the future":         issue(sub, k.leaf, leafName, leaf, future),
		"for servers":             issue(sub, k.leaf, leafName, with(usage(serverAuth))),
		"of a weak CA":            issue(weakSub, k.leaf, leafName, leaf),
		"with a weak key":         issue(sub, k.rsa1024, leafName, leaf),
		"signed with SHA-1":       issue(sub, k.leaf, leafName, leaf, digest(crypto.SHA1)),
		"with a critical unknown": issue(sub, k.leaf, leafName, leaf, with(ext("1.2.3.4", true, null))),
		"self-signed":             issue(nil, k.leaf, leafName, leaf),
		"self-signed and expired": issue(nil, k.leaf, leafName, leaf, expired),
		"of version 1":            issue(sub, k.leaf, leafName, plain, version(-1)),
	} {
		forged := &node{bytes.Clone(l.der), l.name, l.key}
		forged.der[len(forged.der)-5] ^= 0x40
		again := issue(sub, k.leaf, leafName, leaf)
		cases = append(cases,
			chain("pinned leaf "+name, l, l).partial(),
			chain("pinned leaf "+name+", without partial chains", l, l),
			chain("pinned leaf "+name+", its CA sent", l, sub, l).partial(),
			chain("pinned leaf "+name+", its CA sent and the root trusted", l, sub, l).trust(root).partial(),
			chain("pinned leaf "+name+", its CA trusted", l, l).trust(sub).partial(),
			chain("pinned leaf "+name+", to a server", l, l).server().partial(),
			chain("pinned leaf "+name+", with a broken signature", forged, forged).partial(),
			chain("pinned leaf "+name+", another signature is pinned", l, forged).partial(),
			chain("pinned leaf "+name+", another of its name and key is pinned", l, again).partial(),
			chain("pinned leaf "+name+", with a broken signature and its CA sent", forged, sub, forged).partial(),
			chain("pinned leaf "+name+", its expired CA sent", l, expiredSub, l).partial(),
			chain("pinned leaf "+name+", its CA and a stranger sent", l, sub, issue(nil, k.other, rootName, ca), l).partial(),
		)
	}
	broken := issue(sub, k.leaf, leafName, leaf, with(ext("2.5.29.17", false, null)))
	return append(cases, chain("pinned leaf with a broken extension", broken, broken).partial().stricter("libssl does not load such a leaf"))
}

// searches have more than one candidate for an issuer.
func searches(k *keys) []Case {
	root, sub, end := k.trio()
	oldRoot := issue(nil, k.other, dn("CN=Old Root"), ca)
	cross := issue(oldRoot, k.root, rootName, ca)
	expiredSub := issue(root, k.sub, subName, ca, expired)
	futureSub := issue(root, k.sub, subName, ca, future)
	plainRoot, plainOther := issue(nil, k.root, rootName, ca, plain), issue(nil, k.other, rootName, ca, plain)
	plainLeaf := issue(plainRoot, k.leaf, leafName, leaf, plain)
	renewed, expiredRoot := issue(nil, k.root, rootName, ca), issue(nil, k.root, rootName, ca, expired)
	direct := issue(renewed, k.leaf, leafName, leaf)
	newWithOld := issue(root, k.other, rootName, ca)
	newRoot := issue(nil, k.other, rootName, ca)
	constrained := issue(root, k.sub, subName, ca, with(permit(dirName(dn("O=Partner")))))
	cases := []Case{
		chain("expired sub-CA before a good one", end, expiredSub, sub, root),
		chain("good sub-CA before an expired one", end, sub, expiredSub, root),
		chain("sub-CA from the future before a good one", end, futureSub, sub, root),
		chain("expired sub-CA in the trusted file and a good one sent", end, sub, root).trust(expiredSub),
		chain("expired root before the renewed one", direct, expiredRoot).trust(renewed),
		chain("renewed root before the expired one", direct, renewed).trust(expiredRoot),
		chain("two roots of one name without key identifiers, right one first", plainLeaf, plainRoot).trust(plainOther),
		chain("two roots of one name without key identifiers, right one last", plainLeaf, plainOther).trust(plainRoot),
		chain("cross-certificate sent", direct, cross, oldRoot),
		chain("cross-certificate sent, own root trusted", direct, cross, root),
		chain("both roots and the cross-certificate trusted", direct, oldRoot).trust(cross, root),
		chain("own root before the cross-certificate without its root", direct, root).trust(cross),
		chain("cross-certificate without its root before the own root", direct, cross).trust(root),
		chain("link certificate of the new key, old root", issue(newRoot, k.leaf, leafName, leaf), newWithOld, root),
		chain("link certificate of the new key, both roots", issue(newRoot, k.leaf, leafName, leaf), newWithOld, root).trust(newRoot),
		chain("constrained sub-CA trusted, free one sent", end, sub, root).trust(constrained),
		chain("free sub-CA trusted, constrained one sent", end, constrained, root).trust(sub),
	}
	named := func(name string, aki ...[]byte) Case {
		l := issue(root, k.leaf, leafName, leaf, noAKI, with(ext("2.5.29.35", false, seq(aki...))))
		return chain(name, l, root)
	}
	rootSerial := root.serialNumber()
	return append(cases,
		named("key identifier of another key", tlv(0x80, k.other.id)),
		named("authority's serial number", tlv(0xa1, dirName(rootName)), tlv(0x82, rootSerial)),
		named("wrong serial number of the authority", tlv(0xa1, dirName(rootName)), tlv(0x82, []byte{7})),
		named("wrong issuer of the authority", tlv(0xa1, dirName(subName)), tlv(0x82, rootSerial)),
		named("authority named by a DNS name", tlv(0xa1, dnsName("ca.example")), tlv(0x82, rootSerial)),
		named("empty authority key identifier"),
		named("authority's name in another encoding", tlv(0xa1, dirName(seq(set(attribute(organization, printable, "OURS")), set(attribute(commonName, printable, "root"))))), tlv(0x82, rootSerial)),
		chain("no key identifiers at all", issue(plainRoot, k.leaf, leafName, leaf, plain), plainRoot),
		chain("root that names another key as its authority", direct, issue(nil, k.root, rootName, ca, noAKI, with(ext("2.5.29.35", false, seq(tlv(0x80, k.other.id)))))),
	)
}

// serialNumber takes the serial number out of a certificate of v3.
func (n *node) serialNumber() []byte {
	tbs := contents(contents(n.der))
	tbs = tbs[2+int(tbs[1]):] // the version
	return tbs[2 : 2+int(tbs[1])]
}

// contents strips the header of an element.
func contents(der []byte) []byte {
	if der[1] < 0x80 {
		return der[2:]
	}
	return der[2+int(der[1]&0x7f):]
}

// dates are of validity, read and compared.
func dates(k *keys) []Case {
	root := issue(nil, k.root, rootName, ca)
	of := func(name string, raw []byte) Case {
		return chain("validity: "+name, issue(root, k.leaf, leafName, leaf, valid(raw)), root)
	}
	from, to := date(time.Now().Add(-time.Hour)), date(time.Now().AddDate(1, 0, 0))
	const year = "20250101000000Z"
	return []Case{
		chain("leaf expired", issue(root, k.leaf, leafName, leaf, expired), root),
		chain("leaf not yet valid", issue(root, k.leaf, leafName, leaf, future), root),
		k.subCase("sub-CA expired", expired),
		k.subCase("sub-CA not yet valid", future),
		k.rootCase("root expired", expired),
		k.rootCase("root not yet valid", future),
		of("GeneralizedTime before 2050", seq(text(0x18, year), text(0x18, "20490101000000Z"))),
		of("9999", seq(from, text(0x18, "99991231235959Z"))),
		of("1950", seq(text(0x17, "500101000000Z"), to)),
		of("2049 in UTCTime", seq(from, text(0x17, "491231235959Z"))),
		of("year 0", seq(text(0x18, "00000101000000Z"), to)),
		of("no seconds", seq(text(0x17, "2501010000Z"), to)),
		of("offset", seq(text(0x17, "250101000000+0000"), to)),
		of("fraction", seq(text(0x18, "20250101000000.5Z"), to)),
		of("no zone", seq(text(0x18, "20250101000000"), to)),
		of("30 February", seq(text(0x18, "20250230000000Z"), to)),
		of("second 60", seq(text(0x18, "20250101000060Z"), to)),
		of("end of no sense", seq(from, text(0x17, "hello"))),
		of("a string", seq(from, text(utf8String, "20490101000000Z"))),
		of("the wrong way round", seq(to, from)),
	}
}

// subCase is the usual chain with another sub-CA.
func (k *keys) subCase(name string, options ...option) Case {
	root := issue(nil, k.root, rootName, ca)
	sub := issue(root, k.sub, subName, append([]option{ca}, options...)...)
	return chain(name, issue(sub, k.leaf, leafName, leaf), sub, root)
}

// rootCase is a leaf of another root.
func (k *keys) rootCase(name string, options ...option) Case {
	root := issue(nil, k.root, rootName, append([]option{ca}, options...)...)
	return chain(name, issue(root, k.leaf, leafName, leaf), root)
}

// leafCase is another leaf of the usual root.
func (k *keys) leafCase(name string, options ...option) Case {
	root := issue(nil, k.root, rootName, ca)
	return chain(name, issue(root, k.leaf, leafName, options...), root)
}
