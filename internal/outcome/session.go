package outcome

import (
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// OfSession returns the outcome of a session that the relay has ended. A session
// whose backend has refused the login, or has said why it ends the session, is named
// after that: the client may be faster to leave, once it has read why, than the backend
// is (pgx closes at once).
func OfSession(r relay.Result) Outcome {
	o := [...]Outcome{
		relay.ClientClosed:  ClientClosed,
		relay.ClientLost:    ClientLost,
		relay.BackendClosed: BackendClosed,
		relay.BackendLost:   BackendLost,
		relay.LoginTimeout:  LoginTimeout,
		relay.Terminated:    Outcome(r.Termination),
		relay.Failed:        InternalError,
		relay.LimitReached:  TLSRecordLimit,
	}[r.Cause]
	switch o {
	case BackendClosed, ClientClosed, ClientLost:
	case BackendLost:
		if !r.Fatal {
			return o
		}
	default:
		return o
	}
	switch {
	case r.Login.Ready && r.Fatal:
		return BackendClosed
	case r.Login.Ready || r.Login.SQLSTATE == "" && !r.Login.Discovery:
		return o
	}
	return OfRefusedLogin(r.Login)
}

// OfRefusedLogin returns the outcome of a login that the backend has refused.
func OfRefusedLogin(l pgwire.Login) Outcome {
	switch {
	case l.Discovery && (l.SQLSTATE == "" || l.SQLSTATE == pgwire.SQLStateInvalidAuthorization):
		return OAuthDiscovery // it was no attempt
	case l.SQLSTATE[:2] == "28": // class 28: invalid authorization specification
		return AuthenticationFailed
	}
	return BackendRefused
}
