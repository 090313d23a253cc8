package chains

import (
	"bytes"
	"crypto"
)

// purposes are what certificates may be used for, as clients and as servers.
func purposes(k *keys) []Case {
	usages := []struct {
		name string
		x    []byte
	}{
		{"none", nil},
		{"clientAuth", usage(clientAuth)},
		{"serverAuth", usage(serverAuth)},
		{"both", usage(serverAuth, clientAuth)},
		{"any only", usage(anyUsage)},
		{"any and clientAuth", usage(anyUsage, clientAuth)},
		{"empty", usage()},
		{"unknown only", usage("1.2.3.4")},
		{"Microsoft SGC", usage(msSGC)},
		{"Netscape SGC", usage("2.16.840.1.113730.4.1")},
	}
	var cases []Case
	for _, u := range usages {
		var x [][]byte
		if u.x != nil {
			x = append(x, u.x)
		}
		for _, c := range []Case{
			k.leafCase("extendedKeyUsage of the leaf: "+u.name, with(x...)),
			k.subCase("extendedKeyUsage of the sub-CA: "+u.name, with(x...)),
			k.rootCase("extendedKeyUsage of the root: "+u.name, with(x...)),
		} {
			cases = append(cases, c, c.server())
		}
	}
	for _, u := range []struct {
		name string
		x    []byte
	}{
		{"digitalSignature", keyUsage(0x80, 7)},
		{"nonRepudiation", keyUsage(0x40, 6)},
		{"keyEncipherment", keyUsage(0x20, 5)},
		{"keyAgreement", keyUsage(0x08, 3)},
		{"keyCertSign", keyUsage(0x04, 2)},
		{"decipherOnly", ext("2.5.29.15", true, tlv(0x03, []byte{7, 0, 0x80}))},
		{"nsCertType client", nsCertType(0x80)},
		{"nsCertType server", nsCertType(0x40)},
		{"nsCertType client and server", nsCertType(0xc0)},
		{"nsCertType object signing", nsCertType(0x10)},
		{"nsCertType sslCA", nsCertType(0x04)},
		{"nsCertType of no bits", ext("2.16.840.1.113730.1.1", false, tlv(0x03, []byte{0}))},
		{"CA:TRUE", basic(true)},
	} {
		c := k.leafCase("usage of the leaf: "+u.name, with(u.x))
		cases = append(cases, c, c.server())
	}
	return cases
}

// authorities are CA certificates of every kind.
func authorities(k *keys) []Case {
	kinds := []struct {
		name string
		x    [][]byte
		v    int
	}{
		{"v3 without anything", nil, 2},
		{"v1 without extensions", nil, -1},
		{"v1 with basicConstraints CA:FALSE", [][]byte{basic(false)}, -1},
		{"CA:FALSE", [][]byte{basic(false)}, 2},
		{"CA:TRUE alone", [][]byte{basic(true)}, 2},
		{"CA:TRUE that is not critical", [][]byte{ext("2.5.29.19", false, seq(yes))}, 2},
		{"keyCertSign alone", [][]byte{keyUsage(0x04, 2)}, 2},
		{"cRLSign alone", [][]byte{keyUsage(0x02, 1)}, 2},
		{"CA:TRUE without keyCertSign", [][]byte{basic(true), keyUsage(0x02, 1)}, 2},
		{"CA:FALSE with keyCertSign", [][]byte{basic(false), keyUsage(0x04, 2)}, 2},
		{"nsCertType sslCA alone", [][]byte{nsCertType(0x04)}, 2},
		{"nsCertType emailCA alone", [][]byte{nsCertType(0x02)}, 2},
		{"nsCertType server alone", [][]byte{nsCertType(0x40)}, 2},
		{"CA:TRUE with nsCertType emailCA", [][]byte{basic(true), nsCertType(0x02)}, 2},
		{"keyCertSign with nsCertType emailCA", [][]byte{keyUsage(0x04, 2), nsCertType(0x02)}, 2},
		{"v1 with extendedKeyUsage serverAuth", [][]byte{basic(true), usage(serverAuth)}, -1},
	}
	var cases []Case
	for _, kind := range kinds {
		shape := func(s *spec) {
			s.extensions = kind.x
			s.version = kind.v
			plain(s)
		}
		root := issue(nil, k.root, rootName, shape)
		anchor := issue(nil, k.root, rootName, ca)
		sub := issue(anchor, k.sub, subName, shape)
		cases = append(cases,
			chain("root: "+kind.name, issue(root, k.leaf, leafName, leaf), root),
			chain("sub-CA: "+kind.name, issue(sub, k.leaf, leafName, leaf), sub, anchor),
			chain("sub-CA as anchor: "+kind.name, issue(sub, k.leaf, leafName, leaf), sub).partial(),
			chain("root as leaf: "+kind.name, root, root))
	}
	return cases
}

