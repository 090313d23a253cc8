package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/pgwire"
	"pgwicket/metrics"
)

// tlsRecordHandshake is the first byte of a TLS ClientHello's record, and of no
// start-up packet.
const tlsRecordHandshake = 0x16

// alpn is the protocol name that PostgreSQL 17 registered for its own.
const alpn = "postgresql"

// session is one client connection. Its goroutine owns every field but those
// behind mu; once it is proved, state and request do not change and are there
// for everybody. Anybody may call end.
type session struct {
	server *Server
	policy *Policy // the one in force at accept
	id     uint64
	source netip.AddrPort // the client's, or what a trusted load balancer says it is
	proxy  netip.AddrPort // the load balancer's; invalid: none
	began  time.Time

	wire        *wire
	drop        bool      // refused before a byte was read: no farewell
	heard       bool      // a FATAL would be understood: the client has asked, and no handshake is under way
	tls         *tls.Conn // nil until the handshake is done
	state       tls.ConnectionState
	request     acl.Request // what is asked for, as far as it is known
	application string
	version     uint32  // of the protocol that the client speaks
	rule        string  // that has admitted it
	open        bool    // the session has begun
	entered     bool    // the crowd counts it
	who         account // that the crowd counts it for; empty: none yet
	relayed     relayed

	host *Host // that the relay has a connection to

	stop    context.CancelFunc // ends what the session waits for
	mu      sync.Mutex
	proved  bool      // the client has shown all it had to show
	backend *upstream // nil until the dial
	relay   reins     // once the relay has the session
	ended   bool      // cut
	refusal *Refusal  // why recheck has ended it, or will
	waits   bool      // until the backend is idle
	moved   int64     // bytes, when expire last saw that there were more
	still   time.Time // since then
}

func newSession(s *Server, conn *net.TCPConn, listener string, stop context.CancelFunc) *session {
	c := &session{
		stop:    stop,
		server:  s,
		policy:  s.policy.Load(),
		id:      s.lastID.Add(1),
		request: acl.Request{Listener: listener},
		began:   time.Now(),
		wire:    &wire{socket: conn},
	}
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.source = addr.AddrPort()
		c.source = netip.AddrPortFrom(c.source.Addr().Unmap(), c.source.Port())
		c.request.Source = c.source.Addr().WithZone("")
	}
	return c
}

// end cuts the session from outside its goroutine. The cause counts as its
// outcome if it has begun; a connection in its start-up ends as ShuttingDown. It
// may be called more than once; the first cause stays.
func (c *session) end(cause Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
	case c.relay.end != nil:
		c.ended = true
		c.relay.end(ending{cause: cause})
	default:
		c.cut()
	}
}

// cut ends a connection in its start-up. The caller holds mu.
func (c *session) cut() {
	c.ended = true
	c.stop()
	_ = c.wire.Close()
	if c.backend != nil {
		_ = c.backend.Close()
	}
}

// drain ends the session as soon as nothing is lost by it.
func (c *session) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relay.end != nil {
		c.dismiss()
	}
}

// dismiss has the relay end the session when its backend is idle. The caller
// holds mu.
func (c *session) dismiss() {
	if c.refusal == nil || c.waits { // else it is ending
		c.refusal, c.waits = nil, false
		c.relay.end(ending{cause: Drained, words: pgwire.Fatal(shutdown, "terminating connection due to administrator command", ""), idle: true})
	}
}

// enter takes a place among the connections.
func (c *session) enter() error {
	err := c.server.crowd.enter(c.policy.Limits, sourceOf(c.request.Source), time.Now())
	c.entered = err == nil
	return err
}

// giveBack gives up the places that the connection has.
func (c *session) giveBack() {
	if c.entered {
		c.entered = false
		c.server.crowd.leave(sourceOf(c.request.Source))
	}
	if c.who != (account{}) {
		c.server.crowd.close(c.who)
		c.who = account{}
	}
}

func (c *session) suspect() suspect {
	return suspect{sourceOf(c.request.Source), c.request.User}
}

// wait keeps a client from guessing: whoever has failed to authenticate waits, or
// is not let near PostgreSQL for a while. It also takes one of the places of the
// account.
func (c *session) wait(ctx context.Context, l Limits) error {
	pause, err := c.server.crowd.patience(l, c.suspect(), time.Now())
	if err != nil {
		return err
	}
	a := account{c.request.User, c.request.Database}
	if err := c.server.crowd.open(l, a); err != nil {
		return err
	}
	c.who = a
	if pause == 0 {
		return nil
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return refuse(ShuttingDown, "")
	}
}

