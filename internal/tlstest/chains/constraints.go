package chains

import (
	"fmt"
	"slices"
)

// limits is a chain with a sub-CA that has this extension.
func (k *keys) limits(name string, constraint []byte, subject []byte, extensions ...[]byte) Case {
	root := issue(nil, k.root, rootName, ca)
	sub := issue(root, k.sub, subName, ca, with(constraint))
	return chain("constraint: "+name, issue(sub, k.leaf, subject, leaf, with(extensions...)), sub, root)
}

// nameConstraintForms are about where constraints stand and how they are
// written.
func nameConstraintForms(k *keys) []Case {
	ours, partner := dirName(dn("O=Ours")), dirName(dn("O=Partner"))
	onRoot := issue(nil, k.root, rootName, ca, with(permit(partner)))
	above := issue(nil, k.root, dn("O=Partner,CN=Root"), ca, with(permit(partner)))
	critical := func(x []byte) []byte {
		// the same extension with a critical flag behind its identifier
		content := contents(x)
		idLength := 2 + int(content[1])
		return seq(content[:idLength], yes, content[idLength:])
	}
	bound := func(extra ...byte) []byte {
		return ext("2.5.29.30", false, seq(tlv(0xa0, seq(partner, extra))))
	}
	root := issue(nil, k.root, rootName, ca)
	subBelow := issue(issue(root, k.sub, subName, ca, with(permit(ours))), k.other, dn("O=Partner,CN=Below"), ca)
	selfIssued := issue(issue(root, k.sub, subName, ca, with(exclude(dirName(subName)))), k.other, subName, ca)
	many := make([][]byte, 1100)
	names := make([][]byte, 1000)
	for i := range many {
		many[i] = dnsName(fmt.Sprintf("h%d.example", i))
	}
	for i := range names {
		names[i] = dnsName("h1.example")
	}
	v1 := func(s *spec) { s.version = -1 }
	v1Root := issue(nil, k.root, rootName, with(permit(partner)), v1, plain)
	partial := k.limits("of the anchor of a partial chain", permit(partner), leafName)
	partial.CA, partial.Sent = partial.Sent, nil
	return []Case{
		k.limits("permitted directoryName, leaf outside", permit(partner), leafName),
		k.limits("permitted directoryName, leaf inside", permit(ours), leafName),
		k.limits("permitted directoryName, leaf is the base", permit(ours), dn("O=Ours")),
		k.limits("excluded directoryName, leaf inside", exclude(ours), leafName),
		k.limits("excluded directoryName, leaf outside", exclude(partner), leafName),
		k.limits("critical permitted directoryName, leaf inside", critical(permit(ours)), leafName),
		k.limits("critical permitted directoryName, leaf outside", critical(permit(partner)), leafName),
		k.limits("permitted and excluded", nc([][]byte{ours}, [][]byte{dirName(leafName)}), leafName),
		k.limits("one of two permitted", permit(partner, ours), leafName),
		k.limits("minimum 0", bound(0x80, 1, 0), dn("O=Partner,CN=app_user")),
		k.limits("minimum 1", bound(0x80, 1, 1), dn("O=Partner,CN=app_user")),
		k.limits("maximum", bound(0x81, 1, 5), dn("O=Partner,CN=app_user")),
		k.limits("minimum of another kind", ext("2.5.29.30", false, seq(tlv(0xa0, seq(dnsName("x"), []byte{0x80, 1, 1})))), leafName),
		k.limits("an excluded minimum", ext("2.5.29.30", false, seq(tlv(0xa1, seq(partner, []byte{0x80, 1, 1})))), leafName),
		k.limits("no subtrees", permit(), leafName),
		k.limits("empty extension", ext("2.5.29.30", false, seq()), leafName),
		k.limits("empty leaf", permit(partner), seq()),
		k.limits("1,000 names and 1,100 constraints", exclude(many...), leafName, san(names...)),
		k.limits("500 names and 1,100 constraints", exclude(many[2:]...), leafName, san(names[:500]...)),
		chain("constraint: of the root, leaf outside", issue(onRoot, k.leaf, leafName, leaf), onRoot),
		chain("constraint: of the root, leaf inside", issue(above, k.leaf, dn("O=Partner,CN=app_user"), leaf), above),
		chain("constraint: of a v1 root", issue(v1Root, k.leaf, leafName, leaf), v1Root),
		chain("constraint: a sub-CA outside, leaf inside", issue(subBelow, k.leaf, leafName, leaf), subBelow, issue(root, k.sub, subName, ca, with(permit(ours))), root),
		chain("constraint: self-issued sub-CA is not looked at", issue(selfIssued, k.leaf, leafName, leaf), selfIssued, issue(root, k.sub, subName, ca, with(exclude(dirName(subName)))), root),
		chain("constraint: its own holder as leaf", onRoot, onRoot),
		partial.partial(),
		k.limits("of a server", permit(partner), leafName).server(),
	}
}

