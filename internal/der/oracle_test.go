package der_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/tlstest"
)

// TestASN1Parse compares the reader with "openssl asn1parse" on certificates and lists that were changed at random.
func TestASN1Parse(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	ca := tlstest.NewCA("oracle")
	originals := [][]byte{ca.Cert.Raw, ca.Client("alice").Leaf().Raw, ca.CRL(func(l *tlstest.CRL) { l.Revoke(ca.Cert) })}
	r := rand.New(rand.NewPCG(5, 6))
	both, neither := 0, 0
	for i := range 300 {
		data := bytes.Clone(originals[i%len(originals)])
		if i >= len(originals) {
			headers, _ := walk(data)
			at := headers[r.IntN(len(headers))]
			data[at.at+r.IntN(at.header)] = byte(r.IntN(256))
		}
		theirs, definite, good := askASN1Parse(t, data)
		ours, ok := walk(data)
		switch {
		case !definite: // the indefinite form and its end are not read
			continue
		case good != ok:
			t.Errorf("OpenSSL reads it: %t, we: %t\n%x", good, ok, data)
		case !ok:
			neither++
		case !slices.Equal(theirs, texts(ours)):
			t.Errorf("OpenSSL reads\n%s\nwe\n%s\nof %x", strings.Join(theirs, "\n"), strings.Join(texts(ours), "\n"), data)
		default:
			both++
		}
	}
	t.Logf("both read %d, and neither %d", both, neither)
	if both < 50 || neither < 50 {
		t.Error("these are too few to tell")
	}
}

var asn1Line = regexp.MustCompile(`^ *(\d+):d= *(\d+) +hl= *(\d+) l= *(\d+) (cons|prim):`)

// askASN1Parse returns what OpenSSL reads, whether all lengths are definite, and whether it could read all.
func askASN1Parse(t *testing.T, data []byte) (lines []string, definite, good bool) {
	t.Helper()
	cmd := exec.Command("openssl", "asn1parse", "-inform", "DER")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "l=inf") || strings.Contains(line, ": EOC") {
			return nil, false, false
		}
		if m := asn1Line.FindStringSubmatch(line); m != nil {
			lines = append(lines, strings.Join(m[1:], " "))
		}
	}
	return lines, true, err == nil
}

func texts(all []element) (lines []string) {
	for _, e := range all {
		form := "prim"
		if e.id&0x20 != 0 {
			form = "cons"
		}
		lines = append(lines, strings.Join([]string{strconv.Itoa(e.at), fmt.Sprint(e.depth), fmt.Sprint(e.header), fmt.Sprint(e.length), form}, " "))
	}
	return lines
}
