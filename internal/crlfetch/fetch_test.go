package crlfetch

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// listServer answers with what a test puts into it.
type listServer struct {
	*httptest.Server
	handler  atomic.Pointer[http.HandlerFunc]
	requests atomic.Int64
}

func serve(t *testing.T) *listServer {
	t.Helper()
	s := &listServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.handler.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *listServer) does(h http.HandlerFunc) { s.handler.Store(&h) }

func (s *listServer) sends(body []byte) {
	s.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

// der returns a list with a number.
func der(ca *tlstest.CA, number int64, edit ...func(*tlstest.CRL)) []byte {
	block, _ := pem.Decode(ca.CRL(func(l *tlstest.CRL) {
		l.Number = big.NewInt(number)
		for _, e := range edit {
			e(l)
		}
	}))
	return block.Bytes
}

func source(t *testing.T, ca *tlstest.CA, urls ...string) Source {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return Source{URLs: urls, Dir: dir, CAFile: file}
}

func fetch(t *testing.T, f *Fetcher, s Source, u string, want Reason, text string) Result {
	t.Helper()
	r := f.Fetch(context.Background(), s, u)
	if r.Reason != want || want != "" && !strings.Contains(r.Err.Error(), text) {
		t.Errorf("reason %q, %v, want %q, %q", r.Reason, r.Err, want, text)
	}
	return r
}

// Whatever a server does, the last good list stays, and the reason is one of the known.
func TestRefused(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	other := serve(t)
	other.sends(der(ca, 9))
	s := source(t, ca, server.URL)
	path := filepath.Join(s.Dir, FileName(server.URL))
	f := &Fetcher{Timeout: 300 * time.Millisecond, MaxSize: 1 << 20}
	good := der(ca, 5)
	server.sends(good)
	if r := fetch(t, f, s, server.URL, "", ""); !r.Changed || r.Next.IsZero() {
		t.Fatalf("%+v", r)
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name string
		does http.HandlerFunc
		want Reason
		text string
	}{
		{"hangs", hang, TimedOut, "deadline"},
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{0x30})
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, TimedOut, "deadline"},
		{"floods", func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, TooLarge, "more than 1048576 bytes"},
		{"announces a flood", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "10000000000") }, TooLarge, "10000000000 bytes"},
		{"endless header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, Unreachable, "header"},
		{"other host", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, Redirected, "redirects to another host, " + other.URL},
		{"other scheme", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://"+r.Host+"/", http.StatusFound)
		}, Redirected, "redirects from http to ftp"},
		{"loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, Redirected, "more than 5 times"},
		{"404", http.NotFound, BadStatus, "status 404"},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, BadStatus, "status 204"},
		{"page", sends([]byte("<html>all is well</html>")), NotAList, "no revocation list"},
		{"nothing", sends(nil), NotAList, "no revocation list"},
		{"half", sends(good[:len(good)-9]), NotAList, "no revocation list"},
		{"certificate", sends(ca.CertPEM()), NotAList, "no revocation list"},
		{"changed", sends(changed(der(ca, 6))), Foreign, "not signed by a CA of that name"},
		{"other CA", sends(der(tlstest.NewCA("other"), 9)), Foreign, "CN=other"},
		{"other key", sends(der(tlstest.NewCA("ca"), 9)), Foreign, "CN=ca"},
		{"replay", sends(der(ca, 4)), Older, "number 4, and number 5 is in use"},
		{"expired", sends(der(ca, 6, func(l *tlstest.CRL) { l.NextUpdate = time.Now().Add(-time.Minute) })), NotNow, "out of date"},
		{"future", sends(der(ca, 6, func(l *tlstest.CRL) { l.ThisUpdate = time.Now().Add(time.Hour) })), NotNow, "not yet in force"},
	} {
		server.does(c.does)
		if r := fetch(t, f, s, server.URL, c.want, c.text); r.Changed {
			t.Errorf("%s: the copy has changed", c.name)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != string(good) {
			t.Errorf("%s: the last good list is gone: %v", c.name, err)
		}
	}
	if other.requests.Load() > 0 {
		t.Error("another host was asked")
	}
	if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	server.Close()
	fetch(t, f, s, server.URL, Unreachable, "refused")
	// It goes on with the next good one.
	next := serve(t)
	next.sends(der(ca, 6))
	fetch(t, f, s, next.URL, "", "")
}

func sends(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
}

// changed is a list with another last octet of its signature.
func changed(list []byte) []byte {
	list[len(list)-1] ^= 1
	return list
}

// What is not there before is refused as well.
func TestRefusedWithoutCopy(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	s := source(t, ca, server.URL)
	f := &Fetcher{}
	server.sends(der(tlstest.NewCA("ca"), 1))
	fetch(t, f, s, server.URL, Foreign, "")
	server.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	fetch(t, f, s, server.URL, BadStatus, "status 304")
	if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	server.sends(der(ca, 1))
	s.Dir = filepath.Join(s.Dir, "none")
	fetch(t, f, s, server.URL, Local, "no such file")
	s.CAFile += ".none"
	fetch(t, f, s, server.URL, Local, "no such file")
}

