package proxy

import (
	"errors"

	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/metrics"
)

// Outcome says how a connection ended.
type Outcome = outcome.Outcome

// Refusal is why a connection is not admitted, or why a session is ended that would not be
// admitted any more.
type Refusal = outcome.Refusal

func refuse(o Outcome, detail string) error { return outcome.Refuse(o, detail) }

// expected returns what each counter may have to count.
func expected() (e metrics.Outcomes) {
	for o, f := range outcome.All() {
		switch {
		case o >= outcome.CancelForwarded:
			e.Cancelled = append(e.Cancelled, f.Label)
		case o >= outcome.AuthenticationFailed:
			e.Ended = append(e.Ended, f.Label)
		default:
			e.Refused = append(e.Refused, f.Label)
			if f.TLS {
				e.Handshakes = append(e.Handshakes, f.Label)
			}
			if o.MayEnd() {
				e.Ended = append(e.Ended, f.Label)
			}
		}
	}
	return e
}

// asRefusal returns the *Refusal that err is or, if it is a limiter's, stands for. Any
// other error is one of ours.
func asRefusal(err error) (r *Refusal) {
	var limited *limit.Error
	switch {
	case errors.As(err, &r):
	case errors.As(err, &limited):
		r = limitRefusal(limited)
	default:
		r = &Refusal{Outcome: outcome.InternalError, Detail: err.Error()}
	}
	return r
}
