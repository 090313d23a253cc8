package chains

import (
	"crypto"
	"crypto/elliptic"
)

// Forge signs whatever it is given as the signed part of a certificate, for
// tests that change certificates at random and want the signature to be good.
// All is signed by the key of the root.
type Forge struct {
	Root   []byte
	Leaves [][]byte // signed parts of leaves and of CAs shown as one, to be changed
	CAs    [][]byte // signed parts of sub-CAs that have issued Below
	Roots  [][]byte // signed parts of roots that have issued the leaves
	Below  []byte   // a leaf of the sub-CA with names of every kind

	key *key
}

// NewForge makes a root and the signed parts, with every extension that a
// verifier looks into.
func NewForge() (*Forge, error) {
	k := &keys{}
	for _, to := range []**key{&k.root, &k.sub, &k.leaf, &k.other} {
		signer, err := onCurve(elliptic.P256())()
		if err != nil {
			return nil, err
		}
		if *to, err = newKey(signer); err != nil {
			return nil, err
		}
	}
	constraints := with(nc(
		[][]byte{dirName(dn("O=Ours")), dnsName("ours.example"), mailName("ours.example"), uriName(".ours.example"), ipName(10, 0, 0, 0, 255, 0, 0, 0)},
		[][]byte{dirName(dn("O=Partner")), otherName("1.2.3.4", text(utf8String, "x"))}))
	upn := otherName("1.3.6.1.4.1.311.20.2.3", text(utf8String, "app@ours.example"))
	manyNames := with(san(dnsName("a.ours.example"), mailName("app@ours.example"), uriName("spiffe://a.ours.example/x"), ipName(10, 1, 2, 3), upn, ridName("1.2.3")))
	root := issue(nil, k.root, rootName, ca, constraints)
	sub := issue(root, k.sub, subName, ca, constraints)
	return &Forge{
		Root:   root.der,
		Leaves: k.leafSeeds(root, manyNames),
		CAs: signedParts(sub,
			issue(root, k.sub, subName, with(pathLen(0), keyUsage(0x06, 1), usage(clientAuth, serverAuth), nsCertType(0x07))),
			issue(root, k.sub, subName, ca, plain, version(0)),
			issue(root, k.sub, subName, ca, with(nc([][]byte{dnsName("a.ours.example"), dirName(seq())}, nil), ext("2.5.29.36", true, seq(tlv(0x80, []byte{0})))))),
		Roots: signedParts(root,
			issue(nil, k.root, rootName, ca, serial(0x80)),
			issue(nil, k.root, rootName, plain, version(-1)),
			issue(nil, k.root, rootName, with(keyUsage(0x04, 2), nsCertType(0x04))),
			issue(nil, k.root, seq(set(attribute(organization, t61, "OURS ")), set(attribute(commonName, bmp, wide("root", 2)))), ca)),
		Below: issue(sub, k.leaf, dn("O=Ours,CN=a.ours.example,E=app@ours.example"), leaf, manyNames).der,
		key:   k.root,
	}, nil
}

func (k *keys) leafSeeds(root *node, manyNames option) [][]byte {
	point := ext("2.5.29.31", false, seq(
		seq(tlv(0xa0, tlv(0xa0, uriName("http://crl.example/1"))), tlv(0x81, []byte{1, 0x60})),
		seq(tlv(0xa0, tlv(0xa1, attribute(commonName, utf8String, "x"))), tlv(0xa2, dirName(rootName)))))
	return signedParts(
		issue(root, k.leaf, leafName, leaf),
		issue(root, k.leaf, leafName, leaf, manyNames),
		issue(root, k.leaf, leafName, with(basic(false), nsCertType(0x80), point, usage(serverAuth, clientAuth), keyUsage(0xa8, 3))),
		issue(root, k.leaf, dn("O=Ours,CN=ours.example,E=app@ours.example,C=DE"), leaf, serial(0x85)),
		issue(root, k.leaf, seq(set(attribute(organization, printable, "ours")), set(attribute(commonName, bmp, wide("app", 2)), attribute(unit, t61, "\xe4"))), leaf,
			issuedBy(seq(set(attribute(organization, printable, "OURS")), set(attribute(commonName, t61, " Root"))))),
		issue(root, k.leaf, leafName, leaf, noAKI, with(ext("2.5.29.35", false, seq(tlv(0x80, k.root.id), tlv(0xa1, dirName(rootName)), tlv(0x82, root.serialNumber()))))),
		issue(root, k.leaf, leafName, with(pathLen(1), nc([][]byte{dnsName("x")}, nil), keyUsage(0x86, 1), ext("1.2.3.4", false, null), ext("2.5.29.36", true, seq(tlv(0x80, []byte{0}))))),
	)
}

// signedParts takes them out of certificates.
func signedParts(nodes ...*node) (parts [][]byte) {
	for _, n := range nodes {
		tbs := contents(n.der)
		parts = append(parts, tbs[:len(tbs)-len(contents(tbs))+length(tbs)])
	}
	return parts
}

// Sign makes a certificate of a signed part.
func (f *Forge) Sign(tbs []byte) []byte {
	algorithm := f.key.algorithm(crypto.SHA256)
	return seq(tbs, algorithm, tlv(0x03, []byte{0}, f.key.sign(crypto.SHA256, tbs)))
}

// length is what the header of an element says.
func length(der []byte) int {
	if der[1] < 0x80 {
		return int(der[1])
	}
	n := 0
	for _, b := range der[2 : 2+int(der[1]&0x7f)] {
		n = n<<8 | int(b)
	}
	return n
}
