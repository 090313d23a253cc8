package proxy

import (
	"errors"

	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
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

// outcomeOf returns the outcome of a session that the relay has ended. A session
// whose backend has refused the login, or has said why it ends the session, is named
// after that: the client may be faster to leave, once it has read why, than the backend
// is (pgx closes at once).
func outcomeOf(r relay.Result) Outcome {
	o := [...]Outcome{
		relay.ClientClosed:  outcome.ClientClosed,
		relay.ClientLost:    outcome.ClientLost,
		relay.BackendClosed: outcome.BackendClosed,
		relay.BackendLost:   outcome.BackendLost,
		relay.LoginTimeout:  outcome.LoginTimeout,
		relay.Terminated:    Outcome(r.Termination),
		relay.Failed:        outcome.InternalError,
		relay.LimitReached:  outcome.TLSRecordLimit,
	}[r.Cause]
	switch o {
	case outcome.BackendClosed, outcome.ClientClosed, outcome.ClientLost:
	case outcome.BackendLost:
		if !r.Fatal {
			return o
		}
	default:
		return o
	}
	switch {
	case r.Login.Ready && r.Fatal:
		return outcome.BackendClosed
	case r.Login.Ready || r.Login.SQLSTATE == "" && !r.Login.Discovery:
		return o
	}
	return refusedLogin(r.Login)
}

// refusedLogin returns the outcome of a login that the backend has refused.
func refusedLogin(l pgwire.Login) Outcome {
	switch {
	case l.Discovery && (l.SQLSTATE == "" || l.SQLSTATE == pgwire.SQLStateInvalidAuthorization):
		return outcome.OAuthDiscovery // it was no attempt
	case l.SQLSTATE[:2] == "28": // class 28: invalid authorization specification
		return outcome.AuthenticationFailed
	}
	return outcome.BackendRefused
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
