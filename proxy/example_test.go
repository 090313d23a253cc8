package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/socket"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// A server that admits everybody from this machine, in front of a PostgreSQL that does not run.
func Example() {
	policy := &proxy.Policy{
		Networks: acl.NewNetworks([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil),
		TLS: &tls.Config{
			Certificates:           []tls.Certificate{testServer()},
			NextProtos:             []string{"postgresql"},
			SessionTicketsDisabled: true,
		},
		Verify:         func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) { return nil, nil },
		Backend:        &proxy.Backend{Hosts: []proxy.Host{{Network: "unix", Address: "/nonexistent/.s.PGSQL.5432"}}, ConnectTimeout: time.Second},
		StartupTimeout: 10 * time.Second,
	}
	server, err := proxy.New(proxy.Options{
		Policy: policy, Log: slog.New(slog.DiscardHandler), Refusals: slog.New(slog.DiscardHandler), Metrics: metrics.New("example"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := socket.Listen(context.Background(), "127.0.0.1:0", time.Minute)
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	answer := make([]byte, 1)
	_, _ = client.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}) // SSLRequest
	_, _ = client.Read(answer)
	fmt.Printf("the answer to an SSLRequest: %s\n", answer)
	_ = client.Close()

	fmt.Println("Shutdown:", server.Shutdown(context.Background()))
	fmt.Println("Serve:", <-served)
	// Output:
	// the answer to an SSLRequest: S
	// Shutdown: <nil>
	// Serve: proxy: server closed
}