// snapshot describes the session, if the relay has it.
func (c *session) snapshot() (Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relay.moved == nil {
		return Session{}, false
	}
	up, down := c.relay.moved()
	one := Session{
		ID: c.id, Client: c.source, Listener: c.request.Listener, Since: c.began,
		User: printable(c.request.User), Database: printable(c.request.Database), Rule: c.rule,
		FromClient: up, ToClient: down,
	}
	if id := c.request.Certificate; id != nil {
		one.Subject = printable(id.DN)
	}
	return one, true
}

// live serves the connection and accounts for it, unless the relay has taken it
// over and will say how it ended.
func (c *session) live(ctx context.Context) {
	c.server.metrics.Started()
	outcome, err := c.guarded(ctx)
	if c.open {
		return
	}
	c.mu.Lock()
	switch {
	case c.ended && c.refusal != nil:
		outcome, err = c.refusal.Outcome, c.refusal
	case c.ended:
		outcome, err = ShuttingDown, nil
	}
	c.mu.Unlock()
	c.stop()
	c.tell(err)
	c.close()
	c.account(outcome, err)
	c.server.forget(c)
}

// guarded is serve, with a panic turned into a refusal: whatever one client
// has sent, the others keep their sessions.
func (c *session) guarded(ctx context.Context) (outcome Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(c.server.log, p)
			outcome, err = InternalError, refuse(InternalError, "panic")
		}
	}()
	return c.serve(ctx)
}

func logPanic(log *slog.Logger, panicked any) {
	log.Error("panic in a session; please report this", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
}

// serve is the life of a connection, from accept until the relay has it. An
// error is a *Refusal: the connection was not let in.
func (c *session) serve(ctx context.Context) (Outcome, error) {
	// 1 Source. Nothing has been read or sent yet, but by a load balancer the
	// header in which it says for whom it speaks.
	if err := c.unproxied(); err != nil {
		return refused(err)
	}
	if err := c.policy.admitsSource(&c.request); err != nil && c.policy.SourceRefusal != Explain {
		c.drop = true
		return refused(err)
	}
	if err := c.enter(); err != nil {
		c.drop = true
		return refused(err)
	}
	_ = c.wire.SetDeadline(c.began.Add(c.policy.StartupTimeout))

	// 2 The first packet, in clear: a request for TLS, or a cancel.
	packet, direct, err := c.askedFor()
	if err != nil {
		return refused(err)
	}
	if !direct && packet.Kind() == pgwire.CancelRequest {
		return c.forwardCancel(ctx, packet)
	}

	// 3 TLS, and the startup packet inside it.
	if err := c.handshake(direct); err != nil {
		return refused(err)
	}
	if packet, err = c.readStartup(direct); err != nil {
		return refused(err)
	}
	if packet.Kind() == pgwire.CancelRequest {
		return c.forwardCancel(ctx, packet)
	}
	startup, err := pgwire.ParseStartup(packet)
	c.asks(startup)
	if err != nil {
		return refused(startupRefusal(err))
	}

	// 4 Judgement, by the newest policy. From here on recheck judges it, too,
	// so that no reload slips past a connection that is still on its way in.
	c.mu.Lock()
	c.proved = true
	c.mu.Unlock()
	policy := c.server.policy.Load()
	rule, err := c.judge(policy, time.Now())
	if rule != nil {
		c.rule = rule.Name
	}
	if err != nil {
		return refused(err)
	}

	if err := c.wait(ctx, policy.Limits); err != nil {
		return refused(err)
	}

	// 5 The backend, which hears of a client only now.
	backend, err := c.reach(ctx, policy, rule, startup)
	if err != nil {
		return refused(err)
	}

	// 6 The session, until relayEnded.
	if err := c.handOver(backend); err != nil {
		return refused(err)
	}
	return 0, nil
}

// handOver gives the session to the relay, which closes its connections when it
// has ended.
func (c *session) handOver(backend *upstream) error {
	_ = c.wire.SetDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return refuse(ShuttingDown, "") // or what live knows better
	}
	host := backend.host
	h := handover{
		client:   c.tls,
		wire:     c.wire,
		backend:  backend,
		deadline: c.began.Add(c.policy.StartupTimeout),
		ready: func(login pgwire.Login) {
			c.server.know(login.CancelKey(), host)
			c.server.crowd.passed(c.suspect())
		},
		done: c.relayEnded,
	}
	c.policy = nil // or the session would keep it alive through every reload
	// done may be called at once, so all of this stands before the start.
	c.open = true
	c.server.metrics.SessionOpened()
	held, err := c.server.relay.start(h)
	if err != nil {
		c.open = false
		c.server.metrics.SessionAborted()
		return refuse(BackendUnavailable, err.Error()) // want of descriptors, as in reach
	}
	c.stop()
	c.relay, c.backend, c.stop, c.host = held, nil, nil, host
	if c.server.dismisses() {
		c.dismiss()
	}
	return nil
}

