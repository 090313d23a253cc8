package pki_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/pki"
	"pgwicket/tlsconfig"
)

// TestClocks has a CA whose clock is not that of the gate, of PostgreSQL and of OpenSSL. An hour
// makes no difference. More is refused by all three, and the gate says what is not valid before when.
func TestClocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		certs, lists time.Duration // how far the clock of the CA is ahead
		days         int           // of the list
		openssl      string        // its words; empty: accepted
		reason       tlsconfig.Reason
		detail       string
	}{
		"behind by an hour":       {certs: -time.Hour, lists: -time.Hour, days: 1},
		"ahead by nearly an hour": {certs: 59 * time.Minute, lists: 59 * time.Minute, days: 1},
		"certificates ahead by two hours": {
			certs: 2 * time.Hour, days: 1, openssl: "certificate is not yet valid", reason: tlsconfig.ReasonNotYetValid, detail: "is not valid before",
		},
		"lists ahead by two hours": {lists: 2 * time.Hour, days: 1, openssl: "CRL is not yet valid", reason: tlsconfig.ReasonCRLStale, detail: "is not valid before"},
		"lists of two days ago":    {lists: -48 * time.Hour, days: 1, openssl: "CRL has expired", reason: tlsconfig.ReasonCRLStale, detail: "is out of date since"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := initCA(t, nil)
			at := func(ahead time.Duration) *pki.CA {
				o.Now = func() time.Time { return time.Now().Add(ahead) }
				return open(t, o)
			}
			ca := at(0)
			db := server(t, ca, "localhost", "127.0.0.1")
			ca.Close()
			ca = at(c.certs)
			app := client(t, ca, "app")
			ca.Close()
			ca = at(c.lists)
			if err := ca.WriteLists(c.days); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Dir(ca.TrustFile())
			out, err := command(t, dir, "openssl verify -CAfile %s -CRLfile %s -crl_check_all -x509_strict %s", ca.TrustFile(), ca.ListFile(), app.CertFile)
			if !saysOf(out, err, c.openssl) {
				t.Errorf("openssl: %v\n%s", err, out)
			}
			askGate(t, ca, db, app, c.reason, c.detail)
			askPostgreSQL(t, ca, db, app, c.openssl == "")
		})
	}
}

// saysOf reports whether a program has succeeded, or has failed with these words.
func saysOf(out string, err error, words string) bool {
	if words == "" {
		return err == nil
	}
	return err != nil && strings.Contains(strings.ToLower(out), strings.ToLower(words))
}

func askGate(t *testing.T, ca *pki.CA, db, app *pki.Issued, reason tlsconfig.Reason, detail string) {
	t.Helper()
	gate, problems := tlsconfig.Load(tlsconfig.Options{CertFile: db.CertFile, KeyFile: db.KeyFile, CAFile: ca.TrustFile(), CRLFile: ca.ListFile()}, nil, nil, time.Now())
	if gate == nil {
		t.Fatal(problems)
	}
	warned := fmt.Sprint(problems)
	if isList := reason == tlsconfig.ReasonCRLStale; isList != strings.Contains(warned, "certificates of this CA are refused until") {
		t.Errorf("the gate warns: %s", warned)
	}
	file, err := tlsconfig.ReadClientFile(app.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	_, verdict := gate.Explain(file.Certificates, time.Now())
	var refusal *tlsconfig.VerifyError
	switch errors.As(verdict, &refusal); {
	case reason == "" && verdict != nil:
		t.Errorf("the gate: %v", verdict)
	case reason != "" && (refusal == nil || refusal.Reason != reason || !strings.Contains(refusal.Detail, detail)):
		t.Errorf("the gate: %v, want %s with %q", verdict, reason, detail)
	}
}

func askPostgreSQL(t *testing.T, ca *pki.CA, db, app *pki.Issued, accepts bool) {
	t.Helper()
	s := startTLS(t, ca, db, "create role app login")
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(psql, fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%d user=app dbname=postgres sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s", s.Port, ca.TrustFile(), app.CertFile, app.KeyFile), "-Atc", "select 1")
	cmd.Env = pgtest.Environ()
	out, err := cmd.CombinedOutput()
	if (err == nil) != accepts { // its log has the reason from release 16 on
		t.Errorf("PostgreSQL: %v\n%s\n%s", err, out, s.Log())
	}
}
