//go:build linux

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
)

func overGateLimit(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.gate.Reload(ctx, map[string]string{"limits.max_connections": "1"}); err != nil {
		return nil, err
	}
	return s.overLimit(ctx)
}

func overServerLimit(ctx context.Context, s *stage) ([]reply, error) {
	if _, err := s.server.SQL("alter role " + scramUser + " connection limit 1"); err != nil {
		return nil, err
	}
	return s.overLimit(ctx)
}

func (s *stage) overLimit(ctx context.Context) ([]reply, error) {
	if err := errors.Join(s.idle(ctx), s.begin("open "+scramUser)); err != nil {
		return nil, err
	}
	seen, err := s.all("try "+scramUser, "close")
	if err = errors.Join(err, s.idle(ctx)); err != nil {
		return nil, err
	}
	// A session that has ended counts for a moment longer.
	var after reply
	err = gate.Eventually(ctx, "there is room", gate.Timeout, func() (err error) {
		if after, err = s.client.say("try " + scramUser); err == nil && after.state != "ok" {
			err = errors.New(after.text)
		}
		return err
	})
	return []reply{seen[0], after}, errors.Join(err, s.idle(ctx))
}

func cancelAtGateLimit(ctx context.Context, s *stage) ([]reply, error) {
	seen, err := s.cancelAtLimit(ctx)
	return seen, errors.Join(err, s.gate.Reload(ctx, nil))
}

func cancelAtServerLimit(ctx context.Context, s *stage) ([]reply, error) {
	seen, err := s.cancelAtLimit(ctx)
	_, reset := s.server.SQL("alter role " + scramUser + " connection limit -1")
	return seen, errors.Join(err, reset)
}

func (s *stage) cancelAtLimit(ctx context.Context) ([]reply, error) {
	if err := s.sleeps(ctx); err != nil {
		return nil, err
	}
	seen, err := s.all("cancel", "ask", "close")
	return seen[:min(2, len(seen))], errors.Join(err, s.sessions(ctx, asleep, "0"), s.idle(ctx))
}

func terminatedThrough(ctx context.Context, s *stage) ([]reply, error) {
	since := len(s.gate.Records())
	seen, err := terminated(ctx, s)
	if err != nil {
		return nil, err
	}
	ended, err := s.left(ctx, since)
	if err == nil && !ended[0].Is(gate.MessageEnded, "outcome", "backend_closed", "sqlstate", "57P01") {
		err = fmt.Errorf("the gate says of a session that PostgreSQL has ended: outcome %v, sqlstate %v", ended[0]["outcome"], ended[0]["sqlstate"])
	}
	return seen, err
}

func terminated(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.begin("open " + scramUser); err != nil {
		return nil, err
	}
	if _, err := s.server.SQL("select pg_terminate_backend(pid) from pg_stat_activity where usename = '" + scramUser + "'"); err != nil {
		return nil, err
	}
	if err := s.idle(ctx); err != nil {
		return nil, err
	}
	seen, err := s.all("ask", "ask", "close")
	if err = errors.Join(err, s.idle(ctx)); err != nil {
		return nil, err
	}
	after, err := s.client.say("open " + scramUser)
	return append(seen[:2], after), errors.Join(err, s.begin("close"), s.idle(ctx))
}

