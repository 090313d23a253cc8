package chains

import "bytes"

// encodings are certificates that are not quite DER.
func encodings(k *keys) []Case {
	root, sub, end := k.trio()
	negativeRoot := issue(nil, k.root, rootName, ca, serial(0xff, 0x01))
	negativeSub := issue(root, k.sub, subName, ca, serial(0x80))
	looseTrue := seq(oid("2.5.29.15"), tlv(0x01, []byte{0x01}), tlv(0x04, bits(0x80, 7)))
	falseCritical := seq(oid("1.2.3.4"), tlv(0x01, []byte{0}), tlv(0x04, null))
	longTrue := seq(oid("1.2.3.4"), tlv(0x01, []byte{0xff, 0xff}), tlv(0x04, null))
	withNull := seq(oid("1.2.840.10045.4.3.2"), null)
	bare := seq(oid("1.2.840.10045.4.3.2"))
	unique := func(s *spec) {
		s.uniqueIDs = append(tlv(0x81, []byte{0, 1, 2}), tlv(0x82, []byte{0, 3})...)
	}
	cases := append(k.serialNumbers(), []Case{
		chain("negative serial number of the root", issue(negativeRoot, k.leaf, leafName, leaf), negativeRoot),
		chain("negative serial number of a sub-CA", issue(negativeSub, k.leaf, leafName, leaf), negativeSub, root),
		chain("negative serial number beside the root", end, sub, root).trust(negativeRoot),
		chain("negative serial number among the sent", end, sub, negativeSub, root),
		k.leafCase("TRUE that is not 0xFF", with(looseTrue, usage(clientAuth))),
		k.subCase("TRUE of a CA that is not 0xFF", func(s *spec) {
			s.extensions = [][]byte{ext("2.5.29.19", true, seq(tlv(0x01, []byte{0x2a})))}
		}),
		k.leafCase("critical FALSE written out", leaf, with(falseCritical)),
		k.leafCase("TRUE of two bytes", leaf, with(longTrue)),
		k.leafCase("two unknown extensions of one kind", leaf, with(ext("1.2.3.4", false, null), ext("1.2.3.4", false, null))),
		k.leafCase("two policy extensions", leaf, with(ext("2.5.29.32", false, seq()), ext("2.5.29.32", false, seq()))),
		k.leafCase("two keyUsage", leaf, with(keyUsage(0x80, 7))),
		k.leafCase("two extendedKeyUsage", leaf, with(usage(clientAuth))),
		k.leafCase("two subjectAltName", leaf, with(san(dnsName("a.example")), san(dnsName("b.example")))),
		k.leafCase("two subject key identifiers", leaf, with(ext("2.5.29.14", false, tlv(0x04, []byte{1})))),
		k.leafCase("version 1 with extensions", leaf, version(-1)),
		k.leafCase("version 1 without extensions", plain, version(-1)),
		k.leafCase("version 1 written out", plain, version(0)),
		k.leafCase("version 2", leaf, version(1)),
		k.leafCase("version 2 with extendedKeyUsage serverAuth", with(usage(serverAuth)), version(1)),
		k.leafCase("version 1 with extendedKeyUsage serverAuth", with(usage(serverAuth)), version(-1)),
		k.leafCase("version 6", leaf, version(5)),
		k.leafCase("unique identifiers", leaf, unique),
		k.leafCase("NULL where ECDSA has no parameters", leaf, algorithms(withNull, withNull)),
		k.leafCase("signature algorithms that differ in parameters", leaf, algorithms(bare, withNull)),
		k.leafCase("signature algorithms that differ", leaf, algorithms(bare, seq(oid("1.2.840.10045.4.3.3")))),
		k.rootCase("signature algorithms of the root that differ", algorithms(bare, seq(oid("1.2.840.10045.4.3.3")))),
		k.leafCase("unknown signature algorithm", leaf, algorithms(seq(oid("1.2.3.4")), nil)),
		k.rootCase("unknown signature algorithm of the root", algorithms(seq(oid("1.2.3.4")), nil)),
		k.leafCase("unused bits of the signature", leaf, func(s *spec) { s.unused = 1 }),
		k.leafCase("extension with bytes behind its value", leaf, with(ext("2.5.29.17", false, append(seq(dnsName("a.example")), 0x05, 0x00)))),
		k.leafCase("extension identifier with a leading zero", leaf, with(seq(tlv(0x06, []byte{0x55, 0x80, 0x01}), tlv(0x04, null)))),
		k.leafCase("extension identifier that does not end", leaf, with(seq(tlv(0x06, []byte{0x55, 0x81}), tlv(0x04, null)))),
		k.leafCase("extension with a huge identifier", leaf, with(ext("1.2.3.9223372036854775807", false, null))),
		k.leafCase("extension without a value", leaf, with(seq(oid("1.2.3.4")))),
	}...)
	long := bytes.Clone(end.der)
	long = append([]byte{0x30, 0x84, 0, 0}, long[2:]...)
	behind := append(bytes.Clone(end.der), 0x05, 0x00)
	cases = append(cases,
		chain("length with leading zeros", &node{long, leafName, k.leaf}, sub, root),
		chain("bytes behind the certificate", &node{behind, leafName, k.leaf}, sub, root).
			stricter("OpenSSL reads a PEM block up to the end of the certificate; TLS refuses such a message"),
		chain("half a certificate", &node{end.der[:len(end.der)/2], leafName, k.leaf}, sub, root),
	)
	return append(cases, k.berForms(end, sub, root)...)
}

