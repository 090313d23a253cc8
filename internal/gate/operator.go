package gate

import (
	"context"
	"net"

	"pgwicket/internal/upgrade"
)

type operatorKey struct{}

// withOperator keeps who is at the other end of a connection to the admin socket, as the
// kernel says.
func withOperator(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, operatorKey{}, peerOf(c))
	}
	return ctx
}

// operator returns who has sent a request, for the log and the locks.
func operator(ctx context.Context) string {
	if by, forwarded := upgrade.ForwardedBy(ctx); forwarded && by != "" {
		return by
	}
	if text, ok := ctx.Value(operatorKey{}).(string); ok {
		return text
	}
	return unknownOperator
}

const unknownOperator = "unknown"
