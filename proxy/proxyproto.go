package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/proxyheader"
	"pgwicket/internal/relay"
)

// The PROXY protocol, with which a load balancer says for whom it speaks, as
// HAProxy's proxy-protocol.txt has it. A peer that may send a header may be any
// client, so trust has no default (caddyserver/caddy#5915, minekube/gate#936,
// netbirdio/netbird#5332, pires/go-proxyproto#11 and #131): from a listed load balancer a header
// is required, from anybody else it is refused.

// readProxyHeader learns where a connection really comes from, if a load balancer has
// passed it on. What a load balancer opens for itself (LOCAL, UNKNOWN, or its own
// end of the connection, as HAProxy's checks have it in version 1) is its own:
// nearly always a health check, which ends here.
func (c *conn) readProxyHeader() error {
	if !c.policy.Trusts(c.peer.request.Listener, c.peer.request.Source) {
		return nil
	}
	header, err := c.server.limiter.AwaitHeader(c.policy.Limits, c.peer.request.Source, time.Now(), c.session.evict)
	if err != nil {
		c.silent = true
		return err
	}
	c.header = header // until it has a ticket, or ends
	timeout := c.policy.StartupTimeout
	if own := c.policy.ProxyHeaderTimeout; own > 0 {
		timeout = min(timeout, own)
	}
	_ = c.socket.SetDeadline(c.peer.accepted.Add(timeout))
	source, rest, err := proxyheader.Read(c.socket)
	if err != nil {
		return proxyRefusal(err)
	}
	c.socket.Unread(rest)
	if !source.IsValid() || source == c.peer.source {
		// Its address need not be in acl.allow as long as it sends nothing more
		// (kubernetes/kubernetes#57250).
		_ = c.socket.SetDeadline(c.startupDeadline())
		c.balancer = true
		_, err := c.firstByte()
		return err
	}
	c.peer.proxied(source)
	return nil
}

// judge is Policy.Judge, for the load balancer, too: what it has said counts for
// as long as it is trusted.
//
// The certificate is judged as of certAt; the zero time says that by has just verified it.
func (p *peer) judge(by *Policy, at, certAt time.Time) (*acl.Rule, error) {
	if p.proxy.IsValid() && !by.Trusts(p.request.Listener, p.proxy.Addr()) {
		return nil, &Refusal{
			Outcome: outcome.ProxyHeaderRefused,
			Public:  "the load balancer that it came by is not allowed any more",
			Detail:  "the load balancer is not in proxy_protocol_from any more",
		}
	}
	if !certAt.IsZero() {
		if err := by.Admits(&p.request, p.tls.state(p.request.SNI), p.tls.certificates, certAt); err != nil {
			return nil, err
		}
	}
	return by.JudgeVerified(&p.request, at)
}

// unexpectedProxyHeader reports whether a PROXY header comes where a packet
// should: from somebody who is not trusted, or behind another. No startup packet
// begins like one.
func (c *conn) unexpectedProxyHeader(first byte) bool {
	for _, signature := range proxyheader.Signatures() {
		if first == signature[0] && c.socket.HasPrefix(signature) {
			return true
		}
	}
	return false
}

// proxyRefusal says why a header could not be read.
func proxyRefusal(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return refuse(outcome.Probe, "closed before it sent a PROXY header")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(outcome.ProxyHeaderInvalid, "no complete PROXY header in time")
	case errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return refuse(outcome.ProxyHeaderInvalid, "closed in the middle of its PROXY header")
	}
	return refuse(outcome.ProxyHeaderInvalid, err.Error())
}
