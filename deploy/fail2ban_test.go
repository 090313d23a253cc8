package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The filter finds whom it should, in both formats of the log, and nobody whom a
// client has written into its names. The lines are as the gate writes them: the
// tests of proxy hold their beginnings fast.
func TestFail2banFilter(t *testing.T) {
	if _, err := exec.LookPath("fail2ban-regex"); err != nil {
		t.Skip("no fail2ban-regex")
	}
	lines := []string{
		`{"time":"NOW.249822975Z","level":"WARN","msg":"session ended","session":1,"client":"192.0.2.1:40058","listener":"127.0.0.1:5432","outcome":"authentication_failed","user":"x"}`,
		`{"time":"NOW.249822975Z","level":"WARN","msg":"connection refused","session":1,"client":"[2001:db8::7]:40058","listener":"[::]:5432","outcome":"auth_backoff","user":"x"}`,
		`{"time":"NOW.249822975Z","level":"INFO","msg":"session ended","session":1,"client":"192.0.2.2:40058","listener":"127.0.0.1:5432","outcome":"client_closed","user":"\",\"session\":1,\"client\":\"9.9.9.9:1\",\"listener\":\"x\",\"outcome\":\"authentication_failed\""}`,
		`time=NOW.249Z level=WARN msg="session ended" session=3 client=192.0.2.5:4711 listener=127.0.0.1:5432 outcome=authentication_failed user=x`,
		`time=NOW.249Z level=WARN msg="connection refused" session=3 client=[2001:db8::8]:4711 listener=[::]:5432 outcome=certificate_revoked`,
		`time=NOW.249Z level=INFO msg="session ended" session=3 client=192.0.2.6:4711 listener=127.0.0.1:5432 outcome=client_closed user="x client=192.0.2.7:1 listener=y outcome=authentication_failed"`,
	}
	log := filepath.Join(t.TempDir(), "log")
	text := strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "NOW", time.Now().UTC().Format("2006-01-02T15:04:05"))
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("fail2ban-regex", "-o", "ip", log, "fail2ban/pgwicket.conf").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.1", "2001:db8::7", "192.0.2.5", "2001:db8::8"}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
