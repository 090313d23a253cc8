// Package lock has the locks that administrators put on clients in an incident: what a
// lock matches, the set of locks that a gate asks, and the table in a file that keeps
// them over a restart.
//
// A Set is immutable, so any goroutine may ask it. A Table has a mutex. The package asks
// no clock: its callers pass the time.
package lock

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"pgwicket/acl"
)

// Filter matches clients. All conditions that are set must hold. The zero Filter matches
// nobody, so that a condition that was lost locks nobody out and ends no session. Make
// one with ParseFilter.
type Filter struct {
	CN       string `json:"cn,omitempty"`       // the common name of the certificate
	Serial   string `json:"serial,omitempty"`   // of the certificate, in hexadecimal, without leading zeros
	Issuer   string `json:"issuer,omitempty"`   // of the certificate, in the form of RFC 2253
	SPKI     string `json:"spki,omitempty"`     // SHA-256 of the public key, in hexadecimal
	User     string `json:"user,omitempty"`     // that the client asks for
	Database string `json:"database,omitempty"` // likewise; physical replication has none
	Source   string `json:"source,omitempty"`   // a network
	Session  string `json:"session,omitempty"`  // its id

	network netip.Prefix // of Source
}

// condition is one kind of condition, by the name that it has on the command line, in a
// request to the gate and in the file.
type condition struct {
	name  string
	of    func(*Filter) *string
	parse func(string) (string, error)
}

var conditions = []condition{
	{"cn", func(f *Filter) *string { return &f.CN }, parseName},
	{"serial", func(f *Filter) *string { return &f.Serial }, parseSerial},
	{"issuer", func(f *Filter) *string { return &f.Issuer }, parseIssuer},
	{"spki", func(f *Filter) *string { return &f.SPKI }, parseSPKI},
	{"user", func(f *Filter) *string { return &f.User }, parseName},
	{"database", func(f *Filter) *string { return &f.Database }, parseName},
	{"source", func(f *Filter) *string { return &f.Source }, parseSource},
	{"session", func(f *Filter) *string { return &f.Session }, parseSession},
}

// Conditions returns the names of the conditions.
func Conditions() (names []string) {
	for _, c := range conditions {
		names = append(names, c.name)
	}
	return names
}

// ParseFilter reads a filter from values by the names of Conditions; it ignores other
// names. A condition that is there must have one value, and not an empty one. No
// condition at all is no error: the result is the zero Filter.
func ParseFilter(values url.Values) (Filter, error) {
	var f Filter
	for _, c := range conditions {
		texts, there := values[c.name]
		if !there {
			continue
		}
		if len(texts) != 1 {
			return Filter{}, fmt.Errorf("%s is there %d times; a filter has one of each kind", c.name, len(texts))
		}
		value, err := c.parse(texts[0])
		if err != nil {
			return Filter{}, fmt.Errorf("%s: %w", c.name, err)
		}
		*c.of(&f) = value
	}
	f.network, _ = netip.ParsePrefix(f.Source) // parseSource has written it
	return f, nil
}

// Values returns what ParseFilter reads.
func (f Filter) Values() url.Values {
	values := url.Values{}
	for _, c := range conditions {
		if text := *c.of(&f); text != "" {
			values.Set(c.name, text)
		}
	}
	return values
}

// IsZero reports whether the filter has no condition.
func (f Filter) IsZero() bool { return f == Filter{} }

// IsEverybody reports whether a filter matches every client that can be: its only
// condition is a network of all addresses.
func (f Filter) IsEverybody() bool {
	return f.network.IsValid() && f.network.Bits() == 0 && f == Filter{Source: f.Source, network: f.network}
}

// String returns the conditions as they are written on the command line, without the
// dashes.
func (f Filter) String() string {
	var parts []string
	for _, c := range conditions {
		switch text := *c.of(&f); {
		case text == "":
		case strings.ContainsAny(text, ` "'`):
			parts = append(parts, fmt.Sprintf("%s %q", c.name, text))
		default:
			parts = append(parts, c.name+" "+text)
		}
	}
	return strings.Join(parts, " ")
}

