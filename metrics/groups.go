package metrics

import "time"

// Groups is what is known of the members of roles, from one backend. The names of the backend and of
// the roles are from the configuration.
type Groups struct {
	Backend     string
	Known       bool
	LastSuccess time.Time      // zero: none yet
	Members     map[string]int // by role
}

// Groups records what is known.
func (s *Set) Groups(g Groups) {
	backend := label(g.Backend)
	known := 0.0
	if g.Known {
		known = 1
	}
	s.groupKnown.WithLabelValues(backend).Set(known)
	if !g.LastSuccess.IsZero() {
		s.groupOK.WithLabelValues(backend).Set(seconds(g.LastSuccess))
	}
	for role, n := range g.Members {
		s.groupMembers.WithLabelValues(backend, label(role)).Set(float64(n))
	}
}

// ForgetGroups deletes the series of Groups: another configuration may need others.
func (s *Set) ForgetGroups() {
	s.groupKnown.Reset()
	s.groupOK.Reset()
	s.groupMembers.Reset()
}

// GroupLookup counts a look-up of the members of roles; err is why it failed.
func (s *Set) GroupLookup(backend string, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	for _, r := range []string{"success", "failure"} { // a rate needs both from the beginning
		s.groupLookups.WithLabelValues(label(backend), r)
	}
	s.groupLookups.WithLabelValues(label(backend), result).Inc()
}