// A second download asks for changes only, in this process and in the next one.
func TestConditional(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	modified := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	list := der(ca, 1)
	var conditions []string
	server := serve(t)
	s := source(t, ca, server.URL)
	handle := func(at time.Time) {
		server.does(func(w http.ResponseWriter, r *http.Request) {
			conditions = append(conditions, fmt.Sprint(r.Header.Get("If-None-Match"), r.Header.Get("If-Modified-Since")))
			w.Header().Set("ETag", `"tag"`)
			http.ServeContent(w, r, "", at, strings.NewReader(string(list)))
		})
	}
	handle(modified)
	f := &Fetcher{}
	for _, f := range []*Fetcher{f, f, {}} {
		r := fetch(t, f, s, server.URL, "", "")
		if r.Changed != (len(conditions) == 1) || r.Next.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	date := modified.Format(http.TimeFormat)
	if got, want := strings.Join(conditions, ","), ","+`"tag"`+date+","+date; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// A server without times, or with one from the future, is asked for the whole list.
	for i, at := range []time.Time{{}, time.Now().Add(time.Hour)} {
		conditions = nil
		list = der(ca, int64(i+2))
		handle(at)
		if err := os.Chtimes(filepath.Join(s.Dir, FileName(server.URL)), time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		fetch(t, f, s, server.URL, "", "")
		fetch(t, f, s, server.URL, "", "")
		if got := strings.Join(conditions, ","); got != "," {
			t.Errorf("the conditions are %s", got)
		}
	}
}

// An unchanged list that has ended is a failure, too: nobody would notice else.
func TestUnchangedAndEnded(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	s := source(t, ca, server.URL)
	path := filepath.Join(s.Dir, FileName(server.URL))
	ended := der(ca, 1, func(l *tlstest.CRL) { l.NextUpdate = time.Now().Add(-time.Minute) })
	if err := os.WriteFile(path, ended, 0o600); err != nil {
		t.Fatal(err)
	}
	server.does(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Now().Add(-time.Hour), bytes.NewReader(ended))
	})
	fetch(t, &Fetcher{}, s, server.URL, NotNow, "out of date")
}

// A list of 20 MiB that is refused leaves nothing behind.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	server.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, 1<<30) })
	s := source(t, ca, server.URL)
	f := &Fetcher{MaxSize: 4 << 20}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fetch(t, f, s, server.URL, TooLarge, "more than")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("%d MiB for 4", grown>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestRunAndOnce(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	good, bad := serve(t), serve(t)
	good.sends(der(ca, 1))
	bad.does(http.NotFound)
	s := source(t, ca, good.URL, bad.URL)
	if n := (&Fetcher{}).Once(context.Background(), []Source{s}); n != 1 {
		t.Errorf("%d failures", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan Result, 8)
	f := &Fetcher{Report: func(r Result) { results <- r }}
	ended := make(chan struct{})
	go func() {
		f.Run(ctx, []Source{s})
		close(ended)
	}()
	seen := map[string]Reason{}
	for range 2 {
		r := <-results
		seen[r.URL] = r.Reason
	}
	if seen[good.URL] != "" || seen[bad.URL] != BadStatus {
		t.Errorf("%v", seen)
	}
	cancel()
	<-ended
}

func TestPause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		failures int
		most     time.Duration
	}{{0, time.Hour}, {1, 30 * time.Second}, {2, time.Minute}, {3, 2 * time.Minute}, {7, 32 * time.Minute}, {8, time.Hour}, {15, time.Hour}, {1000, time.Hour}} {
		for range 100 {
			if p := pause(time.Hour, c.failures); p > c.most || p < c.most*3/4 {
				t.Errorf("%d failures: %v", c.failures, p)
			}
		}
	}
}

func TestPointsOf(t *testing.T) {
	t.Parallel()
	urls, unsupported, err := PointsOf([]string{writePoints(t, "http://a/ca.crl", "ldap://b/cn=ca"), writePoints(t, "http://a/ca.crl", "https://c/x")})
	if err != nil || fmt.Sprint(urls) != "[http://a/ca.crl https://c/x]" || fmt.Sprint(unsupported) != "[ldap://b/cn=ca]" {
		t.Errorf("%q, %q, %v", urls, unsupported, err)
	}
	if _, _, err := PointsOf([]string{"none"}); err == nil {
		t.Error("a file that is not there")
	}
}

// writePoints writes a certificate with distribution points.
func writePoints(t *testing.T, points ...string) string {
	t.Helper()
	ca := tlstest.NewCA("ca")
	pair := ca.Client("app", withPoints(points))
	path := filepath.Join(t.TempDir(), "c.crt")
	if err := os.WriteFile(path, pair.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileName(t *testing.T) {
	t.Parallel()
	a, b := FileName("http://Ca.Example.com:80/../x"), FileName("http://ca.example.com/x")
	if a == b || !strings.HasPrefix(a, "ca.example.com-") || !strings.HasSuffix(a, ".crl") || strings.ContainsAny(a, "/:") {
		t.Errorf("%s and %s", a, b)
	}
	if n := FileName("http://../"); strings.HasPrefix(n, ".") {
		t.Error(n)
	}
}

func withPoints(points []string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.CRLDistributionPoints = points }
}

// docs/certificates.md explains every reason, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/certificates.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Lists by URL\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, r := range Reasons() {
		if !strings.Contains(section, "\n| `"+string(r)+"` | ") {
			t.Errorf("%s is not explained", r)
		}
	}
	if n := strings.Count(section, "\n| `"); n != len(Reasons()) {
		t.Errorf("%d rows for %d reasons", n, len(Reasons()))
	}
}
