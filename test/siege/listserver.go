//go:build linux

package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"pgwicket/internal/tlstest"
)

// listServer publishes one revocation list below many names, or does under each name
// something else instead.
type listServer struct {
	server  *http.Server
	address string
	closed  string // an address on which nothing listens
	list    atomic.Pointer[[]byte]
	honest  atomic.Bool
	tricks  []trick
}

// trick is what a hostile server does, and how pgwicket fetch must count it.
type trick struct {
	name   string
	reason string
	does   http.HandlerFunc
}

// slowTrick is the one that takes as long as pgwicket fetch allows.
const slowTrick = "slow"

// newListServer starts one that is honest. old is a list that was published before, and foreign
// one of another CA of the same name.
func newListServer(listenOn, closed string, old, foreign []byte, ca *tlstest.CA) (*listServer, error) {
	listener, err := net.Listen("tcp", listenOn)
	if err != nil {
		return nil, err
	}
	l := &listServer{address: listener.Addr().String(), closed: closed}
	l.honest.Store(true)
	l.tricks = append(l.wrong(old, foreign, ca), long(old)...)
	mux := http.NewServeMux()
	for _, t := range l.tricks {
		mux.HandleFunc("/"+t.name, func(w http.ResponseWriter, r *http.Request) {
			if l.honest.Load() {
				_, _ = w.Write(*l.list.Load())
				return
			}
			t.does(w, r)
		})
	}
	l.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = l.server.Serve(listener) }()
	return l, nil
}

func (l *listServer) url(t trick) string { return "http://" + l.address + "/" + t.name }

// wrong are the tricks with something else than the list.
func (l *listServer) wrong(old, foreign []byte, ca *tlstest.CA) []trick {
	dated := func(from, to time.Duration) []byte {
		return ca.CRL(func(c *tlstest.CRL) {
			c.Number, c.ThisUpdate, c.NextUpdate = big.NewInt(1000), time.Now().Add(from), time.Now().Add(to)
		})
	}
	forged := bytes.Clone(old)
	if b, _ := pem.Decode(old); b != nil {
		b.Bytes[len(b.Bytes)-1] ^= 1
		forged = pem.EncodeToMemory(b)
	}
	send := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
	}
	return []trick{
		{"reset", "unreachable", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"half", "unreachable", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(old)))
			_, _ = w.Write(old[:len(old)/2])
		}},
		{"status", "status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"redirect", "redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+l.closed+"/", http.StatusFound)
		}},
		{"page", "not_a_list", send([]byte("<html>"))},
		{"nothing", "not_a_list", send(nil)},
		{"truncated", "not_a_list", send(old[:len(old)/2])},
		{"foreign", "issuer", send(foreign)},
		{"forged", "issuer", send(forged)},
		{"ended", "out_of_date", send(dated(-48*time.Hour, -24*time.Hour))},
		{"future", "out_of_date", send(dated(24*time.Hour, 48*time.Hour))},
		{"replay", "older", send(old)},
	}
}

// long are the tricks with more than a list, or for longer than one takes.
func long(old []byte) []trick {
	return []trick{
		{"headers", "unreachable", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 4<<20))
		}},
		{"announced", "too_large", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
			_, _ = w.Write(old)
		}},
		{"flood-1", "too_large", endless(make([]byte, 1<<20))},
		{"flood-2", "too_large", endless(bytes.Repeat(old, 1<<20/len(old)))},
		{"flood-3", "too_large", endless([]byte(strings.Repeat("A", 1<<20)))},
		{"tiny-lists", "not_a_list", func(w http.ResponseWriter, _ *http.Request) {
			const empty = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"
			block := []byte(strings.Repeat(empty, 1<<20/len(empty)))
			for range 60 {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}},
		{slowTrick, "timeout", func(w http.ResponseWriter, r *http.Request) {
			for _, b := range old {
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Second):
				}
			}
		}},
	}
}

// endless sends a block until the client has had enough.
func endless(block []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
}
