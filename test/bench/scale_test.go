package main

import (
	"crypto/x509"
	"encoding/pem"
	"go/parser"
	"go/token"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/tlstest"
)

// cannedFigure has two curves, of which the second begins later.
func cannedFigure() figure {
	f := newFigure(scenario{ID: "canned", Title: "Some lists", Unit: "connection", About: "canned"}, "length", "the shortest", "cpu", "startup", "rss")
	for _, line := range []string{"networks", "entries & more"} {
		for _, x := range []int{1, 1000, 10_000, 12_000} {
			if line != "networks" && x == 1 {
				continue
			}
			p := pointAt(line, x, thousands(x), 1000)
			f.Points = append(f.Points, p)
		}
	}
	for round := range 3 {
		r := map[string]sample{}
		for _, p := range f.Points {
			cpu := 0.0007 + p.X/1e8 + float64(round)/5e4
			r[p.ID] = sample{Units: 1000, Seconds: 1, GateCPU: 1000 * cpu, StartUp: 0.009 + p.X/2e4*float64(round+2), PeakRSS: 16<<20 + p.X*900}
		}
		f.Rounds = append(f.Rounds, r)
	}
	f.Failed = map[string]string{"networks-1": "it is\nnot there"}
	return f
}

func cannedScale() *results {
	settings := newFigure(scenario{Title: "Select-only, 8 clients", Unit: "transaction"}, "setting", "unchanged", "cpu", "rss")
	settings.Points = []point{{ID: "pgwicket", Line: "unchanged", Of: "pgwicket"}, {ID: "gogc", Line: "`GOGC=400`", Of: "pgwicket"}}
	settings.Rounds = costs(map[string]float64{"pgwicket": 20, "gogc": 19}, map[string]float64{"pgwicket": 22, "gogc": 22}).Rounds
	return &results{
		Machine: canned().Machine,
		Figures: []figure{cannedFigure()}, Settings: []figure{settings},
		Profiles: []profile{{"Select-only, 8 clients", 2, map[string]float64{"write": 1.5, "tracker": 0.5}}, {"COPY out", 4, map[string]float64{"aead": 4}}},
	}
}

func TestScaleReport(t *testing.T) {
	t.Parallel()
	r := cannedScale()
	golden(t, "scale.md", []byte(r.scaling("img")+"\n"+r.shares("img")))
	svg, err := r.Figures[0].chart()
	if err != nil {
		t.Fatal(err)
	}
	drawn(t, svg, "length", "networks", "entries", "CPU / connection (µs)", "startup time (s)", "peak RSS (MiB)", "10k")
}

func TestScaleHasItsOwnBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, data := filepath.Join(dir, "performance.md"), filepath.Join(dir, "raw.json")
	var want string
	for _, command := range []string{scaleBlock, peersBlock, profileBlock} {
		b := block{command: command}
		want += "# " + command + "\n" + b.begin() + "\n" + b.end() + "\n"
	}
	if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cannedScale().save(data); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"report", "--into", file, "--images", dir, data}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	for command, text := range map[string]string{scaleBlock: cannedScale().scaling("."), profileBlock: cannedScale().shares(".")} {
		b := block{command: command}
		want = strings.Replace(want, b.begin(), b.begin()+"\n\n"+text, 1)
	}
	if got, _ := os.ReadFile(file); string(got) != want {
		t.Errorf("the page:\n%s\nwant:\n%s", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "scale-canned.svg")); err != nil {
		t.Error(err)
	}
}

func TestUnitOfAxis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		metric string
		hi     float64
		want   string
	}{
		{"cpu", 15.6e-6, "(µs)"},
		{"cpu", 1.4e-3, "(ms)"},
		{"rss", 112 << 20, "(MiB)"},
		{"memory", 72 << 10, "(KiB)"},
		{"throughput", 28000, ""},
	} {
		m := metricOf("connection", c.metric)
		unit, name := unitOfAxis(m, c.hi)
		if name != c.want {
			t.Errorf("%s up to %v: %s, want %s", c.metric, c.hi, name, c.want)
		}
		// The number on the axis is the one that the table shows.
		if shown, _, _ := strings.Cut(m.show(c.hi), " "); digits(c.hi/unit) != shown {
			t.Errorf("%s up to %v: %s on the axis, %s in the table", c.metric, c.hi, digits(c.hi/unit), shown)
		}
	}
}

