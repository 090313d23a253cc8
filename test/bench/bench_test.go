package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata")

func TestQuartiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   quartiles
	}{
		{nil, quartiles{}},
		{[]float64{3}, quartiles{3, 3, 3, 1}},
		{[]float64{2, 1}, quartiles{1.25, 1.5, 1.75, 2}},
		{[]float64{5, 1, 4, 2, 3}, quartiles{2, 3, 4, 5}},
		{[]float64{4, 1, 3, 2}, quartiles{1.75, 2.5, 3.25, 4}},
	} {
		if got := quartilesOf(c.values); got != c.want {
			t.Errorf("quartiles of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Millisecond)
	}
	if p50, p99 := percentile(all, 50), percentile(all, 99); p50 != 51*time.Millisecond || p99 != 100*time.Millisecond {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if percentile(nil, 99) != 0 {
		t.Error("a percentile of nothing is not 0")
	}
}

// run of the given costs for each transaction, in microseconds.
func costs(rounds ...map[string]float64) series {
	s := series{Scenario: "select-8", Title: "Select-only, 8 clients", Unit: "transaction", Main: "cpu", About: "canned"}
	for _, r := range rounds {
		round := map[string]sample{}
		for id, us := range r {
			round[id] = sample{Units: 1000, Seconds: 1, GateCPU: us / 1e3, ServerCPU: 0.02, P50: 0.001, P99: 0.002, PeakRSS: 8 << 20}
		}
		s.Rounds = append(s.Rounds, round)
	}
	return s
}

func TestRatiosAreTakenInsideRounds(t *testing.T) {
	t.Parallel()
	// The machine is three times slower in the second round, for all alike.
	s := costs(
		map[string]float64{"pgwicket": 10, "pgbouncer": 20, controlID: 11},
		map[string]float64{"pgwicket": 30, "pgbouncer": 60, controlID: 27},
		map[string]float64{"pgbouncer": 20}, // pgwicket had no part
	)
	m := metricOf(s.Unit, "cpu")
	if q := s.ratio("pgwicket", "pgbouncer", m); q != (quartiles{0.5, 0.5, 0.5, 2}) {
		t.Errorf("ratio %v, want 0.5 in both rounds", q)
	}
	if got := s.spread(m); math.Abs(got-0.05) > 1e-9 {
		t.Errorf("spread %v, want 0.05", got)
	}
	if q := s.ratio("pgwicket", "stunnel", m); q.N != 0 {
		t.Errorf("a ratio to nobody: %v", q)
	}
}

func TestTheHardestPeerCounts(t *testing.T) {
	t.Parallel()
	r := &results{Series: []series{costs(map[string]float64{"pgwicket": 10, "pgbouncer": 20, "stunnel": 11, controlID: 10})}}
	v, ok := r.judge(goal{"select-8", "cpu", []string{"pgbouncer", "stunnel"}, 0.85})
	if !ok || v.peer != "stunnel" || v.text() != "**missed** by 7 %" {
		t.Errorf("%v, peer %s: %s", ok, v.peer, v.text())
	}
	// All have the same throughput, and it should be 1.1 times.
	v, ok = r.judge(goal{"select-8", "throughput", []string{"pgbouncer"}, 1.10})
	if !ok || v.text() != "**missed** by 10 %" {
		t.Errorf("%v: %s", ok, v.text())
	}
	if _, ok = r.judge(goal{"copy-in", "cpu", []string{"pgbouncer"}, 1}); ok {
		t.Error("judged a scenario that was not run")
	}
}

func TestQuickFailsBeyondTheSpreadOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		pgwicket, control float64
		fails             bool
		says              string
	}{
		{"cheaper", 15, 16, false, "no more than PgBouncer's"},
		{"a little dearer", 21, 23, false, "within what pgwicket differs from itself"},
		{"dearer", 25, 25, true, "more than noise explains"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &results{Series: []series{costs(map[string]float64{"pgwicket": c.pgwicket, controlID: c.control, "pgbouncer": 20})}}
			var out bytes.Buffer
			if err := r.judgeQuick(&out); (err != nil) != c.fails || !strings.Contains(out.String(), c.says) {
				t.Errorf("%v: %s", err, out.String())
			}
		})
	}
}

