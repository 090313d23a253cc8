//go:build !linux

package adminclient

import "net"

// listenerOf knows nothing.
func listenerOf(net.Conn) (uid int, known bool) { return 0, false }
