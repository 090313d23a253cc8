//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// list is a revocation list with the certificates that are revoked.
func (d *demo) list() []byte {
	return d.ca.CRL(func(l *tlstest.CRL) { l.Revoke(d.revoked...) })
}

// publish replaces the revocation list that the gate reads, whole.
func (d *demo) publish() error {
	next := d.file("ca.crl.new")
	return cmp.Or(os.WriteFile(next, d.list(), 0o600), d.chgrp(next, 0o640), os.Rename(next, d.file("ca.crl")))
}

// revokeLive revokes the certificate of a session that runs a query, and returns what its
// client is told. Nothing but the list is changed: the gate notices the file.
func (d *demo) revokeLive(ctx context.Context) (told string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := exec.CommandContext(ctx, d.psql, "-XAt", "-c", "select pg_sleep(600)",
		d.conninfo("sslcert="+d.file("live.crt"), "sslkey="+d.file("live.key"), "application_name=live"))
	client.Env = d.environ()
	var out bytes.Buffer
	client.Stdout, client.Stderr = &out, &out
	if err := client.Start(); err != nil {
		return "", 0, err
	}
	ended := make(chan struct{})
	go func() {
		_ = client.Wait() // it is meant to fail, and out says how
		close(ended)
	}()
	defer cancel()
	for {
		n, err := d.db.SQL("select count(*) from pg_stat_activity where usename = 'app' and state = 'active'")
		if err != nil {
			return "", 0, err
		}
		if n == "1" {
			break
		}
		select {
		case <-ended:
			return out.String(), 0, errors.New("the session has ended before its certificate was revoked")
		case <-time.After(50 * time.Millisecond):
		}
	}
	fmt.Fprintln(d.out, "   client: select pg_sleep(600) is running; now its certificate is revoked")
	d.revoked = append(d.revoked, d.live.Leaf())
	if err := d.publish(); err != nil {
		return "", 0, err
	}
	start := time.Now()
	<-ended
	return strings.TrimSpace(out.String()), time.Since(start), ctx.Err()
}

// runLive is the scenario of a live session.
func (d *demo) runLive(ctx context.Context) error {
	told, took, err := d.revokeLive(ctx)
	for line := range strings.Lines(told) {
		fmt.Fprintf(d.out, "   client: %s\n", strings.TrimSpace(line))
	}
	if err != nil {
		return err
	}
	log, err := d.awaitLog(ctx, "session ended")
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "   log:    %s\n", summary(log))
	fmt.Fprintf(d.out, "   It ended after %v.\n", took.Round(time.Millisecond))
	if log["outcome"] != "certificate_revoked" || !strings.Contains(told, "terminating connection: client certificate was revoked on") {
		return fmt.Errorf("want the outcome certificate_revoked, and the client to be told that its certificate was revoked")
	}
	return nil
}

// environ is that of psql.
func (d *demo) environ() []string {
	return pgtest.Environ("PGPASSWORD="+d.password, "PGCONNECT_TIMEOUT="+fmt.Sprint(int(timeout.Seconds())),
		"OPENSSL_CONF="+d.file("openssl-old.cnf"), "LC_ALL=C")
}

// writeCA writes the CA as "openssl ca" uses it, for the reader to revoke with. Its key
// lies beside what it protects, which is right for a demo only.
func (d *demo) writeCA() error {
	key, err := x509.MarshalPKCS8PrivateKey(d.ca.Key)
	if err != nil {
		return err
	}
	var index strings.Builder
	for _, cert := range d.revoked {
		const form = "060102150405Z"
		serial := fmt.Sprintf("%X", cert.SerialNumber)
		if len(serial)%2 == 1 {
			serial = "0" + serial
		}
		fmt.Fprintf(&index, "R\t%s\t%s\t%s\tunknown\t/CN=%s\n",
			cert.NotAfter.UTC().Format(form), time.Now().UTC().Format(form), serial, cert.Subject.CommonName)
	}
	for name, text := range map[string]string{
		"ca.key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"index.txt": index.String(),
		"crlnumber": fmt.Sprintf("%012X\n", time.Now().UnixMilli()),
		"ca.cnf": strings.ReplaceAll(`[ca]
default_ca = demo
[demo]
database = DIR/index.txt
crlnumber = DIR/crlnumber
certificate = DIR/ca.crt
private_key = DIR/ca.key
default_md = sha256
default_crl_days = 30
unique_subject = no
`, "DIR", d.dir),
	} {
		if err := os.WriteFile(d.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