func TestQuickNeedsSomethingToCompare(t *testing.T) {
	t.Parallel()
	r := &results{Series: []series{costs(map[string]float64{"pgwicket": 10, controlID: 10})}}
	if err := r.judgeQuick(io.Discard); err == nil {
		t.Error("passed without PgBouncer")
	}
}

func TestTurnsRotate(t *testing.T) {
	t.Parallel()
	field := contenders()
	begins := map[string]int{}
	for r := range 2 * len(field) {
		seen := map[string]bool{}
		for i := range field {
			seen[candidateAt(field, r, i).id] = true
		}
		if len(seen) != len(field) {
			t.Errorf("round %d: only %v", r, seen)
		}
		begins[candidateAt(field, r, 0).id]++
	}
	for _, c := range field {
		if begins[c.id] != 2 {
			t.Errorf("%s begins %d times of %d rounds", c.id, begins[c.id], 2*len(field))
		}
	}
}

func TestPgbenchLines(t *testing.T) {
	t.Parallel()
	if tps, ok := progress("progress: 1.0 s, 12345.6 tps, lat 0.081 ms stddev 0.020, 0 failed"); !ok || tps != 12345.6 {
		t.Errorf("%v, %v", tps, ok)
	}
	if _, ok := progress("pgbench (15.18)"); ok {
		t.Error("took a greeting for progress")
	}
	at := time.Unix(1700000000, 123000)
	for line, want := range map[string]time.Duration{
		"0 199 2241 0 1700000000 123":     2241 * time.Microsecond,
		"0 199 2241 0 1700000000 123 241": 2 * time.Millisecond, // with its lag behind the schedule
	} {
		if took, when, ok := transaction(line); !ok || took != want || !when.Equal(at) {
			t.Errorf("%q: %v at %v, %v", line, took, when, ok)
		}
	}
	for _, line := range []string{"", "0 199 22", "0 199 skipped 0 1700000000 123"} {
		if _, _, ok := transaction(line); ok {
			t.Errorf("took %q for a transaction", line)
		}
	}
}

func canned() *results {
	s := costs(
		map[string]float64{"pgwicket": 15, controlID: 15.5, "pgbouncer": 20, "stunnel": 24, "plain": 30, "floor": 10},
		map[string]float64{"pgwicket": 16, controlID: 15.2, "pgbouncer": 21, "stunnel": 25, "plain": 31, "floor": 10},
		map[string]float64{"pgwicket": 14, controlID: 14.7, "pgbouncer": 20, "stunnel": 22, "plain": 28, "floor": 9},
	)
	s.Out = map[string]string{"haproxy": "the client knows no direct TLS"}
	s.Failed = map[string]string{"postgres": "it is\nnot there"}
	r := &results{Machine: machine{At: "2026-01-02", CPU: "a CPU", Cores: 2, Kernel: "6.1", System: "Debian", Load: "0.1 0.2 0.3", Go: "go1.26", Command: "bench peers"}, Series: []series{s}}
	for _, c := range contenders() {
		r.Machine.Contenders = append(r.Machine.Contenders, contenderInfo{c.id, c.title, "unchanged", "1.0"})
	}
	return r
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := canned()
	golden(t, "report.md", []byte(r.markdown("img")))
	svg, err := r.bars(r.Series[0])
	if err != nil {
		t.Fatal(err)
	}
	drawn(t, svg, r.Series[0].Title, "pgwicket again (control)", "PgBouncer", "stunnel", "plain Go proxy", "C forwarder, no TLS")
}

