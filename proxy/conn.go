package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/backend"
	"pgwicket/internal/certs"
	"pgwicket/internal/handshake"
	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/policy"
	"pgwicket/internal/relay"
	"pgwicket/internal/tlsrecord"
	"pgwicket/metrics"
)

// alpn is the protocol name that PostgreSQL 17 registered for its own.
const alpn = backend.ALPN

// conn is a client connection while its goroutine serves it: from accept until the
// relay has it or it is refused. No other goroutine touches it.
type conn struct {
	server  *Server
	session *session
	peer    *peer   // being filled in
	policy  *Policy // the one in force at accept

	socket       *relay.Conn
	tls          tlsrecord.Secure     // nil until the handshake is done
	state        *tls.ConnectionState // what the client has shown in it; until it is verified
	under        *handshake.Conn      // under tls
	verdict      verdict
	header       *limit.HeaderTicket // until there is a ticket
	ticket       *limit.Ticket
	balancer     bool // a trusted load balancer, which speaks for itself
	silent       bool // refused before a byte was read: nothing is sent
	canSendError bool // the client has asked for something, and no handshake is under way

	loginDeadline time.Time // when PostgreSQL must be ready; from the admission on
}

func newConn(s *Server, tcp *net.TCPConn, listener string, interrupt context.CancelFunc) *conn {
	p := newPeer(s.names.ids.Next(), tcp, listener)
	return &conn{
		server:  s,
		session: &session{server: s, peer: p, interrupt: interrupt},
		peer:    p,
		policy:  s.policy.Load(),
		socket:  relay.NewPacedConn(tcp),
	}
}

// run serves the connection and accounts for it, unless the relay has it by then,
// which will say how it ended. interrupt ends ctx.
func (c *conn) run(ctx context.Context, interrupt context.CancelFunc) {
	defer interrupt()
	defer func() { c.header.Release() }()
	socket := c.socket.Socket
	unwatch := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer unwatch() // until then also a refused client may have to give way
	c.server.metrics.Started()
	err := c.serveRecovered(ctx)
	if err == nil {
		return
	}
	why := c.session.endStartup(err)
	if over := c.overLimit(); over != nil && why.Outcome == outcome.StartupTimeout {
		why = limitRefusal(over) // it had its time to say what it wants
	}
	c.sendFatal(why)
	c.close()
	c.server.logAndCount(end{peer: c.peer, rule: c.session.rule, outcome: why.Outcome, refusal: why})
	c.server.forget(c.session, "")
}

// serveRecovered is serve, with a panic turned into a refusal: whatever one client
// has sent, the others keep their sessions.
func (c *conn) serveRecovered(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(c.server.log, p)
			err = refuse(outcome.InternalError, "panic")
		}
	}()
	return c.serve(ctx)
}

