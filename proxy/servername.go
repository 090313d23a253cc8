package proxy

import (
	"errors"
	"fmt"

	"pgwicket/internal/handshake"
	"pgwicket/internal/printable"
)

// maxServerName is how much of a server name the log shows; DNS allows 253 bytes.
const maxServerName = 253

// explainName adds to a connection that was closed right after the handshake that the
// client has asked for a name that no certificate of the gate has: libpq with
// sslmode=verify-full finds that out when the handshake is over, and sends no alert.
func (c *conn) explainName(err error) error {
	var r *Refusal
	name := c.peer.tls.ServerName
	if !errors.As(err, &r) || r.Outcome != Probe || name == "" || handshake.ServesName(c.policy.TLS, name) {
		return err
	}
	c.peer.rejectsName = true
	return refuse(Probe, fmt.Sprintf("closed after the TLS handshake: the client asked for %q, and no certificate of the gate has that name, so sslmode=verify-full rejects it",
		printable.Clip(name, maxServerName, len(name))))
}