// nameConstraintKinds are about how names of each kind are compared.
func nameConstraintKinds(k *keys) []Case {
	host := func(s string) []byte { return dn("O=Ours,CN=" + s) }
	upn := otherName("1.3.6.1.4.1.311.20.2.3", text(utf8String, "app@ours.example"))
	dns, permitDNS := dnsName("partner.example"), permit(dnsName("partner.example"))
	cases := slices.Concat(k.hostNames(host), k.mailboxes(), k.addresses())
	return append(cases, []Case{
		k.limits("directoryName in another encoding", permit(dirName(seq(set(attribute(organization, printable, "OURS"))))), leafName),
		k.limits("directoryName of half an RDN", permit(dirName(seq(set(attribute(organization, utf8String, "Our"))))), leafName),
		k.limits("directoryName of a part of an RDN", permit(dirName(seq(set(attribute(organization, utf8String, "Ours"))))), seq(set(attribute(organization, utf8String, "Ours"), attribute(unit, utf8String, "x")))),
		k.limits("directoryName in another place", permit(dirName(dn("CN=app_user"))), leafName),
		k.limits("empty directoryName", exclude(dirName(seq())), leafName),
		k.limits("directoryName among the alternative names", permit(dirName(dn("O=Ours"))), leafName, san(dirName(dn("O=Partner")))),
		k.limits("DNS and a URN", permitDNS, dn("O=Ours"), san(dnsName("a.partner.example"), uriName("urn:x:y"))),
		k.limits("DNS and Microsoft's SID", permitDNS, dn("O=Ours"), san(dnsName("a.partner.example"), uriName("tag:microsoft.com,2022-09-14:sid:S-1-5"))),
		k.limits("DNS and an odd mailbox", permitDNS, dn("O=Ours"), san(dnsName("a.partner.example"), mailName("not a mailbox"))),
		k.limits("DNS and a UPN", permitDNS, dn("O=Ours"), san(dnsName("a.partner.example"), upn)),
		k.limits("registeredID of another identifier", permit(ridName("1.2.3")), dn("O=Ours"), san(ridName("1.2.4"))),
		k.limits("otherName of one type", permit(otherName("1.3.6.1.4.1.311.20.2.3", text(utf8String, "@ours.example"))), dn("O=Ours"), san(upn)),
		k.limits("otherName of another type", permit(otherName("1.2.3.4", text(utf8String, "x"))), dn("O=Ours"), san(upn)),
		k.limits("x400Address", permit(tlv(0xa3, seq())), dn("O=Ours"), san(tlv(0xa3, seq()))),
		k.limits("DNS name that is not there", permit(dns), dn("O=Ours")),
	}...)
}

