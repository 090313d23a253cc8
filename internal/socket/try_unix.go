//go:build unix

package socket

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TryBind reports whether Listen would get the address, without listening: clients that
// connect meanwhile are refused as before, and a process that opens the address at the
// same moment gets it. shared is for ListenShared.
func TryBind(address string, shared bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), ZoneId: zone(ap.Addr()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	options := []int{unix.SO_REUSEADDR} // as net sets it: what has been closed a moment ago is free
	if shared {
		options = append(options, unix.SO_REUSEPORT)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 {
		only := 1
		if ap.Addr().IsUnspecified() {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	return unix.Bind(fd, to)
}

// zone returns the number of the interface that a link-local address names.
func zone(a netip.Addr) uint32 {
	if i, err := net.InterfaceByName(a.Zone()); a.Zone() != "" && err == nil {
		return uint32(i.Index)
	}
	return 0
}
