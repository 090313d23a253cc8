package chains

// names are the issuer of a leaf and the subject of its CA, in other encodings.
func names(k *keys) []Case {
	pair := func(name string, issuer, subject []byte) Case {
		root := issue(nil, k.root, subject, ca)
		return chain("names: "+name, issue(root, k.leaf, leafName, leaf, issuedBy(issuer)), root)
	}
	two := func(a, b []byte) []byte { return seq(set(a, b)) }
	o, c := attribute(organization, utf8String, "Ours"), attribute(commonName, utf8String, "Root")
	return []Case{
		pair("PrintableString and UTF8String", cn(printable, "Root CA"), cn(utf8String, "Root CA")),
		pair("IA5String and UTF8String", cn(ia5, "Root CA"), cn(utf8String, "Root CA")),
		pair("case", cn(utf8String, "ROOT ca"), cn(utf8String, "Root CA")),
		pair("spaces inside", cn(utf8String, "Root   CA"), cn(utf8String, "Root CA")),
		pair("spaces around", cn(utf8String, "  Root CA "), cn(utf8String, "Root CA")),
		pair("tab for space", cn(utf8String, "Root\tCA"), cn(utf8String, "Root CA")),
		pair("line break for space", cn(utf8String, "Root\n CA\v"), cn(utf8String, "Root CA")),
		pair("no space", cn(utf8String, "RootCA"), cn(utf8String, "Root CA")),
		pair("only spaces", cn(utf8String, "  "), cn(utf8String, "")),
		pair("T61String in Latin-1", cn(t61, "R\xf6\xf6t"), cn(utf8String, "Rööt")),
		pair("IA5String in Latin-1", cn(ia5, "R\xf6\xf6t"), cn(utf8String, "Rööt")),
		pair("PrintableString in UTF-8", cn(printable, "Rööt"), cn(utf8String, "Rööt")),
		pair("BMPString", cn(bmp, wide("Rööt", 2)), cn(utf8String, "Rööt")),
		pair("UniversalString", cn(universalString, wide("Rööt", 4)), cn(utf8String, "Rööt")),
		pair("NumericString", cn(numericString, "123"), cn(utf8String, "123")),
		pair("NumericString on both sides", cn(numericString, "12 3"), cn(numericString, "12 3")),
		pair("non-ASCII case", cn(utf8String, "RÖÖT"), cn(utf8String, "Rööt")),
		pair("composed and decomposed", cn(utf8String, "Ro\u0308t"), cn(utf8String, "R\u00f6t")),
		pair("other order", dn("CN=Root,O=Ours"), dn("O=Ours,CN=Root")),
		pair("other order in one RDN", two(o, c), two(c, o)),
		pair("one RDN and two", two(o, c), seq(set(o), set(c))),
		pair("underscore and at in PrintableString", cn(printable, "root_1@ca"), cn(utf8String, "root_1@ca")),
		pair("NUL inside", cn(utf8String, "Root\x00CA"), cn(utf8String, "Root\x00CA")),
		pair("NUL at the end", cn(utf8String, "Root\x00"), cn(utf8String, "Root")),
		pair("VisibleString", cn(visible, "Root"), cn(visible, "Root")),
		pair("invalid UTF-8", cn(utf8String, "R\xff"), cn(utf8String, "R\xff")),
		pair("overlong UTF-8", cn(utf8String, "R\xc0\xaf"), cn(utf8String, "R\xc0\xaf")),
		pair("surrogate in BMPString", cn(bmp, "\xd8\x00"), cn(bmp, "\xd8\x00")),
		pair("BMPString of odd length", cn(bmp, "\x00R\x00"), cn(bmp, "\x00R\x00")),
		pair("an OCTET STRING as value", cn(0x04, "Root"), cn(0x04, "Root")),
		pair("a BIT STRING as value", cn(0x03, "\x00Root"), cn(0x03, "\x00Root")),
		pair("a SEQUENCE as value", cn(0x30, ""), cn(0x30, "")),
		pair("a BOOLEAN as value", cn(0x01, "\xff"), cn(0x01, "\xff")),
		pair("an unknown type as value", cn(0x0e, "Root"), cn(0x0e, "Root")),
		pair("an empty RDN", seq(set(), set(c)), seq(set(c))),
		pair("common name of 70 bytes", cn(utf8String, "a-very-long-common-name-that-X520-would-not-allow-since-it-has-70-chars"),
			cn(printable, "a-very-long-common-name-that-X520-would-not-allow-since-it-has-70-chars")),
	}
}
