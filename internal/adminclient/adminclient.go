// Package adminclient asks a running gate by its admin socket, or else by its admin address.
package adminclient

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"pgwicket/config"
	"pgwicket/internal/printable"
)

// Timeout is long enough for the answer of a busy gate.
const Timeout = 10 * time.Second

// Client sends requests to the gate of a configuration.
type Client struct {
	name     string // for messages
	base     string // of URLs
	http     *http.Client
	listener atomic.Int64 // the account behind the socket; negative: it is not known
}

// New returns a client of the gate with the configuration in file. It prefers the socket.
// With bySocket there is no other way: the address serves neither actions nor the names
// of clients.
func New(file string, bySocket bool) (*Client, error) {
	a, overTLS, problems := config.AdminOf(file)
	if len(problems) > 0 {
		return nil, errors.New(problems[0].String())
	}
	const line = "set admin.socket to a path such as /run/pgwicket/admin.sock, in a directory that the account of the gate may write to, and restart the gate"
	switch {
	case a.Socket != "":
		c := &Client{name: a.Socket, base: "http://pgwicket"}
		c.listener.Store(-1)
		c.http = httpClient(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", a.Socket)
			if uid, known := listenerOf(conn); err == nil && known {
				c.listener.Store(int64(uid))
			}
			return conn, err
		}})
		return c, nil
	case bySocket:
		return nil, fmt.Errorf("%s has no admin.socket, which this command needs; %s", file, line)
	case a.Address == "":
		return nil, fmt.Errorf("%s has neither admin.address nor admin.socket, so the gate cannot be asked; %s", file, line)
	}
	scheme := "http://"
	// Health is not secret, and the request stays on this machine, so the certificate
	// is not verified.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	if overTLS {
		scheme = "https://"
	}
	c := &Client{name: a.Address, base: scheme + reachable(a.Address), http: httpClient(transport)}
	c.listener.Store(-1)
	return c, nil
}

// Socket returns the path of the socket of a Client that has no other way.
func (c *Client) Socket() string { return c.name }

// Listener returns the account that has opened the socket, by the kernel, after Ask. Only Linux tells.
func (c *Client) Listener() (uid int, known bool) {
	uid = int(c.listener.Load())
	return uid, uid >= 0
}

func httpClient(t *http.Transport) *http.Client {
	t.DisableKeepAlives = true
	return &http.Client{Transport: t}
}

// reachable replaces an unspecified address by one that can be connected to.
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

// maxAnswer is far above the sessions of a full gate.
const maxAnswer = 64 << 20

// Ask returns the answer of the gate. A status other than 200 is an error.
func (c *Client) Ask(method, path string, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err, within)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, c.explain(err, within)
	case response.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("the server on %s has no %s; is it another release of pgwicket?", c.name, path)
	case response.StatusCode != http.StatusOK:
		lines := strings.Split(strings.TrimSpace(string(body)), "\n")
		for i, line := range lines {
			lines[i] = printable.Escape(line) // root may read it on a terminal
		}
		return nil, errors.New(strings.Join(lines, "\n"))
	}
	return body, nil
}

func (c *Client) explain(err error, within time.Duration) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing listens on %s; is the gate running with this configuration?", c.name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be opened; only root and the account of the gate can open it", c.name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %v", c.name, within)
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

// Ask sends one request by the socket of the gate with the configuration in file.
func Ask(file, method, path string, within time.Duration) ([]byte, error) {
	c, err := New(file, true)
	if err != nil {
		return nil, err
	}
	return c.Ask(method, path, within)
}

// Post sends an action by the socket, and reads the answer.
func Post(file, path string, query url.Values, answer any) error {
	text, err := Ask(file, http.MethodPost, path+"?"+query.Encode(), Timeout)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}
