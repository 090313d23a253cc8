//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pgwicket/test/gate"
)

// largeEntries are those of a list that is nearly as large as pgwicket fetch takes.
const largeEntries = 1_150_000

// large has two lists fetched that are nearly as large as they may be, and then two others over
// them. It returns the most memory that pgwicket fetch had.
func (l *siegeLists) large(ctx context.Context) (peak int64, err error) {
	published, copies, config := l.file("large"), l.file("large-copies"), l.file("large.yaml")
	if err := errors.Join(os.Mkdir(published, 0o700), os.Mkdir(copies, 0o700)); err != nil {
		return 0, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(published)), ReadHeaderTimeout: 10 * time.Second}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()
	url := "http://" + listener.Addr().String()
	if err := l.configure(config, map[string]string{"tls.crl_dir": copies, "tls.crl_urls": fmt.Sprintf("[%s/a.crl, %s/b.crl]", url, url)}); err != nil {
		return 0, err
	}
	for range 2 {
		for _, name := range []string{"a.crl", "b.crl"} {
			list, _ := l.ca.BigCRL(largeEntries)
			if err := os.WriteFile(filepath.Join(published, name), list, 0o600); err != nil {
				return 0, err
			}
		}
		one, err := l.fetchLarge(ctx, config)
		if err != nil {
			return 0, err
		}
		peak = max(peak, one)
	}
	if peak > fetchMemory {
		err = fmt.Errorf("pgwicket fetch had %d MiB of memory for large lists, %d are allowed", peak>>20, fetchMemory>>20)
	}
	return peak, err
}

// fetchLarge runs pgwicket fetch until it has both.
func (l *siegeLists) fetchLarge(ctx context.Context, config string) (peak int64, err error) {
	fetch, err := l.serve(config)
	if err != nil {
		return 0, err
	}
	defer fetch.Kill()
	err = gate.Eventually(ctx, "the large lists are fetched", gate.Timeout, func() error {
		if err := fetch.Unexpected(); err != nil {
			return gate.Never(err)
		}
		m, err := fetch.Metrics()
		if n := m.Sum("pgwicket_fetch_lists_total"); err == nil && n < 2 {
			err = fmt.Errorf("%v of 2", n)
		}
		return err
	})
	if err == nil {
		peak, err = fetch.PeakResident()
	}
	return peak, errors.Join(err, fetch.Process.Stop(syscall.SIGTERM, 5*time.Second))
}
