//go:build !linux

package main

import (
	"context"
	"net"
)

// dialAs is Linux's: elsewhere a thread has no account of its own.
func dialAs(ctx context.Context, _ int, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}