// Matches reports whether every condition holds for a client.
func (f *Filter) Matches(q *acl.Request) bool {
	id := q.Certificate
	switch {
	case f.IsZero():
		return false
	case f.CN+f.Serial+f.Issuer+f.SPKI != "" && id == nil,
		f.CN != "" && f.CN != id.CN,
		f.Serial != "" && f.Serial != shortSerial(id.Serial),
		f.Issuer != "" && f.Issuer != id.Issuer,
		f.SPKI != "" && f.SPKI != id.SPKI,
		f.User != "" && f.User != q.User,
		f.Database != "" && (f.Database != q.Database || q.Replication == acl.PhysicalReplication),
		f.Session != "" && f.Session != q.Session,
		f.network.IsValid() && !f.network.Contains(q.Source.Unmap().WithZone("")):
		return false
	}
	return true
}

// shortSerial returns a serial number in hexadecimal as a filter has it.
func shortSerial(text string) string {
	if text = strings.TrimLeft(text, "0"); text == "" {
		return "0"
	}
	return text
}

// maxName is the longest name of a role or database in PostgreSQL, in bytes. A longer
// common name cannot be matched either: acl.Identity leaves it out.
const maxName = 63

// maxText bounds an issuer and a reason, in bytes.
const maxText = 1000

func parseText(text string, most int) (string, error) {
	switch {
	case text == "":
		return "", errors.New("is empty; it would match nobody")
	case len(text) > most:
		return "", fmt.Errorf("is longer than %d bytes", most)
	case strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) }):
		return "", fmt.Errorf("%q has a control character, or is not UTF-8", text)
	}
	return text, nil
}

func parseName(text string) (string, error) {
	name, err := parseText(text, maxName)
	if err == nil && strings.TrimSpace(name) == "" {
		return "", errors.New("is only spaces; it would match nobody")
	}
	return name, err
}

// parseSerial takes what openssl prints: "serial=AB01", with colons or without.
func parseSerial(text string) (string, error) {
	digits := strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(text, "serial="), ":", ""))
	digits = strings.TrimPrefix(digits, "0X")
	const most = 128 // far above the 20 bytes of RFC 5280, section 4.1.2.2
	if digits == "" || len(digits) > most || strings.Trim(digits, "0123456789ABCDEF") != "" {
		return "", fmt.Errorf("%q is not a serial number in hexadecimal; get it with: openssl x509 -in client.crt -noout -serial", text)
	}
	return shortSerial(digits), nil
}

func parseSPKI(text string) (string, error) {
	digits := strings.ToLower(strings.ReplaceAll(text, ":", ""))
	if b, err := hex.DecodeString(digits); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%q is not a SHA-256 in hexadecimal; \"pgwicket explain\" and \"pgwicket sessions --json\" print it", text)
	}
	return digits, nil
}

// parseIssuer refuses the form that openssl prints by default, which would match nobody.
func parseIssuer(text string) (string, error) {
	name, err := parseText(text, maxText)
	if err == nil && (!strings.Contains(name, "=") || strings.Contains(name, " = ") || strings.Contains(name, ", ") && !strings.Contains(name, `\, `)) {
		return "", fmt.Errorf("%q is not in the form of RFC 2253; get it with: openssl x509 -in client.crt -noout -issuer -nameopt RFC2253", text)
	}
	return name, err
}

func parseSource(text string) (string, error) {
	if text == "" {
		return "", errors.New("is empty; it would match nobody")
	}
	p, err := acl.ParsePrefix(text)
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// parseSession takes an id as the log has it.
func parseSession(text string) (string, error) {
	instance, number, found := strings.Cut(text, "-")
	lower := func(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'v' }
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	const longest = 40
	if !found || instance == "" || number == "" || len(text) > longest ||
		strings.TrimFunc(instance, lower) != "" || strings.TrimFunc(number, digit) != "" || slices.Contains([]byte(number[:1]), '0') {
		return "", fmt.Errorf("%q is not the id of a session; \"pgwicket sessions\" prints it", text)
	}
	return text, nil
}
