package certs

import (
	"fmt"
	"strconv"
)

// Reason is the kind of a refusal. The values may be used as labels.
type Reason string

// The reasons.
const (
	UnknownCA      Reason = "unknown_ca"
	Expired        Reason = "expired"
	NotYetValid    Reason = "not_yet_valid"
	WrongPurpose   Reason = "wrong_purpose"
	NameConstraint Reason = "name_constraint"
	WeakKey        Reason = "weak_key" // or a weak signature
	Invalid        Reason = "invalid"
)

// Error is why a chain is refused.
type Error struct {
	Reason  Reason
	Cert    *Certificate // the one at fault, which may be a CA's
	Depth   int          // its place in the chain: 0 is the leaf
	Purpose Purpose
	Problem string // goes on from the name of the certificate
	Rule    string // where the rule stands: "RFC 5280 section 4.2.1.9"; may be empty
	Remedy  string // what to do about it

	Path   []*Certificate // where no chain was found: as far as the search came
	Signed bool           // there is a chain, and all its signatures are good
}

func (e *Error) Error() string {
	rule, remedy := "", ""
	if e.Rule != "" {
		rule = " (" + e.Rule + ")"
	}
	if e.Remedy != "" {
		remedy = ": " + e.Remedy
	}
	return e.Subject() + " " + e.Problem + rule + remedy
}

// Subject names the certificate at fault: what it is, its serial number, its
// subject and its issuer.
func (e *Error) Subject() string {
	what := e.Purpose.String() + " certificate"
	if e.Depth > 0 {
		what = "CA certificate"
	}
	from := ""
	if e.Cert.Origin != "" {
		from = ", " + e.Cert.Origin
	}
	return what + " " + e.Cert.Serial() + " (" + strconv.Quote(text(e.Cert.Subject)) + ", issued by " + strconv.Quote(text(e.Cert.Issuer)) + from + ")"
}

// maxText is the longest name, in DER, that is written into a message. To write one that fills a handshake
// would cost as much as to read it.
const maxText = 2 << 10

// text writes a name for a message. It is to be quoted.
func text(n Name) string {
	if len(n.Raw) > maxText {
		return fmt.Sprintf("... (%d bytes)", len(n.Raw))
	}
	return clip(n.String())
}
