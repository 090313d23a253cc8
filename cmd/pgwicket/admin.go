package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pgwicket/internal/sandbox"
	"pgwicket/internal/status"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// admin is where the gate can be asked how it is: at an address, where there is
// nothing to be done, and by a Unix socket, which only the gate's own account and
// root can open, and which therefore does what it is asked.
type admin struct {
	servers   []*http.Server
	listeners []net.Listener
	socket    string      // its path; empty: none
	file      fs.FileInfo // that is ours; nil: it is to be left
}

func (a *admin) add(ln net.Listener, s *http.Server) {
	a.listeners, a.servers = append(a.listeners, ln), append(a.servers, s)
}

// close ends every request. The socket goes, too, unless somebody else has put
// another one into its place.
func (a *admin) close() {
	for i, s := range a.servers {
		_ = s.Close()
		_ = a.listeners[i].Close() // which a server that has not begun does not know
	}
	if st, err := os.Lstat(a.socket); a.file != nil && err == nil && os.SameFile(st, a.file) {
		_ = os.Remove(a.socket) // if it may; one that nobody listens on is replaced at the next start
	}
}

// openAdmin opens the address and the socket. account is what the gate is about
// to become; nil: it stays who it is.
func (g *gate) openAdmin(account *sandbox.Account) error {
	at := g.started.Admin
	if at.Address != "" {
		ln, err := g.openAdminAddress(at.Address)
		if err != nil {
			return fmt.Errorf("admin.address: %w", err)
		}
		if at.TLS != nil {
			ln = tls.NewListener(ln, &tls.Config{GetConfigForClient: g.adminConfig, MinVersion: tls.VersionTLS12})
		}
		g.admin.add(ln, g.adminServer(g.overTCP(), time.Minute))
	}
	if at.Socket != "" {
		ln, err := listenSocket(at.Socket, account, g.started.ReusePort)
		if err != nil {
			return fmt.Errorf("admin.socket: %w", err)
		}
		g.admin.socket = at.Socket
		if !g.started.ReusePort { // else it may be the other gate's at any moment
			g.admin.file, _ = os.Lstat(at.Socket)
		}
		g.admin.add(ln, g.adminServer(g.bySocket(), maxReload))
	}
	return nil
}

// maxReload is how long it may take from asking for one to its result: lists
// may be large, and a passphrase command slow.
const maxReload = 5 * time.Minute

func (g *gate) adminServer(h http.Handler, answerWithin time.Duration) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerWithin,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

func (g *gate) openAdminAddress(address string) (net.Listener, error) {
	var lc net.ListenConfig
	if g.started.ReusePort {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return proxy.SharePort(c) }
	}
	return lc.Listen(context.Background(), "tcp", address)
}

func (g *gate) serveAdmin() {
	for i, s := range g.admin.servers {
		go func() {
			if err := s.Serve(g.admin.listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				g.fail(fmt.Errorf("admin: %w", err))
			}
		}()
	}
}

// adminConfig is what the last load has made of admin.tls.
func (g *gate) adminConfig(*tls.ClientHelloInfo) (*tls.Config, error) {
	config := g.shown.Load().adminTLS.Config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return config, nil
}

// overTCP serves everything that can be read. Nothing can be done here: whoever
// reaches an address need not be who runs the gate (CVE-2026-6667).
func (g *gate) overTCP() http.Handler {
	series := g.metrics.Handler(g.ready.Load)
	page, json := status.Page(g.show), status.JSON(g.show)
	if g.started.Admin.TLS == nil { // else the name is in the certificate, and a page of another one gets no connection
		page, json = status.ByAddress(page), status.ByAddress(json)
	}
	mux := http.NewServeMux()
	mux.Handle("/", series) // the probes ask for no certificate, as a kubelet's have none
	mux.Handle("GET /metrics", g.known(series))
	mux.Handle("GET /{$}", g.known(page))
	mux.Handle("GET /status.json", g.known(json))
	return mux
}

// known lets those ask whom admin.tls lets in, by what is in force now.
func (g *gate) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			next.ServeHTTP(w, r)
			return
		}
		if err := g.shown.Load().adminTLS.Verify(*r.TLS, time.Now()); err != nil {
			public := "The connection is outside of what admin.tls allows."
			if c := (*tlsconfig.CertificateError)(nil); errors.As(err, &c) {
				public = "Not with this certificate: " + c.Public + "."
			}
			g.log.Warn("admin request refused", "client", r.RemoteAddr, "path", r.URL.Path, "reason", err.Error())
			status.Refuse(w, http.StatusForbidden, public)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bySocket serves the same to the gate's own account, and the commands.
func (g *gate) bySocket() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", g.metrics.Handler(g.ready.Load))
	mux.Handle("GET /{$}", status.Page(g.show))
	mux.Handle("GET /status.json", status.JSON(g.show))
	mux.HandleFunc("GET "+sessionsPath, g.serveSessions)
	mux.HandleFunc("POST "+reloadPath, g.serveReload)
	return mux
}

// serveReload has wait reload, as a signal does, and answers with the result.
func (g *gate) serveReload(w http.ResponseWriter, r *http.Request) {
	done := make(chan *status.Reload, 1)
	select {
	case g.asked <- done:
	case <-r.Context().Done():
		return
	}
	select {
	case result := <-done:
		if result == nil {
			http.Error(w, "the gate is shutting down and reloads nothing any more", http.StatusConflict)
			return
		}
		status.WriteJSON(w, result)
	case <-r.Context().Done():
	}
}

// listenSocket makes a Unix socket that only the account (nil: this one) can
// open. It takes its place at once and whole, by a rename: so nobody meets it with
// another mode, one that a killed gate has left is no hindrance, and with shared a
// gate takes over from another one without a gap.
func listenSocket(path string, a *sandbox.Account, shared bool) (ln net.Listener, err error) {
	if err := vacant(path, shared); err != nil {
		return nil, err
	}
	spare := filepath.Join(filepath.Dir(path), fmt.Sprintf(".pgwicket-%d", os.Getpid()))
	_ = os.Remove(spare) // of a process with this number that was killed
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// Linux makes the file with the mode of the socket; elsewhere the next steps must do.
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), ownerOnly) })
	}}
	if ln, err = lc.Listen(context.Background(), "unix", spare); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; give it a directory of its own that this account may write to", err)
		}
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove the name that it has no longer
	err = os.Chmod(spare, ownerOnly)
	if err == nil && a != nil {
		err = os.Lchown(spare, a.UID, a.GID)
	}
	if err == nil {
		err = os.Rename(spare, path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(spare)
		return nil, err
	}
	return ln, nil
}

const ownerOnly = 0o600

// vacant says whether a socket can be put at a path: where nothing is, where
// nobody listens any more, or where another gate is to be followed.
func vacant(path string, shared bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket; remove it, or name another path", path)
	case shared:
		return nil
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%s is in use by another process; stop it, or name another path", path)
}
