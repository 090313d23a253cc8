package proxy

import (
	"context"
	"sync"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/policy"
	"pgwicket/internal/printable"
	"pgwicket/internal/relay"
)

// phase is how far a connection has come.
type phase uint8

const (
	// starting: its goroutine serves it, and only a shutdown ends it from outside.
	starting phase = iota
	// judged: it has been admitted and is on its way to the backend. From here on
	// recheck judges it, so that no reload slips past it.
	judged
	// relaying: the relay has it.
	relaying
	// ending: it was cut, or the relay was told to cut it.
	ending
)

// session is a connection as the rest of the server sees it. Everything that its
// own goroutine needs until the relay has it is in conn.
type session struct {
	server  *Server
	peer    *peer               // others may read it from the phase judged on
	ticket  *limit.Ticket       // released when the server forgets the session
	place   limit.AccountTicket // likewise; taken at ReadyForQuery
	ofRule  limit.RuleTicket    // likewise; of the rule that has admitted it first
	host    usedHost            // that the relay has a connection to
	attempt *limit.Attempt      // to authenticate; likewise
	account limit.Account       // for which it counts

	mu         sync.Mutex
	phase      phase
	cancelling bool               // what the backend does is being cancelled
	deferred   bool               // refusal waits until the backend is idle
	interrupt  context.CancelFunc // ends what a starting or judged connection waits for
	rule       string             // that has admitted it
	times      policy.RuleTimes   // of the rule that admits it now
	relay      relay.Handle       // from the phase relaying on
	login      pgwire.Login       // once the backend is ready
	refusal    *Refusal           // why it was cut, or why recheck has ended it, or will
	moved      int64              // bytes, when expire last saw that there were more
	since      time.Time          // then
}

// end cuts the session from outside its goroutine. The outcome counts if the
// session has begun; a connection in its startup ends as ShuttingDown. It may be
// called more than once; the first outcome stays.
func (s *session) end(o Outcome) { s.endAs(o, outcome.ShuttingDown) }

// evict cuts an unproved connection, for another one to take its place.
func (s *session) evict() { s.endAs(outcome.StartupLimit, outcome.StartupLimit) }

func (s *session) endAs(o, inStartup Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case starting, judged:
		s.cut(&Refusal{Outcome: inStartup})
	case relaying:
		s.phase = ending
		s.relay.Terminate(relay.Termination{Reason: uint8(o)})
	case ending:
		if s.interrupt != nil {
			s.interrupt() // it has been refused, and its client does not close
		}
	}
}

// cut ends a connection in its startup. The caller holds mu.
func (s *session) cut(why *Refusal) {
	s.phase, s.refusal = ending, why
	s.interrupt()
}

// drain ends the session as soon as nothing is lost by it.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == relaying {
		s.terminateWhenIdle()
	}
}

// terminateWhenIdle has the relay end the session when its backend is idle. The
// caller holds mu.
func (s *session) terminateWhenIdle() {
	if s.terminating() {
		return
	}
	s.refusal, s.deferred = nil, false
	s.relay.Terminate(relay.Termination{
		Reason:   uint8(outcome.Drained),
		Message:  pgwire.Fatal(pgwire.SQLStateAdminShutdown, "terminating connection due to administrator command", ""),
		WhenIdle: true,
	})
}

// terminating reports whether recheck ends the session now, whatever it is doing.
// The caller holds mu.
func (s *session) terminating() bool { return s.refusal != nil && !s.deferred }

// setJudged publishes the peer: from here on recheck judges it.
func (s *session) setJudged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == starting {
		s.phase = judged
	}
}

// hasEnded reports whether the connection was refused meanwhile: no byte of it may go to the backend.
func (s *session) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == ending
}

func (s *session) setRule(rule *acl.Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rule, s.times = rule.Name, policy.TimesOf(rule)
}

// endStartup ends the startup of a connection that does not become a session, and
// returns why: for err, or for what has interrupted it.
func (s *session) endStartup(err error) *Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == ending {
		return s.refusal
	}
	s.phase = ending
	return asRefusal(err)
}

// start gives the session to the relay, which closes its connections when it has
// ended. With an error the caller still has them.
func (s *session) start(r relay.Session, host *Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == ending {
		return refuse(outcome.ShuttingDown, "") // endStartup knows better
	}
	s.host.Host, s.host.since = host, time.Now() // Done may be called at once, and needs it
	s.server.metrics.SessionOpened()
	s.server.shutdown.live.Add(1)
	handle, err := s.server.relay.Start(r)
	if err != nil {
		s.server.shutdown.live.Add(-1)
		s.server.metrics.SessionAborted()
		return refuse(outcome.BackendUnavailable, err.Error()) // want of descriptors, as in connectBackend
	}
	s.relay, s.phase, s.interrupt = handle, relaying, nil
	if s.server.drains() {
		s.terminateWhenIdle()
	}
	return nil
}

