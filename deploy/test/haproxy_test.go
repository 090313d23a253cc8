package deploy_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgwicket/internal/pgtest"
)

const haproxyConfig = "deploy/haproxy/haproxy.cfg"

func TestHAProxyConfig(t *testing.T) {
	need(t, "haproxy")
	review(t, reviewed{file: haproxyConfig, check: checkHAProxy})
}

// promises are what the comments of the file and docs/operations.md say it does; the
// rest of it haproxy -c would miss by itself.
var promises = []string{
	"log stdout format raw local0 info", "log global", "mode tcp",
	`log-format "client=%ci:%cp gate=%s connect_ms=%Tc duration_ms=%Tt bytes=%B ended=%ts open=%bc"`,
	"retries 3", "option redispatch 1", "timeout connect 2s", "timeout client 30s", "timeout server 30s", "timeout tunnel 7d",
	"timeout client-fin 30s", "timeout server-fin 30s", "option clitcpka", "option srvtcpka",
	"bind :5432", "default_backend gates", "balance leastconn",
	"default-server send-proxy-v2 check check-send-proxy inter 1s fall 2 rise 2 maxconn 10000",
	"server gate1 10.0.1.1:5432", "server gate2 10.0.1.2:5432", "server gate3 10.0.1.3:5432",
}

func checkHAProxy(path string) error {
	// HAProxy says what is wrong, and what only seems to be, in as many words.
	if out, err := exec.Command("haproxy", "-c", "-f", path).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "Configuration file is valid" {
		return fmt.Errorf("haproxy -c: %v: %s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, p := range promises {
		if !strings.Contains(string(text), "\n    "+p+"\n") {
			return fmt.Errorf("there is no %q", p)
		}
	}
	for _, section := range []string{"global", "defaults", "frontend postgresql", "backend gates"} {
		if !strings.Contains(string(text), "\n"+section+"\n") {
			return fmt.Errorf("there is no %q", section)
		}
	}
	return nil
}

// TestHAProxy: three gates behind a real HAProxy share the clients and see where they
// come from; when one of them is killed only its own clients notice, newcomers go on,
// and it gets its share again when it is back.
func TestHAProxy(t *testing.T) {
	need(t, "haproxy")
	database, err := pgtest.Start(context.Background(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer database.Stop()
	dir := t.TempDir()
	pki(t, dir, dir)
	var gates []*gate
	for range 3 {
		gates = append(gates, newGate(t, dir, database.SocketDir).start(t))
	}
	entrance := freeAddress(t)
	haproxy := startHAProxy(t, dir, entrance, gates)

	clients := connect(t, dir, entrance, 9)
	for _, g := range gates {
		g.wait(t, "three sessions", func() bool { return g.sessions(t) == 3 })
	}
	for _, c := range clients {
		// The gate tells PostgreSQL whom it sees.
		if addr, err := ask(c, "select current_setting('pgwicket.client_addr')"); err != nil || addr != source {
			t.Errorf("the client's address is %q (%v)", addr, err)
		}
	}

	gates[0].kill()
	var alive int
	for _, c := range clients {
		if _, err := ask(c, "select 1"); err == nil {
			alive++
		}
	}
	if alive != 6 {
		t.Errorf("%d of 9 sessions have outlived one gate of three, want 6", alive)
	}
	connect(t, dir, entrance, 6)
	for _, g := range gates[1:] {
		g.wait(t, "six sessions", func() bool { return g.sessions(t) == 6 })
	}

	gates[0].start(t)
	haproxy.wait(t, "the gate that is back to get clients", func() bool {
		connect(t, dir, entrance, 1)
		return gates[0].sessions(t) > 0
	})

	for _, c := range clients {
		_ = c.Close(context.Background())
	}
	gates[1].wait(t, "the client in its log", func() bool {
		return seen.MatchString(gates[1].output())
	})
	haproxy.wait(t, "the client in HAProxy's log", func() bool {
		return strings.Contains(haproxy.output(), "client="+source+":") && strings.Contains(haproxy.output(), " gate=gate2 ")
	})
}

// source is where the clients come from, and HAProxy does not.
const source = "127.0.0.7"

// seen is how a gate logs a client of HAProxy's.
var seen = regexp.MustCompile(`"msg":"session ended".*"client":"127\.0\.0\.7:\d+".*"proxy":"127\.0\.0\.1:\d+"`)

// gate is a pgwicket behind HAProxy.
type gate struct {
	*process
	config, address, admin string
}

func newGate(t *testing.T, dir, socketDir string) *gate {
	t.Helper()
	g := &gate{address: freeAddress(t), admin: freeAddress(t)}
	g.config = filepath.Join(dir, strings.ReplaceAll(g.address, ":", "-")+".yaml")
	write(t, g.config, fmt.Sprintf(`
listen:
  - address: %s
    proxy_protocol_from: [127.0.0.1]
tls:
  cert_file: server.crt
  key_file: server.key
  ca_file: ca.crt
  crl_file: ca.crl
acl:
  allow: [%s/32]
backend:
  host: %s
  client_info: true
admin:
  address: %s
`, g.address, source, socketDir, g.admin))
	return g
}

func (g *gate) start(t *testing.T) *gate {
	t.Helper()
	g.process = start(t, exec.Command(program(t), "serve", "--config", g.config))
	waitReady(t, g.process, g.admin)
	return g
}

// sessions is how many the gate has open.
func (g *gate) sessions(t *testing.T) (n int) {
	t.Helper()
	r, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "pgwicket_sessions_open %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("there is no pgwicket_sessions_open")
	return 0
}

// startHAProxy starts it with the configuration that we ship, on addresses of ours.
func startHAProxy(t *testing.T, dir, entrance string, gates []*gate) *process {
	t.Helper()
	config := swap(t, read(t, haproxyConfig), "bind :5432", "bind "+entrance)
	for i, g := range gates {
		config = swap(t, config, fmt.Sprintf("server gate%d 10.0.1.%[1]d:5432", i+1), fmt.Sprintf("server gate%d %s", i+1, g.address))
	}
	file := filepath.Join(dir, "haproxy.cfg")
	write(t, file, config)
	p := start(t, exec.Command("haproxy", "-db", "-f", file))
	p.wait(t, "HAProxy", func() bool {
		c, err := net.Dial("tcp", entrance)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return p
}

// connect opens sessions by HAProxy, each at the first attempt.
func connect(t *testing.T, dir, entrance string, n int) (all []*pgx.Conn) {
	t.Helper()
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=verify-full&sslrootcert=%[3]s/ca.crt&sslcert=%[3]s/client.crt&sslkey=%[3]s/client.key",
		pgtest.Superuser, entrance, dir))
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	config.DialFunc = dialer.DialContext
	for range n {
		c, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		all = append(all, c)
	}
	return all
}

func ask(c *pgx.Conn, query string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	err = c.QueryRow(ctx, query, pgx.QueryExecModeSimpleProtocol).Scan(&answer)
	return answer, err
}