// relayEnded accounts for a session that the relay has ended.
func (c *session) relayEnded(r relayed) {
	c.relayed = r
	var why error
	c.mu.Lock()
	if c.refusal != nil && c.refusal.Outcome == r.cause {
		why = c.refusal
	}
	c.mu.Unlock()
	if r.cause == AuthenticationFailed {
		c.server.crowd.failed(c.server.policy.Load().Limits, c.suspect(), time.Now())
	}
	c.account(r.cause, why)
	if r.busy && (why != nil || r.cause == SessionLifetime) {
		c.host.stopQuery(r.login)
	}
	c.server.forget(c)
}

// refused returns what serve returns for a connection that is not let in.
func refused(err error) (Outcome, error) {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r.Outcome, r
	}
	return InternalError, refuse(InternalError, err.Error())
}

// askedFor reads start-up packets in clear until the client asks for TLS,
// by an SSLRequest or (direct, without a packet) by its ClientHello, or sends a
// CancelRequest. Everything else ends here.
func (c *session) askedFor() (packet pgwire.Packet, direct bool, err error) {
	first, err := c.firstByte()
	switch {
	case err != nil:
		return packet, false, err
	case first == tlsRecordHandshake:
		return packet, true, nil
	case c.strayProxyHeader(first):
		return packet, false, refuse(ProxyHeaderRefused, "the peer is not in proxy_protocol_from, or this is its second header")
	}
	for gssenc := false; ; {
		if packet, err = pgwire.ReadPacket(c.wire); err != nil {
			return packet, false, readRefusal(err)
		}
		c.heard = true
		switch packet.Kind() {
		case pgwire.SSLRequest:
			// One byte and no more: a client takes whatever follows it in
			// clear for an attack (CVE-2021-23222).
			_, err := c.wire.Write([]byte{'S'})
			return packet, false, writeRefusal(err)
		case pgwire.CancelRequest:
			return packet, false, nil
		case pgwire.GSSENCRequest:
			if gssenc {
				return packet, false, refuse(RepeatedRequest, "GSSENCRequest") // CVE-2026-6479
			}
			gssenc = true
			if _, err := c.wire.Write([]byte{'N'}); err != nil {
				return packet, false, writeRefusal(err)
			}
		default:
			startup, _ := pgwire.ParseStartup(packet)
			c.asks(startup) // for the log
			return packet, false, refuse(Plaintext, "startup packet without TLS")
		}
	}
}

// firstByte waits for the first byte of what the client asks for, and leaves it
// to be read.
func (c *session) firstByte() (byte, error) {
	first, err := c.wire.peek()
	if isReset(err) {
		err = io.EOF // how many port scanners end
	}
	if err != nil {
		return 0, readRefusal(err)
	}
	return first, nil
}

// handshake does TLS. The certificate that the client may have sent is not
// judged here: a refusal inside TLS reaches psql in words, a failed handshake
// sends libpq's sslmode=prefer looking for a way without TLS.
func (c *session) handshake(direct bool) error {
	c.heard = false // what is said now is TLS's to say
	began := time.Now()
	conn := tls.Server(c.wire, c.policy.TLS)
	if err := c.inTurn(conn.Handshake); err != nil {
		return handshakeRefusal(err)
	}
	c.tls = conn
	c.shown(conn.ConnectionState())
	c.server.metrics.Handshake(c.id, c.state, time.Since(began))
	if direct && c.state.NegotiatedProtocol != alpn {
		// As PostgreSQL: without ALPN this may be another protocol's client,
		// tricked into talking to us.
		return refuse(TLSALPN, "direct TLS without ALPN "+alpn)
	}
	c.heard = true
	return nil
}

// shown keeps what a handshake has shown of the client, and of the state no more
// than a judgement and the log need.
func (c *session) shown(s tls.ConnectionState) {
	c.state = tls.ConnectionState{
		Version:            s.Version,
		HandshakeComplete:  s.HandshakeComplete,
		CipherSuite:        s.CipherSuite,
		CurveID:            s.CurveID,
		NegotiatedProtocol: s.NegotiatedProtocol,
		ServerName:         s.ServerName,
		PeerCertificates:   s.PeerCertificates,
	}
	c.request.SNI = s.ServerName
	if len(s.PeerCertificates) > 0 {
		id := acl.IdentityOf(s.PeerCertificates[0])
		c.request.Certificate = &id
	}
}

// asks keeps what a startup packet asks for.
func (c *session) asks(m pgwire.StartupMessage) {
	c.version = m.Version
	if len(m.Parameters) == 0 {
		return
	}
	c.request.User, c.request.Database = m.User(), m.Database()
	c.application = m.Get("application_name")
	switch walsender, database := m.Replication(); {
	case database:
		c.request.Replication = acl.LogicalReplication
	case walsender:
		c.request.Replication = acl.PhysicalReplication
	}
}

