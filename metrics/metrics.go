// Package metrics has the Prometheus series of pgwicket and the HTTP handler of its
// admin address.
//
// A [Set] has one method for each event, such as Refused or Ended. No label has a value
// that a client chooses: no address, user, database or serial number. So the number of
// series is bounded by the configuration.
package metrics

import (
	"crypto/tls"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"pgwicket/internal/health"
)

// Set has all series of one gate, in its own registry. Create it with New. Its methods
// are safe for concurrent use.
type Set struct {
	registry *prometheus.Registry
	counts   *prometheus.Registry // the series that Totals reads
	before   atomic.Pointer[[]family]

	accepted      *prometheus.CounterVec
	acceptErrors  prometheus.Counter
	refused       *prometheus.CounterVec
	ended         *prometheus.CounterVec
	cancels       *prometheus.CounterVec
	starting      prometheus.Gauge
	unproved      prometheus.Gauge
	verified      prometheus.Gauge
	headers       prometheus.Gauge
	open          prometheus.Gauge
	handshakes    *prometheus.CounterVec
	failures      *prometheus.CounterVec
	handshakeTime prometheus.Histogram
	backendTime   prometheus.Histogram
	backends      *prometheus.CounterVec
	backendUp     *prometheus.GaugeVec
	backendOK     *prometheus.GaugeVec
	backendFailed *prometheus.GaugeVec
	backendStates health.Book
	limit         prometheus.Gauge
	limitStartups prometheus.Gauge
	fromClients   prometheus.Counter
	toClients     prometheus.Counter

	linesDropped prometheus.Counter
	auditLines   prometheus.Counter
	auditLost    prometheus.Counter
	auditFailing prometheus.Gauge
	locks        prometheus.Gauge

	groupLookups *prometheus.CounterVec
	groupKnown   *prometheus.GaugeVec
	groupOK      *prometheus.GaugeVec
	groupMembers *prometheus.GaugeVec

	rechecks       prometheus.Counter
	recheckFailing prometheus.Gauge
	recheckTime    prometheus.Gauge

	certNotBefore *prometheus.GaugeVec
	certNotAfter  *prometheus.GaugeVec
	crlThis       *prometheus.GaugeVec
	crlNext       *prometheus.GaugeVec
	crlNumber     *prometheus.GaugeVec
	crlEntries    *prometheus.GaugeVec
	crlUnusable   *prometheus.GaugeVec
	crlFailures   prometheus.Counter
	ocspNext      *prometheus.GaugeVec
	reloads       *prometheus.CounterVec
	reloadOK      prometheus.Gauge
	reloadTime    prometheus.Gauge

	mu    sync.Mutex
	hosts []Host // those that have series
}

// Outcomes has the label values of the counters by outcome. Each is a closed set.
type Outcomes struct{ Refused, Handshakes, Ended, Cancelled []string }

// latency has buckets from 0.2 ms, an ECDSA handshake on a fast machine, to 10 s, the
// default startup timeout.
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
	s.acceptErrors = s.counter("accept_errors_total", "Failed accepts, for example when no file descriptors are left. Each is retried.")
	s.refused = s.counterVec("connections_refused_total", "Refused connections, by outcome.", "outcome")
	s.starting = s.gauge("connections_starting", "Connections in startup, from accept to session.")
	s.unproved = s.gauge("connections_unproved", "Connections whose client has proved nothing yet: no certificate has been verified and PostgreSQL has not logged it in.")
	s.verified = s.gauge("connections_verified", "Connections whose client certificate has been verified, and which are no sessions yet.")
	s.headers = s.gauge("connections_awaiting_proxy_header", "Connections of load balancers that wait for their PROXY header.")
	s.open = s.gauge("sessions_open", "Open sessions.")
	s.ended = s.counterVec("sessions_ended_total", "Ended sessions, by outcome.", "outcome")
	s.cancels = s.counterVec("cancel_requests_total", "CancelRequests from allowed sources, by outcome.", "outcome")
	s.fromClients = s.counter("client_received_bytes_total", "Bytes of sessions received from clients, after decryption.")
	s.toClients = s.counter("client_sent_bytes_total", "Bytes of sessions sent to clients, before encryption.")
	s.linesDropped = s.counter("log_lines_dropped_total", "Log lines that were dropped because the log was not read or a write failed.")
	s.auditLines = s.counter("audit_lines_total", "Lines written to the audit trail.")
	s.auditLost = s.counter("audit_lines_lost_total", "Lines of the audit trail that are lost because it could not be written.")
	s.auditFailing = s.gauge("audit_failing", "Whether lines of the audit trail cannot be written, or not fast enough (1).")
	s.locks = s.gauge("locks", "Locks in force.")
	s.groupLookups = s.counterVec("group_lookups_total", "Look-ups of the members of roles that rules name, by result.", "backend", "result")
	s.groupKnown = s.gaugeVec("group_members_known", "Whether the members of the roles that rules name are known (1), or the last answer is missing or too old, so that no rule with +role admits anybody (0).", "backend")
	s.groupOK = s.gaugeVec("group_last_success_timestamp_seconds", "When the last successful look-up of the members of roles began.", "backend")
	s.groupMembers = s.gaugeVec("group_members", "Members of a role that rules name, itself included; 0 if there is no such role.", "backend", "role")
	s.rechecks = s.counter("rechecks_total", "Rechecks of the open sessions.")
	s.recheckFailing = s.gauge("recheck_failing_sessions", "Open sessions that the last recheck would have refused, whether it ended them or not.")
	s.recheckTime = s.gauge("recheck_duration_seconds", "Duration of the last recheck.")
	s.backendTime = s.histogram("backend_connect_duration_seconds", "Time to connect to the backend.")
	s.backends = s.counterVec("backend_connects_total", "Connection attempts of sessions to a backend address, by result.", "backend", "address", "result")
	s.backendUp = s.gaugeVec("backend_up", "Whether PostgreSQL at a backend address has served the last session that tried (1) or not (0); absent until one has tried.", "backend", "address")
	s.backendOK = s.gaugeVec("backend_last_success_timestamp_seconds", "When PostgreSQL at a backend address last served a session.", "backend", "address")
	s.backendFailed = s.gaugeVec("backend_last_failure_timestamp_seconds", "When PostgreSQL at a backend address last failed to serve a session.", "backend", "address")
	s.limit = s.gauge("limit_connections", "Maximum number of sessions; +Inf without a limit.")
	s.limitStartups = s.gauge("limit_startups", "Maximum number of unproved connections, and of those in each other stage before a session; +Inf without a limit.")
}

