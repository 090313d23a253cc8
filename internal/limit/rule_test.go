package limit_test

import (
	"testing"

	"pgwicket/internal/limit"
)

// A rule, and each certificate in it, has as many places as it may, and one that is given
// back is free again.
func TestRules(t *testing.T) {
	t.Parallel()
	var r limit.Rules
	admit := func(rule, spki string, most, mine int, want bool) limit.RuleTicket {
		t.Helper()
		ticket, err := r.Admit(rule, spki, most, mine)
		if (err == nil) != want {
			t.Errorf("rule %s, certificate %q: %v", rule, spki, err)
		}
		return ticket
	}
	first := admit("a", "x", 3, 2, true)
	second := admit("a", "x", 3, 2, true)
	admit("a", "x", 3, 2, false)
	third := admit("a", "y", 3, 2, true)
	admit("a", "z", 3, 2, false)
	admit("a", "", 3, 2, false)
	other := admit("b", "x", 3, 2, true) // counts for itself
	second.Release()
	again := admit("a", "x", 3, 2, true)
	for _, ticket := range []limit.RuleTicket{first, third, other, again, {}} {
		ticket.Release()
	}
	for range 3 {
		admit("a", "", 3, 1, true) // without a certificate only the rule counts
	}
	admit("a", "", 3, 1, false)
	for range 5 {
		admit("c", "x", 0, 0, true)
	}
}