func TestEveryVariantStillApplies(t *testing.T) {
	t.Parallel()
	for _, v := range []variant{moreLoops, profiled} {
		for _, e := range v.edits {
			file, text, err := e.apply("../..")
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
				continue
			}
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	l := &lab{dir: t.TempDir(), progress: io.Discard, ca: tlstest.NewCA("ca")}
	const n = 1000
	for _, list := range lists() {
		change, err := list.make(l, n)
		if err != nil {
			t.Fatal(err)
		}
		var s setting
		change(&s)
		if got := distinct(t, s); got != n {
			t.Errorf("%s: %d, want %d", list.title, got, n)
		}
	}
}

// distinct counts what is in the list that the setting has.
func distinct(t *testing.T, s setting) int {
	t.Helper()
	if len(s.Rules) > 0 {
		return len(s.Rules)
	}
	seen := map[string]bool{"127.0.0.0/8": s.CRL == ""} // which is always allowed
	for _, text := range s.Allow {
		if p, err := netip.ParsePrefix(text); err != nil || p != p.Masked() {
			t.Errorf("%q is no network: %v", text, err)
		}
		seen[text] = true
	}
	if s.CRL == "" {
		return len(seen)
	}
	b, err := os.ReadFile(s.CRL)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for _, e := range list.RevokedCertificateEntries {
		serials[e.SerialNumber.String()] = true
	}
	return len(serials)
}

// What pprof prints, cut; the last stack is the profiler's own.
const cannedTraces = `File: pgwicket-profiled
Type: cpu
Duration: 998.63ms, Total samples = 400ms (40.05%)
-----------+-------------------------------------------------------
     172ms   internal/runtime/syscall/linux.Syscall6
             syscall.RawSyscall6
             pgwicket/proxy.write
             pgwicket/proxy.(*loop).sendRecords (inline)
-----------+-------------------------------------------------------
      32ms   internal/runtime/syscall/linux.Syscall6
             syscall.RawSyscall6
             syscall.RawSyscall
             pgwicket/proxy.read
             pgwicket/proxy.(*loop).readBackend
-----------+-------------------------------------------------------
      16ms   internal/runtime/syscall/linux.Syscall6
             internal/runtime/syscall/linux.EpollWait
             runtime.netpoll
             runtime.findRunnable
-----------+-------------------------------------------------------
       4ms   internal/runtime/syscall/linux.Syscall6
             syscall.RawSyscall6
             pgwicket/proxy.epollWait
             pgwicket/proxy.(*loop).open.func1
-----------+-------------------------------------------------------
       4ms   runtime.memmove
             pgwicket/internal/pgwire.(*Tracker).Feed
             pgwicket/proxy.(*loop).readBackend
-----------+-------------------------------------------------------
       8ms   crypto/internal/fips140/aes/gcm.gcmAesEnc
             crypto/tls.(*xorNonceAEAD).Seal
             pgwicket/proxy.(*loop).readBackend
-----------+-------------------------------------------------------
       4ms   runtime.lock2
             runtime/pprof.StopCPUProfile
             main.profile
`

func TestSharesOfTraces(t *testing.T) {
	t.Parallel()
	p := sorted(stacks(cannedTraces))
	want := map[string]float64{"write": 172, "read": 32, "scheduler": 16, "epoll": 4, "tracker": 4, "aead": 8}
	for _, h := range allShares() {
		if got := strconv.FormatFloat(p.Spent[h.id]*1000, 'f', 0, 64); got != strconv.FormatFloat(want[h.id], 'f', 0, 64) {
			t.Errorf("%s: %s ms, want %v", h.id, got, want[h.id])
		}
	}
	if span(p.Sampled) != "236 ms" {
		t.Errorf("%v in all, want 236 ms", span(p.Sampled))
	}
}

func TestShareOfAStack(t *testing.T) {
	t.Parallel()
	for functions, want := range map[string]string{
		"internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 syscall.Syscall syscall.write syscall.Write internal/poll.(*FD).Write":  "write",
		"internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 syscall.Syscall golang.org/x/sys/unix.Close pgwicket/proxy.(*loop).end": "call",
		"syscall.RawSyscall6 golang.org/x/sys/unix.EpollCtl pgwicket/proxy.(*loop).settle":                                                   "epoll",
		"runtime.memclrNoHeapPointers runtime.mallocgc crypto/tls.(*Conn).Read":                                                              "memory",
		"p256SqrInternal crypto/internal/fips140/nistec.p256PointDoubleAsm crypto/x509.(*Certificate).CheckSignatureFrom":                    "maths",
		"runtime.memmove crypto/x509.ParseCertificate crypto/tls.(*Conn).processCertsFromClient":                                             "certificates",
		"runtime.memmove crypto/tls.(*halfConn).encrypt pgwicket/proxy.(*loop).readBackend":                                                  "tls",
		"github.com/prometheus/client_golang/prometheus.(*counter).Add pgwicket/metrics.(*Set).Relayed pgwicket/proxy.(*loop).run":           "loop",
		"runtime.memmove pgwicket/internal/pgwire.ParseStartup pgwicket/proxy.(*session).serve":                                              "gate",
		"runtime.nanotime1 main.main": "other",
	} {
		p := sorted([]stack{{1, strings.Fields(functions)}})
		for id := range p.Spent {
			if id != want {
				t.Errorf("%s: %s, want %s", functions, id, want)
			}
		}
	}
}

func TestChooseParts(t *testing.T) {
	t.Parallel()
	for only, want := range map[string]int{"": len(parts()), "idle": 1, "profile,size": 2} {
		if got, err := chooseParts(only); err != nil || len(got) != want {
			t.Errorf("%q: %d parts, %v; want %d", only, len(got), err, want)
		}
	}
}

func TestSpreadText(t *testing.T) {
	t.Parallel()
	m := metricOf("transaction", "cpu")
	for want, q := range map[string]quartiles{
		"20.0 µs [19.0–21.0]":   {19e-6, 20e-6, 21e-6, 3},
		"1.00 ms [990 µs–1.01]": {990e-6, 1e-3, 1.01e-3, 3},
		"20.0 µs":               {20e-6, 20e-6, 20e-6, 1},
		"–":                     {},
	} {
		if got := q.spreadText(m); got != want {
			t.Errorf("%v: %s, want %s", q, got, want)
		}
	}
}
