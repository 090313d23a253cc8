package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"pgwicket/config"
	"pgwicket/internal/account"
	"pgwicket/internal/certs"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/socket"
	"pgwicket/internal/status"
	"pgwicket/internal/unixsocket"
	"pgwicket/internal/upgrade"
	"pgwicket/tlsconfig"
)

// admin answers requests: at an address, which only shows the state of the gate, and
// at a Unix socket, which only root and the account of the gate can open, and which
// therefore also acts.
type admin struct {
	upgrade   upgrades
	servers   []*http.Server
	conns     []*adminConns // of each server
	listeners []net.Listener
	socket    string      // its path; empty: none
	file      fs.FileInfo // of this gate; nil: do not remove it
}

func (a *admin) add(ln net.Listener, conns *adminConns, s *http.Server) {
	a.listeners, a.conns, a.servers = append(a.listeners, ln), append(a.conns, conns), append(a.servers, s)
}

// close ends every request, and removes the socket unless another process has
// replaced it.
func (a *admin) close() {
	for i, s := range a.servers {
		_ = s.Close()
		_ = a.listeners[i].Close() // a server that has not started does not know its listener
	}
	if st, err := os.Lstat(a.socket); a.file != nil && err == nil && os.SameFile(st, a.file) {
		_ = os.Remove(a.socket) // if it may; the next start replaces an unused socket
	}
}

// openAdmin opens the address and the socket. account is the one that the gate will
// become; nil: it stays.
func (g *Gate) openAdmin(account *sandbox.Account) error {
	at := g.started.Admin
	if at.Address != "" {
		ln, err := g.openAdminAddress(at.Address)
		if err != nil {
			return fmt.Errorf("%s: %w", g.where("admin.address", at.Line), socket.Failure(at.Address, err))
		}
		bounded := boundConns(ln, upgrade.Socket{Role: upgrade.RoleAdminAddress, Address: at.Address})
		if ln = bounded; at.TLS != nil {
			ln = tls.NewListener(ln, &tls.Config{GetConfigForClient: g.adminConfig, MinVersion: tls.VersionTLS12})
		}
		g.admin.add(ln, bounded, g.adminServer(g.addressHandler(), bounded, time.Minute))
	}
	if at.Socket != "" {
		ln, err := g.openAdminSocket(at.Socket, account)
		if err != nil {
			return fmt.Errorf("admin.socket: %w", err)
		}
		g.admin.socket = at.Socket
		if g.Predecessor == nil { // else the socket is that of the process before until this one serves
			g.ownSocket()
		}
		bounded := boundConns(ln, upgrade.Socket{Role: upgrade.RoleAdminSocket, Address: at.Socket})
		g.admin.add(bounded, bounded, g.adminServer(g.socketHandler(), bounded, MaxReload))
	}
	return nil
}

// ownSocket has close remove the socket.
func (g *Gate) ownSocket() {
	if g.admin.socket != "" && !g.started.ReusePort { // else it may be that of another gate at any moment
		g.admin.file, _ = os.Lstat(g.admin.socket)
	}
}

// MaxReload is how long a request for a reload may take: lists may be large, and a
// passphrase command slow.
const MaxReload = 5 * time.Minute

func (g *Gate) adminServer(h http.Handler, conns *adminConns, answerWithin time.Duration) *http.Server {
	return &http.Server{
		ConnState:         conns.follow,
		ConnContext:       withVerdict,
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerWithin,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug),
	}
}

func (g *Gate) openAdminSocket(path string, owner *sandbox.Account) (net.Listener, error) {
	if f := g.Predecessor.Take(upgrade.RoleAdminSocket, path); f != nil {
		defer f.Close()
		return net.FileListener(f)
	}
	return unixsocket.Listen(path, (*account.Account)(owner), g.started.ReusePort)
}

func (g *Gate) openAdminAddress(address string) (net.Listener, error) {
	if f := g.Predecessor.Take(upgrade.RoleAdminAddress, address); f != nil {
		defer f.Close()
		return net.FileListener(f)
	}
	var lc net.ListenConfig
	if g.started.ReusePort {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return socket.SharePort(c) }
	}
	return lc.Listen(context.Background(), "tcp", address)
}

func (g *Gate) serveAdmin() {
	for i, s := range g.admin.servers {
		go func() {
			if err := s.Serve(g.admin.listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				g.fail(fmt.Errorf("admin: %w", err))
			}
		}()
	}
}

// adminConfig is admin.tls as last loaded.
func (g *Gate) adminConfig(*tls.ClientHelloInfo) (*tls.Config, error) {
	config := g.published.Load().adminTLS.Config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return config, nil
}

