package tlsrecord

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"testing"
)

// What a Layer does not speak stays with crypto/tls, also the bytes that were read ahead.
func TestStaysOnCryptoTLS(t *testing.T) {
	for name, change := range map[string]func(server, client *tls.Config){
		"CBC": func(s, c *tls.Config) {
			s.CipherSuites, s.MaxVersion = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, tls.VersionTLS12
		},
		"session tickets": func(s, c *tls.Config) {
			s.SessionTicketsDisabled = false
			c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		},
		"another configuration for the client": func(s, c *tls.Config) {
			other := s.Clone()
			s.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return other, nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			forServer, forClient := aes13.configs()
			forServer.MinVersion, forClient.MinVersion, forClient.CipherSuites = tls.VersionTLS12, tls.VersionTLS12, nil
			change(forServer, forClient)
			server := Server(&wire{Conn: a}, forServer)
			client := tls.Client(b, forClient)
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write([]byte("ahead"))
				sent <- err
			}()
			if err := server.Handshake(); err != nil {
				t.Fatal(err)
			}
			conn := server.Conn()
			if _, ok := conn.(*tls.Conn); !ok {
				t.Fatalf("the connection is a %T", conn)
			}
			got := make([]byte, 5)
			if _, err := conn.Read(got); err != nil || string(got) != "ahead" {
				t.Errorf("read %q, %v", got, err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

// In FIPS 140-3 mode, AES-GCM with nonces of ours is not what was certified.
func TestFIPS(t *testing.T) {
	if os.Getenv("TLSRECORD_FIPS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFIPS$")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=on", "TLSRECORD_FIPS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	a, b := net.Pipe()
	forServer, forClient := aes13.configs()
	forServer.CurvePreferences, forClient.CurvePreferences = nil, nil
	server, client := Server(&wire{Conn: a}, forServer), Client(&wire{Conn: b}, forClient)
	shake(t, server, client)
	for _, c := range []Secure{server.Conn(), client.Conn()} {
		if _, ok := c.(*tls.Conn); !ok {
			t.Errorf("the connection is a %T", c)
		}
	}
}