// hostNames are alternative names and common names below constraints on DNS.
func (k *keys) hostNames(host func(string) []byte) []Case {
	permitDNS, excludeDNS := permit(dnsName("partner.example")), exclude(dnsName("ours.example"))
	var cases []Case
	for _, cn := range []string{
		"ours.example", "a.ours.example", "OURS.example", "a.partner.example", "app_user", "ours.example.", ".ours.example",
		"a-.ours.example", "a_b.ours.example", "ours..example", "10.1.2.3", "app user.ours.example", "xours.example", "app@ours.example", "-a.ours.example", "a.-b.ours.example", "ours.example-",
	} {
		cases = append(cases,
			k.limits("permitted DNS, common name "+cn, permitDNS, host(cn)),
			k.limits("excluded DNS, common name "+cn, excludeDNS, host(cn)))
	}
	for _, name := range []string{"partner.example", "a.partner.example", "xpartner.example", "PARTNER.EXAMPLE", "partner.example.", "", "*.partner.example", "a.partner.example\x00"} {
		cases = append(cases,
			k.limits(fmt.Sprintf("permitted DNS, alternative name %q", name), permitDNS, host("ours.example"), san(dnsName(name))),
			k.limits(fmt.Sprintf("DNS domain with a dot, alternative name %q", name), permit(dnsName(".partner.example")), dn("O=Ours"), san(dnsName(name))),
			k.limits(fmt.Sprintf("any DNS name excluded, alternative name %q", name), exclude(dnsName("")), dn("O=Ours"), san(dnsName(name))))
	}
	return append(cases,
		k.limits("common name in BMPString", permitDNS, cn(bmp, wide("ours.example", 2))),
		k.limits("common name in T61String", permitDNS, cn(t61, "ours.example")),
		k.limits("common name with a NUL at the end", permitDNS, cn(utf8String, "ours.example\x00")),
		k.limits("common name with a NUL inside", permitDNS, cn(utf8String, "ours\x00.example")),
		k.limits("common name of a BIT STRING", permitDNS, cn(0x03, "\x00ours.example")),
		k.limits("two common names, one outside", permitDNS, dn("CN=a.partner.example,CN=ours.example")),
		k.limits("common name and other alternative names", permitDNS, host("ours.example"), san(mailName("a@b.example"))),
		k.limits("common name of a server", permitDNS, host("ours.example")).server())
}

func (k *keys) mailboxes() []Case {
	mail := func(tag byte, s string) []byte { return seq(set(attribute(email, tag, s))) }
	smtp := func(tag byte, s string) []byte { return otherName("1.3.6.1.5.5.7.8.9", text(tag, s)) }
	permitMail := permit(mailName("partner.example"))
	permitDNS := permit(dnsName("partner.example"))
	return []Case{
		k.limits("email address in the subject outside", permitMail, mail(ia5, "app@ours.example")),
		k.limits("email address in the subject inside", permitMail, mail(ia5, "app@partner.example")),
		k.limits("email address in the subject in UTF8String", permitDNS, mail(utf8String, "app@partner.example")),
		k.limits("mailbox of the host", permitMail, dn("O=Ours"), san(mailName("app@PARTNER.example"))),
		k.limits("mailbox below the host", permitMail, dn("O=Ours"), san(mailName("app@evil.partner.example"))),
		k.limits("mailbox of a domain", permit(mailName(".partner.example")), dn("O=Ours"), san(mailName("app@a.partner.example"))),
		k.limits("mailbox of the domain itself", permit(mailName(".partner.example")), dn("O=Ours"), san(mailName("app@partner.example"))),
		k.limits("one mailbox", permit(mailName("app@partner.example")), dn("O=Ours"), san(mailName("app@partner.EXAMPLE"))),
		k.limits("one mailbox in another case", permit(mailName("app@partner.example")), dn("O=Ours"), san(mailName("App@partner.example"))),
		k.limits("one mailbox and another", permit(mailName("app@partner.example")), dn("O=Ours"), san(mailName("opp@partner.example"))),
		k.limits("mailbox with two at", permit(mailName("partner.example")), dn("O=Ours"), san(mailName(`"a@b"@partner.example`))),
		k.limits("mailbox of an empty local part", permit(mailName("@partner.example")), dn("O=Ours"), san(mailName("app@partner.example"))),
		k.limits("mailbox without at", permitMail, dn("O=Ours"), san(mailName("partner.example"))),
		k.limits("empty mailbox constraint", permit(mailName("")), dn("O=Ours"), san(mailName("app@partner.example"))),
		k.limits("SmtpUTF8Mailbox inside", permitMail, dn("O=Ours"), san(smtp(utf8String, "äpp@partner.example"))),
		k.limits("SmtpUTF8Mailbox outside", permitMail, dn("O=Ours"), san(smtp(utf8String, "äpp@ours.example"))),
		k.limits("SmtpUTF8Mailbox of a domain", permit(mailName(".partner.example")), dn("O=Ours"), san(smtp(utf8String, "äpp@a.Partner.example"))),
		k.limits("SmtpUTF8Mailbox of an excluded domain", exclude(mailName(".partner.example")), dn("O=Ours"), san(smtp(utf8String, "äpp@a.Partner.example"))).
			stricter("OpenSSL 3.0 finds nothing in a domain with a dot in front"),
		k.limits("SmtpUTF8Mailbox in IA5String", permitMail, dn("O=Ours"), san(smtp(ia5, "app@partner.example"))),
		k.limits("SmtpUTF8Mailbox of an A-label", permit(mailName("xn--bcher-kva.example")), dn("O=Ours"), san(smtp(utf8String, "app@bücher.example"))).
			stricter("Punycode is not decoded"),
	}
}

