package metrics

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The series of pgwicket fetch are there before anything has happened, and
// docs/certificates.md names each.
func TestFetch(t *testing.T) {
	t.Parallel()
	f := NewFetch([]string{"http://a/x", "http://b/y"}, []string{"older", "timeout"})
	f.Fetched("http://a/x", time.Unix(100, 0), time.Unix(200, 0))
	f.Failed("http://b/y", "older")
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`pgwicket_fetch_failures_total{reason="older",url="http://a/x"} 0`, `pgwicket_fetch_failures_total{reason="older",url="http://b/y"} 1`,
		`pgwicket_fetch_failures_total{reason="timeout",url="http://a/x"} 0`, `pgwicket_fetch_failures_total{reason="timeout",url="http://b/y"} 0`,
		`pgwicket_fetch_last_success_timestamp_seconds{url="http://a/x"} 100`, `pgwicket_fetch_last_success_timestamp_seconds{url="http://b/y"} 0`,
		`pgwicket_fetch_lists_total{url="http://a/x"} 1`, `pgwicket_fetch_lists_total{url="http://b/y"} 0`,
		`pgwicket_fetch_next_update_timestamp_seconds{url="http://a/x"} 200`,
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	page, err := os.ReadFile("../docs/certificates.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range want {
		if name, _, _ := strings.Cut(line, "{"); !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/certificates.md does not name %s", name)
		}
	}
}
