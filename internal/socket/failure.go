package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"syscall"
)

// Failure explains why an address could not be opened, with what to do.
func Failure(address string, err error) error {
	port := uint16(0)
	if ap, e := netip.ParseAddrPort(address); e == nil {
		port = ap.Port()
	}
	const lowest = 1024 // that everybody may open, by default (net.ipv4.ip_unprivileged_port_start)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another process, which ss -ltnp shows", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this machine has no address %s, which ip addr would show", address)
	case errors.Is(err, fs.ErrPermission) && port < lowest:
		return fmt.Errorf("%s needs a privilege, as its port is below %d: start the gate as root with an account in user, or with CAP_NET_BIND_SERVICE (AmbientCapabilities= of a systemd unit)", address, lowest)
	}
	return fmt.Errorf("%s: %w", address, err)
}