func (s *Set) tlsSeries() {
	s.handshakes = s.counterVec("tls_handshakes_total", "Finished TLS handshakes.", "version", "cipher", "group")
	s.failures = s.counterVec("tls_handshake_failures_total", "Connections refused because of TLS or the client certificate, by reason.", "reason")
	s.handshakeTime = s.histogram("tls_handshake_duration_seconds", "Duration of finished TLS handshakes, including the time of the client.")
}

func (s *Set) configSeries() {
	s.certNotBefore = s.gaugeVec("certificate_not_before_timestamp_seconds", "Start of validity of a server certificate.", "file")
	s.certNotAfter = s.gaugeVec("certificate_not_after_timestamp_seconds", "End of validity of a server certificate.", "file")
	s.crlThis = s.gaugeVec("crl_this_update_timestamp_seconds", "When a revocation list was issued.", "file", "issuer")
	s.crlNext = s.gaugeVec("crl_next_update_timestamp_seconds", "When a revocation list becomes stale (its next update); +Inf without one.", "file", "issuer")
	s.crlNumber = s.gaugeVec("crl_number", "CRL number of a revocation list; absent if the list has none.", "file", "issuer")
	s.crlUnusable = s.gaugeVec("crl_unusable", "1 for a revocation list that is not in use, since it cannot be applied.", "file", "issuer")
	s.crlEntries = s.gaugeVec("crl_entries", "Revoked certificates in a revocation list.", "file", "issuer")
	s.crlFailures = s.counter("crl_load_failures_total", "Loads of the configuration that failed because of a revocation list. The previous lists stay in force.")
	s.ocspNext = s.gaugeVec("ocsp_next_update_timestamp_seconds", "When the OCSP response of a server certificate expires and is no longer stapled.", "file")
	s.reloads = s.counterVec("config_reloads_total", "Loads of the configuration, the first included, by result.", "result")
	s.reloadOK = s.gauge("config_last_reload_successful", "Whether the last load of the configuration succeeded (1) or failed (0), so that the previous one stays in force.")
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
		// A native histogram in addition, for scrapers that use protobuf: each bucket
		// is at most 10% wider than the previous one, and memory is bounded.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
		NativeHistogramMaxExemplars:     -1, // the classic buckets have exemplars
	})
	s.registry.MustRegister(h)
	return h
}

// exemplar returns the label that links a sample to the session in the log. Only the
// OpenMetrics and protobuf formats show it. An empty session means none.
func exemplar(session string) prometheus.Labels {
	if session == "" {
		return nil
	}
	return prometheus.Labels{"session_id": session}
}

func count(c *prometheus.CounterVec, outcome string, session string) {
	c.WithLabelValues(outcome).(prometheus.ExemplarAdder).AddWithExemplar(1, exemplar(session))
}

func observe(h prometheus.Histogram, d time.Duration, session string) {
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(d.Seconds(), exemplar(session))
}

// Expect creates the counters of all outcomes with the value 0. Without it, a rate
// would not see the first event of an outcome, because its series starts at 1.
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