func (k *keys) serialNumbers() []Case {
	return []Case{
		k.leafCase("negative serial number", leaf, serial(0x85)),
		k.leafCase("serial number 0", leaf, serial(0)),
		k.leafCase("serial number of 40 bytes", leaf, serial(bytes.Repeat([]byte{0x77}, 40)...)),
		k.leafCase("serial number with a leading zero", leaf, serial(0, 1)),
		k.leafCase("serial number with leading ones", leaf, serial(0xff, 0x80)),
		k.leafCase("serial number -256", leaf, serial(0xff, 0)),
		k.leafCase("empty serial number", leaf, serial()),
	}
}

// berForms are forms of BER that the gate does not read.
func (k *keys) berForms(end, sub, root *node) []Case {
	const why = "only the definite form of BER is read, and no string in pieces; crypto/tls refuses such a message as well"
	indefinite := append([]byte{0x30, 0x80}, contents(end.der)...)
	indefinite = append(indefinite, 0, 0)
	inPieces := tlv(0x24, tlv(0x04, []byte{0x03, 0x02}), tlv(0x04, []byte{0x07, 0x80}))
	primitive := bytes.Clone(leafName)
	primitive[0] = 0x10
	return []Case{
		chain("indefinite length", &node{indefinite, leafName, k.leaf}, sub, root).stricter(why),
		k.leafCase("OCTET STRING in pieces", with(seq(oid("2.5.29.15"), inPieces))).stricter(why),
		chain("primitive SEQUENCE", issue(root, k.leaf, primitive, leaf), root).stricter(why),
	}
}

// brokenExtensions are extensions with values of every kind, most of them
// malformed.
func brokenExtensions(k *keys) []Case {
	var cases []Case
	for _, b := range brokenValues() {
		options := []option{leaf, with(ext(b.id, false, b.value))}
		switch b.id {
		case "2.5.29.15", "2.5.29.37":
			options = []option{with(ext(b.id, false, b.value))}
		case "2.5.29.14", "2.5.29.35":
			options = append(options, plain)
		}
		cases = append(cases,
			k.leafCase("broken leaf: "+b.name, options...),
			k.subCase("broken sub-CA: "+b.name, func(s *spec) {
				switch b.id {
				case "2.5.29.19", "2.5.29.15":
					s.extensions = [][]byte{basic(true)}
					if b.id == "2.5.29.19" {
						s.extensions = nil
					}
				case "2.5.29.14", "2.5.29.35":
					plain(s)
				}
				s.extensions = append(s.extensions, ext(b.id, false, b.value))
			}))
	}
	return cases
}

// criticals are critical extensions, known and not.
func criticals(k *keys) []Case {
	upn := otherName("1.3.6.1.4.1.311.20.2.3", text(utf8String, "app@ours.example"))
	var cases []Case
	for _, x := range []struct {
		name  string
		id    string
		value []byte
	}{
		{"unknown", "1.2.3.4", null},
		{"subjectAltName with an otherName only", "2.5.29.17", seq(upn)},
		{"nsCertType", "2.16.840.1.113730.1.1", tlv(0x03, []byte{0, 0xc4})},
		{"ocsp-nocheck", "1.3.6.1.5.5.7.48.1.5", null},
		{"policyConstraints", "2.5.29.36", seq(tlv(0x80, []byte{0}))},
		{"certificatePolicies", "2.5.29.32", seq(seq(oid("1.2.3.4")))},
		{"policyMappings", "2.5.29.33", seq(seq(oid("1.2.3.4"), oid("1.2.3.5")))},
		{"inhibitAnyPolicy", "2.5.29.54", tlv(0x02, []byte{0})},
		{"cRLDistributionPoints", "2.5.29.31", seq(seq(tlv(0xa0, tlv(0xa0, uriName("http://crl.example")))))},
		{"subjectKeyIdentifier", "2.5.29.14", tlv(0x04, []byte{1})},
		{"authorityKeyIdentifier", "2.5.29.35", seq()},
		{"issuerAltName", "2.5.29.18", seq(dnsName("ca.example"))},
		{"authorityInfoAccess", "1.3.6.1.5.5.7.1.1", seq()},
		{"freshestCRL", "2.5.29.46", seq(seq(tlv(0xa0, tlv(0xa0, uriName("http://crl.example")))))},
		{"nsComment", "2.16.840.1.113730.1.13", text(ia5, "made")},
		{"TLS feature", "1.3.6.1.5.5.7.1.24", seq(tlv(0x02, []byte{5}))},
		{"Certificate Transparency poison", "1.3.6.1.4.1.11129.2.4.3", null},
	} {
		critical := with(ext(x.id, true, x.value))
		cases = append(cases, k.leafCase("critical in the leaf: "+x.name, leaf, critical, plain), k.subCase("critical in the sub-CA: "+x.name, critical, plain))
	}
	numbers := with(ext("1.3.6.1.5.5.7.1.8", true, seq(tlv(0xa0, seq(tlv(0x02, []byte{1}))))))
	registry := issue(nil, k.root, rootName, ca, numbers)
	return append(cases,
		chain("autonomousSysIds below a root that has them", issue(registry, k.leaf, leafName, leaf, numbers), registry).stricter("RFC 3779 is not supported"),
		chain("autonomousSysIds of the root alone", issue(registry, k.leaf, leafName, leaf), registry).stricter("RFC 3779 is not supported"),
		k.rootCase("critical in the root: unknown", with(ext("1.2.3.4", true, null))),
		k.leafCase("proxyCertInfo", leaf, with(ext("1.3.6.1.5.5.7.1.14", true, seq(seq(oid("1.3.6.1.5.5.7.21.1")))))),
		k.leafCase("proxyCertInfo that is not critical", leaf, with(ext("1.3.6.1.5.5.7.1.14", false, seq(seq(oid("1.3.6.1.5.5.7.21.1")))))),
		k.leafCase("autonomousSysIds", leaf, with(ext("1.3.6.1.5.5.7.1.8", true, seq(tlv(0xa0, seq(tlv(0x02, []byte{1}))))))),
	)
}

