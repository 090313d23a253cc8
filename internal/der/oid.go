package der

import (
	"fmt"
	"strconv"
	"strings"
)

// OID is an object identifier as the content of its encoding.
type OID string

// ValidOID is ossl_c2i_ASN1_OBJECT: whole arcs without leading zeros.
func ValidOID(b []byte) bool {
	if len(b) == 0 || b[len(b)-1]&0x80 != 0 {
		return false
	}
	for i, c := range b {
		if c == 0x80 && (i == 0 || b[i-1]&0x80 == 0) {
			return false
		}
	}
	return true
}

// String writes the identifier in dotted decimal, and one with an arc above 63
// bits in hexadecimal.
func (o OID) String() string {
	var b strings.Builder
	var arc uint64
	first := true
	for i := range len(o) {
		if arc > 1<<56 {
			return fmt.Sprintf("0x%X", string(o))
		}
		arc = arc<<7 | uint64(o[i]&0x7f)
		if o[i]&0x80 != 0 {
			continue
		}
		if first {
			root := min(arc/40, 2)
			b.WriteString(strconv.FormatUint(root, 10))
			arc, first = arc-40*root, false
		}
		b.WriteByte('.')
		b.WriteString(strconv.FormatUint(arc, 10))
		arc = 0
	}
	return b.String()
}