// addressHandler serves what can be read. It never acts: a client that reaches the
// address need not be an administrator (CVE-2026-6667).
func (g *Gate) addressHandler() http.Handler {
	series := g.Metrics.Handler(g.ready)
	page, json := status.Page(g.show), status.JSON(g.show)
	// With TLS the certificate has the name, and DNS rebinding gets no connection.
	byHost := func(h http.Handler) http.Handler { return status.ByHost(g.adminHosts, h) }
	ap, err := netip.ParseAddrPort(g.started.Admin.Address)
	loopback := err == nil && ap.Addr().IsLoopback()
	if g.started.Admin.TLS == nil && !loopback {
		page, json = byHost(page), byHost(json)
	}
	mux := http.NewServeMux()
	mux.Handle("/", series) // probes need no certificate, as a kubelet has none
	mux.Handle("GET /metrics", g.authorized(series))
	mux.Handle("GET /{$}", g.authorized(page))
	mux.Handle("GET /status.json", g.authorized(json))
	// Only programs of this machine reach a loopback address, browsers included. Elsewhere
	// Prometheus may use any name, and a firewall or TLS decides who reaches the address.
	if g.started.Admin.TLS == nil && loopback {
		return byHost(mux)
	}
	return mux
}

// adminHosts returns admin.hosts as last loaded.
func (g *Gate) adminHosts() []string { return g.published.Load().config.Admin.Hosts }

// verdict is what admin.tls says of the client of a connection. Only the goroutine of the
// connection uses it, as HTTP/1.1 serves one request after another.
type verdict struct {
	by  *tlsconfig.Server // nil: none yet
	at  time.Time
	err error
}

// verdictLifetime is how long a verdict holds without a reload: certificates expire.
const verdictLifetime = time.Minute

type verdictKey struct{}

// withVerdict is the ConnContext of the servers.
func withVerdict(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*adminConn); ok {
		ctx = withOperator(ctx, c.Conn)
	}
	return context.WithValue(ctx, verdictKey{}, new(verdict))
}

// authorized serves the clients that admin.tls in force allows. It verifies the
// certificate once for each connection, after a reload, and each minute.
func (g *Gate) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			next.ServeHTTP(w, r)
			return
		}
		v := r.Context().Value(verdictKey{}).(*verdict)
		if server, now := g.published.Load().adminTLS, time.Now(); v.by != server || now.Sub(v.at) >= verdictLifetime {
			_, err := server.Verify(*r.TLS, certs.DER(r.TLS.PeerCertificates), now)
			*v = verdict{by: server, at: now, err: err}
			if v.err != nil {
				g.Refusals.Warn("admin request refused", "client", r.RemoteAddr, "path", r.URL.Path, "reason", v.err.Error())
			}
		}
		if v.err != nil {
			_, public := config.Refusal(v.err).Message()
			status.Refuse(w, http.StatusForbidden, "Refused: "+public+".")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// socketHandler serves the same and the commands.
func (g *Gate) socketHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", g.Metrics.Handler(g.ready))
	mux.Handle("GET /{$}", status.Page(g.show))
	mux.Handle("GET /status.json", status.JSON(g.show))
	mux.HandleFunc("GET "+SessionsPath, g.serveSessions)
	mux.HandleFunc("GET "+BackoffsPath, g.serveBackoffs)
	mux.HandleFunc("POST "+LiftBackoffsPath, g.admin.upgrade.commands.Serve(g.serveLiftBackoffs))
	mux.HandleFunc("POST "+ReloadPath, g.serveReload)
	mux.HandleFunc("POST "+TerminatePath, g.admin.upgrade.commands.Serve(g.serveTerminate))
	mux.HandleFunc("GET "+LocksPath, g.serveLocks)
	mux.HandleFunc("POST "+LockPath, g.admin.upgrade.commands.Serve(g.serveLock))
	mux.HandleFunc("POST "+UnlockPath, g.admin.upgrade.commands.Serve(g.serveUnlock))
	mux.HandleFunc("GET "+upgrade.Path, g.servePlan)
	mux.HandleFunc("POST "+upgrade.Path, g.serveUpgrade)
	return mux
}

// serveReload makes wait reload, as a signal does, and answers with the result.
func (g *Gate) serveReload(w http.ResponseWriter, r *http.Request) {
	done := make(chan reloadAnswer, 1)
	select {
	case g.requests <- reloadRequest{isForwarded(r.Context()), done}:
	case <-r.Context().Done():
		return
	}
	select {
	case a := <-done:
		switch {
		case errors.Is(a.err, errElsewhere):
			http.Error(w, a.err.Error(), http.StatusServiceUnavailable)
		case a.err != nil:
			http.Error(w, a.err.Error(), http.StatusConflict)
		default:
			status.WriteJSON(w, g.reloadBefore(a.result))
		}
	case <-r.Context().Done():
	}
}
