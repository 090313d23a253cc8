package prometheus_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pgwicket/metrics"
)

// gate is the series of one whose life goes on with every scrape.
func gate(t *testing.T) (address string) {
	t.Helper()
	s := metrics.New("test")
	host := metrics.Host{Backend: "default", Address: "db1:5432"}
	s.InForce(1000, 1000, []metrics.Host{host})
	accepted := s.Accepted("127.0.0.1:5432")
	number := 0
	live := func() {
		number++
		session := strconv.Itoa(number)
		for range 4 {
			accepted()
			s.Started()
		}
		s.Refused(session, "certificate_expired", true)
		s.Refused(session, "auth_backoff", false)
		s.Cancelled("forwarded")
		state := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519}
		s.Handshake(session, state, 3*time.Millisecond)
		s.BackendTried(host, nil)
		s.BackendServed(host)
		s.BackendConnected(session, time.Millisecond)
		s.SessionOpened()
		s.Relayed(100, 1000)
		s.Ended(session, "authentication_failed")
		s.Rechecked(1, time.Millisecond)
		now := time.Now()
		s.GroupLookup(host.Backend, nil)
		s.Groups(metrics.Groups{Backend: host.Backend, Known: true, LastSuccess: now, Members: map[string]int{"staff": 3}})
		s.Loaded(now, []metrics.Certificate{{File: "server.crt", NotBefore: now, NotAfter: now.Add(time.Hour), StapledUntil: now.Add(time.Hour)}},
			[]metrics.CRL{{File: "ca.crl", Issuer: "CN=root", ThisUpdate: now, NextUpdate: now.Add(time.Hour), Number: big.NewInt(7)}})
	}
	handler := promhttp.HandlerFor(s.Gatherer(), promhttp.HandlerOpts{EnableOpenMetrics: true})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		live()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// server is a Prometheus of its own.
type server struct{ url string }

// startPrometheus starts the one of the machine with our files, which only ask more often, and another gate.
func startPrometheus(t *testing.T, target string) server {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("no prometheus; Debian has a package of that name")
	}
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "pgwicket.rules.yml", "pgwicket.alerts.yml"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.NewReplacer("127.0.0.1:10432", target, "_interval: 15s", "_interval: 1s").Replace(string(text)))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	_ = ln.Close()
	var said bytes.Buffer
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus: %s", &said)
		}
	})
	return server{"http://" + address}
}

// ask calls the API; into gets its data.
func (s server) ask(path string, values url.Values, into any) error {
	response, err := http.Get(s.url + "/api/v1/" + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", values, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// silent returns which of the expressions have no answer.
func (s server) silent(exprs []string) (left []string) {
	for _, e := range exprs {
		var data struct{ Result []any }
		if err := s.ask("query", url.Values{"query": {e}}, &data); err != nil || len(data.Result) == 0 {
			left = append(left, fmt.Sprintf("%s: %v", e, err))
		}
	}
	return left
}

// eventually waits for what a machine with other things to do needs time for, and returns what is still wrong.
func eventually(wrong func() []string) (last []string) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if last = wrong(); len(last) == 0 {
			return nil
		}
	}
	return last
}

// A Prometheus that has scraped a gate evaluates every rule, answers every question of the dashboard, and knows the
// session behind a sample.
func TestServer(t *testing.T) {
	d, err := readDashboard(root)
	if err != nil {
		t.Fatal(err)
	}
	grafana := strings.NewReplacer("$__rate_interval", "20s", "$job", "pgwicket", "$instance", ".+")
	exprs := []string{`ALERTS{alertname="PgwicketCertificateExpiresTomorrow"}`}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, grafana.Replace(target.Expr))
		}
	}
	for _, a := range d.Annotations.List {
		exprs = append(exprs, grafana.Replace(a.Expr))
	}
	s := startPrometheus(t, gate(t))
	report(t, eventually(func() []string { return s.silent(exprs) }))
	report(t, eventually(s.unhealthy))
	report(t, eventually(s.anonymous))
}

// unhealthy returns the rules that are not evaluated, or fail.
func (s server) unhealthy() (wrong []string) {
	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := s.ask("rules", nil, &rules); err != nil {
		return []string{err.Error()}
	}
	n := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				wrong = append(wrong, fmt.Sprintf("rule %s: %s %s", r.Name, r.Health, r.LastError))
			}
		}
	}
	if n == 0 {
		wrong = append(wrong, "no rules")
	}
	return wrong
}

// anonymous returns the series that should lead to sessions and do not.
func (s server) anonymous() (wrong []string) {
	for _, series := range []string{
		"pgwicket_tls_handshake_duration_seconds_bucket", "pgwicket_backend_connect_duration_seconds_bucket",
		"pgwicket_connections_refused_total", "pgwicket_tls_handshake_failures_total", "pgwicket_sessions_ended_total",
	} {
		var found []struct {
			Exemplars []struct {
				Labels struct {
					SessionID string `json:"session_id"`
				}
			}
		}
		now := time.Now()
		values := url.Values{"query": {series}, "start": {now.Add(-time.Hour).Format(time.RFC3339)}, "end": {now.Add(time.Hour).Format(time.RFC3339)}}
		if err := s.ask("query_exemplars", values, &found); err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		named := false
		for _, f := range found {
			for _, e := range f.Exemplars {
				named = named || e.Labels.SessionID != ""
			}
		}
		if !named {
			wrong = append(wrong, series+" has no exemplar with a session_id")
		}
	}
	return wrong
}
