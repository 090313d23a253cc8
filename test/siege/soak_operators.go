//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
)

// operate does an action of the operators. It runs to its end whatever happens:
// no restart is left half done.
func (s *soak) operate(of step) error {
	ctx, rnd := context.Background(), of.rnd()
	if !slices.Contains([]action{revocation, newList, newServerCert}, of.action) {
		s.turn.Lock()
		defer s.turn.Unlock()
	}
	switch of.action {
	case signalled:
		return s.reloads(ctx, loaded, func() error { return s.newest().Signal(syscall.SIGHUP) })
	case fileChanged:
		more := map[string]string{"limits.max_cancel_requests": fmt.Sprint(64 + rnd.IntN(1e6))}
		return s.reloads(ctx, loaded, func() error { return s.newest().Configure(more) })
	case fileBroken:
		return s.breakAndMend(ctx, rnd)
	case revocation:
		return s.revokeOne(ctx, rnd)
	case newList:
		return s.renewList(ctx)
	case newServerCert:
		return s.renewServer(ctx)
	case overlapping, interrupting, crashing:
		return s.restart(ctx, of.action, rnd)
	}
	return fmt.Errorf("there is no action %q", of.action)
}

// The series that count reloads.
const (
	loaded    = `pgwicket_config_reloads_total{result="success"}`
	notLoaded = `pgwicket_config_reloads_total{result="failure"}`
)

// reloads does something and waits until the gate has counted a reload with this
// result.
func (s *soak) reloads(ctx context.Context, how string, do func() error) error {
	g := s.newest()
	before, err := g.Metrics()
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return gate.Eventually(ctx, "the gate has loaded its files", gate.Timeout, func() error {
		now, err := g.Metrics()
		if err == nil && now[how] <= before[how] {
			err = fmt.Errorf("%s is still %v", how, now[how])
		}
		return err
	})
}

// breakAndMend gives the gate files that it must not load, or a revocation list that it
// must not use, and checks that nothing changes: revoked certificates are still refused.
func (s *soak) breakAndMend(ctx context.Context, rnd *rand.Rand) error {
	l, g := s.lab, s.newest()
	file, text, how := "", "", notLoaded
	switch rnd.IntN(5) {
	case 0:
		file, text = l.file("server.crt"), "no certificate"
	case 1:
		file, text = l.file("server.key"), string(l.ca.Server("localhost").KeyPEM()) // of another certificate
	case 2:
		file, text = l.file("ca.crl"), string(noise(rnd, 1+rnd.IntN(2000)))
	case 3:
		// By another key: the list from before stays in use, and all else is loaded.
		file, text, how = l.file("ca.crl"), string(tlstest.NewCA(l.ca.Cert.Subject.CommonName).CRL(nil)), loaded
	}
	var broken, mend func() error
	if file == "" {
		broken = func() error { return g.Configure(map[string]string{"acl.allow": "[everybody]"}) }
		mend = func() error { return g.Configure(nil) }
	} else {
		good, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		broken = func() error { return os.WriteFile(file, []byte(text), 0o600) }
		mend = func() error { return os.WriteFile(file, good, 0o600) } //nolint:gosec // it is the lab's
	}
	err := s.reloads(ctx, how, broken)
	if err == nil && rnd.IntN(2) == 0 {
		err = s.reloads(ctx, how, func() error { return g.Signal(syscall.SIGHUP) })
	}
	if err == nil {
		m, failed := g.Metrics()
		err = failed
		if err == nil && how == notLoaded && m["pgwicket_config_last_reload_successful"] != 0 {
			err = errors.New("the metrics do not tell of the failed load")
		}
	}
	err = errors.Join(err, s.expectAdmitted(s.app.current().credentials), s.expectRefused(s.revokedCerts()...))
	return errors.Join(err, s.reloads(ctx, loaded, mend))
}

// revokeOne revokes the certificate of a group. Its sessions must end, and
// new clients with it must be refused; then the group gets another.
func (s *soak) revokeOne(ctx context.Context, rnd *rand.Rand) error {
	g := s.groups[rnd.IntN(len(s.groups))]
	old := g.current()
	open := g.sessionsOf(old)
	began := time.Now()
	old.revoked.Store(true)
	s.mu.Lock()
	s.revoked = append(s.revoked, old.credentials)
	s.mu.Unlock()
	err := s.publish()
	if rnd.IntN(3) == 0 {
		if failed := s.newest().Signal(syscall.SIGHUP); !errors.Is(failed, os.ErrProcessDone) { // an upgrade may have replaced it
			err = errors.Join(err, failed)
		}
	}
	if err != nil {
		return err
	}
	err = gate.Eventually(ctx, "new clients are refused", gate.Timeout, func() error { return s.expectRefused(old.credentials) })
	if err == nil {
		old.refused.Store(time.Now().UnixNano())
	}
	err = errors.Join(err, gate.Eventually(ctx, "the sessions of a revoked certificate have ended", gate.Timeout, func() error {
		if n := g.sessionsOf(old); n > 0 {
			return fmt.Errorf("%d of %d are left", n, open)
		}
		return nil
	}))
	took := time.Since(began)
	s.mu.Lock()
	s.slowest = max(s.slowest, took)
	s.mu.Unlock()
	s.logf("revoked the certificate of %s: its %d sessions were over after %v", g.role, open, took.Round(time.Millisecond))
	err = errors.Join(err, s.expectPsqlRefused(ctx, old.credentials))
	s.mu.Lock()
	s.outside = append(s.outside, old.credentials)
	s.mu.Unlock()
	return errors.Join(err, s.issue(g))
}

