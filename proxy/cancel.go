package proxy

import (
	"context"
	"errors"
	"slices"
	"time"

	"pgwicket/internal/backend"
	"pgwicket/internal/handshake"
	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
)

// forwardCancel hands a CancelRequest to the backend byte for byte and waits
// for its orderly end, which is all the answer there is: to libpq a byte or a
// reset is a failure.
//
// psql's Ctrl-C sends it on a new connection and, up to libpq 18, always in
// clear, so no certificate can be asked for; one that is shown must be good.
// The key is the authorisation, as in PostgreSQL.
func (c *conn) forwardCancel(ctx context.Context, packet pgwire.Packet) error {
	c.canSendError = false // no reply, whatever happens
	policy := c.server.policy.Load()
	if err := policy.AdmitsSource(&c.peer.request); err != nil {
		return err
	}
	if c.peer.request.Certificate != nil {
		if c.verdict.err != nil {
			return c.verdict.err
		}
		if err := policy.Admits(&c.peer.request, c.peer.tls.state(c.peer.request.SNI), c.peer.tls.certificates, c.server.now()); err != nil {
			return err
		}
	}
	if err := policy.AdmitsUnlocked(&c.peer.request, c.server.now()); err != nil {
		return err
	}
	keys, source := &c.server.cancelKeys, limit.SourceOf(c.peer.request.Source)
	hosts := policy.Hosts() // it may be for a session of another gate
	var ofKey *limit.KeyCancels
	if known := keys.Find(packet.CancelKey()); known != nil {
		hosts, ofKey = []*Host{known.Host}, &known.Cancels
	} else if policy.KnownCancelsOnly {
		return refuse(outcome.CancelUnknownKey, "")
	}
	if !keys.requests.Begin(ofKey, source, policy.MaxCancelRequests, time.Now()) {
		return refuse(outcome.CancelOverLimit, "")
	}
	defer keys.requests.End(ofKey, source)
	var failures []error
	for _, h := range hosts {
		all, err := h.Addresses(ctx, &c.server.failures, backend.CancelTimeout)
		if err != nil {
			failures = append(failures, err)
		}
		for _, one := range all {
			began := time.Now()
			err := one.Cancel(ctx, packet.Bytes(), func() { c.server.metrics.BackendConnected(c.peer.request.Session, time.Since(began)) })
			failures = append(failures, err)
		}
	}
	if slices.Contains(failures, nil) {
		return refuse(outcome.CancelForwarded, "")
	}
	return refuse(outcome.CancelFailed, errors.Join(failures...).Error())
}

// cancelKeys are the cancel keys of live sessions and the host of each, and what bounds
// CancelRequests.
type cancelKeys struct {
	requests *limit.Cancels
	ownSlots handshake.Slots // for those of sessions that are terminated
	backend.Keys
}
