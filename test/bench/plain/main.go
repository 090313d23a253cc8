// Command plain is the proxy that one writes first: crypto/tls, a goroutine and
// an io.Copy for each direction. It checks nothing but a certificate's chain; the
// benchmark compares with it what structure alone gains.
//
//	plain ADDRESS SOCKET CERT KEY [CA]
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

func main() {
	err := run(os.Args[1:])
	fmt.Fprintln(os.Stderr, "plain:", err)
	os.Exit(1) //nolint:forbidigo // this is main
}

func run(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: plain ADDRESS SOCKET CERT KEY [CA]")
	}
	config, err := tlsConfig(args[2:])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := serve(c, config, args[1]); err != nil {
				fmt.Fprintln(os.Stderr, "plain:", err)
			}
		}()
	}
}

func tlsConfig(files []string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(files[0], files[1])
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	if len(files) < 3 {
		return config, nil
	}
	pem, err := os.ReadFile(files[2]) //nolint:gosec // the operator's own choice
	if err != nil {
		return nil, err
	}
	config.ClientCAs = x509.NewCertPool()
	config.ClientCAs.AppendCertsFromPEM(pem)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

func serve(c net.Conn, config *tls.Config, socket string) error {
	defer c.Close()
	var request [8]byte // SSLRequest, and what follows is the ClientHello
	if _, err := io.ReadFull(c, request[:]); err != nil {
		return nil // a port probe
	}
	if _, err := c.Write([]byte{'S'}); err != nil {
		return err
	}
	client := tls.Server(c, config)
	if err := client.Handshake(); err != nil {
		return err
	}
	backend, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer backend.Close()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(backend, client)
		_ = backend.CloseWrite()
	})
	_, _ = io.Copy(client, backend)
	_ = client.CloseWrite()
	up.Wait()
	return nil
}
