package pgwire

import (
	"fmt"
	"time"
)

// Late says what a login was doing that was not over in time. answered means that the
// backend has sent something.
func (l *Login) Late(answered bool) string {
	switch {
	case !answered:
		return "PostgreSQL has taken the connection and sent nothing: its postmaster hangs, or the machine is overloaded"
	case l.Authenticated:
		return "PostgreSQL has accepted the login and was not ready for queries in time"
	}
	return "the authentication was not over in time"
}

// Silent says that a backend has sent nothing since it was connected.
func Silent(d time.Duration) string {
	return fmt.Sprintf("PostgreSQL took the connection and sent nothing for %v: its postmaster hangs, or the machine is overloaded", d.Round(time.Second))
}

// Hint returns what may help with a login that has failed; empty: nothing. closed means
// that the client has ended it.
func (l *Login) Hint(closed bool) string {
	switch {
	case l.Ready || l.Authenticated:
	case l.Binding && l.SQLSTATE == SQLStateInvalidAuthorization: // a wrong password is 28P01
		return bindingHint
	case closed && l.Asked && !l.Answered:
		return unansweredHint
	}
	return ""
}

// bindingHint is for a client that has bound its password to the certificate it
// sees (SCRAM-SHA-256-PLUS, RFC 5929), which is not the one that the backend shows.
const bindingHint = "the client may have bound its password to this gate's certificate: set channel_binding=disable in the client, " +
	"reach PostgreSQL over a Unix socket, or let the gate show PostgreSQL's certificate"

// unansweredHint is for a client that has closed instead of answering a request for a
// password.
const unansweredHint = "the client has closed when PostgreSQL asked for its password: it has none (psql asks the user for it and connects again), " +
	"or it requires channel binding, which PostgreSQL does not offer to a gate without TLS: channel_binding=prefer does without"
