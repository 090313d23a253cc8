// Package metrics holds the Prometheus series of pgwicket and the handler of
// its admin address. It is spoken to in verbs; no label is ever a client's
// choice: no client address, user, database or serial number.
package metrics

import (
	"crypto/tls"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Set is all the series of one gate, on a registry of its own. Its methods may
// be called concurrently. Make it with New.
type Set struct {
	registry *prometheus.Registry
	counts   *prometheus.Registry // those that Totals reads

	accepted      *prometheus.CounterVec
	acceptErrors  prometheus.Counter
	refused       *prometheus.CounterVec
	ended         *prometheus.CounterVec
	cancels       *prometheus.CounterVec
	starting      prometheus.Gauge
	open          prometheus.Gauge
	handshakes    *prometheus.CounterVec
	failures      *prometheus.CounterVec
	handshakeTime prometheus.Histogram
	backendTime   prometheus.Histogram
	backends      *prometheus.CounterVec
	limit         prometheus.Gauge
	fromClients   prometheus.Counter
	toClients     prometheus.Counter

	linesDropped prometheus.Counter

	rechecks       prometheus.Counter
	recheckFailing prometheus.Gauge
	recheckTime    prometheus.Gauge

	certNotBefore *prometheus.GaugeVec
	certNotAfter  *prometheus.GaugeVec
	crlThis       *prometheus.GaugeVec
	crlNext       *prometheus.GaugeVec
	crlNumber     *prometheus.GaugeVec
	crlEntries    *prometheus.GaugeVec
	crlFailures   prometheus.Counter
	ocspNext      *prometheus.GaugeVec
	reloads       *prometheus.CounterVec
	reloadOK      prometheus.Gauge
	reloadTime    prometheus.Gauge

	mu    sync.Mutex
	hosts []Host // with series of their own
}

// Outcomes are the label values of the counters that have such. Each is a closed
// set.
type Outcomes struct{ Refused, Handshakes, Ended, Cancelled []string }

// Host is an address of a backend. Both are the operator's own words.
type Host struct{ Backend, Address string }

// latency has buckets from a fifth of a millisecond, an ECDSA handshake on a
// fast machine, to the longest that a start-up may take.
var latency = []float64{.0002, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New returns an empty set. version names the build in pgwicket_build_info.
func New(version string) *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	s.connectionSeries()
	s.tlsSeries()
	s.configSeries()
	s.counts = prometheus.NewRegistry()
	s.counts.MustRegister(s.accepted, s.refused, s.ended, s.cancels, s.starting, s.open)
	info := s.gaugeVec("build_info", "Build of the running pgwicket; always 1.", "version", "goversion")
	info.WithLabelValues(version, goVersion()).Set(1)
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

func goVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		return bi.GoVersion
	}
	return "unknown"
}

func (s *Set) connectionSeries() {
	s.accepted = s.counterVec("connections_accepted_total", "Connections accepted, by listener.", "listener")
	s.acceptErrors = s.counter("accept_errors_total", "Failed accepts, for example for want of file descriptors; each is retried.")
	s.refused = s.counterVec("connections_refused_total", "Connections that were not let in, by outcome.", "outcome")
	s.starting = s.gauge("connections_starting", "Connections in their start-up, between accept and session.")
	s.open = s.gauge("sessions_open", "Sessions being relayed.")
	s.ended = s.counterVec("sessions_ended_total", "Sessions that have ended, by outcome.", "outcome")
	s.cancels = s.counterVec("cancel_requests_total", "CancelRequests from allowed sources, by outcome.", "outcome")
	s.fromClients = s.counter("client_received_bytes_total", "Bytes of sessions received from clients, after decryption.")
	s.toClients = s.counter("client_sent_bytes_total", "Bytes of sessions sent to clients, before encryption.")
	s.linesDropped = s.counter("log_lines_dropped_total", "Lines of the log that were not written because nobody read it, or because that failed.")
	s.rechecks = s.counter("rechecks_total", "Rounds in which the live sessions were judged again.")
	s.recheckFailing = s.gauge("recheck_failing_sessions", "Live sessions that the last recheck would not have let in, whether it ended them or not.")
	s.recheckTime = s.gauge("recheck_duration_seconds", "Time that the last recheck took.")
	s.backendTime = s.histogram("backend_connect_duration_seconds", "Time to connect to the backend.")
	s.backends = s.counterVec("backend_connects_total", "Attempts of sessions to connect to an address of a backend, by result.", "backend", "address", "result")
	s.limit = s.gauge("limit_connections", "Connections that there may be at once, those in their start-up included; +Inf without a limit.")
}

