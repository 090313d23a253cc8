package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reasons are the words of index.txt (openssl apps/ca.c, crl_reasons) with their codes of
// RFC 5280, section 5.3.1. The last three have a value behind a comma.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "CACompromise": 2, "affiliationChanged": 3, "superseded": 4,
	"cessationOfOperation": 5, "certificateHold": 6, "removeFromCRL": 8,
	holdInstruction: 6, keyTime: 1, caKeyTime: 2,
}

const (
	holdInstruction = "holdInstruction"
	keyTime         = "keyTime"
	caKeyTime       = "CAkeyTime"
)

// Reasons are those that [CA.Revoke] accepts. An empty one is accepted, too.
func Reasons() []string {
	return []string{"keyCompromise", "superseded", "cessationOfOperation", "affiliationChanged", "certificateHold", "unspecified"}
}

var (
	oidInvalidityDate  = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidHoldInstruction = asn1.ObjectIdentifier{2, 5, 29, 23}
)

// revocation is the third field of a revoked certificate in index.txt.
type revocation struct {
	at     time.Time
	reason string
	code   int
	more   []pkix.Extension
}

func parseRevocation(text string) (r revocation, err error) {
	parts := strings.Split(text, ",")
	if r.at, err = parseTime(parts[0]); err != nil {
		return r, fmt.Errorf("has the time of revocation %q, which is no time such as 270131120000Z", parts[0])
	}
	if len(parts) == 1 {
		return r, nil
	}
	r.reason = parts[1]
	known := false
	for word, code := range reasons { // openssl ignores their case
		if strings.EqualFold(word, r.reason) {
			r.reason, r.code, known = word, code, true
		}
	}
	withValue := slices.Contains([]string{holdInstruction, keyTime, caKeyTime}, r.reason)
	if !known || withValue != (len(parts) == 3) || len(parts) > 3 {
		return r, fmt.Errorf("has the reason %q, which openssl does not know", strings.Join(parts[1:], ","))
	}
	if withValue {
		extension, err := valueOf(r.reason, parts[2])
		if err != nil {
			return r, err
		}
		r.more = []pkix.Extension{extension}
	}
	return r, nil
}

// valueOf makes the extension of RFC 5280, section 5.3.2, or of RFC 3280, section 5.3.2.
func valueOf(reason, value string) (pkix.Extension, error) {
	if reason == holdInstruction {
		oid, err := holdOID(value)
		if err != nil {
			return pkix.Extension{}, err
		}
		der, err := asn1.Marshal(oid)
		return pkix.Extension{Id: oidHoldInstruction, Value: der}, err
	}
	at, err := time.Parse(generalizedTime, value)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("has the time %q behind its reason, which is no time such as 20270131120000Z", value)
	}
	der, err := asn1.MarshalWithParams(at.UTC(), "generalized")
	return pkix.Extension{Id: oidInvalidityDate, Value: der}, err
}

// holdOIDs are the names that openssl has for instructions (RFC 3280, section 5.3.2).
var holdOIDs = map[string]string{
	"holdInstructionNone": "1.2.840.10040.2.1", "holdInstructionCallIssuer": "1.2.840.10040.2.2", "holdInstructionReject": "1.2.840.10040.2.3",
}

func holdOID(text string) (oid asn1.ObjectIdentifier, err error) {
	if named, ok := holdOIDs[text]; ok {
		text = named
	}
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("has the instruction %q behind its reason, which is no object identifier", text)
		}
		oid = append(oid, n)
	}
	return oid, nil
}
