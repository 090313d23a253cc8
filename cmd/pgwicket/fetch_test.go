//go:build unix

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestListServerMisbehaves: a list server that is slow, dead, lying, replaying or flooding
// ends no session and replaces no list. The list that it should have sent does.
func TestListServerMisbehaves(t *testing.T) {
	t.Parallel()
	var does atomic.Pointer[http.HandlerFunc]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*does.Load())(w, r) }))
	t.Cleanup(server.Close)
	l := newLab(t, `PGWICKET_TLS_CRL_FILE=""`, "PGWICKET_TLS_CRL_DIR=lists", "PGWICKET_TLS_CRL_URLS=["+server.URL+"/ca.crl]",
		"PGWICKET_CONFIG=pgwicket.yaml", "PGWICKET_CA_PASSPHRASE_COMMAND=echo correct-horse")
	run := func(script string) string {
		t.Helper()
		out, failed := l.shell.Run(script)
		if failed != "" {
			t.Fatalf("%s has failed in %s: %s", failed, script, out)
		}
		return out
	}
	list := filepath.Join(l.dir, "ca", "crl.pem")
	serveFile := func(path string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }
	}
	do := func(h http.HandlerFunc) { does.Store(&h) }
	do(serveFile(list))
	run(`pgwicket ca init && pgwicket ca server localhost 127.0.0.1 --write-config pgwicket.yaml && pgwicket ca client app
mkdir lists && cp ca/root/crl.pem lists/root.crl && cp ca/crl.pem old.crl
pgwicket fetch --once
pgwicket serve 2>gate.log &
pgwicket wait`)
	run(fmt.Sprintf(`CONN="host=localhost port=%d user=app dbname=postgres sslmode=verify-full sslrootcert=ca/root.crt sslcert=ca/issued/app.crt sslkey=ca/private/app.key"
psql "$CONN" -c 'select pg_sleep(600)' >session.log 2>&1 & SESSION=$!
until pgwicket sessions | grep -q app; do sleep 0.1; done`, l.port))
	before := run("cat lists/*")
	run("pgwicket ca revoke app >revoked.log 2>&1 || grep -q 'session is still open' revoked.log")
	flood := func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name   string
		does   http.HandlerFunc
		reason string // empty: it is stopped while it waits
	}{
		{"dead", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unreachable"},
		{"lying", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "not_a_list"},
		{"of another CA", serveFile(filepath.Join(l.dir, "other", "crl.pem")), "issuer"},
		{"flooding", flood, "too_large"},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ""},
	} {
		if c.name == "of another CA" {
			run("pgwicket ca init --dir other")
		}
		do(c.does)
		patience := 60
		if c.reason == "" {
			patience = 3
		}
		out := run(fmt.Sprintf("timeout -s TERM %d pgwicket fetch --once 2>&1 || true", patience))
		if !strings.Contains(out, `"reason":"`+c.reason+`"`) && c.reason != "" {
			t.Errorf("%s: %s", c.name, out)
		}
		if after := run("cat lists/*"); after != before {
			t.Errorf("%s: the list was replaced", c.name)
		}
		if out := run("pgwicket sessions"); !strings.Contains(out, "app") {
			t.Errorf("%s: the session has ended: %s", c.name, out)
		}
	}
	do(serveFile(list))
	begin := time.Now()
	out := run("pgwicket fetch --once 2>&1; wait $SESSION || cat session.log")
	if !strings.Contains(out, "client certificate was revoked") {
		log, _ := os.ReadFile(filepath.Join(l.dir, "gate.log"))
		t.Errorf("%s\n%s", out, log)
	}
	t.Logf("the session has ended after %v", time.Since(begin).Round(time.Millisecond))
	do(serveFile(filepath.Join(l.dir, "old.crl")))
	if out := run("touch old.crl; pgwicket fetch --once 2>&1 || true"); !strings.Contains(out, `"reason":"older"`) {
		t.Errorf("a replay: %s", out)
	}
	run("kill %1; wait")
}
