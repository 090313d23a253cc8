// Package proxy is the gate: it accepts connections, speaks the startup dialogue
// of PostgreSQL with each, admits or refuses it by a Policy, and has
// internal/relay move the bytes of the sessions that were admitted.
//
// A connection has three parts, by owner. conn belongs to the goroutine that serves
// it, and conn.serve is its life from top to bottom. peer is who it is; it does not
// change once it has been judged. session is what any other goroutine may touch,
// under its mutex, until the relay has ended it.
//
// The package reads no file and knows no flag: config builds its Policy.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/backend"
	"pgwicket/internal/clientcert"
	"pgwicket/internal/handshake"
	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/policy"
	"pgwicket/internal/relay"
	"pgwicket/internal/sessionid"
	"pgwicket/internal/socket"
	"pgwicket/metrics"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("proxy: server closed")

// Policy is all that a reload may change. It is immutable once a Server has it.
type Policy = policy.Policy

// Server accepts connections and serves them. Make it with New.
type Server struct {
	log     *slog.Logger
	metrics *metrics.Set
	relay   *relay.Relay
	policy  atomic.Pointer[Policy]

	limiter    *limit.Connections
	auth       *limit.Attempts
	handshakes handshake.Slots
	cancelKeys cancelKeys
	probes     socket.Probes
	failures   backend.Failures // of addresses of backends
	refusals   *refusals
	shutdown   shutdown

	names       names
	maintenance maintenance
	audit       auditor

	mu        sync.Mutex
	listeners map[net.Listener]*socket.Loop
	sessions  map[*session]struct{}
	wg        sync.WaitGroup // one for each session
	accepts   sync.WaitGroup // one for each Serve
}

// names are what connections and clients are called.
type names struct {
	ids        sessionid.Sequence
	identities clientcert.Identities
}

// Options are what a server is made of.
type Options struct {
	Policy *Policy
	Log    *slog.Logger
	// Refusals gets the lines that clients can cause without proving who they are, so
	// that they can be kept from displacing others.
	Refusals *slog.Logger
	Metrics  *metrics.Set
	// Now is the clock by which clients are judged; nil: time.Now.
	Now func() time.Time
	// Audit gets each decision, with what the log has of it, and must not block; nil: nobody.
	Audit func(event string, attrs []slog.Attr)
	// AuditFailing returns why Audit cannot keep what it gets; nil: it can. Policy.AuditRequired
	// refuses new sessions then. It may be nil.
	AuditFailing func() error
}

// New returns a server. It fails only for want of descriptors. Shutdown frees what it
// holds.
func New(o Options) (*Server, error) {
	p, log, m := o.Policy, o.Log, o.Metrics
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AuditFailing == nil {
		o.AuditFailing = func() error { return nil }
	}
	r, err := relay.New(relay.Observer{Moved: m.Relayed, Panicked: func(recovered any) { logPanic(log, recovered) }})
	if err != nil {
		return nil, err
	}
	s := &Server{
		relay:       r,
		log:         log,
		refusals:    newRefusals(o.Refusals),
		shutdown:    shutdown{done: make(chan struct{})},
		metrics:     m,
		listeners:   make(map[net.Listener]*socket.Loop),
		sessions:    make(map[*session]struct{}),
		limiter:     limit.NewConnections(countStage(m)),
		auth:        limit.NewAttempts(),
		handshakes:  handshake.NewSlots(),
		cancelKeys:  cancelKeys{requests: limit.NewCancels(), ownSlots: make(handshake.Slots, cancelsAtOnce)},
		maintenance: maintenance{policyChanged: make(chan struct{}, 1), done: make(chan struct{}), now: o.Now},
		audit:       auditor{o.Audit, o.AuditFailing},
		names:       names{sessionid.New(), clientcert.NewIdentities()},
	}
	m.Expect(expected())
	s.storePolicy(p)
	go s.maintain()
	return s, nil
}

func (s *Server) storePolicy(p *Policy) {
	s.policy.Store(p)
	s.metrics.InForce(p.Limits.Sessions, p.Limits.Startups, addressesOf(p))
}

// RenewPolicy is SetPolicy for a policy that decides as the one in force does, only for longer:
// the live sessions are not judged for it.
func (s *Server) RenewPolicy(p *Policy) { s.storePolicy(p) }

// SetPolicy puts p into force: for every connection that has not yet been
// judged, and soon for the live sessions. It may be called concurrently.
func (s *Server) SetPolicy(p *Policy) {
	s.storePolicy(p)
	select {
	case s.maintenance.policyChanged <- struct{}{}:
	default: // maintain has yet to look, and will see this one
	}
}

// Sessions returns how many connections are open, those in their startup
// included.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Session is an open session, as Snapshot has found it.
type Session struct {
	ID             string
	Client         netip.AddrPort
	Listener       string
	Since          time.Time     // its accept
	User, Database string        // printable
	Rule           string        // that has admitted it; empty: there are none
	Subject        string        // of its certificate; empty: none
	Idle           time.Duration // since the last byte
	State          string        // as pg_stat_activity names it
	Application    string        // printable
	BackendPID     uint32
	// Request is what it has asked for; nobody may change it.
	Request              *acl.Request
	FromClient, ToClient int64 // bytes so far, without TLS
}

