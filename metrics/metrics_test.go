package metrics

import (
	"crypto/tls"
	"errors"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"pgwicket/internal/golden"
)

func state(version, cipher uint16, group tls.CurveID) tls.ConnectionState {
	return tls.ConnectionState{Version: version, CipherSuite: cipher, CurveID: group}
}

// play speaks every verb, so that every series has a sample.
func play(s *Set) {
	accepted := s.Accepted("127.0.0.1:5432")
	for range 6 {
		accepted()
		s.Started()
	}
	s.Unproved(2)
	s.Unproved(-1)
	s.Verified(3)
	s.AwaitsHeader(4)
	s.AcceptFailed()
	s.LogLineDropped()
	s.Locks(2)
	s.GroupLookup("default", nil)
	s.GroupLookup("default", errors.New("down"))
	s.ForgetGroups()
	s.Groups(Groups{Backend: "default", Known: true, LastSuccess: time.Unix(1_767_225_600, 0), Members: map[string]int{"dba": 3, "gone": 0}})
	s.Groups(Groups{Backend: "reports"})
	s.AuditLines(5)
	s.AuditLost()
	s.AuditFailing(true)
	s.Refused("1", "probe", false)
	s.Refused("2", "certificate_revoked", true)
	s.Handshake("3", state(tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384, tls.X25519MLKEM768), 3*time.Millisecond)
	s.Handshake("4", state(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA, 0), 250*time.Millisecond)
	s.InForce(10_000, 1000, []Host{{Backend: "default", Address: "/run/postgresql/.s.PGSQL.5432"}, {Backend: "reports", Address: "db1:5432"}})
	s.BackendTried(Host{Backend: "default", Address: "/run/postgresql/.s.PGSQL.5432"}, nil)
	s.BackendTried(Host{Backend: "reports", Address: "db1:5432"}, errors.New("connection refused"))
	s.BackendServed(Host{Backend: "default", Address: "/run/postgresql/.s.PGSQL.5432"})
	s.BackendConnected("3", 100*time.Microsecond)
	s.SessionOpened()
	s.SessionOpened()
	s.Relayed(10, 2000)
	s.Relayed(0, 0)
	s.Ended("4", "client_closed")
	s.Cancelled("forwarded")
	s.Rechecked(3, 2*time.Millisecond)
	at := time.Date(2027, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	s.Loaded(at,
		[]Certificate{
			{File: "server.crt", NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), StapledUntil: at.Add(time.Minute)},
			{File: "rsa.crt", NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour)},
		},
		[]CRL{
			{File: "ca.crl", Issuer: "CN=root", ThisUpdate: at.Add(-time.Hour), NextUpdate: at.Add(time.Hour), Number: big.NewInt(4711), Entries: 7},
			{File: "old.crl", Issuer: "CN=old", ThisUpdate: at.Add(-time.Hour)},
			{File: "bad.crl", Issuer: "CN=bad", Unusable: true},
		})
	s.LoadFailed(false)
	s.LoadFailed(true)
}

var lastTimes = regexp.MustCompile(`(_last_(success|failure)_timestamp_seconds\{[^}]*\}) \S+`)

// ours leaves out the series of Go and of the process, the version of Go and the times
// that are now.
func ours(text string) string {
	text = lastTimes.ReplaceAllString(text, "$1 1")
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "pgwicket_") {
			out.WriteString(regexp.MustCompile(`goversion="go[^"]*"`).ReplaceAllString(line, `goversion="GO"`))
		}
	}
	return out.String()
}

// values returns the samples of the series whose names match, as the exposition writes them, without pgwicket_.
func values(t *testing.T, s *Set, names string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(ours(scrape(t, s))) {
		if regexp.MustCompile(`^pgwicket_(` + names + `)[{ ]`).MatchString(line) {
			found = append(found, strings.TrimSpace(strings.TrimPrefix(line, "pgwicket_")))
		}
	}
	return found
}