func (k *keys) addresses() []Case {
	return []Case{
		k.limits("URI of the host", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("spiffe://Partner.example/app"))),
		k.limits("URI of the host with a port", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("https://partner.example:8443/app"))),
		k.limits("URI below the host", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("https://evil.partner.example/"))),
		k.limits("URI of a domain", permit(uriName(".partner.example")), dn("O=Ours"), san(uriName("https://a.partner.example"))),
		k.limits("URI of the domain itself", permit(uriName(".partner.example")), dn("O=Ours"), san(uriName("https://partner.example"))),
		k.limits("URI without a host", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("https:///app"))),
		k.limits("URI without slashes", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("urn:partner.example"))),
		k.limits("URI with a user", permit(uriName("partner.example")), dn("O=Ours"), san(uriName("https://app@partner.example/"))),
		k.limits("excluded URI", exclude(uriName("partner.example")), dn("O=Ours"), san(uriName("spiffe://partner.example/app"))),
		k.limits("IPv4 address inside", permit(ipName(10, 0, 0, 0, 255, 0, 0, 0)), dn("O=Ours"), san(ipName(10, 1, 2, 3))),
		k.limits("IPv4 address outside", permit(ipName(10, 0, 0, 0, 255, 0, 0, 0)), dn("O=Ours"), san(ipName(11, 1, 2, 3))),
		k.limits("mask with holes", permit(ipName(10, 0, 3, 0, 255, 0, 255, 0)), dn("O=Ours"), san(ipName(10, 9, 3, 7))),
		k.limits("base with host bits", permit(ipName(10, 1, 2, 3, 255, 0, 0, 0)), dn("O=Ours"), san(ipName(10, 7, 7, 7))),
		k.limits("IPv6 address and an IPv4 net", permit(ipName(10, 0, 0, 0, 255, 0, 0, 0)), dn("O=Ours"), san(ipName(make([]byte, 16)...))),
		k.limits("excluded IPv6 net", exclude(ipName(make([]byte, 32)...)), dn("O=Ours"), san(ipName(make([]byte, 16)...))),
		k.limits("address of 5 bytes", permit(ipName(10, 0, 0, 0, 255, 0, 0, 0)), dn("O=Ours"), san(ipName(10, 1, 2, 3, 4))),
		k.limits("net of 9 bytes", permit(ipName(10, 0, 0, 0, 255, 0, 0, 0, 0)), dn("O=Ours"), san(ipName(10, 1, 2, 3))),
	}
}