func logPanic(log *slog.Logger, panicked any) {
	log.Error("panic in a session; please report this", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
}

// serve is the life of a connection, from accept until the relay has it: then it
// returns nil. Its error is what asRefusal takes: why the connection was not admitted,
// or how its CancelRequest went.
func (c *conn) serve(ctx context.Context) error {
	// 1 Source. Nothing has been read or sent yet, but for the header in which a
	// load balancer says for whom it speaks.
	if err := c.readProxyHeader(); err != nil {
		return err
	}
	if err := c.admitSource(); err != nil {
		c.silent = true
		return err
	}
	_ = c.socket.SetDeadline(c.startupDeadline())

	// 2 The first packet, in clear: a request for TLS, or a CancelRequest.
	packet, direct, err := c.readFirstPacket()
	if err != nil {
		return err
	}
	if !direct && packet.Kind() == pgwire.CancelRequest {
		return c.forwardCancel(ctx, packet)
	}

	// 3 TLS, and the startup packet inside it.
	if err := c.handshake(ctx, direct); err != nil {
		return err
	}
	c.verifyCertificate(ctx)
	if packet, err = c.readStartup(direct); err != nil {
		if r := asRefusal(err); r.Outcome == outcome.Probe && handshake.RejectsName(c.policy.TLS, c.peer.request.SNI) {
			c.peer.rejectsName, r.Detail = true, handshake.NameRejected(c.peer.request.SNI)
		}
		return err
	}
	if packet.Kind() == pgwire.CancelRequest {
		return c.forwardCancel(ctx, packet)
	}
	startup, err := pgwire.ParseStartup(packet)
	c.peer.recordStartup(startup)
	if err != nil {
		return handshake.StartupRefusal(err)
	}

	// 4 The verdict, by the newest policy, and the limits.
	rule, policy, err := c.judge()
	if err != nil {
		return err
	}
	if err := c.awaitTurn(ctx, policy); err != nil {
		return err
	}

	// 5 The backend, which hears of a client only now.
	c.loginDeadline = policy.LoginDeadline()
	backend, err := c.connectBackend(ctx, policy, rule, startup)
	if err != nil {
		return err
	}

	// 6 The session, until session.relayEnded.
	return c.startRelay(backend, rule)
}

// admitSource asks the allowlist, and takes the connection's place in the limiter.
func (c *conn) admitSource() error {
	if err := c.policy.AdmitsSource(&c.peer.request); err != nil && c.policy.SourceRefusal != policy.Explain {
		if c.balancer {
			return c.answerHealthCheck(err)
		}
		return err
	}
	return c.takeTicket()
}

// startupDeadline is when the startup must be over. A connection over a limit only
// has time to say what it wants.
func (c *conn) startupDeadline() time.Time {
	timeout := c.policy.StartupTimeout
	if c.overLimit() != nil {
		timeout = min(timeout, limit.OverLimitTimeout)
	}
	return c.peer.accepted.Add(timeout)
}

// overLimit returns the limit that the connection is over; nil: none.
func (c *conn) overLimit() *limit.Error {
	if c.ticket == nil {
		return nil
	}
	return c.ticket.Over()
}

// takeTicket takes a place among the unproved connections.
func (c *conn) takeTicket() (err error) {
	c.ticket, err = c.server.limiter.Admit(c.policy.Limits, limit.SourceOf(c.peer.request.Source), time.Now(), c.session.evict)
	c.session.ticket = c.ticket
	c.header.Release()
	return err
}

// verdict is what a policy has said of a client's certificate.
type verdict struct {
	by  *Policy
	err error
}

// verifyCertificate judges the client's certificate right after the handshake, so
// that what the client has sent can be dropped: only the verdict, the leaf's facts
// and, if it is good, its verified chain are kept. The client is told of a refusal
// after its startup packet, where libpq shows the words.
//
// A good certificate proves the client, which has a place in another stage from then on.
func (c *conn) verifyCertificate(ctx context.Context) {
	state := *c.state
	c.state = nil
	c.peer.recordTLS(state)
	policy := c.server.policy.Load()
	sent := state.PeerCertificates
	state.PeerCertificates = nil
	chain, err := c.verify(ctx, policy, state, certs.DER(sent))
	c.verdict = verdict{policy, err}
	if len(sent) > 0 {
		c.peer.recordCertificate(sent[0], chain, c.server.names.identities)
		clear(sent) // it is crypto/tls's own slice
	}
	if c.peer.verified && err == nil {
		c.ticket.Verify(policy.Limits, time.Now())
	}
}

// judge asks the newest policy, which it returns, whether to admit the connection.
// From here on recheck judges it, too. That is said before the policy is loaded, so
// that no reload slips past it.
func (c *conn) judge() (*acl.Rule, *Policy, error) {
	if c.verdict.err != nil {
		if err := c.server.policy.Load().AdmitsSource(&c.peer.request); err != nil {
			return nil, nil, err
		}
		return nil, nil, c.verdict.err // a newer policy has no certificates to judge any more
	}
	c.session.setJudged()
	policy := c.server.policy.Load()
	now := c.server.now()
	certAt := now
	if c.verdict.by == policy {
		certAt = time.Time{}
	}
	rule, err := c.peer.judge(policy, now, certAt)
	if rule != nil {
		c.session.setRule(rule)
	}
	if err == nil {
		err = c.server.audit.admits(policy)
	}
	if err == nil && rule != nil && rule.MaxSessions+rule.MaxSessionsPerCertificate > 0 {
		spki := ""
		if id := c.peer.request.Certificate; id != nil {
			spki = id.SPKI
		}
		c.session.ofRule, err = c.server.limiter.Rules.Admit(rule.Name, spki, rule.MaxSessions, rule.MaxSessionsPerCertificate)
	}
	return rule, policy, err
}

// awaitTurn waits for a place among the sessions, and keeps the client from guessing: see
// limit.Attempts.
func (c *conn) awaitTurn(ctx context.Context, p *Policy) (err error) {
	ctx, cancel := context.WithDeadline(ctx, c.startupDeadline())
	defer cancel()
	if err := c.ticket.AdmitSession(ctx, p.Limits); err != nil {
		return err
	}
	c.session.attempt, err = c.server.auth.Begin(ctx, p.Limits, attemptKey(c.peer), c.session.endAttempt)
	return err
}

// readFirstPacket reads startup packets in clear until the client asks for TLS,
// by an SSLRequest or (direct, without a packet) by its ClientHello, or sends a
// CancelRequest. Everything else ends here.
func (c *conn) readFirstPacket() (packet pgwire.Packet, direct bool, err error) {
	first, err := c.firstByte()
	switch {
	case err != nil:
		return packet, false, err
	case first == handshake.RecordHandshake:
		return packet, true, nil
	case c.unexpectedProxyHeader(first):
		return packet, false, refuse(outcome.ProxyHeaderRefused, "the peer is not in proxy_protocol_from, or this is its second header")
	}
	for gssenc := false; ; {
		if packet, err = pgwire.ReadPacket(c.socket); err != nil {
			return packet, false, handshake.ReadRefusal(err)
		}
		c.canSendError = true
		switch packet.Kind() {
		case pgwire.SSLRequest:
			// One byte and no more: a client takes whatever follows it in
			// clear for an attack (CVE-2021-23222).
			_, err := c.socket.Write([]byte{'S'})
			return packet, false, handshake.WriteRefusal(err)
		case pgwire.CancelRequest:
			return packet, false, nil
		case pgwire.GSSENCRequest:
			if gssenc {
				return packet, false, refuse(outcome.RepeatedRequest, "GSSENCRequest") // CVE-2026-6479
			}
			gssenc = true
			if _, err := c.socket.Write([]byte{'N'}); err != nil {
				return packet, false, handshake.WriteRefusal(err)
			}
		default:
			startup, _ := pgwire.ParseStartup(packet)
			c.peer.recordStartup(startup) // for the log
			return packet, false, refuse(outcome.Plaintext, "startup packet without TLS")
		}
	}
}

// answerHealthCheck answers an SSLRequest of a load balancer that may not connect for
// itself (refused says why), and nothing else: that is how some of them look whether
// there is a PostgreSQL.
func (c *conn) answerHealthCheck(refused error) error {
	packet, err := pgwire.ReadPacket(c.socket)
	if err != nil || packet.Kind() != pgwire.SSLRequest {
		return refused
	}
	if _, err := c.socket.Write([]byte{'S'}); err != nil {
		return handshake.WriteRefusal(err)
	}
	if _, err := c.socket.Peek(); errors.Is(err, io.EOF) || relay.IsReset(err) {
		return refuse(outcome.Probe, "closed after the answer to its SSLRequest")
	}
	return refused
}

// firstByte waits for the first byte of the client's first packet, and leaves it
// to be read.
func (c *conn) firstByte() (byte, error) {
	first, err := c.socket.Peek()
	if relay.IsReset(err) {
		err = io.EOF // how many port scanners end
	}
	if err != nil {
		return 0, handshake.ReadRefusal(err)
	}
	return first, nil
}

// readStartup reads the startup packet, or a CancelRequest, inside TLS. Inside
// direct TLS PostgreSQL still answers one SSLRequest and one GSSENCRequest.
func (c *conn) readStartup(direct bool) (pgwire.Packet, error) {
	var answered [pgwire.CancelRequest]bool
	for {
		packet, err := pgwire.ReadPacket(handshake.Reader{TLS: c.tls, Under: c.under})
		if err != nil {
			return packet, handshake.ReadRefusal(err)
		}
		kind := packet.Kind()
		if kind == pgwire.Startup || kind == pgwire.CancelRequest {
			return packet, nil
		}
		if !direct || answered[kind] {
			return packet, refuse(outcome.RepeatedRequest, kind.String()+" inside TLS")
		}
		answered[kind] = true
		if _, err := c.tls.Write([]byte{'N'}); err != nil {
			return packet, handshake.WriteRefusal(err)
		}
	}
}

// connectBackend connects to the backend that the rule chooses, if there is one,
// and opens the session there with what was checked.
func (c *conn) connectBackend(ctx context.Context, p *Policy, rule *acl.Rule, startup pgwire.StartupMessage) (*backend.Conn, error) {
	if c.server.drains() || c.session.hasEnded() {
		return nil, refuse(outcome.ShuttingDown, "") // endStartup knows better of one that has ended
	}
	to, err := p.BackendOf(rule)
	if err != nil {
		return nil, err
	}
	if rule != nil && rule.DatabaseAs != "" {
		startup.Set("database", rule.DatabaseAs)
	}
	if to.ClientInfo {
		c.addClientInfo(&startup)
	}
	packet := startup.Encode()
	if len(packet) > pgwire.MaxStartupPacket {
		const text = "startup packet is too long with what the gate adds to it"
		return nil, &Refusal{Outcome: outcome.ProtocolViolation, Public: text, Detail: text + " (client_info, database_as)"}
	}
	bounded, cancel := context.WithDeadline(ctx, c.loginDeadline)
	defer cancel()
	name := policy.BackendName(rule)
	began := time.Now()
	conn, err := to.Connect(bounded, &c.server.failures, func(h *Host, err error) {
		if !errors.Is(bounded.Err(), context.Canceled) { // else nobody has waited for the host
			c.server.metrics.BackendTried(metrics.Host{Backend: name, Address: h.Address}, err)
		}
	})
	if err != nil {
		return nil, refuse(outcome.BackendUnavailable, err.Error())
	}
	c.session.host.backend = name
	c.server.metrics.BackendConnected(c.peer.request.Session, time.Since(began))
	if err := c.forwardStartup(conn, packet); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// forwardStartup sends the startup packet, unless a recheck has ended the session while the backend was slow to accept.
func (c *conn) forwardStartup(backend *backend.Conn, packet []byte) error {
	if c.session.hasEnded() {
		return refuse(outcome.ShuttingDown, "") // endStartup knows better
	}
	if _, err := backend.Write(packet); err != nil {
		return refuse(outcome.BackendUnavailable, err.Error())
	}
	return nil
}

// addClientInfo tells PostgreSQL who the client is. An application_name means
// something to a standby's primary, so a replication connection keeps its own.
func (c *conn) addClientInfo(m *pgwire.StartupMessage) {
	p := c.peer
	if p.request.Replication == acl.NoReplication {
		m.Set("application_name", backend.NameWithAddress(p.application, p.source.String()))
	}
	info := backend.ClientInfo{Addr: p.source.Addr().String(), Session: p.request.Session}
	if id := p.request.Certificate; id != nil {
		info.CN, info.Serial = id.CN, id.Serial
	}
	info.Set(m)
}

// What clients get whose login takes too long. All sessions have the same, and nobody changes it.
var (
	loginTimeout  = pgwire.Fatal(pgwire.SQLStateQueryCanceled, "canceling authentication due to timeout", "")
	backendSilent = pgwire.Fatal(pgwire.SQLStateCannotConnectNow, "the database does not answer", "") // libpq tries its next host
)

// startRelay gives the session to the relay, or closes backend.
func (c *conn) startRelay(backend *backend.Conn, rule *acl.Rule) error {
	_ = c.socket.SetDeadline(time.Time{})
	c.under.Release()
	session := c.session
	session.account = limit.Account{User: c.peer.request.User, Database: c.peer.request.Database}
	if rule != nil && rule.DatabaseAs != "" {
		session.account.Database = rule.DatabaseAs
	}
	err := session.start(relay.Session{
		Client:        c.tls,
		ClientConn:    c.socket,
		Backend:       backend.Conn,
		BackendTLS:    backend.TLS,
		LoginDeadline: c.loginDeadline,
		LoginMessage:  loginTimeout,
		SilentMessage: backendSilent,
		Ready:         session.ready,
		Refused:       session.loginRefused,
		Done:          session.relayEnded,
	}, backend.Host)
	if err != nil {
		_ = backend.Close()
	}
	return err
}