// pathLengths are about basicConstraints' pathLenConstraint.
func pathLengths(k *keys) []Case {
	limited := func(content ...byte) option {
		return func(s *spec) { s.extensions = [][]byte{pathLen(content...)} }
	}
	two := func(name string, top, first, second option, secondName []byte) Case {
		root := issue(nil, k.root, rootName, top)
		a := issue(root, k.sub, subName, first)
		b := issue(a, k.other, secondName, second)
		return chain("path length: "+name, issue(b, k.leaf, leafName, leaf), b, a, root)
	}
	below := dn("CN=Below")
	link := func(s *spec) { ca(s) }
	root := issue(nil, k.root, rootName, limited(0))
	rollover := issue(root, k.other, rootName, link)
	zero := issue(issue(nil, k.root, rootName, ca), k.sub, subName, limited(0))
	top := issue(nil, k.root, rootName, ca)
	sub := issue(top, k.sub, subName, limited(0))
	selfIssued := issue(sub, k.other, subName, ca)
	return []Case{
		two("root allows none", limited(0), ca, ca, below),
		two("root allows one", limited(1), ca, ca, below),
		two("root allows two", limited(2), ca, ca, below),
		two("sub-CA allows none", ca, limited(0), ca, below),
		two("sub-CA allows one", ca, limited(1), ca, below),
		two("lowest sub-CA allows none", ca, ca, limited(0), below),
		two("a large number", limited(0, 0xff, 0xff, 0xff, 0xff, 0xff), ca, ca, below),
		two("a huge number", limited(0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ca, ca, below),
		two("a negative number", limited(0xff), ca, ca, below),
		two("a number with leading zeros", limited(0, 1), ca, ca, below),
		chain("path length: self-issued below 0", issue(rollover, k.leaf, leafName, leaf), rollover, root),
		chain("path length: self-issued below a sub-CA of 0", issue(selfIssued, k.leaf, leafName, leaf), selfIssued, sub, top),
		chain("path length: a leaf that is a CA below 0", issue(zero, k.leaf, leafName, ca), zero, top),
	}
}

// strengths are keys and signatures, strong and weak.
func strengths(k *keys) []Case {
	made := func(name string, rootKey, leafKey *key, options ...option) Case {
		root := issue(nil, rootKey, rootName, ca)
		return chain("strength: "+name, issue(root, leafKey, leafName, append([]option{leaf}, options...)...), root)
	}
	sha1Root := issue(nil, k.rsa, rootName, ca, digest(crypto.SHA1))
	weakSub := issue(issue(nil, k.root, rootName, ca), k.rsa1024, subName, ca)
	return []Case{
		made("RSA 2048", k.rsa, k.rsaLeaf),
		made("RSA 2048 at level 3", k.rsa, k.rsaLeaf).level(3),
		made("RSA 1024 leaf", k.rsa, k.rsa1024),
		made("RSA 1024 leaf at level 1", k.rsa, k.rsa1024).level(1),
		made("RSA 2047 leaf", k.rsa, k.rsa2047),
		made("RSA 1024 root", k.rsa1024, k.rsaLeaf),
		made("RSA 1024 root at level 1", k.rsa1024, k.rsaLeaf).level(1),
		chain("strength: RSA 1024 sub-CA", issue(weakSub, k.leaf, leafName, leaf), weakSub, issue(nil, k.root, rootName, ca)),
		made("SHA-1 leaf", k.rsa, k.rsaLeaf, digest(crypto.SHA1)),
		made("SHA-1 leaf at level 1", k.rsa, k.rsaLeaf, digest(crypto.SHA1)).level(1),
		made("ECDSA with SHA-1 leaf", k.root, k.leaf, digest(crypto.SHA1)),
		chain("strength: SHA-1 root", issue(sha1Root, k.leaf, leafName, leaf), sha1Root),
		made("SHA-224", k.rsa, k.rsaLeaf, digest(crypto.SHA224)),
		made("SHA-384", k.rsa, k.rsaLeaf, digest(crypto.SHA384)),
		made("SHA-512", k.rsa, k.rsaLeaf, digest(crypto.SHA512)),
		made("SHA-224 at level 3", k.root, k.leaf, digest(crypto.SHA224)).level(3),
		made("ECDSA with SHA-224", k.root, k.leaf, digest(crypto.SHA224)),
		made("P-224", k.p224, k.p224, digest(crypto.SHA256)),
		made("P-224 at level 3", k.p224, k.p224, digest(crypto.SHA256)).level(3),
		made("P-384", k.p384, k.p384, digest(crypto.SHA384)),
		made("P-384 with SHA-256", k.p384, k.p384, digest(crypto.SHA256)),
		made("P-256 with SHA-512", k.root, k.leaf, digest(crypto.SHA512)),
		made("P-521", k.p521, k.p521, digest(crypto.SHA512)),
		made("P-521 at level 5", k.p521, k.p521, digest(crypto.SHA512)).level(5),
		made("P-256 at level 4", k.root, k.leaf).level(4),
		made("Ed25519", k.ed25519, k.ed25519),
		made("Ed25519 at level 4", k.ed25519, k.ed25519).level(4),
		made("RSA with exponent 3", k.rsa3, k.leaf),
		made("RSA with exponent 2^32+1", k.rsaLargeExp, k.leaf),
	}
}

// keyForms are public keys in other forms.
func keyForms(k *keys) []Case {
	point := k.leaf.spki[len(k.leaf.spki)-65:]
	x, y := point[1:33], point[33:]
	ec := func(form byte, coordinates ...[]byte) []byte {
		return seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")), tlv(0x03, append([][]byte{{0, form}}, coordinates...)...))
	}
	parity := y[31] & 1
	wrong := append([]byte{}, y...)
	wrong[5] ^= 1
	rootPoint := k.root.spki[len(k.root.spki)-65:]
	compressed := issue(nil, k.root, rootName, ca, public(ec(2+rootPoint[64]&1, rootPoint[1:33])))
	return []Case{
		k.leafCase("key: compressed point", leaf, public(ec(2+parity, x))),
		k.leafCase("key: hybrid point", leaf, public(ec(6+parity, x, y))),
		k.leafCase("key: hybrid point of the wrong parity", leaf, public(ec(7-parity, x, y))),
		k.leafCase("key: compressed point with too much", leaf, public(ec(2+parity, x, y))),
		k.leafCase("key: no point of the curve", leaf, public(ec(4, x, wrong))),
		k.leafCase("key: point at infinity", leaf, public(ec(0))).stricter("there is no such key"),
		chain("key: compressed point of the root", issue(compressed, k.leaf, leafName, leaf), compressed),
		k.leafCase("key: unknown curve", leaf, public(seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.3.4")), tlv(0x03, []byte{0}, point)))),
		k.leafCase("key: no curve", leaf, public(seq(seq(oid("1.2.840.10045.2.1")), tlv(0x03, []byte{0}, point)))),
		k.leafCase("key: unknown algorithm", leaf, public(seq(seq(oid("1.2.3.4")), tlv(0x03, []byte{0, 1, 2, 3})))),
		k.leafCase("key: RSA that cannot be read", leaf, public(seq(seq(oid("1.2.840.113549.1.1.1"), null), tlv(0x03, []byte{0, 1, 2, 3})))),
		k.leafCase("key: RSA of the number 0", leaf, public(seq(seq(oid("1.2.840.113549.1.1.1"), null), tlv(0x03, []byte{0}, seq(tlv(0x02, []byte{0}), tlv(0x02, []byte{3})))))),
		k.leafCase("key: Ed25519 of 31 bytes", leaf, public(seq(seq(oid("1.3.101.112")), tlv(0x03, make([]byte, 32))))),
		k.leafCase("key: Ed25519 with parameters", leaf, public(seq(seq(oid("1.3.101.112"), null), tlv(0x03, make([]byte, 33))))),
		k.leafCase("key: not even a SEQUENCE", leaf, public(null)),
		k.leafCase("key: RSA 10240", leaf, public(largeRSA(1280))),
		k.leafCase("key: RSA 16384", leaf, public(largeRSA(2048))),
		k.leafCase("key: RSA 16392", leaf, public(largeRSA(2049))),
		k.leafCase("key: DSA 2048", leaf, public(dsa(256, 32))),
		k.leafCase("key: DSA 1024", leaf, public(dsa(128, 20))),
		k.leafCase("key: DSA 1024 at level 1", leaf, public(dsa(128, 20))).level(1),
		k.leafCase("key: DSA without parameters", leaf, public(seq(seq(oid("1.2.840.10040.4.1")), tlv(0x03, []byte{0}, tlv(0x02, []byte{1}))))),
	}
}

// dsa is a key with numbers of these sizes, which are not prime.
func dsa(p, q int) []byte {
	number := func(size int) []byte {
		b := bytes.Repeat([]byte{0xff}, size+1)
		b[0] = 0
		return tlv(0x02, b)
	}
	return seq(seq(oid("1.2.840.10040.4.1"), seq(number(p), number(q), tlv(0x02, []byte{2}))), tlv(0x03, []byte{0}, tlv(0x02, []byte{4})))
}

// largeRSA is a key of this many bytes, whose modulus is no product of primes.
func largeRSA(size int) []byte {
	modulus := bytes.Repeat([]byte{0xff}, size+1)
	modulus[0] = 0
	return seq(seq(oid("1.2.840.113549.1.1.1"), null), tlv(0x03, []byte{0}, seq(tlv(0x02, modulus), tlv(0x02, []byte{1, 0, 1}))))
}