func (s *Set) tlsSeries() {
	s.handshakes = s.counterVec("tls_handshakes_total", "Finished TLS handshakes.", "version", "cipher", "group")
	s.failures = s.counterVec("tls_handshake_failures_total", "Clients refused for their TLS or their certificate, by reason.", "reason")
	s.handshakeTime = s.histogram("tls_handshake_duration_seconds", "Time of finished TLS handshakes, the client's share included.")
}

func (s *Set) configSeries() {
	s.certNotBefore = s.gaugeVec("certificate_not_before_timestamp_seconds", "Start of validity of a server certificate.", "file")
	s.certNotAfter = s.gaugeVec("certificate_not_after_timestamp_seconds", "End of validity of a server certificate.", "file")
	s.crlThis = s.gaugeVec("crl_this_update_timestamp_seconds", "When a revocation list was issued.", "file", "issuer")
	s.crlNext = s.gaugeVec("crl_next_update_timestamp_seconds", "When a revocation list goes stale; +Inf if it never does.", "file", "issuer")
	s.crlNumber = s.gaugeVec("crl_number", "Number that the CA has given a revocation list; absent without one.", "file", "issuer")
	s.crlEntries = s.gaugeVec("crl_entries", "Revoked certificates in a revocation list.", "file", "issuer")
	s.crlFailures = s.counter("crl_load_failures_total", "Loads of the configuration that failed over revocation lists; those before stay in force.")
	s.ocspNext = s.gaugeVec("ocsp_next_update_timestamp_seconds", "When the OCSP response of a server certificate ends and is no longer stapled.", "file")
	s.reloads = s.counterVec("config_reloads_total", "Loads of the configuration, the first included, by result.", "result")
	s.reloadOK = s.gauge("config_last_reload_successful", "Whether the last load of the configuration worked (1) or the one before stays in force (0).")
	s.reloadTime = s.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.")
	s.reloads.WithLabelValues("success")
	s.reloads.WithLabelValues("failure")
}

const namespace = "pgwicket"

func (s *Set) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	s.registry.MustRegister(c)
	return c
}

func (s *Set) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	s.registry.MustRegister(c)
	return c
}

func (s *Set) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	s.registry.MustRegister(g)
	return g
}

func (s *Set) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	s.registry.MustRegister(g)
	return g
}

func (s *Set) histogram(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: latency,
		// Native beside classic, for scrapers that ask in protobuf: every bucket is
		// at most a tenth wider than the one before, and memory is bounded.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
		NativeHistogramMaxExemplars:     -1, // the classic buckets have theirs
	})
	s.registry.MustRegister(h)
	return h
}

// exemplar is the label by which a sample leads to the line of the session in the
// log. Only OpenMetrics and protobuf show it. 0 is no session, and has none.
func exemplar(session uint64) prometheus.Labels {
	if session == 0 {
		return nil
	}
	return prometheus.Labels{"session_id": strconv.FormatUint(session, 10)}
}

func count(c *prometheus.CounterVec, outcome string, session uint64) {
	c.WithLabelValues(outcome).(prometheus.ExemplarAdder).AddWithExemplar(1, exemplar(session))
}

func observe(h prometheus.Histogram, d time.Duration, session uint64) {
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(d.Seconds(), exemplar(session))
}

// Expect has the counters begin at 0 for each outcome: an alert on a rate would
// else miss the first of a kind, which makes its series.
func (s *Set) Expect(o Outcomes) {
	for _, e := range []struct {
		counter *prometheus.CounterVec
		values  []string
	}{{s.refused, o.Refused}, {s.failures, o.Handshakes}, {s.ended, o.Ended}, {s.cancels, o.Cancelled}} {
		for _, v := range e.values {
			e.counter.WithLabelValues(v)
		}
	}
}

