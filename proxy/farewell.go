package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"pgwicket/acl"
	"pgwicket/internal/pgwire"
	"pgwicket/metrics"
)

// Bounds of the farewell to a refused client: how long it may take to read its
// refusal and to close, and how much of what it still sends is thrown away
// meanwhile. Closing a socket with unread bytes in it sends a reset, which may
// overtake the refusal.
const (
	farewellTimeout = time.Second
	farewellBytes   = 64 << 10
)

// tell sends a refused client the words that it may know, where it can hear
// them: inside TLS, or in clear as the answer to a packet sent in clear.
func (c *session) tell(err error) {
	var r *Refusal
	if !errors.As(err, &r) || !c.heard {
		return
	}
	sqlstate, text := r.Message()
	if sqlstate == "" {
		return
	}
	message := pgwire.Fatal(sqlstate, text, "")
	if v := c.version >> 16; v == 1 || v == 2 {
		message = pgwire.FatalV2(text)
	}
	var conn net.Conn = c.wire
	if c.tls != nil {
		conn = c.tls
	}
	_ = conn.SetDeadline(time.Now().Add(farewellTimeout))
	_, _ = conn.Write(message)
}

// close closes both legs. The client gets its close_notify and an orderly end,
// unless it is refused with a reset.
func (c *session) close() {
	c.mu.Lock()
	if c.backend != nil {
		_ = c.backend.Close()
	}
	c.mu.Unlock()
	if c.drop {
		if c.policy.SourceRefusal == Reset {
			_ = c.wire.socket.(*net.TCPConn).SetLinger(0)
		}
		_ = c.wire.Close()
		return
	}
	_ = c.wire.SetDeadline(time.Now().Add(farewellTimeout))
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	if c.wire.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.wire.socket, farewellBytes)
	}
	_ = c.wire.Close()
}

// account counts the connection and writes its one line in the log.
func (c *session) account(o Outcome, err error) {
	f := outcomes[o]
	message := "session ended"
	switch {
	case c.open:
		c.server.metrics.Ended(c.id, f.label)
	case o >= CancelForwarded:
		message = "cancel request"
		c.server.metrics.Cancelled(f.label)
	default:
		message = "connection refused"
		c.server.metrics.Refused(c.id, f.label, f.tls)
	}
	c.remember(o, err)
	if ctx := context.Background(); c.server.log.Enabled(ctx, f.level) {
		c.server.log.LogAttrs(ctx, f.level, message, c.facts(o, err)...)
	}
}

// facts are what an auditor asks of a connection. Nothing of a certificate
// that was refused is left out: whose it claims to be is what matters then.
func (c *session) facts(o Outcome, err error) []slog.Attr {
	attrs := []slog.Attr{
		slog.Uint64("session", c.id),
		slog.String("client", c.source.String()),
		slog.String("listener", c.request.Listener),
		slog.String("outcome", o.String()),
	}
	if c.proxy.IsValid() {
		attrs = append(attrs, slog.String("proxy", c.proxy.String()))
	}
	var r *Refusal
	if errors.As(err, &r) && r.Detail != "" {
		attrs = append(attrs, slog.String("reason", printable(r.Detail)))
	}
	if c.state.Version != 0 {
		attrs = append(attrs,
			slog.String("tls_version", tls.VersionName(c.state.Version)),
			slog.String("tls_cipher", tls.CipherSuiteName(c.state.CipherSuite)),
			slog.String("tls_group", metrics.GroupName(c.state.CurveID)),
			slog.String("sni", printable(c.state.ServerName)),
			slog.String("alpn", c.state.NegotiatedProtocol))
		if id := c.request.Certificate; id != nil {
			attrs = append(attrs, certificateFacts(id)...)
		}
	}
	if c.version != 0 {
		attrs = append(attrs,
			slog.String("user", printable(c.request.User)),
			slog.String("database", printable(c.request.Database)),
			slog.String("application_name", printable(c.application)))
	}
	if c.request.Replication != acl.NoReplication {
		attrs = append(attrs, slog.String("replication", c.request.Replication.String()))
	}
	if c.rule != "" {
		attrs = append(attrs, slog.String("rule", c.rule))
	}
	if login := c.relayed.login; login.PID != 0 {
		attrs = append(attrs, slog.Uint64("backend_pid", uint64(login.PID)))
	} else if login.SQLSTATE != "" {
		attrs = append(attrs, slog.String("sqlstate", login.SQLSTATE))
		if login.Binding && !login.Authenticated && login.SQLSTATE == policy { // a wrong password is 28P01
			attrs = append(attrs, slog.String("hint", bindingHint))
		}
	}
	return append(attrs,
		slog.Int64("bytes_from_client", c.relayed.up),
		slog.Int64("bytes_to_client", c.relayed.down),
		slog.Float64("duration_seconds", time.Since(c.began).Seconds()))
}

// bindingHint is for a client that has bound its password to the certificate it
// sees (SCRAM-SHA-256-PLUS), which is not the one that the backend shows.
const bindingHint = "the client may have bound its password to this gate's certificate: set channel_binding=disable in the client, " +
	"reach PostgreSQL over a Unix socket, or let the gate show PostgreSQL's certificate"

func certificateFacts(id *acl.Identity) []slog.Attr {
	return []slog.Attr{
		slog.String("cert_subject", id.DN),
		slog.String("cert_issuer", id.Issuer),
		slog.String("cert_serial", id.Serial),
		slog.String("cert_sha256", id.SHA256),
		slog.Any("cert_san_dns", allPrintable(id.DNS)),
		slog.Any("cert_san_email", allPrintable(id.Email)),
		slog.Any("cert_san_uri", allPrintable(id.URI)),
		slog.Any("cert_san_ip", id.IP),
	}
}

// printable escapes what a terminal or a log reader could take for more than
// text. slog escapes what its format requires, which leaves DEL and the C1
// controls. A backslash is escaped, too, or one that was sent could not be told
// from one of ours.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == '\\' || r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func allPrintable(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = printable(s)
	}
	return out
}
