package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/socket"
	"pgwicket/internal/upgrade"
	"pgwicket/proxy"
)

// listen opens every address before the first is served: a gate has all of them or
// does not start.
func (g *Gate) listen(account *sandbox.Account) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close()
			}
		}
	}()
	for i, address := range g.started.Listen {
		ln, err := g.open(address)
		if err != nil {
			return listeners, fmt.Errorf("%s: %w", g.where(fmt.Sprintf("listen[%d].address", i), g.started.ListenLines[i]), socket.Failure(address, err))
		}
		listeners = append(listeners, ln)
	}
	return listeners, g.openAdmin(account)
}

// where names a key with its file and line, or the variable that sets it.
func (g *Gate) where(key string, line int) string {
	if line == 0 {
		return config.Variable(key)
	}
	return fmt.Sprintf("%s:%d: %s", g.Path, line, key)
}

// open listens on an address, unless the service manager has passed its socket.
func (g *Gate) open(address string) (net.Listener, error) {
	timeout := g.started.TCPUserTimeout
	if f, ok := g.Sockets[address]; ok {
		return socket.Inherit(f, timeout)
	}
	if f := g.Predecessor.Take(upgrade.RoleActivated, address); f != nil {
		return socket.Inherit(f, timeout)
	}
	if f := g.Predecessor.Take(upgrade.RoleListener, address); f != nil {
		return socket.Adopt(f, timeout)
	}
	if g.started.ReusePort {
		return socket.ListenShared(context.Background(), address, timeout)
	}
	return socket.Listen(context.Background(), address, timeout)
}

// serve starts to accept.
func (g *Gate) serve(listeners []net.Listener) {
	g.serveAdmin()
	if g.started.ReusePort || slices.ContainsFunc(listeners, socket.Activated) {
		g.server.HandOver()
	}
	for _, ln := range listeners {
		go func() {
			if err := g.server.Serve(ln); !errors.Is(err, proxy.ErrServerClosed) {
				g.fail(err)
			}
		}()
	}
}

func (g *Gate) fail(err error) {
	select {
	case g.failures <- err:
	default: // the first one ends the gate
	}
}

// confine gives up what the gate does not need any more: root, if root has started it,
// then everything outside of its sandbox. Every listener must be open, and no
// connection accepted yet.
func (g *Gate) confine(a *sandbox.Account, cfg *config.Config) (err error) {
	names, hosts := config.Names(g.Path), cfg.Policy.Hosts()
	if a != nil {
		if err := a.Become(); err != nil {
			return err
		}
		g.Log.Info("no longer root", "user", a.Name, "uid", a.UID, "gid", a.GID, "groups", a.Groups)
		a.WarnUnreadable(g.Log, names, hosts)
	}
	if g.Predecessor != nil && os.Geteuid() != 0 { // it has begun as the account that the process before may have become
		if err := sandbox.NoNewPrivileges(); err != nil {
			return err
		}
	}
	if !cfg.Landlock {
		g.Log.Info("no sandbox: landlock is false")
		return nil
	}
	o := sandbox.Options{Names: names, Hosts: hosts, Listen: cfg.Listen, Commands: cfg.RunsCommands}
	if cfg.StateDir != "" {
		o.Write = append(o.Write, cfg.StateDir)
	}
	if cfg.AuditFile != "" {
		o.Write = append(o.Write, filepath.Dir(cfg.AuditFile))
	}
	if !cfg.ReusePort { // else the socket may be another gate's at any moment
		o.Remove = cfg.Admin.Socket
	}
	g.sandbox, err = sandbox.Enter(g.Log, o)
	return err
}

// source names the configuration in the log.
func (g *Gate) source() string { return cmp.Or(g.Path, "environment") }

// Addresses returns those of all backends of a policy.
func Addresses(p *proxy.Policy) (all []string) {
	for _, h := range p.Hosts() {
		all = append(all, h.Address)
	}
	return all
}

// reusePortMigrates reports whether connections that a closing listener has not yet
// accepted move to another one on the same address. It is true where that cannot be
// read, in a sandbox or on another system.
func reusePortMigrates() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}
