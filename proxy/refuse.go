package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/policy"
	"pgwicket/internal/printable"
	"pgwicket/internal/relay"
)

// Bounds of the end of a refused client: how long it may take to read its refusal
// and to close, and how much of what it still sends is thrown away meanwhile.
// Closing a socket with unread bytes in it sends a reset, which may overtake the
// refusal.
const (
	refuseTimeout = time.Second
	refuseDiscard = 64 << 10
)

// sendFatal sends a refused client the words that it may know, where it can read
// them: inside TLS, or in clear as the answer to a packet sent in clear.
func (c *conn) sendFatal(r *Refusal) {
	sqlstate, text := r.Message()
	if sqlstate == "" || !c.canSendError || r.Outcome == outcome.StartupTimeout && c.tls == nil { // PostgreSQL closes such a connection without a word
		return
	}
	message := pgwire.Fatal(sqlstate, text, "")
	if c.peer.speaksV2() {
		message = pgwire.FatalV2(text)
	}
	var to net.Conn = c.socket
	if c.tls != nil {
		to = c.tls
	}
	_ = to.SetDeadline(time.Now().Add(refuseTimeout))
	_, _ = to.Write(message)
}

// close closes the connection. The client gets its close_notify and an orderly
// end, unless nothing is sent to it.
func (c *conn) close() {
	if c.silent {
		if c.policy.SourceRefusal == policy.Reset {
			_ = c.socket.Socket.(*net.TCPConn).SetLinger(0)
		}
		_ = c.socket.Close()
		return
	}
	_ = c.socket.SetDeadline(time.Now().Add(refuseTimeout))
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	if c.socket.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.socket, refuseDiscard)
	}
	_ = c.socket.Close()
}

// end is how a connection ended, for the log and the metrics.
type end struct {
	peer     *peer
	rule     string // that has admitted or rejected it
	outcome  Outcome
	refusal  *Refusal // nil: none but the outcome
	admitted bool     // it was a session
	relayed  relay.Result
	silence  time.Duration // of a backend that its client has left for that; 0: none
}

// logAndCount counts a connection that has ended and writes its one line in the
// log.
func (s *Server) logAndCount(e end) {
	o := e.outcome.Meaning()
	var message, event string
	switch {
	case e.admitted:
		message, event = "session ended", "ended"
		s.metrics.Ended(e.peer.request.Session, o.Label)
	case e.outcome >= outcome.CancelForwarded:
		message, event = "cancel request", "cancel"
		s.metrics.Cancelled(o.Label)
	default:
		message, event = "connection refused", "refused"
		s.metrics.Refused(e.peer.request.Session, o.Label, o.TLS)
	}
	s.rememberRefusal(e)
	ctx, log := context.Background(), s.log
	level := e.level()
	audited := s.audit.kept() && level >= slog.LevelInfo // a port scan is no decision for the audit trail
	if !audited && !log.Enabled(ctx, level) {
		return
	}
	if e.byStranger() {
		if log = s.refusals.log; !s.refusals.rate.Allow(s.policy.Load().RefusalLogRate, e.outcome, limit.SourceOf(e.peer.request.Source), time.Now()) {
			return
		}
	}
	attrs := e.logAttrs()
	if audited {
		s.audit.record(event, attrs)
	}
	log.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // it is one of three
}

// logBegin writes the line of a session that begins, with all that is known of it by now. The
// caller holds the session's mutex.
func (s *Server) logBegin(one *session) {
	ctx, logged := context.Background(), !s.policy.Load().LogEndsOnly
	if logged = logged && s.log.Enabled(ctx, slog.LevelInfo); !logged && !s.audit.kept() {
		return
	}
	p := one.peer
	attrs := p.appendLogAttrs(p.idAttrs())
	if one.rule != "" {
		attrs = append(attrs, slog.String("rule", one.rule))
	}
	attrs = append(attrs, slog.String("backend", one.host.Address), slog.Uint64("backend_pid", uint64(one.login.PID)))
	s.audit.record("admitted", attrs)
	if logged {
		s.log.LogAttrs(ctx, slog.LevelInfo, "session began", attrs...)
	}
}

// level returns the level of the line. pg_isready without a certificate is refused as
// everybody is, and a health check all the same: it takes the refusal for a server that
// accepts connections. A client that rejects the gate's certificate is no port scan.
func (e *end) level() slog.Level {
	if e.outcome == outcome.CertMissing && e.peer.application == "pg_isready" || e.peer.rejectsName {
		return slog.LevelInfo
	}
	if e.silence > 0 {
		return slog.LevelWarn
	}
	return e.outcome.Meaning().Level
}

// byStranger reports whether somebody who has proved nothing can cause the line as
// often as he likes.
func (e *end) byStranger() bool {
	return !e.admitted || !e.relayed.Login.Ready && !e.peer.verified
}

// reason returns what the log says besides the outcome: the detail of a refusal, or
// the error with which the relay has ended the session.
func (e *end) reason() string {
	switch {
	case e.refusal != nil:
		return e.refusal.Detail
	case e.silence > 0:
		return pgwire.Silent(e.silence)
	case e.relayed.Err != nil:
		return e.relayed.Err.Error()
	case e.outcome == outcome.LoginTimeout:
		return e.relayed.Login.Late(e.relayed.ToClient > 0) + " (limits.authentication_timeout)"
	}
	return ""
}

func (e *end) logAttrs() []slog.Attr {
	p := e.peer
	attrs := p.idAttrs(slog.String("outcome", e.outcome.String()))
	if reason := e.reason(); reason != "" {
		attrs = append(attrs, slog.String("reason", printable.Clip(printable.Text(reason), maxReason, len(reason))))
	}
	attrs = p.appendLogAttrs(attrs)
	if e.rule != "" {
		attrs = append(attrs, slog.String("rule", e.rule))
	}
	login := e.relayed.Login
	if login.PID != 0 {
		attrs = append(attrs, slog.Uint64("backend_pid", uint64(login.PID)))
	}
	if login.Ready && e.relayed.SQLSTATE != "" {
		attrs = append(attrs, slog.String("sqlstate", e.relayed.SQLSTATE))
	} else if !login.Ready && login.SQLSTATE != "" {
		attrs = append(attrs, slog.String("sqlstate", login.SQLSTATE))
	}
	if hint := login.Hint(e.outcome == outcome.ClientClosed); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	return append(attrs,
		slog.Int64("bytes_from_client", e.relayed.FromClient),
		slog.Int64("bytes_to_client", e.relayed.ToClient),
		slog.Float64("duration_seconds", time.Since(p.accepted).Seconds()))
}
