package metrics

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Gatherer returns the series for use without HTTP.
func (s *Set) Gatherer() prometheus.Gatherer { return carried{s.registry, &s.before} }

// Handler serves the admin address: /metrics, and the health checks under the names
// that Kubernetes and load balancers use. ready reports whether the gate accepts new
// connections; it must be safe for concurrent use. Methods other than GET and HEAD are
// refused.
func (s *Set) Handler(ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer(), promhttp.HandlerOpts{EnableOpenMetrics: true}))
	for _, path := range []string{"/livez", "/healthz", "/liveness", "/startupz", "/startup"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, true) })
	}
	for _, path := range []string{"/readyz", "/readiness"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, ready()) })
	}
	return mux
}

func answer(w http.ResponseWriter, ok bool) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}
