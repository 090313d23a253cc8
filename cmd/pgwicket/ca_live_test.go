//go:build unix

package main

import (
	"fmt"
	"strings"
	"testing"

	"pgwicket/internal/docpage"
)

// liveCA is a gate with the CA of "pgwicket ca" in the directory ca, and its shell.
type liveCA struct {
	*lab
	t    *testing.T
	page []docpage.Block // of docs/ca.md
}

func newLiveCA(t *testing.T) *liveCA {
	t.Helper()
	l := &liveCA{newLab(t), t, blocks(t, "ca.md")}
	l.run(`export PGWICKET_CONFIG=pgwicket.yaml PGWICKET_CA_PASSPHRASE_COMMAND='echo correct-horse'
pgwicket ca init --name 'Example CA'
pgwicket ca server localhost 127.0.0.1 --write-config pgwicket.yaml
pgwicket ca client app
cp ca/root.crt before.crt
pgwicket serve 2>gate.log & pgwicket wait`)
	l.run(fmt.Sprintf(`conn() { echo "host=localhost hostaddr=127.0.0.1 port=%d user=app dbname=postgres sslmode=verify-full sslrootcert=$1 sslcert=$2 sslkey=$3"; }
open() { psql "$(conn "$@")" -c "select pg_sleep(600)" >session.log 2>&1 & SESSION=$!; until pgwicket sessions | grep -q app; do sleep 0.1; done; }
loads() { until [ "$(grep -c "configuration reloaded" gate.log)" -gt "$1" ]; do sleep 0.1; done; }
loaded() { grep -c "configuration reloaded" gate.log || true; }`, l.port))
	t.Cleanup(func() { l.shell.Run("kill %1; wait") })
	return l
}

// run runs commands that must succeed, each of them.
func (l *liveCA) run(text string) string {
	l.t.Helper()
	out, failed := l.shell.Run(text)
	if failed != "" {
		log, _ := l.shell.Run("tail -n 5 gate.log")
		l.t.Fatalf("%s has failed: %s\n%s", failed, out, log)
	}
	return out
}

// block returns the commands of a section, counted from 0.
func (l *liveCA) block(section string, n int) string {
	l.t.Helper()
	for _, b := range l.page {
		if b.Section == section && b.Lang == "sh" {
			if n == 0 {
				return b.Text
			}
			n--
		}
	}
	l.t.Fatalf("%s has no such block", section)
	return ""
}

// in runs a query as a client, and fails unless it is admitted.
func (l *liveCA) in(root, cert, key string) {
	l.t.Helper()
	if out := l.run(fmt.Sprintf(`psql "$(conn %s %s %s)" -Atc "select 'is in'"`, root, cert, key)); !strings.Contains(out, "is in") {
		l.t.Errorf("%s: %s", cert, out)
	}
}

// A renewal of the intermediate ends no session. Old and new certificates are admitted, at clients with the old and
// the new root.crt, and a revocation of an old one comes into force.
func TestRenewIntermediateAtGate(t *testing.T) {
	t.Parallel()
	l := newLiveCA(t)
	l.run("open before.crt ca/issued/app.crt ca/private/app.key; N=$(loaded)")
	// A certificate's time has seconds, and one that would not end later is not renewed.
	l.run(`until [ "$(date +%s)" -gt "$(stat -c %Y ca/ca.crt)" ]; do sleep 0.1; done`)
	l.run(l.block("Renew the intermediate", 0))
	l.run("loads $N; pgwicket ca renew localhost; pgwicket ca client laptop --user app; kill -0 $SESSION")
	for _, root := range []string{"before.crt", "ca/root.crt"} {
		l.in(root, "ca/issued/app.crt", "ca/private/app.key")
		l.in(root, "ca/issued/laptop.crt", "ca/private/laptop.key")
	}
	if out := l.run("pgwicket ca revoke app; wait $SESSION || cat session.log"); !strings.Contains(out, "1 open session ended") || !strings.Contains(out, "was revoked") {
		t.Errorf("the old certificate is revoked: %s", out)
	}
	l.in("before.crt", "ca/issued/laptop.crt", "ca/private/laptop.key")

	// A key that openssl has encrypted, with its passphrase, without it, and with another one.
	l.run("pgwicket ca export laptop --format libpq --out out")
	for i := range 5 {
		if text := l.block("Export", i); strings.Contains(text, "topk8") {
			l.run(text)
			break
		}
	}
	l.in("out/root.crt", "out/postgresql.crt", `"laptop.key sslpassword=$(cat laptop.pass)"`)
	for _, password := range []string{"", " sslpassword=wrong"} {
		if out, failed := l.shell.Run(fmt.Sprintf(`psql "$(conn out/root.crt out/postgresql.crt "laptop.key%s")" -c "select 1" </dev/null`, password)); failed == "" || !strings.Contains(out, "could not load private key file") {
			t.Errorf("with the password %q: %s", password, out)
		}
	}
}

// Two CAs beside each other admit the clients of both; when the old one goes, its sessions end.
func TestNewCAAtGate(t *testing.T) {
	t.Parallel()
	l := newLiveCA(t)
	const section = "A lost or stolen key of the CA"
	l.run("open ca/root.crt ca/issued/app.crt ca/private/app.key; N=$(loaded); mv ca/private/ca.key lost.key")
	l.run(l.block(section, 0))
	l.run("sed -i 's|^  ca_file:.*|  ca_file: both.crt|; s|^  crl_file:.*|  crl_dir: crls|' pgwicket.yaml; pgwicket reload; loads $N; kill -0 $SESSION")
	l.in("both.crt", "ca/issued/app.crt", "ca/private/app.key")
	l.in("both.crt", "ca2/issued/app.crt", "ca2/private/app.key")
	l.run("cp both.crt client.crt")
	l.run(l.block(section, 1))
	if out := l.run("wait $SESSION || cat session.log"); !strings.Contains(out, "terminating connection") {
		t.Errorf("the session of the old CA: %s", out)
	}
	l.in("client.crt", "ca2/issued/app.crt", "ca2/private/app.key")
	if out, failed := l.shell.Run(`psql "$(conn client.crt ca/issued/app.crt ca/private/app.key)" -c "select 1"`); failed == "" || !strings.Contains(out, "FATAL") {
		t.Errorf("a client of the old CA: %s", out)
	}
}
