package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// distrusting writes a CA that has not signed the gate's certificate.
func distrusting(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other-ca.crt")
	if err := os.WriteFile(path, tlstest.NewCA("another CA").CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A client that does not trust the gate's certificate sends its alert in clear over TLS
// 1.3, and crypto/tls calls it a bad record (golang/go#76767, golang/go#51837). The log
// has the alert.
func TestClientsThatDistrustTheGate(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	ca := distrusting(t)
	host, port, err := net.SplitHostPort(g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		program string
		args    []string
		outcome string
		reason  string
	}{
		"libpq":   {"psql", []string{"host=localhost hostaddr=" + host + " port=" + port + " user=app sslmode=verify-full sslrootcert=" + ca}, "tls_rejected_by_client", "unknown certificate authority"},
		"openssl": {"openssl", []string{"s_client", "-starttls", "postgres", "-connect", g.Addr, "-CAfile", ca, "-verify_return_error"}, "tls_rejected_by_client", "unknown certificate authority"},
		"java":    {"java", []string{"testdata/Distrust.java", host, port}, "tls_rejected_by_client", "unknown certificate"},
		"node":    {"node", []string{"-e", `require("tls").connect({host: "` + host + `", port: ` + port + `, servername: "localhost", ALPNProtocols: ["postgresql"]}).on("error", () => {})`}, "client_gone", "during the TLS handshake"}, // it sends no alert
	} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(c.program)
			if err != nil {
				t.Skip(err)
			}
			_ = exec.Command(path, c.args...).Run() // it fails, one way or the other
			line := g.expect(t, c.outcome)
			if !strings.Contains(line.get("reason"), c.reason) {
				t.Errorf("the log says %q", line.get("reason"))
			}
		})
	}
	t.Run("go", func(t *testing.T) {
		_, err := pgxTry(g, "app", func(c *tls.Config) { c.RootCAs = x509.NewCertPool() })
		if err == nil {
			t.Error("pgx trusts the gate")
		}
		if line := g.expect(t, "tls_rejected_by_client"); !strings.Contains(line.get("reason"), "bad certificate") {
			t.Errorf("the log says %q", line.get("reason"))
		}
	})
	b.expectUntouched(t)
}

// A name with a dot at its end is one for DNS and none for TLS (RFC 6066, section 3), and
// crypto/tls refuses it as an error of decoding (traefik/traefik#9157,
// pgbackrest/pgbackrest#2442). The log says what to change.
func TestServerNameWithADotAtItsEnd(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	host, port, err := net.SplitHostPort(g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := program(t, nil, "psql", "host=db.example.com. hostaddr="+host+" port="+port+" user=app sslmode=require").CombinedOutput()
	if err == nil {
		t.Errorf("psql is in: %s", out)
	}
	line := g.expect(t, "tls_failed")
	if reason := line.get("reason"); !strings.Contains(reason, `"db.example.com."`) || !strings.Contains(reason, "remove it from the client's host") {
		t.Errorf("the log says %q", reason)
	}
	b.expectUntouched(t)
}

// pg_isready without a certificate is told no, which means to it that the server accepts
// connections (pgdog#421). It is no reason to wake anybody.
func TestPgIsready(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir, certificateOf(testCA()))
	host, port, err := net.SplitHostPort(g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := program(t, []string{"PGSSLMODE=require"}, "pg_isready", "-h", host, "-p", port).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "accepting connections") {
		t.Errorf("pg_isready says %s (%v)", out, err)
	}
	if line := g.expect(t, "certificate_missing"); line.get("level") != "INFO" {
		t.Errorf("it is logged as %s", line.get("level"))
	}
}

// A load balancer that only asks for TLS and leaves is a probe, also where its own
// address may not connect: HAProxy's tcp-check with check-send-proxy does that
// (haproxy#2305).
func TestSSLRequestAsAHealthCheck(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) { p.Networks = networks([]string{"192.0.2.0/24"}, nil) })
	local := proxyV2(cmdLocal, famUnspec)
	line := g.meet(t, balancer, "probe", say(local, sslRequest), hear("S"), hangUp)
	if line.get("level") != "DEBUG" {
		t.Errorf("it is logged as %s", line.get("level"))
	}
	g.meet(t, balancer, "probe", say(local, sslRequest), hear("S"), dies)
	g.meet(t, balancer, "source_not_allowed", say(local, sslRequest), hear("S"), say([]byte{0x16}))
	g.meet(t, balancer, "source_not_allowed", say(local, alice))
	g.meet(t, balancer, "source_not_allowed", say(local, cancelRequest(7, []byte("abcd"))))
	g.reload(func(p *proxy.Policy) { p.Networks = networks([]string{balancer}, nil) })
	g.meet(t, balancer, "probe", say(local, sslRequest), hear("S"), hangUp)
	g.reload(func(p *proxy.Policy) { p.Proxies = map[string]*acl.Networks{} })
	g.meet(t, balancer, "probe", say(sslRequest), hear("S"), hangUp)
	b.expectUntouched(t)
}