func expect(t *testing.T, s *Set, names string, want ...string) {
	t.Helper()
	if got := values(t, s, names); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// cockroach showed its ConnectionLatency under another's name. Every verb moves the series of its name and no other.
// The file is what a scraper sees after play, and what the tests of the rules and the dashboard go by.
func TestExposition(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.AuditHead(func() (uint64, string) { return 7, "9f2d" })
	play(s)
	golden.File(t, "testdata/exposition.txt", ours(scrape(t, s)))
}

// A scrape that fails is an alert that does not fire: nothing is described in one way and collected in another.
func TestPedantic(t *testing.T) {
	t.Parallel()
	s := &Set{registry: prometheus.NewPedanticRegistry()}
	s.connectionSeries()
	s.tlsSeries()
	s.configSeries()
	s.AuditHead(func() (uint64, string) { return 7, "9f2d" })
	for range 2 {
		play(s)
		if _, err := s.Gatherer().Gather(); err != nil {
			t.Error(err)
		}
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.AuditHead(func() (uint64, string) { return 7, "9f2d" })
	play(s)
	families, err := s.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	series := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pgwicket_") {
			continue
		}
		series += len(f.GetMetric())
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				// No label is a client's choice: whoever has a thousand names would have a thousand series.
				if known := "listener outcome version cipher group reason file issuer backend role address result goversion sha256"; !slices.Contains(strings.Fields(known), l.GetName()) {
					t.Errorf("%s has a label %s", f.GetName(), l.GetName())
				}
			}
		}
	}
	if series < 25 {
		t.Errorf("only %d series", series)
	}
}

// row is what the manual says of a series.
type row struct{ kind, labels, help string }

// The manual has a row for every series, with its type, its labels and its help text, and for no other.
func TestOperationsManual(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(pgwicket_[a-z_]+)` \\| ([^|]*) \\|([^|]*)\\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		labels := strings.Split(strings.NewReplacer("`", "", " ", "").Replace(m[3]), ",")
		slices.Sort(labels)
		rows[m[1]] = row{m[2], strings.Join(labels, ","), m[4]}
	}
	s := New("v1.2.3")
	s.AuditHead(func() (uint64, string) { return 7, "9f2d" })
	play(s)
	families, err := s.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pgwicket_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		is := row{strings.ToLower(f.GetType().String()), strings.Join(labels, ","), f.GetHelp()}
		if says, ok := rows[f.GetName()]; says != is {
			t.Errorf("%s is %q; docs/monitoring.md says %q (%t)", f.GetName(), is, says, ok)
		}
		delete(rows, f.GetName())
	}
	if len(rows) > 0 {
		t.Errorf("docs/monitoring.md has rows for %v, which are no series", rows)
	}
}

// What alerts are written for is there before it first happens.
func TestFresh(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	expect(t, s, "accept_errors_total", "accept_errors_total 0")
	expect(t, s, "config_reloads_total", `config_reloads_total{result="failure"} 0`, `config_reloads_total{result="success"} 0`)
	expect(t, s, "sessions_open|connections_starting", "connections_starting 0", "sessions_open 0")
	expect(t, s, "build_info", `build_info{goversion="GO",version="v1.2.3"} 1`)
}

// The first of a kind is one more than before, not a series out of nothing, which a rate does not see.
func TestExpect(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.Expect(Outcomes{Refused: []string{"probe", "no_rule"}, Handshakes: []string{"tls_version"}, Ended: []string{"drained"}, Cancelled: []string{"failed"}})
	s.Started()
	s.Refused("1", "no_rule", false)
	expect(t, s, "connections_refused_total", `connections_refused_total{outcome="no_rule"} 1`, `connections_refused_total{outcome="probe"} 0`)
	expect(t, s, "tls_handshake_failures_total", `tls_handshake_failures_total{reason="tls_version"} 0`)
	expect(t, s, "sessions_ended_total", `sessions_ended_total{outcome="drained"} 0`)
	expect(t, s, "cancel_requests_total", `cancel_requests_total{outcome="failed"} 0`)
}

