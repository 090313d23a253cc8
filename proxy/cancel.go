package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
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
	hosts := policy.Hosts() // whoever else's session it may be for
	if h := c.server.knows(packet.CancelKey()); h != nil {
		hosts = []*Host{h}
	} else if policy.KnownCancelsOnly {
		return CancelUnknownKey, nil
	}
	defer c.server.cancels.Add(-1)
	if c.server.cancels.Add(1) > int64(policy.MaxCancelRequests) {
		return CancelOverLimit, nil
	}
	var failures []error
	for _, h := range hosts {
		backend, err := c.connect(ctx, func(ctx context.Context) (*upstream, error) { return h.connect(ctx, cancelTimeout) })
		if err == nil {
			err = backend.cancel(packet.Bytes())
			_ = backend.Close()
		}
		failures = append(failures, err)
	}
	if slices.Contains(failures, nil) {
		return CancelForwarded, nil
	}
	return CancelFailed, refuse(CancelFailed, errors.Join(failures...).Error())
}

// Hosts returns those of every backend.
func (p *Policy) Hosts() (all []*Host) {
	add := func(b *Backend) {
		for i := range b.Hosts {
			all = append(all, &b.Hosts[i])
		}
	}
	if p.Backend != nil {
		add(p.Backend)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Backends)) {
		add(p.Backends[name])
	}
	return all
}

// cancel sends a CancelRequest. The end of the stream is the backend's «done»;
// how it ends is not ours to judge.
func (u *upstream) cancel(packet []byte) error {
	_ = u.SetDeadline(time.Now().Add(cancelTimeout))
	if _, err := u.Write(packet); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, u)
	return nil
}

// stopQuery cancels what the backend of an ended session is still doing.
// PostgreSQL only notices that its client has gone when it writes, and a DELETE
// of a revoked client would run to its end.
func (h *Host) stopQuery(login pgwire.Login) {
	if login.PID == 0 || len(login.Key) == 0 {
		return
	}
	backend, err := h.connect(context.Background(), cancelTimeout)
	if err != nil {
		return // then it has nobody to go on for either
	}
	defer backend.Close()
	_ = backend.cancel(pgwire.Cancel(login.PID, login.Key))
}
