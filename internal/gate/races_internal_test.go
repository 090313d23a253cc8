package gate

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"syscall"
	"testing"

	"pgwicket/metrics"
	"pgwicket/proxy"
)

// A reload by the admin socket that was read before a new process has taken over, and is carried out after that, would
// seem to hold for new clients.
func TestReloadReadBeforeTheSwitch(t *testing.T) {
	t.Parallel()
	g := &Gate{requests: make(chan reloadRequest)}
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.serveReload(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, ReloadPath, http.NoBody))
	}()
	r := <-g.requests
	g.admin.upgrade.given.Store(true)
	r.answer <- g.reloadByCommand(r.forwarded)
	if <-done; w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

// Signals that reload do not displace one that stops.
func TestSignalsOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	g := new(Gate)
	g.admin.upgrade.begin()
	for range 10 {
		g.queueSignal(syscall.SIGHUP)
	}
	g.queueSignal(syscall.SIGTERM)
	select {
	case sig := <-g.admin.upgrade.told.stop:
		if sig != os.Signal(syscall.SIGTERM) {
			t.Error(sig)
		}
	default:
		t.Error("the gate goes on")
	}
	select {
	case <-g.admin.upgrade.told.reload:
	default:
		t.Error("the gate does not reload")
	}
}

// A gate that is told to stop while it takes its listeners back from an upgrade is not ready any more.
func TestNotReadyWhenStopping(t *testing.T) {
	t.Parallel()
	g := new(Gate)
	g.accepts.Store(true)
	if !g.ready() {
		t.Error("it is not ready")
	}
	g.stopping.Store(true)
	g.accepts.Store(true) // as resumeServing may do at any moment
	if g.ready() {
		t.Error("it is ready")
	}
}

// A probe of the watchdog that has begun while a new process took over does not report a gate that is well.
func TestWatchdogAfterAFailedUpgrade(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	server, err := proxy.New(proxy.Options{Policy: new(proxy.Policy), Log: log, Refusals: log, Metrics: metrics.New("test")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		<-served
	})
	g := &Gate{server: server}
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil { // the policy admits nobody
		t.Fatal("a byte has come")
	}
	server.PauseAccepting()
	g.admin.upgrade.under.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	probed := make(chan error, 1)
	begun := make(chan struct{})
	go func() { probed <- g.alive(probing{ctx, sync.OnceFunc(func() { close(begun) })}) }()
	<-begun
	g.admin.upgrade.under.Store(false)
	cancel()
	if err := <-probed; err != nil {
		t.Error(err)
	}
	server.ResumeAccepting()
	if err := g.alive(t.Context()); err != nil {
		t.Error(err)
	}
}

// probing is a context that closes begun when it is first waited for.
type probing struct {
	context.Context
	begun func()
}

func (p probing) Done() <-chan struct{} {
	p.begun()
	return p.Context.Done()
}