// A host that a reload takes away takes its series along; those that stay count on.
func TestInForce(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	one, two := Host{Backend: "default", Address: "/run/a"}, Host{Backend: "default", Address: "/run/\xfc"}
	s.InForce(7, 5, []Host{one, two})
	expect(t, s, "limit_connections|limit_startups", "limit_connections 7", "limit_startups 5")
	s.BackendTried(two, errors.New("no such file"))
	s.BackendTried(one, nil)
	s.BackendServed(one)
	expect(t, s, "backend_up", "backend_up{address=\"/run/a\",backend=\"default\"} 1", "backend_up{address=\"/run/\uFFFD\",backend=\"default\"} 0")
	s.InForce(0, 0, []Host{two})
	expect(t, s, "limit_connections|limit_startups", "limit_connections +Inf", "limit_startups +Inf")
	expect(t, s, "backend_connects_total",
		"backend_connects_total{address=\"/run/\uFFFD\",backend=\"default\",result=\"failure\"} 1",
		"backend_connects_total{address=\"/run/\uFFFD\",backend=\"default\",result=\"success\"} 0")
	expect(t, s, "backend_up", "backend_up{address=\"/run/\uFFFD\",backend=\"default\"} 0")
	s.BackendServed(two)
	s.BackendServed(one) // of a session from before the reload
	expect(t, s, "backend_up", "backend_up{address=\"/run/\uFFFD\",backend=\"default\"} 1")
	if all := s.Backends(); len(all) != 1 || all[0].Down() || all[0].Reason != "no such file" || all[0].LastFailure.IsZero() {
		t.Errorf("the status page gets %+v", all)
	}
}

// Whoever sees a bar of a histogram or a refusal asks the log for the session; no sample of ours names a client.
func TestExemplars(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.AuditHead(func() (uint64, string) { return 7, "9f2d" })
	play(s)
	text := ask(s, http.MethodGet, "/metrics", yes, "Accept", "application/openmetrics-text; version=1.0.0").Body.String()
	for _, want := range []string{
		`tls_handshake_duration_seconds_bucket{le="0.005"} 1 # {session_id="3"} 0.003 `,
		`tls_handshake_duration_seconds_bucket{le="0.25"} 2 # {session_id="4"} 0.25 `,
		`backend_connect_duration_seconds_bucket{le="0.0002"} 1 # {session_id="3"} 0.0001 `,
		`connections_refused_total{outcome="probe"} 1.0 # {session_id="1"} 1.0 `,
		`tls_handshake_failures_total{reason="certificate_revoked"} 1.0 # {session_id="2"} 1.0 `,
		`sessions_ended_total{outcome="client_closed"} 1.0 # {session_id="4"} 1.0 `,
	} {
		if !strings.Contains(text, "\npgwicket_"+want) {
			t.Errorf("no %s in\n%s", want, ours(text))
		}
	}
	if plain := scrape(t, s); strings.Contains(plain, "session_id") {
		t.Errorf("a scraper that knows no exemplars gets some:\n%s", ours(plain))
	}
}

// Prometheus asks in protobuf where it wants native histograms. However the times scatter, there are not many buckets.
func TestNativeHistograms(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	for d := time.Microsecond; d < 100*time.Hour; d += d/50 + 1 {
		s.Handshake("", state(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, tls.X25519), d)
		s.BackendConnected("", d)
	}
	const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	w := ask(s, http.MethodGet, "/metrics", yes, "Accept", protobuf)
	if got := strings.ReplaceAll(w.Header().Get("Content-Type"), " ", ""); !strings.HasPrefix(got, protobuf) {
		t.Errorf("asked for protobuf, got %q", got)
	}
	families, err := s.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	native := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pgwicket_") || f.GetType().String() != "HISTOGRAM" {
			continue
		}
		native++
		h, buckets := f.GetMetric()[0].GetHistogram(), 0
		for _, span := range h.GetPositiveSpan() {
			buckets += int(span.GetLength())
		}
		if len(h.GetBucket()) < len(latency) || buckets < 50 || buckets > 200 {
			t.Errorf("%s has %d classic and %d native buckets", f.GetName(), len(h.GetBucket()), buckets)
		}
	}
	if native != 2 {
		t.Errorf("%d histograms, want 2", native)
	}
}

