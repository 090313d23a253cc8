package kubernetes_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"pgwicket/internal/tlstest"
)

// TestSwapOfData: what cert-manager renews and the operator revokes comes into force with the swap of ..data, in the
// volume, with the configuration and under the account of the manifests.
func TestSwapOfData(t *testing.T) {
	files := readTree(t)
	for _, r := range renderings() {
		t.Run(r.name, func(t *testing.T) {
			o, err := r.objects(files)
			if err != nil {
				t.Fatal(err)
			}
			g, err := findGate(o, r.external)
			if err != nil {
				t.Fatal(err)
			}
			swap(t, &r, g)
		})
	}
}

func swap(t *testing.T, r *rendering, g *gate) {
	p := newPKI("pgwicket")
	client := p.ca.Client("app")
	files, mode, err := g.files(r.external, p.text)
	if err != nil {
		t.Fatal(err)
	}
	_, lists := files["ca.crl"]
	listen, admin := freePort(t), freePort(t)
	config := path.Base(g.config)
	files[config] = onLoopback(t, files[config], listen, admin, sharedDir(t))
	volume := g.mount(t, mode)
	if err := volume.write(files); err != nil {
		t.Fatal(err)
	}
	log := serve(t, g, filepath.Join(volume.dir, config))
	log.wait(t, `"msg":"ready"`)
	g.probed(t, admin)
	if seen, err := connect(t, p, client, listen, "user=app"); !code(err, "57P03") || !seen.Equal(p.server.Leaf()) {
		t.Fatalf("with a good certificate: %v", err)
	}

	p.server = p.ca.Server("pgwicket")
	p.crl = p.ca.CRL(func(l *tlstest.CRL) {
		l.Number = big.NewInt(2)
		l.Revoke(client.Leaf())
	})
	renewed, _, err := g.files(r.external, p.text)
	if err != nil {
		t.Fatal(err)
	}
	renewed[config] = files[config]
	if err := volume.write(renewed); err != nil {
		t.Fatal(err)
	}
	log.wait(t, `"msg":"configuration reloaded"`)
	seen, err := connect(t, p, client, listen, "user=app")
	if lists && (!code(err, "28000") || !strings.Contains(err.Error(), "revoked")) || !lists && !code(err, "57P03") {
		t.Errorf("with a revoked certificate: %v", err)
	}
	if !seen.Equal(p.server.Leaf()) {
		t.Errorf("the gate shows the certificate of before")
	}
	if strings.Contains(log.text(), `"msg":"reload failed"`) {
		t.Error(log.text())
	}
}

// onLoopback is the configuration of the manifests, for a machine that is no Pod.
func onLoopback(t *testing.T, text []byte, listen, admin int, socket string) []byte {
	t.Helper()
	var config map[string]map[string]any
	var list struct {
		Listen []map[string]any `json:"listen"`
	}
	all := map[string]any{}
	if err := errors.Join(yaml.Unmarshal(text, &all), yaml.Unmarshal(text, &list)); err != nil {
		t.Fatal(err)
	}
	delete(all, "listen")
	sections, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(sections, &config); err != nil {
		t.Fatal(err)
	}
	list.Listen[0]["address"] = fmt.Sprintf("127.0.0.1:%d", listen)
	config["admin"]["address"] = fmt.Sprintf("127.0.0.1:%d", admin)
	allow, _ := config["acl"]["allow"].([]any)
	config["acl"]["allow"] = append(allow, "127.0.0.0/8")
	if host := config["backend"]["host"].(string); strings.HasPrefix(host, "/") {
		config["backend"]["host"] = socket
	} else {
		config["backend"]["host"], config["backend"]["port"] = "127.0.0.1", freePort(t)
	}
	for name, section := range config {
		all[name] = section
	}
	all["listen"] = list.Listen
	text, err = yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

type logFile string

func (l logFile) text() string {
	text, _ := os.ReadFile(string(l))
	return string(text)
}

func (l logFile) wait(t *testing.T, what string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(l.text(), what); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in\n%s", what, l.text())
		}
	}
}

// serve runs the gate until the test ends.
func serve(t *testing.T, g *gate, config string) logFile {
	t.Helper()
	name := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := g.command(pgwicket(t), "serve", "--config", config)
	cmd.Stderr = file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return logFile(name)
}

// probed asks as the kubelet would, at the paths of the manifests.
func (g *gate) probed(t *testing.T, admin int) {
	t.Helper()
	for _, p := range []*corev1.Probe{g.container.StartupProbe, g.container.LivenessProbe, g.container.ReadinessProbe} {
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", admin, p.HTTPGet.Path))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", p.HTTPGet.Path, answer.Status)
		}
	}
}

// connect returns the certificate that the gate has shown, and its refusal or PostgreSQL's.
func connect(t *testing.T, p *pki, client *tlstest.Pair, port int, as string) (seen *x509.Certificate, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres sslmode=require %s", port, as))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(p.ca.Cert)
	config.TLSConfig = &tls.Config{
		ServerName:   "pgwicket",
		RootCAs:      roots,
		Certificates: []tls.Certificate{client.TLS()},
		VerifyConnection: func(s tls.ConnectionState) error {
			seen = s.PeerCertificates[0]
			return nil
		},
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		err = conn.Close(ctx)
	}
	return seen, err
}

func code(err error, sqlstate string) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && refusal.Code == sqlstate
}
