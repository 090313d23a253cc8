// Package systemd speaks the protocols of a service manager: sockets that it passes
// (LISTEN_FDS), notifications and the watchdog (NOTIFY_SOCKET),
// and the drop-in by which it filters addresses.
//
// Only this package imports go-systemd. It may import proxy, whose policy the
// address filter is made from. Without a service manager, everything here does
// nothing.
package systemd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// Sockets are the listening sockets that the service manager has passed to this
// process, by their addresses.
type Sockets map[string]*os.File

// PassedSockets returns the passed sockets; none without a service manager. It must
// be called before any other program is started, which would inherit them.
func PassedSockets() (Sockets, error) {
	sockets := make(Sockets)
	for _, f := range activation.Files(true) {
		address, err := addressOf(f)
		if err == nil && sockets[address] != nil {
			err = fmt.Errorf("%s is passed twice", address)
		}
		if err != nil {
			return nil, fmt.Errorf("socket %s, passed by the service manager: %w", f.Name(), err)
		}
		sockets[address] = f
	}
	return sockets, nil
}

func addressOf(f *os.File) (string, error) {
	ln, err := net.FileListener(f) // a copy
	if err != nil {
		return "", err
	}
	defer ln.Close()
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("%s %s is not a TCP socket", ln.Addr().Network(), ln.Addr())
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String(), nil
}

// CheckUsed returns an error that names the sockets whose addresses are not among
// these.
func (s Sockets) CheckUsed(addresses []string) error {
	var unused []string
	for address, f := range s {
		if !slices.Contains(addresses, address) {
			unused = append(unused, fmt.Sprintf("%s (%s)", address, f.Name()))
		}
	}
	if len(unused) == 0 {
		return nil
	}
	return fmt.Errorf("the service manager has passed sockets that listen does not name: %s; listen names %s, and ListenStream= of the socket unit must agree with it",
		strings.Join(unused, ", "), strings.Join(addresses, ", "))
}