// extensionValue is the value of an extension.
type extensionValue struct {
	name  string
	id    string
	value []byte
}

func brokenValues() []extensionValue {
	return []extensionValue{
		{"basicConstraints", "2.5.29.19", null},
		{"basicConstraints with too much", "2.5.29.19", seq(yes, tlv(0x02, []byte{1}), null)},
		{"basicConstraints with a negative path length", "2.5.29.19", seq(yes, tlv(0x02, []byte{0xff}))},
		{"keyUsage", "2.5.29.15", tlv(0x04, []byte{0x80})},
		{"keyUsage without bits", "2.5.29.15", tlv(0x03, []byte{0})},
		{"keyUsage of zero bits", "2.5.29.15", bits(0, 0)},
		{"keyUsage with 8 unused bits", "2.5.29.15", bits(0x80, 8)},
		{"extendedKeyUsage", "2.5.29.37", seq(null)},
		{"nsCertType", "2.16.840.1.113730.1.1", null},
		{"subjectKeyIdentifier", "2.5.29.14", null},
		{"authorityKeyIdentifier", "2.5.29.35", seq(tlv(0x83, []byte{1}))},
		{"subjectAltName", "2.5.29.17", seq(tlv(0x89, []byte{1}))},
		{"subjectAltName with a broken otherName", "2.5.29.17", seq(tlv(0xa0, oid("1.2.3.4")))},
		{"subjectAltName with a primitive directoryName", "2.5.29.17", seq(tlv(0x84, leafName))},
		{"subjectAltName with a broken registeredID", "2.5.29.17", seq(tlv(0x88, []byte{0x80}))},
		{"subjectAltName with an ediPartyName", "2.5.29.17", seq(tlv(0xa5, tlv(0xa1, text(utf8String, "x"))))},
		{"subjectAltName with a broken ediPartyName", "2.5.29.17", seq(tlv(0xa5, tlv(0xa0, text(utf8String, "x"))))},
		{"subjectAltName with an x400Address", "2.5.29.17", seq(tlv(0xa3, seq()))},
		{"subjectAltName with Latin-1", "2.5.29.17", seq(dnsName("\xe4.example"), mailName("ö"), uriName("urn:x"))},
		{"subjectAltName with an address of 5 bytes", "2.5.29.17", seq(ipName(1, 2, 3, 4, 5))},
		{"subjectAltName without names", "2.5.29.17", seq()},
		{"nameConstraints", "2.5.29.30", seq(tlv(0xa0, null))},
		{"nameConstraints without subtrees", "2.5.29.30", seq()},
		{"cRLDistributionPoints", "2.5.29.31", seq(seq())},
		{"cRLDistributionPoints with a relative name", "2.5.29.31", seq(seq(tlv(0xa0, tlv(0xa1, attribute(commonName, utf8String, "x")))))},
		{"cRLDistributionPoints with reasons alone", "2.5.29.31", seq(seq(tlv(0x81, []byte{0, 0x40})))},
		{"cRLDistributionPoints with a URI", "2.5.29.31", seq(seq(tlv(0xa0, tlv(0xa0, uriName("http://crl.example")))))},
		{"certificatePolicies", "2.5.29.32", null},
		{"authorityInfoAccess", "1.3.6.1.5.5.7.1.1", null},
	}
}
