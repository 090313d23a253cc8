package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Fetch has the series of pgwicket fetch, which is a process of its own. Create it with
// NewFetch. Its methods are safe for concurrent use. The label url has the configured
// locations and no others.
type Fetch struct {
	set      *Set
	fetched  *prometheus.CounterVec
	failures *prometheus.CounterVec
	success  *prometheus.GaugeVec
	next     *prometheus.GaugeVec
}

// NewFetch returns the series, with zeros for each URL and reason.
func NewFetch(urls, reasons []string) *Fetch {
	s := &Set{registry: prometheus.NewRegistry()}
	f := &Fetch{
		set:      s,
		fetched:  s.counterVec("fetch_lists_total", "Downloads of a revocation list that left the newest one in place.", "url"),
		failures: s.counterVec("fetch_failures_total", "Downloads of a revocation list that failed or were refused, by reason.", "url", "reason"),
		success:  s.gaugeVec("fetch_last_success_timestamp_seconds", "When a revocation list was last downloaded or found unchanged; 0 for never.", "url"),
		next:     s.gaugeVec("fetch_next_update_timestamp_seconds", "When the copy of a revocation list ends (its next update); absent until it is known.", "url"),
	}
	for _, u := range urls {
		f.fetched.WithLabelValues(u)
		f.success.WithLabelValues(u)
		for _, reason := range reasons {
			f.failures.WithLabelValues(u, reason)
		}
	}
	return f
}

// Fetched counts a download. next is the zero time if the list has no next update.
func (f *Fetch) Fetched(url string, at, next time.Time) {
	f.fetched.WithLabelValues(url).Inc()
	f.success.WithLabelValues(url).Set(float64(at.Unix()))
	if !next.IsZero() {
		f.next.WithLabelValues(url).Set(float64(next.Unix()))
	}
}

// Failed counts a failure.
func (f *Fetch) Failed(url, reason string) { f.failures.WithLabelValues(url, reason).Inc() }

// Handler serves the series and health checks, as Set.Handler does.
func (f *Fetch) Handler() http.Handler { return f.set.Handler(func() bool { return true }) }
