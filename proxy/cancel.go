package proxy

import (
	"context"
	"io"
	"time"

	"pgwicket/internal/pgwire"
)

// cancelTimeout bounds the life of a CancelRequest. PostgreSQL answers one by
// closing, within milliseconds.
const cancelTimeout = 5 * time.Second

// forwardCancel hands a CancelRequest to the backend byte for byte and waits
// for its orderly end, which is all the answer there is: to libpq a byte or a
// reset is a failure.
//
// psql's Ctrl-C sends it on a new connection and, up to libpq 18, always in
// clear, so no certificate can be asked for; one that is shown must be good.
// The key is the authorisation, as in PostgreSQL.
func (c *session) forwardCancel(ctx context.Context, packet pgwire.Packet) (Outcome, error) {
	c.heard = false // no reply, whatever happens
	c.giveBack()    // it is in nobody's place
	policy := c.server.policy.Load()
	if err := policy.admitsSource(&c.request); err != nil {
		return refused(err)
	}
	if len(c.state.PeerCertificates) > 0 {
		if err := policy.admits(&c.request, c.state, time.Now()); err != nil {
			return refused(err)
		}
	}
	if policy.KnownCancelsOnly && !c.server.knows(packet.CancelKey()) {
		return CancelUnknownKey, nil
	}
	defer c.server.cancels.Add(-1)
	if c.server.cancels.Add(1) > int64(policy.MaxCancelRequests) {
		return CancelOverLimit, nil
	}
	backend, err := c.dial(ctx, policy)
	if err != nil {
		return CancelFailed, refuse(CancelFailed, err.Error())
	}
	_ = backend.SetDeadline(time.Now().Add(cancelTimeout))
	if _, err := backend.Write(packet.Bytes()); err != nil {
		return CancelFailed, refuse(CancelFailed, err.Error())
	}
	// The end of the stream is the backend's «done»; how it ends is not ours
	// to judge.
	_, _ = io.Copy(io.Discard, backend)
	return CancelForwarded, nil
}

// stopQuery cancels what the backend of an ended session is still doing.
// PostgreSQL only notices that its client has gone when it writes, and a DELETE
// of a revoked client would run to its end.
func (s *Server) stopQuery(login pgwire.Login) {
	if login.PID == 0 || len(login.Key) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancel()
	backend, err := s.policy.Load().Backend.dial(ctx)
	if err != nil {
		return // then it has nobody to go on for either
	}
	defer backend.Close()
	_ = backend.SetDeadline(time.Now().Add(cancelTimeout))
	if _, err := backend.Write(pgwire.Cancel(login.PID, login.Key)); err == nil {
		_, _ = io.Copy(io.Discard, backend)
	}
}
