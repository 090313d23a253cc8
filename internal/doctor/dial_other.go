//go:build !linux

package doctor

import (
	"context"
	"net"
)

// dialAs connects as this process: on other systems than Linux a thread cannot have
// an account that the process has not.
func dialAs(ctx context.Context, _ int, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}
