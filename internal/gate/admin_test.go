package gate

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/config"
	"pgwicket/internal/tlstest"
	"pgwicket/internal/upgrade"
	"pgwicket/tlsconfig"
)

// serveBounded serves h on a bounded listener, until the test ends.
func serveBounded(t *testing.T, h http.Handler, limit int, answerWithin time.Duration) (address string, conns *adminConns) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = boundConns(ln, upgrade.Socket{})
	conns.max = limit
	g := &Gate{Options: Options{Log: slog.New(slog.DiscardHandler)}}
	s := g.adminServer(h, conns, answerWithin)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(conns)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return ln.Addr().String(), conns
}

// get sends a request on a connection and reads the answer.
func get(t *testing.T, conn net.Conn) (string, error) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return "", err
	}
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// However many connections without a request there are, a new client is served, and few
// are open.
func TestAdminConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	address, conns := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") }), maxAdminConnections, time.Minute)
	for i := range 1010 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			if answer, err := get(t, conn); !strings.HasSuffix(answer, "fine") {
				t.Fatalf("connection %d: %q, %v", i, answer, err)
			}
		}
	}
	last, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if answer, err := get(t, last); !strings.HasSuffix(answer, "fine") {
		t.Errorf("%q, %v", answer, err)
	}
	conns.mu.Lock()
	defer conns.mu.Unlock()
	if len(conns.open) > maxAdminConnections {
		t.Errorf("%d connections are open", len(conns.open))
	}
}

// A connection that is answering a request stays, and when all are, a new one is closed.
func TestAdminRequestsStay(t *testing.T) {
	t.Parallel()
	began, finish := make(chan struct{}), make(chan struct{})
	address, _ := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		began <- struct{}{}
		<-finish
		fmt.Fprint(w, "fine")
	}), 2, time.Minute)
	answers := make(chan string)
	for range 2 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			answer, _ := get(t, conn)
			answers <- answer
		}()
		<-began
	}
	third, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if answer, err := get(t, third); err == nil {
		t.Errorf("the third was served: %q", answer)
	}
	close(finish)
	for range 2 {
		if answer := <-answers; !strings.HasSuffix(answer, "fine") {
			t.Errorf("%q", answer)
		}
	}
}

// A client that sends its request slowly, or does not read its answer, has a bound in time.
func TestAdminSlowClients(t *testing.T) {
	t.Parallel()
	written := make(chan error, 1)
	address, _ := serveBounded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for range 1000 { // more than sockets hold
			if _, err = w.Write(make([]byte, 1<<20)); err != nil {
				break
			}
		}
		written <- err
	}), 10, time.Second)
	dial := func(text string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	dial("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	slow := dial("GET / HTTP/1.1\r\nHost: loc")
	select {
	case err := <-written:
		if err == nil {
			t.Error("all was written, although nobody has read it")
		}
	case <-time.After(30 * time.Second):
		t.Error("a client that does not read is waited for")
	}
	_ = slow.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Errorf("a client that does not end its request is waited for: %v", err)
	}
}

// The certificate is verified once for a connection, and again after a reload.
func TestAdminVerifiesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := tlstest.NewCA("admin CA")
	pair := ca.Server("127.0.0.1")
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := pair.WriteFiles(at("server.crt"), at("server.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("ca.crt"), ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func() *published {
		s, problems := tlsconfig.Load(tlsconfig.Options{CertFile: at("server.crt"), KeyFile: at("server.key"), CAFile: at("ca.crt")}, nil, nil, time.Now())
		if s == nil {
			t.Fatal(problems)
		}
		return &published{config: new(config.Config), adminTLS: s}
	}
	var log bytes.Buffer
	g := &Gate{Options: Options{Refusals: slog.New(slog.NewTextHandler(&log, nil))}}
	g.published.Store(load())
	s := httptest.NewUnstartedServer(g.authorized(http.NotFoundHandler()))
	s.Config.ConnContext = withVerdict
	s.TLS = g.published.Load().adminTLS.Config.Clone()
	s.TLS.NextProtos = []string{"http/1.1"}
	s.StartTLS()
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	request := func() {
		response, err := client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("status %d", response.StatusCode)
		}
	}
	for _, want := range []int{1, 2} {
		for range 5 {
			request()
		}
		if got := strings.Count(log.String(), "admin request refused"); got != want {
			t.Errorf("verified %d times, want %d", got, want)
		}
		g.published.Store(load())
	}
}
