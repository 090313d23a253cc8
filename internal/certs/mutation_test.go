package certs_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// mutations is how many changed certificates each test asks OpenSSL about;
// CERTS_MUTATIONS sets another number.
func mutations(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("CERTS_MUTATIONS")); err == nil {
		return n
	}
	if testing.Short() {
		return 50
	}
	return 200
}

// mutate changes a certificate in one place or two.
func mutate(r *rand.Rand, der []byte) []byte {
	out := bytes.Clone(der)
	for range 1 + r.IntN(4)/3 {
		at := r.IntN(len(out))
		switch r.IntN(6) {
		case 0:
			out[at] ^= 1 << r.IntN(8)
		case 1:
			out[at] = byte(r.IntN(256))
		case 2:
			out[at] = []byte{0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x16, 0x1e, 0x30, 0x31, 0x80, 0x81, 0xa0, 0xa1, 0xff}[r.IntN(18)]
		case 3:
			out[at]++
		case 4:
			out[at]--
		case 5: // one byte more or less inside of the two outer lengths
			if len(out) > 300 && at > 20 && out[1] == 0x82 {
				if r.IntN(2) == 0 {
					out = append(out[:at], out[at+1:]...)
				} else {
					out = append(out[:at], append([]byte{byte(r.IntN(256))}, out[at:]...)...)
				}
				size := len(out) - 4
				out[2], out[3] = byte(size>>8), byte(size)
			}
		}
	}
	return out
}

// TestMutatedVerdicts changes the signed part of leaves, sub-CAs and roots at
// random, signs it again, and asks OpenSSL and Verify.
func TestMutatedVerdicts(t *testing.T) {
	t.Parallel()
	forge, err := chains.NewForge()
	if err != nil {
		t.Fatal(err)
	}
	plainLeaf := forge.Sign(forge.Leaves[0])
	changed := func(r *rand.Rand, parts [][]byte) []byte { return forge.Sign(mutate(r, parts[r.IntN(len(parts))])) }
	roles := []func(*rand.Rand, *chains.Case){
		func(r *rand.Rand, c *chains.Case) { c.Leaf, c.CA = changed(r, forge.Leaves), [][]byte{forge.Root} },
		func(r *rand.Rand, c *chains.Case) {
			c.Leaf, c.Sent, c.CA = forge.Below, [][]byte{changed(r, forge.CAs)}, [][]byte{forge.Root}
		},
		func(r *rand.Rand, c *chains.Case) { c.Leaf, c.CA = plainLeaf, [][]byte{changed(r, forge.Roots)} },
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	admitted, stricter := 0, 0
	for i := range mutations(t) {
		c := chains.Case{Name: "mutation " + strconv.Itoa(i), Level: 2, Server: r.IntN(4) == 0, Partial: r.IntN(4) == 0}
		roles[i%len(roles)](r, &c)
		files := filepath.Join(dir, "case")
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		openssl, text := askOpenSSL(t, files, c)
		ours := judge(c)
		switch {
		case openssl && ours == nil:
			admitted++
		case openssl:
			stricter++
			t.Logf("%s: only OpenSSL admits it: %v\n%x\n%x\n%x", c.Name, ours, c.Leaf, c.Sent, c.CA)
		case ours == nil:
			t.Errorf("%s: OpenSSL refuses it: %s\n%x\n%x\n%x", c.Name, text, c.Leaf, c.Sent, c.CA)
		}
	}
	t.Logf("%d admitted, %d by OpenSSL alone", admitted, stricter)
	if stricter > mutations(t)/50 {
		t.Errorf("%d are refused that OpenSSL admits", stricter)
	}
}

// TestMutatedReading compares what OpenSSL, crypto/x509 and Parse read.
func TestMutatedReading(t *testing.T) {
	t.Parallel()
	forge, err := chains.NewForge()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	parts := slices.Concat(forge.Leaves, forge.CAs, forge.Roots)
	both := 0
	for i := range mutations(t) {
		der := mutate(r, forge.Sign(parts[i%len(parts)]))
		ours, err := certs.Parse(der)
		theirs := readByOpenSSL(t, der)
		if err == nil {
			compareWithGo(t, der, ours)
		}
		switch {
		case theirs == nil && err == nil:
			t.Errorf("OpenSSL does not read %x", der)
		case theirs != nil && err != nil:
			t.Logf("only OpenSSL reads it: %v\n%x", err, der)
		case theirs != nil:
			both++
			compare(t, der, ours, theirs)
		}
	}
	t.Logf("both read %d", both)
	if both < mutations(t)/4 {
		t.Errorf("both read %d only", both)
	}
}

// readByOpenSSL returns what "openssl x509" prints, by its names; nil if it reads
// nothing.
func readByOpenSSL(t *testing.T, der []byte) map[string]string {
	t.Helper()
	cmd := exec.Command("openssl", "x509", "-inform", "DER", "-noout", "-nameopt", "RFC2253", "-dateopt", "iso_8601",
		"-serial", "-subject", "-issuer", "-startdate", "-enddate")
	cmd.Stdin = bytes.NewReader(der)
	out, err := cmd.Output()
	if len(out) == 0 && err != nil {
		return nil
	}
	read := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "M") {
			read[key] = value
		}
	}
	return read
}

