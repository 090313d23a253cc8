package tlsconfig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	made "pgwicket/internal/tlstest/chains"
)

// unlikePKITS are the paths in which the gate refuses what OpenSSL admits.
var unlikePKITS = map[string]string{
	"InvaliddeltaCRLIndicatorNoBaseTest1": "a delta list alone is not complete", // PKITS agrees
	"InvaliddeltaCRLTest3":                "what one of several lists revokes is revoked",
	"InvaliddeltaCRLTest10":               "the complete list is stale, and the delta is not complete", // PKITS agrees
	"ValiddeltaCRLTest5":                  "what one of several lists revokes is revoked",
	"ValiddistributionPointTest4":         "Go cannot read a certificate whose distribution point has a relative name",
	"ValiddistributionPointTest5":         "Go cannot read a certificate whose distribution point has a relative name",
}

// TestPKITS asks OpenSSL, PostgreSQL and the gate about the paths of NIST's Public Key Interoperability Test Suite, with their
// revocation lists. PKITS_DIR is its directory, with certs and smime below it; testdata/pkits.txt has the results. Debian has
// the files in its package python3-cryptography-vectors. PostgreSQL judges at the time of the test: they are in date until the
// end of 2030.
func TestPKITS(t *testing.T) {
	dir := os.Getenv("PKITS_DIR")
	if dir == "" {
		t.Skip("PKITS_DIR is not set")
	}
	needOpenSSL(t)
	cases, err := made.PKITS(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := newPostgreSQL(t)
	work := t.TempDir()
	var table strings.Builder
	for _, c := range cases {
		c.Stricter = unlikePKITS[c.Name]
		files := filepath.Join(work, c.Name)
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		admits, said := opensslLists(t, files, c)
		var postgresql verdict
		if p.load(t, files) {
			postgresql.admits = p.present(t, c)
		}
		gate, _ := p.judge(c)
		compareVerdicts(t, c, verdict{admits: admits, said: said}, gate)
		compareVerdicts(t, c, postgresql, gate)
		fmt.Fprintf(&table, "%s\t%s\t%s\t%s\n", c.Name, word(admits), word(postgresql.admits), outcomeOf(gate))
	}
	golden := filepath.Join("testdata", "pkits.txt")
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != table.String() {
		found := filepath.Join(os.TempDir(), "pkits-lists.txt")
		t.Errorf("%s is not the table of this run (%v); it is in %s", golden, err, found)
		if err := os.WriteFile(found, []byte(table.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}

func word(admits bool) string {
	if admits {
		return "admitted"
	}
	return "refused"
}

func outcomeOf(err error) string {
	var refused *VerifyError
	switch {
	case err == nil:
		return "admitted"
	case errors.As(err, &refused):
		return string(refused.Reason)
	}
	return "unreadable"
}