// InForce records a new policy: the maximum number of sessions and of unproved
// connections (0 means no limit) and the hosts of all backends. It deletes the series
// of hosts that are gone.
func (s *Set) InForce(sessions, startups int, hosts []Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.Set(limitValue(sessions))
	s.limitStartups.Set(limitValue(startups))
	s.backendStates.Keep(hosts)
	for _, h := range s.hosts {
		if !slices.Contains(hosts, h) {
			gone := prometheus.Labels{"backend": label(h.Backend), "address": label(h.Address)}
			s.backends.DeletePartialMatch(gone)
			for _, g := range []*prometheus.GaugeVec{s.backendUp, s.backendOK, s.backendFailed} {
				g.DeletePartialMatch(gone)
			}
		}
	}
	s.hosts = slices.Clone(hosts)
	for _, h := range hosts {
		s.backends.WithLabelValues(label(h.Backend), label(h.Address), "success")
		s.backends.WithLabelValues(label(h.Backend), label(h.Address), "failure")
	}
}

func limitValue(n int) float64 {
	if n <= 0 {
		return math.Inf(1)
	}
	return float64(n)
}

// Unproved counts connections whose client has proved nothing yet; by is negative for those that
// have been proved, or have ended.
func (s *Set) Unproved(by int) { s.unproved.Add(float64(by)) }

// Verified counts connections whose certificate has been verified, from then until they are sessions, or have ended.
func (s *Set) Verified(by int) { s.verified.Add(float64(by)) }

// AwaitsHeader counts connections of load balancers that wait for their PROXY header.
func (s *Set) AwaitsHeader(by int) { s.headers.Add(float64(by)) }

// Accepted returns a function to call for each connection that a listener accepts.
func (s *Set) Accepted(listener string) func() { return s.accepted.WithLabelValues(listener).Inc }

// AcceptFailed counts a failed accept.
func (s *Set) AcceptFailed() { s.acceptErrors.Inc() }

// Started counts a connection in startup. Exactly one call of Refused, Cancelled or
// SessionOpened must follow, and Ended after SessionOpened.
func (s *Set) Started() { s.starting.Inc() }

// Refused counts a refused connection. handshake means that the reason was TLS or the
// client certificate. Here and below, session is its id in the log.
func (s *Set) Refused(session string, outcome string, handshake bool) {
	s.starting.Dec()
	count(s.refused, outcome, session)
	if handshake {
		count(s.failures, outcome, session)
	}
}

// SessionOpened counts a connection that becomes a session.
func (s *Set) SessionOpened() {
	s.starting.Dec()
	s.open.Inc()
}

// SessionAborted reverts SessionOpened, for a session that could not start.
func (s *Set) SessionAborted() {
	s.open.Dec()
	s.starting.Inc()
}

// SessionGiven takes note that another process goes on with an open session, and SessionTaken that this one does.
func (s *Set) SessionGiven() { s.open.Dec() }

// SessionTaken is the opposite of SessionGiven.
func (s *Set) SessionTaken() { s.open.Inc() }

// Ended counts the end of an open session.
func (s *Set) Ended(session string, outcome string) {
	s.open.Dec()
	count(s.ended, outcome, session)
}

// Cancelled counts a connection with a CancelRequest.
func (s *Set) Cancelled(outcome string) {
	s.starting.Dec()
	s.cancels.WithLabelValues(outcome).Inc()
}

// Handshake counts a finished TLS handshake and its duration.
func (s *Set) Handshake(session string, state tls.ConnectionState, d time.Duration) {
	s.handshakes.WithLabelValues(tls.VersionName(state.Version), SuiteName(state.CipherSuite), GroupName(state.CurveID)).Inc()
	observe(s.handshakeTime, d, session)
}

// suiteNames are the names of the cipher suites of crypto/tls.
var suiteNames = sync.OnceValue(func() map[uint16]string {
	names := make(map[uint16]string)
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		names[suite.ID] = suite.Name
	}
	return names
})

// SuiteName returns the name of a cipher suite for a label or a log line. It is that of
// tls.CipherSuiteName, which allocates a list of all suites at each call.
func SuiteName(id uint16) string {
	if name, ok := suiteNames()[id]; ok {
		return name
	}
	return tls.CipherSuiteName(id)
}

// GroupName returns the name of a key exchange group for a label or a log line. It
// returns "none" for RSA key exchange.
func GroupName(g tls.CurveID) string {
	if g == 0 {
		return "none"
	}
	return g.String()
}

// BackendConnected records the time to connect to a backend.
func (s *Set) BackendConnected(session string, d time.Duration) { observe(s.backendTime, d, session) }

// Relayed counts bytes of a session in both directions.
func (s *Set) Relayed(fromClient, toClient int) {
	if fromClient > 0 {
		s.fromClients.Add(float64(fromClient))
	}
	if toClient > 0 {
		s.toClients.Add(float64(toClient))
	}
}

// LogLineDropped counts a log line that was not written.
func (s *Set) LogLineDropped() { s.linesDropped.Inc() }

// Locks records how many locks are in force.
func (s *Set) Locks(n int) { s.locks.Set(float64(n)) }

// Rechecked records a recheck: how many sessions would be refused now, and the duration
// of the recheck.
func (s *Set) Rechecked(failing int, d time.Duration) {
	s.rechecks.Inc()
	s.recheckFailing.Set(float64(failing))
	s.recheckTime.Set(d.Seconds())
}