// drawn fails unless a picture is well-formed and has these texts.
func drawn(t *testing.T, svg []byte, texts ...string) {
	t.Helper()
	var page struct {
		Inner []byte `xml:",innerxml"`
	}
	if err := xml.Unmarshal(svg, &page); err != nil {
		t.Errorf("the picture is not well-formed: %v", err)
	}
	for _, text := range texts {
		if !strings.Contains(string(page.Inner), text) {
			t.Errorf("the picture has no %q", text)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (\"go test -C test ./bench -update\" rewrites it):\n%s", name, got)
	}
}

func TestReportFromItsOwnData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page, data := filepath.Join(dir, "performance.md"), filepath.Join(dir, "raw.json")
	if err := canned().save(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("# Performance\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first string
	for range 2 { // the block is appended, then replaced
		err := run(t.Context(), []string{"report", "--into", page, "--images", filepath.Join(dir, "img"), data}, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(page)
		if first == "" {
			first = string(b)
		} else if first != string(b) {
			t.Errorf("the second time the page is another:\n%s", b)
		}
	}
	if !strings.HasPrefix(first, "# Performance\n\n"+block{command: peersBlock}.begin()) || !strings.Contains(first, "](img/bench-select-8.svg)") {
		t.Errorf("the page:\n%s", first)
	}
	if _, err := os.Stat(filepath.Join(dir, "img", "bench-select-8.svg")); err != nil {
		t.Error(err)
	}
	var back results
	b, _ := os.ReadFile(data)
	if err := json.Unmarshal(b, &back); err != nil || back.markdown("") != canned().markdown("") {
		t.Errorf("raw data does not give the same report: %v", err)
	}
}

func TestAnUnclosedBlockIsLeftAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "page.md")
	b := block{peersBlock, canned().markdown}
	if err := os.WriteFile(file, []byte("a\n"+b.begin()+"\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.renew(file, ""); err == nil {
		t.Error("replaced a block that does not end")
	}
}

func TestEveryConfigurationRenders(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pgbouncer.ini", "stunnel.conf", "haproxy.cfg"} {
		for _, cert := range []bool{false, true} {
			s := setting{Dir: t.TempDir(), Address: "127.0.0.1:1", Host: "127.0.0.1", Port: "1", SocketDir: "/s", SocketFile: "/s/.s.PGSQL.5432", Cert: cert, Sessions: 500, CRL: "/c.crl", Allow: []string{"10.0.0.0/8"}}
			path, err := s.render(name)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := os.ReadFile(path)
			if strings.Contains(string(b), "<no value>") || strings.Contains(string(b), "ca.crt") != cert {
				t.Errorf("%s, client certificates %v:\n%s", name, cert, b)
			}
		}
	}
}

func TestPgwicketsKeys(t *testing.T) {
	t.Parallel()
	for _, cert := range []bool{false, true} {
		s := setting{Cert: cert, CRL: "/c.crl", Allow: []string{"10.0.0.0/8"}, Rules: []string{"a", "b"}}
		text := string(gate.Config("127.0.0.1:1", s.keys()))
		for _, want := range []string{"ca.crt", "/c.crl", "client_cert: require"} {
			if strings.Contains(text, want) != cert {
				t.Errorf("client certificates %v, %s:\n%s", cert, want, text)
			}
		}
		if !strings.Contains(text, "allow: [127.0.0.0/8, 10.0.0.0/8]") || strings.Count(text, "action: allow") != 3 {
			t.Errorf("the lists:\n%s", text)
		}
	}
}

func TestScenariosAndBarsAgree(t *testing.T) {
	t.Parallel()
	o, err := parse("peers", nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	all := scenarios(o)
	for _, b := range goals() {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.ID == b.scenario })
		if i < 0 {
			t.Errorf("a goal for %s, which is no scenario", b.scenario)
			continue
		}
		if metricOf(all[i].Unit, b.metric).id != b.metric {
			t.Errorf("a goal for %s, which is no metric", b.metric)
		}
	}
	for names, want := range map[string]int{"select-1": 1, "select": 4, "connect": 1, "copy": 2, "idle,storm": 5} {
		o.scenarios = names
		if got, err := chooseScenarios(o); err != nil || len(got) != want {
			t.Errorf("%q: %d scenarios, %v; want %d", names, len(got), err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		nil,
		{"nothing"},
		{"peers", "--idle", "some"},
		{"peers", "--contenders", "nobody"},
		{"peers", "--scenarios", "nothing"},
		{"scale", "--only", "nothing"},
		{"scale", "idle"},
		{"report"},
	} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	for _, name := range []string{"peers", "scale"} {
		if err := run(t.Context(), []string{name, "-h"}, io.Discard, io.Discard); err != nil {
			t.Errorf("help of %s: %v", name, err)
		}
	}
}

func TestFakeSession(t *testing.T) {
	t.Parallel()
	f, err := fakeBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	c, err := net.Dial("unix", filepath.Join(f.SocketDir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t.Context(), wire.New(c))
	defer s.close()
	if err := errors.Join(s.Exchange(startupPacket("bench")), s.query("select 1"), prepare("select $1")(s), s.Exchange(bound(1)), s.query("select 2")); err != nil {
		t.Error(err)
	}
}