// InForce records a new policy: how many connections there may be (0: any
// number), and to which hosts sessions go. Hosts that it does not name any more
// lose their series.
func (s *Set) InForce(connections int, hosts []Host) {
	limit := math.Inf(1)
	if connections > 0 {
		limit = float64(connections)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.Set(limit)
	for _, h := range s.hosts {
		if !slices.Contains(hosts, h) {
			s.backends.DeletePartialMatch(prometheus.Labels{"backend": label(h.Backend), "address": label(h.Address)})
		}
	}
	s.hosts = slices.Clone(hosts)
	for _, h := range hosts {
		s.backends.WithLabelValues(label(h.Backend), label(h.Address), "success")
		s.backends.WithLabelValues(label(h.Backend), label(h.Address), "failure")
	}
}

// Accepted returns what to call for each connection that a listener accepts.
func (s *Set) Accepted(listener string) func() { return s.accepted.WithLabelValues(listener).Inc }

// AcceptFailed counts a failed accept.
func (s *Set) AcceptFailed() { s.acceptErrors.Inc() }

// Started counts a connection into its start-up. Each is later counted out by
// exactly one of Refused, Ended and Cancelled.
func (s *Set) Started() { s.starting.Inc() }

// Refused counts a connection that was not let in; handshake says that its TLS
// or its certificate was the reason. session is the number of it in the log, here
// and below.
func (s *Set) Refused(session uint64, outcome string, handshake bool) {
	s.starting.Dec()
	count(s.refused, outcome, session)
	if handshake {
		count(s.failures, outcome, session)
	}
}

// SessionOpened counts a connection out of its start-up and into its session.
func (s *Set) SessionOpened() {
	s.starting.Dec()
	s.open.Inc()
}

// SessionAborted takes SessionOpened back, for a session that could not begin.
func (s *Set) SessionAborted() {
	s.open.Dec()
	s.starting.Inc()
}

// Ended counts a session that was open.
func (s *Set) Ended(session uint64, outcome string) {
	s.open.Dec()
	count(s.ended, outcome, session)
}

// Cancelled counts a connection that brought a CancelRequest.
func (s *Set) Cancelled(outcome string) {
	s.starting.Dec()
	s.cancels.WithLabelValues(outcome).Inc()
}

// Handshake counts a finished TLS handshake and the time it took.
func (s *Set) Handshake(session uint64, state tls.ConnectionState, d time.Duration) {
	s.handshakes.WithLabelValues(tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), GroupName(state.CurveID)).Inc()
	observe(s.handshakeTime, d, session)
}

// GroupName names a key exchange group for a label or a log line; RSA key
// exchange has none.
func GroupName(g tls.CurveID) string {
	if g == 0 {
		return "none"
	}
	return g.String()
}

// BackendConnected records how long a connect to the backend took.
func (s *Set) BackendConnected(session uint64, d time.Duration) { observe(s.backendTime, d, session) }

// BackendTried counts an attempt of a session to connect to one host.
func (s *Set) BackendTried(h Host, ok bool) {
	result := "success"
	if !ok {
		result = "failure"
	}
	s.backends.WithLabelValues(label(h.Backend), label(h.Address), result).Inc()
}

// Relayed counts bytes of a session, from and to the client.
func (s *Set) Relayed(fromClient, toClient int) {
	if fromClient > 0 {
		s.fromClients.Add(float64(fromClient))
	}
	if toClient > 0 {
		s.toClients.Add(float64(toClient))
	}
}

// LogLineDropped counts a line that the log has lost.
func (s *Set) LogLineDropped() { s.linesDropped.Inc() }

// Rechecked records a round of judging the live sessions again: how many would
// not be let in now, and how long it took.
func (s *Set) Rechecked(failing int, d time.Duration) {
	s.rechecks.Inc()
	s.recheckFailing.Set(float64(failing))
	s.recheckTime.Set(d.Seconds())
}