func drainGate(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.sleeps(ctx); err != nil {
		return nil, err
	}
	since, began := len(s.gate.Records()), time.Now()
	if err := s.gate.Signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	err := gate.Eventually(ctx, "the gate drains", gate.Timeout, func() error {
		if _, err := s.gate.Get("/readyz"); err == nil {
			return errors.New("it is ready")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen, err := s.all("try "+scramUser, "cancel", "ask")
	if err != nil {
		return nil, err
	}
	select {
	case <-s.gate.Exited():
	case <-time.After(gate.Timeout):
		return nil, errors.New("the drain does not end")
	}
	if took := time.Since(began); took > 20*time.Second { // of 30: it waits for nothing
		return nil, fmt.Errorf("the drain took %v", took)
	}
	if ended, err := s.left(ctx, since); err != nil || !slices.ContainsFunc(ended, func(r gate.Record) bool { return r["outcome"] == "drained" }) {
		return nil, errors.Join(err, fmt.Errorf("the gate says %v", ended))
	}
	if err := s.gate.Launch(ctx); err != nil {
		return nil, err
	}
	after, err := s.all("ask", "close")
	if err = errors.Join(err, s.idle(ctx)); err != nil {
		return nil, err
	}
	opened, err := s.all("open "+scramUser, "close")
	return append(seen, slices.Concat(after[:1], opened[:min(1, len(opened))])...), errors.Join(err, s.idle(ctx))
}

func drainServer(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.sleeps(ctx); err != nil {
		return nil, err
	}
	if err := syscall.Kill(s.server.PID(), syscall.SIGTERM); err != nil {
		return nil, err
	}
	err := gate.Eventually(ctx, "PostgreSQL shuts down", gate.Timeout, func() error {
		if !strings.Contains(s.server.Log(), "received smart shutdown request") {
			return errors.New("it does not say so")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen, err := s.all("try "+scramUser, "cancel", "ask", "ask", "close")
	if err != nil {
		return nil, err
	}
	if err := s.server.Restart(ctx); err != nil {
		return nil, err
	}
	after, err := s.all("open "+scramUser, "close")
	return append(seen[:4], after[:min(1, len(after))]...), errors.Join(err, s.idle(ctx))
}

func restart(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.begin("open " + scramUser); err != nil {
		return nil, err
	}
	pid := s.server.PID()
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		return nil, err
	}
	err := gate.Eventually(ctx, "PostgreSQL has shut down", gate.Timeout, func() error {
		if syscall.Kill(pid, 0) == nil {
			return errors.New("it is there")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen, err := s.all("ask", "try "+scramUser)
	if err != nil {
		return nil, err
	}
	if err := s.server.Restart(ctx); err != nil {
		return nil, err
	}
	after, err := s.all("ask", "close")
	if err = errors.Join(err, s.idle(ctx)); err != nil {
		return nil, err
	}
	opened, err := s.all("open "+scramUser, "close")
	return append(seen, slices.Concat(after[:1], opened[:min(1, len(opened))])...), errors.Join(err, s.idle(ctx))
}

// renew writes a revocation list, which revokes the certificate of certUser.
func (s *stage) renew(path string) error {
	text, err := os.ReadFile(s.clientCert)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	list := s.ca.CRL(func(l *tlstest.CRL) {
		l.Number = big.NewInt(2)
		l.Revoke(cert)
	})
	return os.WriteFile(path, list, 0o644) //nolint:gosec // PostgreSQL's account reads it
}

func revokeAtGate(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.begin("open " + certUser); err != nil {
		return nil, err
	}
	since := len(s.gate.Records())
	if err := s.renew(s.crlFile); err != nil {
		return nil, err
	}
	ended, err := s.left(ctx, since) // the gate watches the file
	if err == nil && ended[0]["outcome"] != "certificate_revoked" {
		err = fmt.Errorf("the gate says %v", ended[0]["outcome"])
	}
	if err = errors.Join(err, s.idle(ctx)); err != nil {
		return nil, err
	}
	return s.all("ask", "open "+certUser)
}

func revokeAtServer(ctx context.Context, s *stage) ([]reply, error) {
	if err := s.begin("open " + certUser); err != nil {
		return nil, err
	}
	data, err := s.server.SQL("show data_directory")
	if err = errors.Join(err, s.renew(filepath.Join(data, "ca.crl"))); err != nil {
		return nil, err
	}
	if _, err := s.server.SQL("select pg_reload_conf()"); err != nil {
		return nil, err
	}
	err = gate.Eventually(ctx, "PostgreSQL has reloaded", gate.Timeout, func() error {
		if !strings.Contains(s.server.Log(), "reloading configuration files") {
			return errors.New("it does not say so")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	seen, err := s.all("ask", "open "+certUser)
	for err == nil && len(seen) == 2 && seen[1].state == "ok" && ctx.Err() == nil { // the postmaster reloads in its own time
		seen, err = s.all("ask", "open "+certUser)
	}
	return seen, err
}

// stranger has a second client, whose certificate is of another CA.
func stranger(ctx context.Context, s *stage) ([]reply, error) {
	pair := tlstest.NewCA("another CA").Client(certUser)
	dir, err := os.MkdirTemp(s.dir, "stranger-")
	if err != nil {
		return nil, err
	}
	cert, key, der := filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"), filepath.Join(dir, "client.der")
	if err := pair.WriteFiles(cert, key); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(pair.KeyPEM())
	if err := os.WriteFile(der, block.Bytes, 0o600); err != nil {
		return nil, err
	}
	t, err := s.talk(ctx, s.driver, s.port, "INTEROP_CERT="+cert, "INTEROP_KEY="+key, "INTEROP_KEY_DER="+der)
	if err != nil {
		return nil, err
	}
	seen, err := t.say("open " + certUser)
	return []reply{seen}, errors.Join(err, t.end())
}
