package tlsconfig

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/nearest"
)

// unsupported is a family of names that OpenSSL has and crypto/tls has not. They are common in postgresql.conf, and "unknown
// name" alone would make the reader look for a spelling mistake.
type unsupported struct {
	name *regexp.Regexp
	why  string
}

var unsupportedSuites = []unsupported{
	{regexp.MustCompile(`(?i)(^|[-_])(PSK|SRP)([-_]|$)`), "Go has no pre-shared keys and no SRP"},
	{regexp.MustCompile(`(?i)(^|[-_])(NULL|ADH|AECDH|ANON)([-_]|$)`), "Go has no suites without encryption or without authentication"},
	{regexp.MustCompile(`(?i)^EXP-|EXPORT|(^|[-_])(DES-CBC|DES_CBC|RC2|DES40)([-_]|$)`), "Go has no export-grade and no single-DES suites"},
	{regexp.MustCompile(`(?i)CAMELLIA|ARIA|SEED|IDEA|GOST|KUZNYECHIK|MAGMA|SM4`), "of the block ciphers Go has AES (and 3DES) only"},
	{regexp.MustCompile(`(?i)^(DHE|EDH|DH|TLS_DHE|TLS_DH)[-_]`), "Go has no finite-field Diffie-Hellman (DHE)"},
	{regexp.MustCompile(`(?i)^(TLS_)?ECDH[-_]`), "Go has no static ECDH"},
	{regexp.MustCompile(`(?i)[-_]CCM(_?8)?([-_]|$)`), "Go has no AES-CCM"},
	{regexp.MustCompile(`(?i)AES256-SHA(384|256)$|AES_256_CBC_SHA(384|256)$`), "Go has no AES-256-CBC with SHA-256 or SHA-384"},
}

// crypto/tls has the curves of NIST without P-224, X25519, and their hybrids with ML-KEM.
var unsupportedGroups = []unsupported{
	{regexp.MustCompile(`(?i)^(ffdhe|modp|dh_)`), "Go has no finite-field Diffie-Hellman"},
	{regexp.MustCompile(`(?i)^(curve)?x?448$`), "Go has no X448"},
	{regexp.MustCompile(`(?i)brainpool`), "Go has no Brainpool curves"},
	{regexp.MustCompile(`(?i)^(secp(112|128|160|192|224|256k)|sect|prime192|prime239|wap-|c2|P-?(192|224)$)`), "Go has no curve but P-256, P-384, P-521 and X25519"},
	{regexp.MustCompile(`(?i)^ML-?KEM-?(512|768|1024)$`), "Go has ML-KEM only together with an elliptic curve"},
	{regexp.MustCompile(`(?i)kyber`), "Kyber was a draft of ML-KEM, and Go has the final one"},
	{regexp.MustCompile(`(?i)^curve(SM2|SM2MLKEM768)$`), "Go has no SM2"},
}

// expression matches the operators of OpenSSL's cipher strings and the words for many suites (openssl-ciphers(1)).
// ssl_ciphers has them.
var expression = regexp.MustCompile(`(?i)^[!+\-@]|\+|^(ALL|DEFAULT|COMPLEMENTOF(ALL|DEFAULT)|HIGH|MEDIUM|LOW|EXP(ORT)?|` +
	`[ek]?NULL|[aek]?(RSA|DSS|PSK|ECDSA)|aNULL|[ek]?(EDH|DHE|EECDH|ECDHE)|A?ECDH|[ak]?(DH|GOST\w*|SRP)|ADH|` +
	`AES(128|256|GCM|CCM|CCM8)?|CHACHA20|ARIA(128|256|GCM)?|CAMELLIA(128|256)?|CBC|3DES|DES|RC[24]|SEED|IDEA|` +
	`MD5|SHA1?|SHA(256|384)|(SSL|TLS)v[0-9.]+|SUITEB\w+|PROFILE=\w+)$`)

// joined splits a list that is written as one string, as in ssl_ciphers and ssl_groups; nil if it is one word.
func joined(name string) []string {
	words := strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(":,;/ \t\r\n", r) })
	if name == strings.Join(words, "") {
		return nil
	}
	return words
}

// explainSuite says why a name is not a supported cipher suite, and what to write instead.
func explainSuite(name string) string {
	if words := joined(name); words != nil {
		return explainJoined("ciphers", name, words, func(w string) (string, bool) {
			s, ok := findSuite(w)
			return s.openssl, ok
		}, func(w string) bool { return expression.MatchString(w) })
	}
	if expression.MatchString(name) {
		return notAnExpression(name)
	}
	if why := match(unsupportedSuites, name); why != "" {
		return fmt.Sprintf("%q: %s: write %s instead", name, why, equivalent(name))
	}
	known := make([]string, 0, 2*len(suites))
	for _, s := range suites {
		known = append(known, s.openssl, s.iana)
	}
	return unknown("cipher suite", name, known, "a name such as ECDHE-RSA-AES256-GCM-SHA384")
}