// publish writes the next revocation list.
func (s *soak) publish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list++
	return s.lab.revoke(s.list, s.revoked...)
}

func (s *soak) renewList(ctx context.Context) error {
	if err := s.publish(); err != nil {
		return err
	}
	want := float64(s.list)
	return gate.Eventually(ctx, "the new list is in force", gate.Timeout, func() error {
		m, err := s.newest().Metrics() // an upgrade may have failed, and another gate begun
		if got := m.Sum("pgwicket_crl_number"); err == nil && got != want {
			err = fmt.Errorf("it is still list %v, not %v", got, want)
		}
		return err
	})
}

// renewServer waits until new clients see the new certificate.
func (s *soak) renewServer(ctx context.Context) error {
	l := s.lab
	pair := l.ca.Server("localhost", "127.0.0.1")
	if err := pair.WriteFiles(l.file("server.crt"), l.file("server.key")); err != nil {
		return err
	}
	return gate.Eventually(ctx, "new clients see the new server certificate", gate.Timeout, func() error {
		r, err := s.newest().connect(ctx)
		if err != nil {
			return err
		}
		defer r.CloseTCP()
		if err := r.RequestTLS(); err != nil {
			return err
		}
		if err := r.Handshake(ctx, l.tlsConfig(l.client)); err != nil {
			return err
		}
		if r.TLS.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(pair.Leaf().SerialNumber) != 0 {
			return errors.New("it is still the old one")
		}
		return nil
	})
}

// restart replaces the gate: the new one begins before the old one ends, or
// after it, or after it has been killed.
func (s *soak) restart(ctx context.Context, how action, rnd *rand.Rand) error {
	old := s.newest()
	change := func() error {
		g, err := s.lab.start(ctx, s.setting(old.Address))
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gate, s.gates = g, append(s.gates, g)
		return nil
	}
	if how == overlapping {
		if err := change(); err != nil {
			return err
		}
		if rnd.IntN(2) == 0 { // two gates write the trail
			if err := s.rotateTrail(ctx, rnd); err != nil {
				return err
			}
		}
	}
	s.begin(how)
	var err error
	if how == crashing {
		old.Kill()
		s.lab.kills(old)
	} else {
		err = old.Stop()
	}
	if how != overlapping {
		err = errors.Join(err, change())
	}
	s.finish()
	return errors.Join(err, old.Check())
}

// expectAdmitted fails unless a certificate opens a session.
func (s *soak) expectAdmitted(c credentials) error {
	conn, err := s.tryWith(c, "")
	if err == nil {
		closeSession(conn)
	}
	return err
}

// expectRefused fails unless revoked certificates are refused with a message.
func (s *soak) expectRefused(revoked ...credentials) error {
	for _, c := range revoked {
		conn, err := s.tryWith(c, "")
		if err == nil {
			closeSession(conn)
			return fmt.Errorf("the revoked certificate %s is admitted", c.certFile)
		}
		if state(err) != "28000" || !strings.Contains(err.Error(), "revoked") {
			return fmt.Errorf("the revoked certificate %s is not refused as one: %w", c.certFile, err)
		}
		s.bad.add("revoked certificate", 1)
	}
	return nil
}

// expectPsqlRefused is expectRefused with psql. Beside an upgrade of which a process is killed, it tries again.
func (s *soak) expectPsqlRefused(ctx context.Context, c credentials) error {
	ctx, cancel := context.WithTimeout(ctx, gate.Timeout)
	defer cancel()
	for {
		began := time.Now()
		cmd, err := s.lab.libpq(ctx, s.newest(), "psql", "-XAtqc", "select 1")
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, "PGUSER="+role(c), "PGSSLCERT="+c.certFile, "PGSSLKEY="+c.keyFile)
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil && strings.Contains(string(out), "revoked"):
			s.bad.add("revoked certificate", 1)
			return nil
		case err == nil || ctx.Err() != nil || !s.during(began, io.EOF):
			return fmt.Errorf("psql with the revoked certificate %s: %w: %s", c.certFile, err, out)
		}
	}
}

// role is the role of a certificate.
func role(c credentials) string { return c.pair.Leaf().Subject.CommonName }

// tryWith opens a session with a certificate, as its role.
func (s *soak) tryWith(c credentials, source string) (*pgconn.PgConn, error) {
	config, err := s.config(role(c), &clientCert{credentials: c}, source)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), gate.Timeout)
	defer cancel()
	return pgconn.ConnectConfig(ctx, &config.Config)
}

// revokedCerts are some of the certificates whose revocation is in force.
func (s *soak) revokedCerts() []credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	const some = 2
	return slices.Clone(s.outside[max(0, len(s.outside)-some):])
}