// Every connection is counted in once and out once, whoever does it.
func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	accepted := s.Accepted("[::1]:5432")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				for range 5 {
					accepted()
					s.Started()
				}
				s.Refused("7", "source_denied", false)
				s.Refused("7", "tls_version", true)
				s.Cancelled("over_limit")
				for range 2 {
					s.Handshake("7", state(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, tls.X25519), time.Millisecond)
					s.BackendConnected("7", time.Millisecond)
					s.SessionOpened()
				}
				s.Relayed(3, 5)
				s.Ended("7", "client_lost")
			}
		})
	}
	wg.Wait()
	expect(t, s, "connections_accepted_total", `connections_accepted_total{listener="[::1]:5432"} 4000`)
	expect(t, s, "connections_refused_total", `connections_refused_total{outcome="source_denied"} 800`, `connections_refused_total{outcome="tls_version"} 800`)
	expect(t, s, "tls_handshake_failures_total", `tls_handshake_failures_total{reason="tls_version"} 800`)
	expect(t, s, "cancel_requests_total", `cancel_requests_total{outcome="over_limit"} 800`)
	expect(t, s, "tls_handshakes_total", `tls_handshakes_total{cipher="TLS_AES_128_GCM_SHA256",group="X25519",version="TLS 1.3"} 1600`)
	expect(t, s, "(backend_connect|tls_handshake)_duration_seconds_count", "backend_connect_duration_seconds_count 1600", "tls_handshake_duration_seconds_count 1600")
	expect(t, s, "sessions_open|connections_starting", "connections_starting 0", "sessions_open 800")
	expect(t, s, "sessions_ended_total", `sessions_ended_total{outcome="client_lost"} 800`)
	expect(t, s, "client_.*_bytes_total", "client_received_bytes_total 2400", "client_sent_bytes_total 4000")
}

// A counter that is told of a negative number would panic, in the middle of somebody's session.
func TestRelayedNothing(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.Relayed(-1, -1)
	s.Relayed(0, 0)
	s.Relayed(0, 7)
	expect(t, s, "client_.*_bytes_total", "client_received_bytes_total 0", "client_sent_bytes_total 7")
}

func TestHandshakeNames(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	s.Handshake("1", state(tls.VersionTLS10, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, 0), 0)
	s.Handshake("2", state(tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.CurveP256), 0)
	s.Handshake("3", state(0x0305, 0x1399, 0x9999), 0) // of a later crypto/tls
	expect(t, s, "tls_handshakes_total",
		`tls_handshakes_total{cipher="0x1399",group="CurveID(39321)",version="0x0305"} 1`,
		`tls_handshakes_total{cipher="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",group="CurveP256",version="TLS 1.2"} 1`,
		`tls_handshakes_total{cipher="TLS_RSA_WITH_3DES_EDE_CBC_SHA",group="none",version="TLS 1.0"} 1`)
}

