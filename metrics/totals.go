package metrics

import "strings"

// Totals has the most important counts since the start.
type Totals struct {
	Accepted       uint64
	Starting, Open int
	// By outcome. Outcomes that were never counted may be missing.
	Refused, Ended, CancelRequests map[string]uint64
}

// Totals returns the current counts. It reads them one after the other, so that their
// sum may be off by events in between.
func (s *Set) Totals() Totals {
	t := Totals{Refused: make(map[string]uint64), Ended: make(map[string]uint64), CancelRequests: make(map[string]uint64)}
	families, _ := carried{s.counts, &s.before}.Gather() // fails only for inconsistent series
	for _, f := range families {
		for _, m := range f.GetMetric() {
			value := uint64(m.GetCounter().GetValue())
			outcome := ""
			if l := m.GetLabel(); len(l) > 0 {
				outcome = l[0].GetValue()
			}
			switch strings.TrimPrefix(f.GetName(), namespace+"_") {
			case "connections_accepted_total":
				t.Accepted += value
			case "connections_refused_total":
				t.Refused[outcome] = value
			case "sessions_ended_total":
				t.Ended[outcome] = value
			case "cancel_requests_total":
				t.CancelRequests[outcome] = value
			case "connections_starting":
				t.Starting = int(m.GetGauge().GetValue())
			case "sessions_open":
				t.Open = int(m.GetGauge().GetValue())
			}
		}
	}
	return t
}
