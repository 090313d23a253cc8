package main

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"pgwicket/internal/tlstest"
)

// list is a part of the configuration that may be long. A further one, as of
// rules, is one more line of lists and a function that makes it, with a place in
// setting and in its keys for what that gives.
type list struct {
	id, title string
	sizes     []int
	make      func(l *lab, n int) (func(*setting), error)
}

func lists() []list {
	return []list{
		{"allow", "networks in acl.allow", []int{1, 100, 10_000, 100_000}, networks},
		{"rules", "rules before the one that fits", []int{1, 10, 100, 1000, 10_000}, rules},
		{"crl", "entries of the revocation list", []int{10, 1000, 100_000, 1_000_000}, revocations},
	}
}

// listsFigure is connections that are checked against longer and longer lists.
func listsFigure(_ context.Context, l *lab, _ options) (figure, error) {
	f := newFigure(scenario{
		ID: "lists", Title: "Length of the lists", Unit: "connection",
		About: "8 clients with certificates, each time a full handshake, login, one query, Terminate, before a backend of our own; a new pgwicket for each; " +
			"the startup time is until it takes connections, and the peak is that since its launch",
	}, "length", "the shortest", "cpu", "startup", "rss")
	for _, list := range lists() {
		for _, n := range list.sizes {
			change, err := list.make(l, n)
			if err != nil {
				return f, err
			}
			p := pointAt(list.id, n, thousands(n), list.sizes[0])
			p.Line = list.title
			// Eight sessions, and a new gate for each burst.
			f.add(p, scenario{Unit: f.Unit, cert: true, fake: 8, burst: starting}, change)
		}
	}
	return f, nil
}

// starting is reconnect, and what the start of the gate took.
func starting(ctx context.Context, l *lab, g *endpoint, d time.Duration) (sample, error) {
	peak := peakRSS(g.pid()) // the meter begins anew
	s, err := reconnect(ctx, l, g, d)
	s.StartUp, s.PeakRSS = g.startUp.Seconds(), max(peak, s.PeakRSS)
	return s, err
}

// networks makes n that are allowed, the clients' among them.
func networks(_ *lab, n int) (func(*setting), error) {
	all := make([]string, n-1)
	for i := range all {
		// Any odd factor scatters the numbers below 2^24 and keeps them apart.
		v := uint32(i+1) * 0x9e3779 & 0xffffff
		all[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 16), byte(v >> 8), byte(v)}), 24).String()
	}
	return func(s *setting) { s.Allow = all }, nil
}

// rules makes n for others.
func rules(_ *lab, n int) (func(*setting), error) {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("service_%d", i)
	}
	return func(s *setting) { s.Rules = users }, nil
}

// revocations makes a list with n certificates that no client has.
func revocations(l *lab, n int) (func(*setting), error) {
	file := l.file(fmt.Sprintf("%d.crl", n))
	logf(l.progress, "signing a revocation list of %d entries", n)
	pem := l.ca.CRL(func(c *tlstest.CRL) {
		c.Revoked = make([]tlstest.Revoked, n)
		random := rand.NewChaCha8([32]byte{})
		for i := range c.Revoked {
			var serial [20]byte // as long as RFC 5280 allows
			_, _ = random.Read(serial[:])
			serial[0] = serial[0]&0x3f | 0x40
			c.Revoked[i] = tlstest.Revoked{Serial: new(big.Int).SetBytes(serial[:]), Date: c.ThisUpdate}
		}
	})
	return func(s *setting) { s.CRL = file }, os.WriteFile(file, pem, 0o600)
}