// What is no longer configured must not go on alarming, and a failed load leaves all as it was.
func TestLoaded(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	at, one := time.Unix(1000, 0), big.NewInt(1)
	s.Loaded(at,
		[]Certificate{{"old.crt", at, at.Add(time.Second), at}, {"kept.crt", at, at.Add(time.Second), at}},
		[]CRL{{"old.crl", "CN=a", at, at.Add(time.Second), one, 1, false}, {"kept.crl", "CN=a", at, at.Add(time.Second), one, 1, false}, {"kept.crl", "CN=b", at, at.Add(time.Second), one, 1, false}})
	s.LoadFailed(true)
	expect(t, s, "config_.*",
		"config_last_reload_success_timestamp_seconds 1000", "config_last_reload_successful 0",
		`config_reloads_total{result="failure"} 1`, `config_reloads_total{result="success"} 1`)
	expect(t, s, "certificate_not_after_timestamp_seconds",
		`certificate_not_after_timestamp_seconds{file="kept.crt"} 1001`, `certificate_not_after_timestamp_seconds{file="old.crt"} 1001`)

	later := at.Add(time.Minute)
	s.Loaded(later, []Certificate{{"kept.crt", later, later, time.Time{}}}, []CRL{{"kept.crl", "CN=b", later, time.Time{}, nil, 2, false}})
	expect(t, s, "config_.*",
		"config_last_reload_success_timestamp_seconds 1060", "config_last_reload_successful 1",
		`config_reloads_total{result="failure"} 1`, `config_reloads_total{result="success"} 2`)
	expect(t, s, "certificate_.*",
		`certificate_not_after_timestamp_seconds{file="kept.crt"} 1060`, `certificate_not_before_timestamp_seconds{file="kept.crt"} 1060`)
	expect(t, s, "ocsp_.*")
	expect(t, s, "crl_.*",
		`crl_entries{file="kept.crl",issuer="CN=b"} 2`,
		"crl_load_failures_total 1",
		`crl_next_update_timestamp_seconds{file="kept.crl",issuer="CN=b"} +Inf`,
		`crl_this_update_timestamp_seconds{file="kept.crl",issuer="CN=b"} 1060`)

	s.Loaded(later, nil, nil)
	expect(t, s, "certificate_.*|crl_.*", "crl_load_failures_total 1")
}

// Names come from certificates and paths from the file system, which both hold any byte; Prometheus takes UTF-8 only
// and panics over the rest. A reload must not end the gate.
func TestLoadedWithOddNames(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	at := time.Unix(1000, 0)
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("panic: %v", p)
		}
	}()
	s.Loaded(at, nil, []CRL{{"a.crl", "CN=\"\\\n", at, at, nil, 0, false}})
	expect(t, s, "crl_entries", `crl_entries{file="a.crl",issuer="CN=\"\\\n"} 0`)
	s.Loaded(at, []Certificate{{"/etc/gr\xfcn/server.crt", at, at, at}}, []CRL{
		{"/etc/gr\xfcn/ca.crl", "CN=M\xc3...", at, at, nil, 3, false},
		{"bad.crl", "CN=b", at, at, nil, 3, true},
	})
	expect(t, s, "crl_unusable", `crl_unusable{file="bad.crl",issuer="CN=b"} 1`)
	if got := values(t, s, "crl_entries|certificate_not_after_timestamp_seconds"); len(got) != 2 {
		t.Errorf("got %q", got)
	}
}

// Loads and scrapes meet.
func TestLoadedWhileScraped(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	at := time.Unix(1000, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				s.Loaded(at, []Certificate{{"server.crt", at, at, at}}, []CRL{{"ca.crl", "CN=a", at, at, big.NewInt(1), 1, false}})
			}
		})
		wg.Go(func() {
			for range 20 {
				if _, err := s.Gatherer().Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	expect(t, s, "crl_entries", `crl_entries{file="ca.crl",issuer="CN=a"} 1`)
}

// Every suite has the name that crypto/tls gives it, and none is allocated for a connection.
func TestSuiteName(t *testing.T) {
	ids := []uint16{0, 0x00ff, 0x1399}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		ids = append(ids, suite.ID)
	}
	for _, id := range ids {
		if got, want := SuiteName(id), tls.CipherSuiteName(id); got != want {
			t.Errorf("suite %#04x is called %q, want %q", id, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { SuiteName(tls.TLS_AES_128_GCM_SHA256) }); n > 0 {
		t.Errorf("%v allocations for a name", n)
	}
}
