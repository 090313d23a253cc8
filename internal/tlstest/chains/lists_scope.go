package chains

import (
	"bytes"
	"encoding/hex"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// listScopes are lists of some certificates, for a leaf without distribution points.
func listScopes(k *keys) (cases []Case) {
	t := k.listTrio()
	for name, s := range map[string][]byte{
		"users":                  onlyUsers,
		"CAs":                    onlyCAs,
		"attribute certificates": onlyAttributes,
		"indirect":               indirect,
		"some reasons":           keyCompromise,
		"every reason":           tlv(0x83, []byte{7, 0xff, 0x80}),
		"users and CAs":          bytes.Join([][]byte{onlyUsers, onlyCAs}, nil),
		"nothing":                nil,
		"users, false":           tlv(0x81, []byte{0}),
		"users, 1":               tlv(0x81, []byte{1}),
		"users, two bytes":       tlv(0x81, []byte{0xff, 0xff}),
		"a URI":                  fullName(uriName("http://ca.example/1")),
		"an empty name":          tlv(0xa0, tlv(0xa0)),
		"an empty field of name": tlv(0xa0),
		"an unknown field":       tlv(0x86, []byte{0xff}),
		"wrong order":            bytes.Join([][]byte{onlyCAs, onlyUsers}, nil),
	} {
		cases = append(cases, t.one("for "+name, scope(s))...)
		cases = append(cases,
			chain("root's for "+name, t.end, t.sub, t.root).lists(list(t.root, scope(s)), list(t.sub)),
			chain("root's for "+name+", which revokes the sub-CA", t.end, t.sub, t.root).lists(list(t.root, scope(s), revoke(t.sub)), list(t.sub)))
	}
	cases = append(cases, t.one("for users, not critical", extended(ext("2.5.29.28", false, seq(onlyUsers))))...)
	cases = append(cases, t.one("for CAs, not critical", extended(ext("2.5.29.28", false, seq(onlyCAs))))...)
	cases = append(cases, t.one("for users, twice", scope(onlyUsers), scope(onlyUsers))...)
	cases = append(cases, t.one("scope that is malformed", extended(ext("2.5.29.28", true, null)))...)
	aCA := issue(t.sub, k.leaf, leafName, ca)
	return append(cases, trioOf{k, t.root, t.sub, aCA}.one("for users, and the leaf is a CA", scope(onlyUsers))...)
}

const (
	partOne = "http://ca.example/1"
	partTwo = "http://ca.example/2"
)

// point is a DistributionPoint.
func point(fields ...[]byte) []byte { return seq(fields...) }

func issuerOf(names ...[]byte) []byte { return tlv(0xa2, names...) }

// listPoints are lists with and without a name, for leaves with distribution
// points of every form.
func listPoints(k *keys) (cases []Case) {
	uri := func(s string) []byte { return fullName(uriName(s)) }
	for name, p := range map[string][]byte{
		"a URI":                       point(uri(partOne)),
		"another URI":                 point(uri(partTwo)),
		"a URI in capitals":           point(uri("HTTP://CA.EXAMPLE/1")),
		"two URIs in one point":       point(fullName(uriName(partTwo), uriName(partOne))),
		"two points":                  append(point(uri(partTwo)), point(uri(partOne))...),
		"a directoryName":             point(fullName(dirName(dn("CN=1")))),
		"a relative name":             point(relative("1")),
		"another relative name":       point(relative("2")),
		"the full form of a relative": point(fullName(dirName(dn("O=Ours,CN=Sub,CN=1")))),
		"no name":                     point(),
		"its issuer":                  point(issuerOf(dirName(subName))),
		"its issuer in capitals":      point(issuerOf(dirName(dn("O=OURS,CN=SUB")))),
		"another issuer":              point(issuerOf(dirName(dn("CN=Other")))),
		"a URI and its issuer":        point(uri(partOne), issuerOf(dirName(subName))),
		"a URI and another issuer":    point(uri(partOne), issuerOf(dirName(dn("CN=Other")))),
		"a URI and two issuers":       point(uri(partOne), issuerOf(dirName(dn("CN=Other")), dirName(subName))),
		"a relative name and issuer":  point(relative("1"), issuerOf(dirName(subName))),
		"some reasons":                point(uri(partOne), tlv(0x81, []byte{6, 0x40})),
		"every reason in two points":  append(point(uri(partOne), tlv(0x81, []byte{6, 0x40})), point(uri(partOne), tlv(0x81, []byte{7, 0xbf, 0x80}))...),
		"every reason":                point(uri(partOne), tlv(0x81, []byte{7, 0xff, 0x80})),
		"reasons of no bits":          point(uri(partOne), tlv(0x81, []byte{0})),
		"a broken point":              seq(null),
		"no point":                    nil,
	} {
		t := k.listTrio(points(p))
		for kind, s := range map[string]listOption{
			"without a scope":         func(*listSpec) {},
			"for that URI":            scope(uri(partOne)),
			"for two URIs":            scope(fullName(uriName(partOne), uriName("ldap://x"))),
			"for the directoryName":   scope(fullName(dirName(dn("CN=1")))),
			"for that relative name":  scope(relative("1")),
			"for its full form":       scope(fullName(dirName(dn("O=Ours,CN=Sub,CN=1")))),
			"for users":               scope(onlyUsers),
			"for that URI and users":  scope(uri(partOne), onlyUsers),
			"for that URI and CAs":    scope(uri(partOne), onlyCAs),
			"for some reasons of URI": scope(uri(partOne), keyCompromise),
		} {
			cases = append(cases, t.one("point with "+name+", "+kind, s)...)
		}
	}
	return cases
}

// listPartitions are several lists of one CA for different certificates.
func listPartitions(k *keys) []Case {
	t := k.listTrio(points(point(fullName(uriName(partOne)))))
	both := k.listTrio(points(point(fullName(uriName(partOne))), point(fullName(uriName(partTwo)))))
	reasons := k.listTrio(points(
		point(fullName(uriName(partOne)), tlv(0x81, []byte{6, 0x40})),
		point(fullName(uriName(partTwo)), tlv(0x81, []byte{7, 0xbf, 0x80}))))
	of := func(t trioOf, url string, o ...listOption) []byte {
		return list(t.sub, append(o, scope(fullName(uriName(url))))...)
	}
	return []Case{
		t.with("partitions, both", of(t, partOne), of(t, partTwo)),
		t.with("partitions, its own revokes", of(t, partOne, revoke(t.end)), of(t, partTwo)),
		t.with("partitions, the other revokes", of(t, partOne), of(t, partTwo, revoke(t.end))),
		t.with("partitions, the other alone", of(t, partTwo)),
		t.with("partitions, the other alone revokes", of(t, partTwo, revoke(t.end))),
		t.with("partitions, its own is stale", of(t, partOne, stale), of(t, partTwo)),
		t.with("partitions, its own is stale and the other revokes", of(t, partOne, stale), of(t, partTwo, revoke(t.end))),
		t.with("partition and complete list", of(t, partOne), list(t.sub, newer)),
		t.with("partition and complete list that revokes", of(t, partOne), list(t.sub, newer, revoke(t.end))),
		t.with("partition that revokes and newer complete list", of(t, partOne, revoke(t.end)), list(t.sub, newer)),
		both.with("two points, one list", of(both, partOne)),
		both.with("two points, both lists, the second revokes", of(both, partOne), of(both, partTwo, newer, revoke(both.end))),
		both.with("two points, both lists, the older revokes", of(both, partOne, newer), of(both, partTwo, older, revoke(both.end))),
		reasons.with("reasons in two points, one list", of(reasons, partOne)),
		reasons.with("reasons in two points, both lists", of(reasons, partOne), of(reasons, partTwo)),
		reasons.with("reasons in two points, both lists, the second revokes", of(reasons, partOne), of(reasons, partTwo, revoke(reasons.end))),
		reasons.with("reasons in two points, the list of one and a complete one", of(reasons, partOne), list(reasons.sub)),
		reasons.with("reasons in two points, a complete list", list(reasons.sub)),
	}
}

// listDeltas are delta lists, alone and beside a complete one. Without
// X509_V_FLAG_USE_DELTAS OpenSSL takes one for a complete list.
func listDeltas(k *keys) []Case {
	t := k.listTrio()
	sub := func(o ...listOption) []byte { return list(t.sub, o...) }
	delta := func(o ...listOption) []byte { return list(t.sub, append(o, listNumber(2), deltaOf(1))...) }
	revoked := revoke(t.end)
	return []Case{
		t.with("delta alone", delta()),
		t.with("delta alone, which revokes", delta(revoked)),
		t.with("delta without a number alone", sub(deltaOf(1))),
		t.with("delta and base", delta(), sub(listNumber(1))),
		t.with("newer delta and base", delta(newer), sub(listNumber(1))),
		t.with("newer delta that revokes and base", delta(newer, revoked), sub(listNumber(1))),
		t.with("newer delta and base that revokes", delta(newer), sub(listNumber(1), revoked)),
		t.with("newer delta that removes and base that revokes", delta(newer, revokeWith(t.end, reasonCode(8))), sub(listNumber(1), revoked)),
		t.with("older delta that revokes and base", delta(older, revoked), sub(listNumber(3))),
		t.with("older delta and base that revokes", delta(older), sub(listNumber(3), revoked)),
		t.with("stale delta that revokes and base", delta(stale, revoked), sub(listNumber(3))),
		t.with("newer delta without a number that revokes and base", sub(newer, deltaOf(1), revoked), sub(listNumber(1))),
		t.with("base that names a freshest list", sub(extended(ext("2.5.29.46", false, seq(point(fullName(uriName(partTwo)))))))),
		t.with("base that names a freshest list, critical", sub(extended(ext("2.5.29.46", true, seq(point(fullName(uriName(partTwo)))))))),
		t.with("delta with a broken base", sub(newer, extended(ext("2.5.29.27", true, null))), sub()),
	}
}