// inTurn runs a handshake when there is a processor for it.
func (c *session) inTurn(handshake func() error) error {
	c.wire.turns = c.server.handshakes
	c.wire.turns.take()
	defer func() {
		c.wire.turns.give()
		c.wire.turns = nil
	}()
	return handshake()
}

// readStartup reads the startup packet, or a CancelRequest, inside TLS. Inside
// direct TLS PostgreSQL still answers one SSLRequest and one GSSENCRequest.
func (c *session) readStartup(direct bool) (pgwire.Packet, error) {
	var answered [pgwire.CancelRequest]bool
	for {
		packet, err := pgwire.ReadPacket(c.tls)
		if err != nil {
			return packet, readRefusal(err)
		}
		kind := packet.Kind()
		if kind == pgwire.Startup || kind == pgwire.CancelRequest {
			return packet, nil
		}
		if !direct || answered[kind] {
			return packet, refuse(RepeatedRequest, kind.String()+" inside TLS")
		}
		answered[kind] = true
		if _, err := c.tls.Write([]byte{'N'}); err != nil {
			return packet, writeRefusal(err)
		}
	}
}

// reach connects to the backend that the rule chooses, if there is one, and opens
// the session there with what was checked.
func (c *session) reach(ctx context.Context, p *Policy, rule *acl.Rule, startup pgwire.StartupMessage) (*upstream, error) {
	if c.server.dismisses() {
		return nil, refuse(ShuttingDown, "")
	}
	ctx, cancel := context.WithDeadline(ctx, c.began.Add(p.StartupTimeout))
	defer cancel()
	to, err := p.BackendOf(rule)
	if err != nil {
		return nil, err
	}
	if rule != nil && rule.DatabaseAs != "" {
		startup.Set("database", rule.DatabaseAs)
	}
	if to.ClientInfo {
		c.introduce(&startup)
	}
	name := backendName(rule)
	tried := func(h *Host, err error) {
		if !errors.Is(ctx.Err(), context.Canceled) { // else nobody has waited for the host
			c.server.metrics.BackendTried(metrics.Host{Backend: name, Address: h.Address}, err == nil)
		}
	}
	backend, err := c.connect(ctx, func(ctx context.Context) (*upstream, error) { return to.connect(ctx, tried) })
	if err != nil {
		return nil, refuse(BackendUnavailable, err.Error())
	}
	if _, err := backend.Write(startup.Encode()); err != nil {
		return nil, refuse(BackendUnavailable, err.Error())
	}
	return backend, nil
}

// connect connects to a backend, which is closed with the session from then on.
func (c *session) connect(ctx context.Context, to func(context.Context) (*upstream, error)) (*upstream, error) {
	began := time.Now()
	backend, err := to(ctx)
	if err != nil {
		return nil, err
	}
	c.server.metrics.BackendConnected(c.id, time.Since(began))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backend = backend
	if c.ended {
		return nil, net.ErrClosed // close closes the backend, too
	}
	return backend, nil
}

// introduce tells PostgreSQL who the client is. An application_name means
// something to a standby's primary, so a replication connection keeps its own.
func (c *session) introduce(m *pgwire.StartupMessage) {
	if c.request.Replication == acl.NoReplication {
		m.Set("application_name", nameWithAddress(c.application, c.source.String()))
	}
	info := clientInfo{addr: c.source.Addr().String(), session: c.id}
	if id := c.request.Certificate; id != nil {
		info.cn, info.serial = id.CN, id.Serial
	}
	info.set(m)
}

// readRefusal says why a start-up packet could not be read.
func readRefusal(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return refuse(Probe, "closed before it asked for anything")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(StartupTimeout, "no complete startup packet in time")
	case errors.Is(err, pgwire.ErrLength), errors.Is(err, pgwire.ErrLayout):
		return refuse(InvalidPacket, err.Error())
	case errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
		return refuse(ClientGone, "in the middle of its start-up")
	}
	return refuse(TLSFailed, err.Error())
}

func writeRefusal(err error) error {
	if err == nil {
		return nil
	}
	return refuse(ClientGone, err.Error())
}

// startupRefusal says why a startup message is refused. The words are safe to
// show: pgwire quotes what is the client's.
func startupRefusal(err error) error {
	var p *pgwire.ProtocolError
	if !errors.As(err, &p) {
		return err
	}
	r := &Refusal{Outcome: ProtocolViolation, Public: p.Message, Detail: p.Message}
	switch p.SQLSTATE {
	case unsupported:
		r.Outcome = UnsupportedProtocol
	case policy:
		r.Outcome = NoUser
	case privilege:
		r.Outcome = ReservedSetting
	case invalidValue:
		r.Outcome = InvalidParameter
	}
	return r
}
