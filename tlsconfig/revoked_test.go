package tlsconfig

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	made "pgwicket/internal/tlstest/chains"
)

// crlOptions are values of every option of revocation lists.
var crlOptions = map[string][]any{
	"crl_check":   {CRLCheckChain, CRLCheckLeaf},
	"crl_missing": {CRLMissingReject, CRLMissingAllow},
	"crl_stale":   {CRLStaleReject, CRLStaleAllow, CRLStaleEnd},
	"crl_grace":   {time.Duration(0), 72 * time.Hour, 300 * 24 * time.Hour},
}

// everyCRLOption returns the options with every combination of the values above.
func everyCRLOption(t *testing.T, base Options) []Options {
	t.Helper()
	all := []Options{base}
	fields := reflect.TypeFor[Options]()
	seen := 0
	for i := range fields.NumField() {
		key := fields.Field(i).Tag.Get("yaml")
		if !strings.HasPrefix(key, "crl_") || key == "crl_file" || key == "crl_dir" || key == "crl_urls" {
			continue
		}
		values, ok := crlOptions[key]
		if !ok {
			t.Fatalf("%s is an option whose values this test does not know", key)
		}
		seen++
		var more []Options
		for _, o := range all {
			for _, v := range values {
				reflect.ValueOf(&o).Elem().Field(i).Set(reflect.ValueOf(v))
				more = append(more, o)
			}
		}
		all = more
	}
	if seen != len(crlOptions) {
		t.Fatalf("%d options of %d", seen, len(crlOptions))
	}
	return all
}

// No option admits what a list revokes, whatever else is wrong with the list, the CA, the other lists or the options: PKIs made
// at random.
func TestNoOptionAdmitsTheRevoked(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	dir := t.TempDir()
	random, err := made.NewRandom(filepath.Join(dir, "keys"), 13)
	if err != nil {
		t.Fatal(err)
	}
	site := newSite(t)
	loaded := 0
	for range 150 {
		c := random.Revoked()
		files := filepath.Join(dir, c.Name)
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		base := site.options()
		base.CAFile, base.CRLFile, base.PartialChain = filepath.Join(files, "ca.pem"), filepath.Join(files, "crl.pem"), c.Partial
		for _, o := range everyCRLOption(t, base) {
			if o.CRLGrace > 0 && o.CRLStale == CRLStaleAllow {
				continue // which Load refuses
			}
			err, readable := judgeCase(c, o)
			if err == nil {
				t.Errorf("%s is admitted with crl_check: %s, crl_missing: %s, crl_stale: %s, crl_grace: %v, partial_chain: %t", c.Name,
					o.CRLCheck, o.CRLMissing, o.CRLStale, o.CRLGrace, o.PartialChain)
			}
			if readable && reasonIn(err) != "" {
				loaded++
			}
		}
	}
	if loaded < 150*20 {
		t.Errorf("%d of the questions were asked", loaded)
	}
}

// reasonIn returns the reason of a refusal; empty if it is another error.
func reasonIn(err error) Reason {
	if refused, ok := err.(*VerifyError); ok {
		return refused.Reason
	}
	return ""
}
