package metrics

import "github.com/prometheus/client_golang/prometheus"

// AuditLines counts lines that were written to the audit trail.
func (s *Set) AuditLines(n int) { s.auditLines.Add(float64(n)) }

// AuditLost counts a line that was not.
func (s *Set) AuditLost() { s.auditLost.Inc() }

// AuditFailing records whether lines cannot be written.
func (s *Set) AuditFailing(failing bool) {
	s.auditFailing.Set(0)
	if failing {
		s.auditFailing.Set(1)
	}
}

// AuditHead adds the series of the newest line of an audit trail. head is called for each
// scrape, and returns its number and its SHA-256. It may be called once.
func (s *Set) AuditHead(head func() (sequence uint64, hash string)) {
	s.registry.MustRegister(auditHead{
		prometheus.NewDesc(namespace+"_audit_head", "Sequence number of the newest line of the audit trail, with its SHA-256.", []string{"sha256"}, nil), head,
	})
}

type auditHead struct {
	desc *prometheus.Desc
	head func() (uint64, string)
}

// Describe implements prometheus.Collector.
func (h auditHead) Describe(to chan<- *prometheus.Desc) { to <- h.desc }

// Collect implements prometheus.Collector.
func (h auditHead) Collect(to chan<- prometheus.Metric) {
	sequence, hash := h.head()
	to <- prometheus.MustNewConstMetric(h.desc, prometheus.GaugeValue, float64(sequence), hash)
}
