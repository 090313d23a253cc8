package metrics

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// carried is what the process before this one has counted. Each gatherer adds it to the own series, so
// that no counter jumps back when a process takes over.
type carried struct {
	prometheus.Gatherer // the own series
	before              *atomic.Pointer[[]family]
}

// family is all series of one name of the process before.
type family struct {
	Name    string   `json:"name"`
	Help    string   `json:"help"`
	Type    int32    `json:"type"`
	Samples []sample `json:"samples"`
}

// sample is one of them.
type sample struct {
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"` // of a counter or a gauge

	// Of a histogram.
	Count   uint64            `json:"count"`
	Sum     float64           `json:"sum"`
	Buckets map[string]uint64 `json:"buckets"` // cumulative, by the text of the bound
}

// added are the gauges of which the values of two processes add up.
var added = map[string]bool{
	startingName: true, namespace + "_connections_unproved": true, namespace + "_connections_verified": true,
	namespace + "_connections_awaiting_proxy_header": true, openName: true,
}

// Counters returns the counters, and what was carried over from the process before, for the next one. With
// live the gauges are part of it that count what this process has open.
func (s *Set) Counters(live bool) ([]byte, error) {
	families, err := s.Gatherer().Gather()
	if err != nil {
		return nil, err
	}
	var all []family
	for _, f := range families {
		switch {
		case !strings.HasPrefix(f.GetName(), namespace+"_"):
		case f.GetType() == dto.MetricType_GAUGE && (!live || !added[f.GetName()]):
		default:
			all = append(all, familyOf(f))
		}
	}
	return json.Marshal(all)
}

func familyOf(f *dto.MetricFamily) family {
	of := family{Name: f.GetName(), Help: f.GetHelp(), Type: int32(f.GetType())}
	for _, m := range f.GetMetric() {
		one := sample{Labels: make(map[string]string), Value: m.GetCounter().GetValue() + m.GetGauge().GetValue()}
		for _, l := range m.GetLabel() {
			one.Labels[l.GetName()] = l.GetValue()
		}
		if h := m.GetHistogram(); h != nil {
			one.Count, one.Sum, one.Buckets = h.GetSampleCount(), h.GetSampleSum(), make(map[string]uint64)
			for _, b := range h.GetBucket() {
				one.Buckets[fmt.Sprint(b.GetUpperBound())] = b.GetCumulativeCount()
			}
		}
		of.Samples = append(of.Samples, one)
	}
	return of
}

// Carry adds what the process before this one has returned by Counters to the series from now on, in place
// of what it was given the last time.
func (s *Set) Carry(counters []byte) error {
	var before []family
	if err := json.Unmarshal(counters, &before); err != nil {
		return fmt.Errorf("counters: %w", err)
	}
	s.before.Store(&before)
	return nil
}

// The names of two of them, and the outcome of connections that have ended with a process that could not count them.
const (
	openName     = namespace + "_sessions_open"
	startingName = namespace + "_connections_starting"
	lostOutcome  = "internal_error"
)

// CarriedTaken takes note that so many sessions are this process's that the one before had open when it was asked for
// its counters the last time.
func (s *Set) CarriedTaken(sessions int) {
	before := s.before.Load()
	if before == nil || sessions == 0 {
		return
	}
	counters := slices.Clone(*before)
	for i, f := range counters {
		if f.Name == openName && len(f.Samples) == 1 {
			one := f.Samples[0]
			one.Value -= float64(sessions)
			counters[i].Samples = []sample{one}
		}
	}
	s.before.Store(&counters)
}

// CarriedEnded takes note that the process before has ended without its last counters. What it had open counts as
// ended with it.
func (s *Set) CarriedEnded() {
	before := s.before.Load()
	if before == nil {
		return
	}
	var open, starting float64
	for _, f := range *before {
		if len(f.Samples) != 1 {
			continue
		}
		switch f.Name {
		case openName:
			open = f.Samples[0].Value
		case startingName:
			starting = f.Samples[0].Value
		}
	}
	if open < 0 { // of the sessions that were taken, some were in their startup
		open, starting = 0, starting+open
	}
	counters := slices.DeleteFunc(slices.Clone(*before), func(f family) bool { return added[f.Name] })
	s.before.Store(&counters)
	s.ended.WithLabelValues(lostOutcome).Add(open)
	s.refused.WithLabelValues(lostOutcome).Add(max(starting, 0))
}

// Lost counts sessions that were given to another process, and that have ended with it.
func (s *Set) Lost(sessions int) { s.ended.WithLabelValues(lostOutcome).Add(float64(sessions)) }

// Gather implements prometheus.Gatherer.
func (c carried) Gather() ([]*dto.MetricFamily, error) {
	families, err := c.Gatherer.Gather()
	before := c.before.Load()
	if err != nil || before == nil {
		return families, err
	}
	for _, f := range *before {
		i, found := slices.BinarySearchFunc(families, f.Name, func(one *dto.MetricFamily, name string) int { return strings.Compare(one.GetName(), name) })
		if !found { // none of its series has a value yet
			families = slices.Insert(families, i, &dto.MetricFamily{Name: new(f.Name), Help: new(f.Help), Type: dto.MetricType(f.Type).Enum()})
		}
		for _, one := range f.Samples {
			one.addTo(families[i])
		}
	}
	return families, nil
}

// addTo adds the sample to its series, which it makes if there is none yet.
func (s *sample) addTo(f *dto.MetricFamily) {
	at := slices.IndexFunc(f.GetMetric(), s.matches)
	if at < 0 {
		m := &dto.Metric{}
		for name, value := range s.Labels {
			m.Label = append(m.Label, &dto.LabelPair{Name: new(name), Value: new(value)})
		}
		slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
		f.Metric, at = append(f.Metric, m), len(f.Metric)
	}
	m := f.Metric[at]
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		if m.Counter == nil {
			m.Counter = &dto.Counter{}
		}
		m.Counter.Value = new(m.Counter.GetValue() + s.Value)
	case dto.MetricType_GAUGE:
		if m.Gauge == nil {
			m.Gauge = &dto.Gauge{}
		}
		m.Gauge.Value = new(m.Gauge.GetValue() + s.Value)
	case dto.MetricType_HISTOGRAM:
		if h := m.Histogram; h != nil { // those without labels are always there
			s.addToHistogram(h)
		}
	}
}

// addToHistogram adds to the classic buckets. The native histogram has other bounds in each process, so
// there is none after an upgrade.
func (s *sample) addToHistogram(h *dto.Histogram) {
	h.SampleCount = new(h.GetSampleCount() + s.Count)
	h.SampleSum = new(h.GetSampleSum() + s.Sum)
	for _, b := range h.Bucket {
		b.CumulativeCount = new(b.GetCumulativeCount() + s.Buckets[fmt.Sprint(b.GetUpperBound())])
	}
	h.Schema, h.ZeroThreshold, h.ZeroCount = nil, nil, nil
	h.PositiveSpan, h.PositiveDelta, h.NegativeSpan, h.NegativeDelta = nil, nil, nil, nil
}

func (s *sample) matches(m *dto.Metric) bool {
	if len(m.GetLabel()) != len(s.Labels) {
		return false
	}
	for _, l := range m.GetLabel() {
		if value, ok := s.Labels[l.GetName()]; !ok || value != l.GetValue() {
			return false
		}
	}
	return true
}
