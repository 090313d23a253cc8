package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(s *Set, method, path string, ready func() bool, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler(ready).ServeHTTP(w, r)
	return w
}

func yes() bool { return true }
func no() bool  { return false }

func scrape(t *testing.T, s *Set) string {
	t.Helper()
	w := ask(s, http.MethodGet, "/metrics", yes)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestHandler(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	for _, c := range []struct {
		method, path string
		ready        func() bool
		status       int
		body         string
	}{
		{"GET", "/livez", yes, 200, "ok\n"},
		{"GET", "/healthz", yes, 200, "ok\n"},
		{"GET", "/liveness", yes, 200, "ok\n"},
		{"GET", "/startupz", yes, 200, "ok\n"},
		{"GET", "/startup", yes, 200, "ok\n"},
		{"GET", "/readyz", yes, 200, "ok\n"},
		{"GET", "/readiness", yes, 200, "ok\n"},
		{"GET", "/readyz", no, 503, "not ready\n"},
		{"GET", "/readiness", no, 503, "not ready\n"},
		// cloud-sql-proxy#206: a gate that drains is alive, and to restart it would cut the sessions that it waits for.
		{"GET", "/livez", no, 200, "ok\n"},
		{"GET", "/healthz", no, 200, "ok\n"},
		{"GET", "/liveness", no, 200, "ok\n"},
		{"GET", "/startupz", no, 200, "ok\n"},
		{"GET", "/startup", no, 200, "ok\n"},
		{"GET", "/readyz?verbose", no, 503, "not ready\n"},

		// CVE-2026-6667, ghostunnel#755: there is nothing here to be done, and nothing else to be seen.
		{"POST", "/livez", yes, 405, ""},
		{"PUT", "/readyz", yes, 405, ""},
		{"DELETE", "/metrics", yes, 405, ""},
		{"OPTIONS", "/metrics", yes, 405, ""},
		{"TRACE", "/livez", yes, 405, ""},
		{"GET", "/", yes, 404, ""},
		{"GET", "/metrics/", yes, 404, ""},
		{"GET", "/livez/x", yes, 404, ""},
		{"GET", "/LIVEZ", yes, 404, ""},
		{"GET", "/debug/pprof/", yes, 404, ""},
		{"POST", "/_shutdown", yes, 404, ""},
		{"POST", "/-/reload", yes, 404, ""},
		{"POST", "/reload", yes, 404, ""},
		{"GET", "/sessions.json", yes, 404, ""},
	} {
		w := ask(s, c.method, c.path, c.ready)
		if w.Code != c.status || c.body != "" && w.Body.String() != c.body {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, w.Code, w.Body, c.status, c.body)
		}
		if c.status == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, w.Header().Get("Allow"))
		}
		if c.body == "" {
			continue
		}
		for name, want := range map[string]string{"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", c.path, name, got)
			}
		}
	}
}

// A probe that goes by status alone may save the body; net/http leaves it out.
func TestHandlerHead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New("v1.2.3").Handler(no))
	defer server.Close()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/metrics": 200, "/nowhere": 404} {
		response, err := http.Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, response.StatusCode, want)
		}
	}
}

// Readiness is asked for anew each time.
func TestReadinessChanges(t *testing.T) {
	t.Parallel()
	answers := []bool{false, true, false}
	h := New("v1.2.3").Handler(func() bool { a := answers[0]; answers = answers[1:]; return a })
	for _, want := range []int{503, 200, 503} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code != want {
			t.Errorf("got %d, want %d", w.Code, want)
		}
	}
}

func TestMetricsFormats(t *testing.T) {
	t.Parallel()
	s := New("v1.2.3")
	play(s)
	for accept, want := range map[string]string{
		"": "text/plain; version=0.0.4; charset=utf-8",
		"application/openmetrics-text; version=1.0.0": "application/openmetrics-text; version=1.0.0; charset=utf-8",
	} {
		w := ask(s, http.MethodGet, "/metrics", yes, "Accept", accept)
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("asked for %q, got %q", accept, got)
		}
		if eof := strings.HasSuffix(w.Body.String(), "# EOF\n"); eof != (accept != "") {
			t.Errorf("asked for %q, EOF is %v", accept, eof)
		}
		for _, series := range []string{"pgwicket_build_info{", "go_goroutines "} {
			if !strings.Contains(w.Body.String(), "\n"+series) {
				t.Errorf("asked for %q, no %s", accept, series)
			}
		}
	}
}

// Two gates of one process, as tests have them, do not share a series.
func TestSetsAreApart(t *testing.T) {
	t.Parallel()
	one, two := New("v1"), New("v2")
	one.AcceptFailed()
	expect(t, one, "accept_errors_total", "accept_errors_total 1")
	expect(t, two, "accept_errors_total", "accept_errors_total 0")
}
