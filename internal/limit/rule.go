package limit

import (
	"fmt"
	"sync"
)

// Rules counts the sessions of rules, and of each certificate in them. The zero value has
// none. Any goroutine may call its methods and those of its tickets.
type Rules struct {
	mu     sync.Mutex
	counts map[ruleKey]int
}

type ruleKey struct{ rule, spki string }

// RuleTicket is a session's place among those of a rule. The zero ticket is none.
type RuleTicket struct {
	of   *Rules
	keys [2]ruleKey
}

// Admit gives a session a place, unless its rule has as many sessions as it may, or as many
// of its certificate; 0 is no limit, and an empty spki is no certificate. The error is
// an *Error.
func (r *Rules) Admit(rule, spki string, most, mostOfCertificate int) (t RuleTicket, err error) {
	all, mine := ruleKey{rule, ""}, ruleKey{rule, spki}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case most > 0 && r.counts[all] >= most:
		err = &Error{Kind: OverRule, Detail: fmt.Sprintf("rule %q has %d sessions, and max_sessions is %d", rule, r.counts[all], most)}
	case mostOfCertificate > 0 && spki != "" && r.counts[mine] >= mostOfCertificate:
		err = &Error{Kind: OverRule, Detail: fmt.Sprintf("the certificate has %d sessions by rule %q, and max_sessions_per_certificate is %d", r.counts[mine], rule, mostOfCertificate)}
	}
	if err != nil {
		return t, err
	}
	if r.counts == nil {
		r.counts = make(map[ruleKey]int)
	}
	r.counts[all]++
	if spki != "" {
		r.counts[mine]++
	}
	return RuleTicket{r, [2]ruleKey{all, mine}}, nil
}

// Release gives the place back. It must be called once.
func (t RuleTicket) Release() {
	if t.of == nil {
		return
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	for i, k := range t.keys {
		if i > 0 && k.spki == "" {
			continue
		}
		if t.of.counts[k]--; t.of.counts[k] == 0 {
			delete(t.of.counts, k)
		}
	}
}
