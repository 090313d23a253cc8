package pki

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// The states of a certificate in index.txt (openssl apps/ca.c, DB_TYPE_*).
const (
	StatusValid   = "valid"
	StatusRevoked = "revoked"
	StatusExpired = "expired"
)

var statuses = map[string]string{"V": StatusValid, "R": StatusRevoked, "E": StatusExpired}

// The fields of a line of index.txt (openssl apps/include/apps.h).
const (
	fieldStatus = iota
	fieldExpires
	fieldRevoked
	fieldSerial
	fieldFile
	fieldSubject
	fieldCount
)

// index is index.txt. A line that no command changes is written as it was read.
type index struct {
	rows [][]string // of fieldCount fields each
}

// parseIndex reads index.txt and refuses what openssl would read in another way, or not
// at all. Comments are left out, as openssl does when it writes the file.
func parseIndex(text string) (*index, error) {
	if text != "" && !strings.HasSuffix(text, "\n") {
		return nil, errors.New("its last line has no newline, so it may have been cut off, and openssl would ignore it: compare it with index.txt.old and newcerts, then add the newline")
	}
	x := &index{}
	seen := make(map[string]int)
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		row, err := parseRow(line)
		if err != nil {
			return nil, fmt.Errorf("line %d %w", n, err)
		}
		number := strings.TrimLeft(row[fieldSerial], "0") // 01 and 0001 are one number in a list
		if first, twice := seen[number]; twice {
			return nil, fmt.Errorf("line %d has the serial number of line %d, %s", n, first, row[fieldSerial])
		}
		seen[number] = n
		x.rows = append(x.rows, row)
	}
	return x, nil
}

func parseRow(line string) ([]string, error) {
	if strings.HasSuffix(line, "\r") {
		return nil, errors.New(`ends in CR LF: convert the file with sed -i 's/\r$//' index.txt`)
	}
	row := splitRow(line)
	if len(row) != fieldCount {
		return nil, fmt.Errorf("has %d fields separated by tabs, not %d", len(row), fieldCount)
	}
	if statuses[row[fieldStatus]] == "" {
		return nil, fmt.Errorf("has the unknown status %q: it must be V, R or E", row[fieldStatus])
	}
	if _, err := parseTime(row[fieldExpires]); err != nil {
		return nil, fmt.Errorf("has the expiry %q, which is no time such as 270131120000Z", row[fieldExpires])
	}
	if (row[fieldStatus] == "R") != (row[fieldRevoked] != "") {
		return nil, errors.New("has the status R without a time of revocation, or such a time without R")
	}
	if row[fieldStatus] == "R" {
		if _, err := parseRevocation(row[fieldRevoked]); err != nil {
			return nil, err
		}
	}
	if s := row[fieldSerial]; s == "" || len(s)%2 != 0 || strings.Trim(s, "0123456789ABCDEF") != "" {
		return nil, fmt.Errorf("has the serial number %q, which is not hexadecimal in capitals with an even number of digits", s)
	}
	return row, nil
}

// splitRow splits at tabs without a backslash before them (openssl crypto/txt_db/txt_db.c).
func splitRow(line string) (row []string) {
	begin := 0
	for i := range len(line) {
		if line[i] == '\t' && (i == 0 || line[i-1] != '\\') {
			row = append(row, line[begin:i])
			begin = i + 1
		}
	}
	return append(row, line[begin:])
}

func (x *index) String() string {
	var b strings.Builder
	for _, row := range x.rows {
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	return b.String()
}

// find returns the row of a serial number; nil if there is none.
func (x *index) find(serial string) []string {
	for _, row := range x.rows {
		if row[fieldSerial] == serial {
			return row
		}
	}
	return nil
}

// add appends a valid certificate.
func (x *index) add(expires time.Time, serial, subject string) {
	x.rows = append(x.rows, []string{"V", formatTime(expires), "", serial, "unknown", subject})
}

// revoke revokes what find has returned. The reason may be empty.
func revoke(row []string, at time.Time, reason string) {
	row[fieldStatus], row[fieldRevoked] = "R", formatTime(at)
	if reason != "" {
		row[fieldRevoked] += "," + reason
	}
}

// commonName returns the first common name in the one-line form of a subject.
func commonName(subject string) string {
	_, cn, _ := strings.Cut(subject, "/CN=")
	for i := range len(cn) {
		if cn[i] == '/' && isAttribute(cn[i+1:]) {
			cn = cn[:i]
			break
		}
	}
	return unescape(cn)
}

// isAttribute reports whether a text begins as an attribute, such as O=.
func isAttribute(text string) bool {
	name, _, ok := strings.Cut(text, "=")
	return ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.") == ""
}

// oneLine is X509_NAME_oneline for a subject that is only a common name.
func oneLine(cn string) string {
	var b strings.Builder
	b.WriteString("/CN=")
	for i := range len(cn) {
		if cn[i] < ' ' || cn[i] > '~' {
			fmt.Fprintf(&b, "\\x%02X", cn[i])
		} else {
			b.WriteByte(cn[i])
		}
	}
	return b.String()
}

// unescape reads the \xHH of oneLine.
func unescape(text string) string {
	if !strings.Contains(text, `\x`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		var c byte
		if n, _ := fmt.Sscanf(text[i:min(i+4, len(text))], "\\x%02X", &c); n == 1 && i+4 <= len(text) {
			b.WriteByte(c)
			i += 3
		} else {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// serialText writes a serial number as openssl's BN_bn2hex does.
func serialText(n *big.Int) string {
	text := strings.ToUpper(n.Text(16))
	if len(text)%2 != 0 {
		text = "0" + text
	}
	return text
}

const (
	utcTime         = "060102150405Z"
	generalizedTime = "20060102150405Z"
)

// formatTime writes a time as in a certificate: a UTCTime up to 2049 (RFC 5280, section 4.1.2.5).
func formatTime(t time.Time) string {
	if t = t.UTC(); t.Year() >= 1950 && t.Year() < 2050 {
		return t.Format(utcTime)
	}
	return t.Format(generalizedTime)
}

func parseTime(text string) (time.Time, error) {
	if len(text) == len(generalizedTime) {
		return time.Parse(generalizedTime, text)
	}
	t, err := time.Parse(utcTime, text)
	if err == nil && t.Year() >= 2050 { // Go's two digits reach to 2068
		t = t.AddDate(-100, 0, 0)
	}
	return t, err
}
