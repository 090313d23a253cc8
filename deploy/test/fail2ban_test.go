package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// attempts are lines as the gate writes them, which the tests of proxy hold fast: one
// of each format by whom the filter should find, and by whom it should not, as a client
// may write anything into its names.
var attempts = []string{
	`{"time":"NOW.249822975Z","level":"WARN","msg":"session ended","session":"8a0vq2cqj8o3k-1","client":"192.0.2.1:40058","listener":"127.0.0.1:5432","outcome":"authentication_failed","user":"x"}`,
	`{"time":"NOW.249822975Z","level":"WARN","msg":"connection refused","session":"8a0vq2cqj8o3k-1","client":"[2001:db8::7]:40058","listener":"[::]:5432","outcome":"auth_backoff","user":"x"}`,
	`{"time":"NOW.249822975Z","level":"INFO","msg":"session ended","session":"8a0vq2cqj8o3k-1","client":"192.0.2.2:40058","listener":"127.0.0.1:5432","outcome":"client_closed","user":"\",\"session\":\"1\",\"client\":\"9.9.9.9:1\",\"listener\":\"x\",\"outcome\":\"authentication_failed\""}`,
	`time=NOW.249Z level=WARN msg="session ended" session=8a0vq2cqj8o3k-3 client=192.0.2.5:4711 listener=127.0.0.1:5432 outcome=authentication_failed user=x`,
	`time=NOW.249Z level=WARN msg="connection refused" session=8a0vq2cqj8o3k-3 client=[2001:db8::8]:4711 listener=[::]:5432 outcome=certificate_revoked`,
	`time=NOW.249Z level=INFO msg="session ended" session=8a0vq2cqj8o3k-3 client=192.0.2.6:4711 listener=127.0.0.1:5432 outcome=client_closed user="x client=192.0.2.7:1 listener=y outcome=authentication_failed"`,
}

// standing is what fail2ban does without these lines: it knows ISO 8601 by itself, and
// the pattern only keeps it from looking for other dates.
var standing = []string{"ignoreregex =", "datepattern =", "^time=", "{^LN-BEG}"}

// The filter finds whom it should, in both formats of the log, and nobody whom a
// client has written into its names.
func TestFail2banFilter(t *testing.T) {
	need(t, "fail2ban-regex")
	review(t, reviewed{
		file:  "deploy/fail2ban/pgwicket.conf",
		check: checkFilter,
		spare: standing, prose: standing,
	})
}

func checkFilter(path string) error {
	log := filepath.Join(filepath.Dir(path), "log")
	text := strings.ReplaceAll(strings.Join(attempts, "\n")+"\n", "NOW", time.Now().UTC().Format("2006-01-02T15:04:05"))
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		return err
	}
	out, err := exec.Command("fail2ban-regex", "-o", "ip", log, path).Output()
	if err != nil {
		return fmt.Errorf("fail2ban-regex: %w: %s", err, out)
	}
	want := []string{"192.0.2.1", "2001:db8::7", "192.0.2.5", "2001:db8::8"}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		return fmt.Errorf("found %q, want %q", got, want)
	}
	return nil
}
