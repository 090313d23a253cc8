package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"pgwicket/config"
)

// door is where a command reaches the gate of a configuration.
type door struct {
	name   string // for messages
	base   string // of URLs
	client *http.Client
}

// findDoor prefers the socket. With bySocket it must be that: nothing can be done,
// and nobody's name be seen, by way of an address.
func findDoor(path string, bySocket bool) (*door, error) {
	a, overTLS, problems := config.AdminOf(path)
	if len(problems) > 0 {
		return nil, errors.New(problems[0].String())
	}
	const line = "write «socket: /run/pgwicket/admin.sock» below «admin:», a directory that the gate's account may write to, and restart the gate"
	switch {
	case a.Socket != "":
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", a.Socket)
		}
		return &door{a.Socket, "http://pgwicket", clientOf(&http.Transport{DialContext: dial})}, nil
	case bySocket:
		return nil, fmt.Errorf("%s has no admin.socket, which this is done by; %s", path, line)
	case a.Address == "":
		return nil, fmt.Errorf("%s has neither admin.address nor admin.socket, so the gate cannot be asked; %s", path, line)
	}
	scheme := "http://"
	// Health is no secret, and whose certificate it is does not matter: this is
	// asked of the machine itself, by the address that the gate listens on.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	if overTLS {
		scheme = "https://"
	}
	return &door{a.Address, scheme + reachable(a.Address), clientOf(transport)}, nil
}

func clientOf(t *http.Transport) *http.Client {
	t.DisableKeepAlives = true
	return &http.Client{Transport: t}
}

// reachable turns an address for everybody into one that can be connected to.
func reachable(address string) string {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().IsUnspecified() {
		return address
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if ap.Addr().Is6() {
		local = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(local, ap.Port()).String()
}

// answerLimit is far above the sessions of a full gate.
const answerLimit = 64 << 20

// ask returns what the gate answers. An answer other than 200 is an error, too.
func (d *door) ask(method, path string, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, d.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return nil, d.explain(err, within)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	switch {
	case err != nil:
		return nil, d.explain(err, within)
	case response.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("who listens on %s has no %s; is it a pgwicket of another release?", d.name, path)
	case response.StatusCode != http.StatusOK:
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}

func (d *door) explain(err error, within time.Duration) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nobody listens on %s; is the gate running, with this configuration?", d.name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be opened; only the account that the gate runs as can, and root", d.name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %v", d.name, within)
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

// complain prints why a command has failed.
func complain(s streams, command string, err error) int {
	fmt.Fprintf(s.err, "pgwicket %s: %v\n", command, err)
	return exitFailed
}