// ready takes note that PostgreSQL has logged the client in, which proves it. It
// refuses the session if its account has as many as it may: here, and not before
// the login, so that a stranger without the password cannot keep the owner out.
func (s *session) ready(login pgwire.Login) *relay.Termination {
	s.attempt.Succeeded()
	s.attempt = nil // it has had its result
	s.ticket.Prove()
	s.server.metrics.BackendServed(s.host.label())
	place, err := s.server.limiter.AdmitAccount(s.server.policy.Load().Limits, s.account)
	if err != nil {
		r := asRefusal(err)
		sqlstate, text := r.Message()
		s.mu.Lock()
		if !s.terminating() { // else it ends for that
			s.refusal, s.deferred = r, false
		}
		if login.Requested { // behind its password
			s.login = login
			s.cancelNow()
		}
		s.mu.Unlock()
		return &relay.Termination{Reason: uint8(r.Outcome), Message: pgwire.Fatal(sqlstate, text, "")}
	}
	s.server.cancelKeys.Add(login.CancelKey(), s.host.Host)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place, s.login = place, login
	s.server.logBegin(s)
	return nil
}

// loginRefused takes note that PostgreSQL has refused the login: at once, for the client may
// keep its connection open, and others open more meanwhile.
func (s *session) loginRefused(login pgwire.Login) {
	if outcome.OfRefusedLogin(login) == outcome.AuthenticationFailed {
		s.attempt.Failed(s.server.policy.Load().Limits)
	} else {
		s.attempt.Abandoned()
	}
}

// endAttempt closes a connection whose client does not answer what PostgreSQL has asked, for another attempt. It
// reports whether the attempt gives way. Where it is PostgreSQL that takes long it does not: the client can do nothing
// about a server that is slow to begin a session, or that reports a wrong password after a time (contrib/auth_delay).
func (s *session) endAttempt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase < relaying:
		return false // it waits for the backend
	case s.phase == relaying && !s.login.Ready && !s.terminating():
		if s.relay.Activity() != relay.AwaitsClient {
			return false
		}
		s.refusal = &Refusal{Outcome: outcome.AuthBackoff, Detail: "its authentication had no result while others of this user from this source waited for it"}
		s.deferred = false
		sqlstate, text := s.refusal.Message()
		s.relay.Terminate(relay.Termination{
			Reason: uint8(outcome.AuthBackoff), Message: pgwire.Fatal(sqlstate, text, ""), Deadline: time.Now().Add(boundaryWait),
		})
	}
	return true
}

// leftUnseen reports whether a login has ended by what its client did, after the client had
// answered and before PostgreSQL said whether that was right. It counts as a failure, or a
// client that knows how long a good login takes could guess without one.
func leftUnseen(o Outcome, r *relay.Result) bool {
	switch o {
	case outcome.ClientClosed, outcome.ClientLost, outcome.TLSRecordLimit, outcome.AuthBackoff:
		return r.Login.AwaitsResult() && !r.Login.Discovery
	}
	return false
}

// relayEnded accounts for a session that the relay has ended.
func (s *session) relayEnded(r relay.Result) {
	e := end{peer: s.peer, admitted: true, outcome: outcome.OfSession(r), relayed: r}
	s.mu.Lock()
	s.phase = ending // there is nothing left for a recheck to end
	if s.refusal != nil && s.refusal.Outcome == e.outcome {
		e.refusal = s.refusal
	}
	e.rule = s.rule
	s.mu.Unlock()
	if e.outcome == outcome.AuthenticationFailed || leftUnseen(e.outcome, &r) {
		s.attempt.Failed(s.server.policy.Load().Limits)
	}
	e.silence = s.silence(e.outcome, r)
	s.recordLogin(&e)
	s.server.logAndCount(e)
	s.cancelLeftover(r)
	s.server.shutdown.live.Add(-1)
	s.server.forget(s, r.Login.CancelKey())
}

// snapshot describes the session, if the relay has it.
func (s *session) snapshot() (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay == nil {
		return Session{}, false
	}
	p, now := s.peer, time.Now()
	s.hasMoved(now)
	fromClient, toClient := s.relay.Moved()
	quiet := s.since
	if quiet.IsZero() { // nothing has moved yet: the client is authenticating
		quiet = p.accepted
	}
	one := Session{
		ID: p.request.Session, Client: p.source, Listener: p.request.Listener, Since: p.accepted,
		User: printable.Text(p.request.User), Database: printable.Text(p.request.Database), Rule: s.rule,
		FromClient: fromClient, ToClient: toClient, Request: &p.request,
		Idle: now.Sub(quiet), State: s.relay.Activity().String(), Application: printable.Text(p.application), BackendPID: s.login.PID,
	}
	if s.phase == ending || s.terminating() {
		one.State = "ending"
	}
	if id := p.request.Certificate; id != nil {
		one.Subject = printable.Text(id.DN)
	}
	return one, true
}