// Snapshot returns the open sessions, in no order. Those in their startup are
// not among them.
func (s *Server) Snapshot() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Session, 0, len(s.sessions))
	for c := range s.sessions {
		if one, ok := c.snapshot(); ok {
			all = append(all, one)
		}
	}
	return all
}

// HandOver is for a server whose successor listens on the same sockets or
// addresses: a Shutdown then serves the connections that it has accepted, and
// leaves the sessions alone for half of the time that its context gives. It must be called
// before Serve.
func (s *Server) HandOver() { s.shutdown.handsOver.Store(true) }

// drains reports whether a shutdown is under way in which no new session may begin.
func (s *Server) drains() bool { return s.shutdown.begun.Load() && !s.shutdown.handsOver.Load() }

// Serve accepts connections from ln, which must yield *net.TCPConn, until
// Shutdown or Close, and then returns ErrServerClosed. It closes ln. It may be
// called for several listeners at once.
func (s *Server) Serve(ln net.Listener) error {
	loop := s.track(ln)
	if loop == nil {
		_ = ln.Close()
		return ErrServerClosed
	}
	defer s.accepts.Done() // when it is closed
	defer ln.Close()
	name := ln.Addr().String()
	accepted := s.metrics.Accepted(name)
	take := func(conn *net.TCPConn) {
		if s.probes.Met(conn) {
			_ = conn.Close()
			return
		}
		s.begin(conn, name)
		accepted()
	}
	err := loop.Run(ln, &s.shutdown.accepting, take, func(err error, retryIn time.Duration) {
		s.metrics.AcceptFailed()
		s.log.Error("accept failed", "listener", name, "error", err, "retry_in", retryIn.String())
	})
	if err != nil {
		return err
	}
	if !s.shutdown.upgraded.Load() { // else they are the new process's
		socket.AcceptQueued(ln, take)
	}
	return ErrServerClosed
}

// track records a listener, unless the server is shutting down.
func (s *Server) track(ln net.Listener) *socket.Loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutdown.begun.Load() {
		return nil
	}
	loop := new(socket.Loop)
	s.listeners[ln] = loop
	s.accepts.Add(1)
	return loop
}

// open returns the listeners.
func (s *Server) open() []net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.listeners))
}

// begin serves one connection in a goroutine of its own.
func (s *Server) begin(conn *net.TCPConn, listener string) {
	ctx, interrupt := context.WithCancel(context.Background())
	c := newConn(s, conn, listener, interrupt)
	s.mu.Lock()
	s.sessions[c.session] = struct{}{}
	s.wg.Add(1) // Shutdown waits for Serve first, so it does not wait for this yet
	s.mu.Unlock()
	go c.run(ctx, interrupt)
}

// forget removes a session that has ended, with its places, its attempt and its cancel key.
func (s *Server) forget(one *session, cancelKey string) {
	s.cancelKeys.Remove(cancelKey)
	one.attempt.Abandoned() // if it has no result by now
	one.ticket.Release()
	one.place.Release()
	one.ofRule.Release()
	s.mu.Lock()
	delete(s.sessions, one)
	s.mu.Unlock()
	s.wg.Done()
}

// Shutdown ends each session, in words, as soon as its backend is idle, outside of
// a transaction, and stops accepting when there is none left. If ctx ends first, it
// ends the rest and returns ctx's error; it returns only when all have ended. Until
// then CancelRequests are forwarded, for a statement that holds the drain up may be
// one that its user wants to end; other new connections are told that the gate is
// shutting down.
//
// After HandOver it stops accepting first, since new connections are for the
// successor.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginShutdown()
	if end, ok := ctx.Deadline(); !s.shutdown.handsOver.Load() {
		s.drain()
		select {
		case <-s.shutdown.live.None():
		case <-ctx.Done():
		}
	} else if ok {
		half := time.AfterFunc(time.Until(end)/2, s.drain)
		defer half.Stop()
	}
	s.stopAccepting()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.shutdown.once.Do(func() { close(s.shutdown.done) })
		<-s.maintenance.done
		s.relay.Stop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.endAll(outcome.DrainTimeout)
	<-done
	return ctx.Err()
}

// beginShutdown has no Serve begin and no session start any more.
func (s *Server) beginShutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutdown.begun.Store(true)
}

// drain begins to end the sessions.
func (s *Server) drain() {
	s.shutdown.handsOver.Store(false)
	for _, one := range s.all() {
		one.drain()
	}
}

// stopAccepting returns when every Serve has. Connections that were made before are
// still accepted: to close a listener resets those that wait in its queue, so it is
// only interrupted here, and Serve closes it when it has accepted them.
func (s *Server) stopAccepting() {
	s.shutdown.accepting.Stop(s.open()...)
	s.accepts.Wait()
}

func (s *Server) endAll(o Outcome) {
	for _, one := range s.all() {
		one.end(o)
	}
}