// explainGroup does the same for a group.
func explainGroup(name string) string {
	if words := joined(name); words != nil {
		return explainJoined("groups", name, words, func(w string) (string, bool) {
			g, ok := findGroup(strings.TrimLeft(w, "*?"))
			if !ok {
				return "", false
			}
			return g.names[0], true
		}, func(w string) bool { return strings.EqualFold(w, "DEFAULT") || strings.HasPrefix(w, "-") })
	}
	if strings.EqualFold(name, "DEFAULT") {
		return fmt.Sprintf("%q is a keyword of OpenSSL: leave groups out for the default", name)
	}
	// In OpenSSL 3.5 the prefix "*" is for a group to send a key share for, and "?" for one that may be unknown.
	if g, ok := findGroup(strings.TrimLeft(name, "*?")); ok {
		return fmt.Sprintf("%q has a prefix of OpenSSL that Go does not have: write %s", name, g.names[0])
	}
	if why := match(unsupportedGroups, name); why != "" {
		return fmt.Sprintf("%q: %s: write X25519, prime256v1 or X25519MLKEM768 instead", name, why)
	}
	var known []string
	for _, g := range groups {
		known = append(known, g.names...)
	}
	return unknown("group", name, known, "X25519, prime256v1 or X25519MLKEM768")
}

// ExplainText says what to write instead of a text for ciphers or groups, which are lists. It is
// empty for any other key, and for one name that is right but for the form.
func ExplainText(key, text string) string {
	switch key {
	case "ciphers":
		if _, ok := findSuite(text); !ok {
			return explainSuite(text)
		}
	case "groups":
		if _, ok := findGroup(text); !ok {
			return explainGroup(text)
		}
	}
	return ""
}

// explainVersion says what to write instead of an unknown protocol version.
func explainVersion(name string) string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(lower, "ssl"):
		return fmt.Sprintf("%q: Go has TLS only, not SSL: write TLSv1.2", name)
	case strings.HasSuffix(lower, "1.0"):
		return fmt.Sprintf("%q is not a protocol version: write TLSv1", name)
	}
	return unknown("protocol version", name, versionNames, "TLSv1.2 or TLSv1.3")
}

func match(families []unsupported, name string) string {
	if i := slices.IndexFunc(families, func(m unsupported) bool { return m.name.MatchString(name) }); i >= 0 {
		return families[i].why
	}
	return ""
}

// explainJoined returns what to write for a list in one string, with the members that Go has.
func explainJoined(key, name string, words []string, find func(string) (string, bool), isExpression func(string) bool) string {
	var known, others []string
	for _, w := range words {
		if n, ok := find(w); ok {
			known = append(known, n)
		} else {
			others = append(others, w)
		}
	}
	switch {
	case len(known) == 0 && slices.ContainsFunc(words, isExpression):
		return notAnExpression(name)
	case len(known) == 0:
		return fmt.Sprintf("%q joins several names, none of which Go has: leave %s out for the default", name, key)
	case len(others) == 0:
		return fmt.Sprintf("%q joins several names: write them as a list, %s: [%s]", name, key, strings.Join(known, ", "))
	default:
		return fmt.Sprintf("%q joins several names, and Go does not have %q: write %s: [%s]",
			name, others, key, strings.Join(known, ", "))
	}
}

func notAnExpression(name string) string {
	return fmt.Sprintf("%q is an expression of OpenSSL, and Go takes only the names of suites: leave ciphers out for the default "+
		"(ECDHE with AES-GCM or ChaCha20, and TLS 1.3), or name each suite, such as ECDHE-ECDSA-AES256-GCM-SHA384", name)
}

// equivalent returns the suite of the default list with the strength and the kind of key of a name of OpenSSL.
func equivalent(name string) string {
	name = strings.ToUpper(name)
	is256 := strings.Contains(name, "256-") || strings.Contains(name, "_256_") || strings.HasSuffix(name, "SHA384")
	isECDSA := strings.Contains(name, "ECDSA")
	is13 := regexp.MustCompile(`^TLS_(AES|ARIA|CAMELLIA|SM4|SHA)[0-9_]`).MatchString(name)
	isChaCha := strings.Contains(name, "CHACHA20")
	for _, s := range defaultSuites {
		if s.is13() == is13 && strings.Contains(s.iana, "_256_GCM") == (is256 && !isChaCha) &&
			strings.Contains(s.iana, "CHACHA20") == isChaCha && (is13 || s.needsECDSA() == isECDSA) {
			return s.openssl
		}
	}
	return "ECDHE-RSA-AES256-GCM-SHA384"
}

// unknown suggests the known word that is nearest to a wrong one, or else an example.
func unknown(what, name string, known []string, example string) string {
	if best, ok := nearest.Word(name, known); ok {
		return fmt.Sprintf("%q is not a %s that Go has: did you mean %s?", name, what, best)
	}
	return fmt.Sprintf("%q is not a %s that Go has: write %s", name, what, example)
}