// keyByOpenSSL returns the public key, nil if it has none.
func keyByOpenSSL(der []byte) []byte {
	cmd := exec.Command("openssl", "x509", "-inform", "DER", "-noout", "-pubkey")
	cmd.Stdin = bytes.NewReader(der)
	out, _ := cmd.Output() // without a key it fails
	if block, _ := pem.Decode(out); block != nil {
		return block.Bytes
	}
	return nil
}

func compare(t *testing.T, der []byte, c *certs.Certificate, theirs map[string]string) {
	t.Helper()
	ours := map[string]string{
		"serial": c.Serial(), "subject": c.Subject.String(), "issuer": c.Issuer.String(),
		"notBefore": isoDate(c.NotBefore), "notAfter": isoDate(c.NotAfter),
	}
	for key, want := range ours {
		if got := theirs[key]; got != want && want != "" {
			t.Errorf("%s: OpenSSL reads %q, we read %q\n%x", key, got, want, der)
		}
	}
	if key := keyByOpenSSL(der); (key != nil) != (c.Key.Bits > 0) || key != nil && !bytes.Equal(key, c.RawSPKI) {
		t.Errorf("key: OpenSSL reads %x, we read %x (%s)\n%x", key, c.RawSPKI, c.Key.Name, der)
	}
}

func isoDate(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format("2006-01-02 15:04:05Z")
}

// compareWithGo holds Parse against crypto/x509 where that reads a certificate.
func compareWithGo(t *testing.T, der []byte, c *certs.Certificate) {
	t.Helper()
	theirs, err := x509.ParseCertificate(der)
	if err != nil {
		return
	}
	if !bytes.Equal(theirs.RawSubject, c.Subject.Raw) || !bytes.Equal(theirs.RawIssuer, c.Issuer.Raw) ||
		!bytes.Equal(theirs.RawSubjectPublicKeyInfo, c.RawSPKI) || !bytes.Equal(theirs.RawTBSCertificate, c.RawTBS) ||
		!bytes.Equal(theirs.Signature, c.Signature) || theirs.Version >= 3 && len(theirs.Extensions) != c.Extensions {
		t.Errorf("crypto/x509 reads it otherwise: %x", der)
	}
	if theirs.NotBefore.Equal(c.NotBefore) != !c.NotBefore.IsZero() || theirs.NotAfter.Equal(c.NotAfter) != !c.NotAfter.IsZero() {
		t.Errorf("crypto/x509 reads other dates: %v %v, we read %v %v", theirs.NotBefore, theirs.NotAfter, c.NotBefore, c.NotAfter)
	}
}
