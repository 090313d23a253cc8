//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// keyLimits makes the JDK change its keys after 64 MiB, and not after 128 GiB.
const keyLimits = "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^26, ChaCha20-Poly1305 KeyUpdate 2^26\n"

// copied is a COPY of 256 MiB, in rows of 8,000 bytes.
const (
	copied     = 33555
	keyRuns    = 3
	keyMoment  = "The JDK changes its keys"
	recordsOut = "tls_record_limit"
)

// changingKeys has a driver of Java change its keys after 64 MiB.
func (l *lab) changingKeys(d driver) (driver, error) {
	security := l.file("java.security")
	d.argv = slices.Concat(d.argv[:1], []string{"-Djava.security.properties=" + security}, d.argv[1:])
	return d, os.WriteFile(security, []byte(keyLimits), 0o600)
}

// keyUpdates runs a COPY across the JDK's limit of its TLS 1.3 keys, and returns what
// JDBC and the log say. The JDK repeats KeyUpdate until it is answered, and crypto/tls gives
// up after 16 records without data (golang/go#80528, pgjdbc/pgjdbc#2879), which must not
// be called the client's end.
func (l *lab) keyUpdates(ctx context.Context, d driver, r release) (rows []string, err error) {
	if d, err = l.changingKeys(d); err != nil {
		return nil, err
	}
	server, err := l.startServer(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	g, err := l.startGate(ctx, bySocket(server.SocketDir, server.Port))
	if err != nil {
		return nil, err
	}
	defer g.Kill()
	for _, gated := range []bool{true, false} {
		port, way := server.Port, "straight"
		if gated {
			port, way = g.Port, "gate"
		}
		t, err := l.talk(ctx, d, port)
		if err != nil {
			return nil, err
		}
		s := &stage{lab: l, client: t, server: server, gate: g}
		for range keyRuns {
			row, wrong := s.copyAcross(ctx, gated)
			if wrong != nil {
				return rows, errors.Join(wrong, t.end())
			}
			rows = append(rows, fmt.Sprintf("| %s | %s |", way, row))
		}
		if err := t.end(); err != nil {
			return rows, err
		}
	}
	return rows, g.Check()
}

// copyAcross runs one COPY.
func (s *stage) copyAcross(ctx context.Context, gated bool) (row string, err error) {
	since := len(s.gate.Records())
	seen, err := s.all("open "+scramUser, fmt.Sprintf("copy %d", copied), "close")
	if err != nil || seen[0].state != "ok" {
		return "", errors.Join(err, fmt.Errorf("open: %v", seen))
	}
	if !gated {
		return seen[1].String() + " | ", nil
	}
	ended, err := s.left(ctx, since)
	if err != nil {
		return "", err
	}
	outcome, reason := fmt.Sprint(ended[0]["outcome"]), ""
	if text, ok := ended[0]["reason"].(string); ok {
		reason = ": " + text
	}
	return seen[1].String() + " | `" + outcome + "`" + reason, wrongKeyUpdate(seen[1], outcome, reason)
}

// wrongKeyUpdate is an error if a session that a limit of ours has cut has another outcome,
// or if the log does not have the limit.
func wrongKeyUpdate(copied reply, outcome, reason string) error {
	switch {
	case copied.state == "ok" && outcome == "client_closed":
		return nil
	case copied.state != "ok" && outcome == recordsOut && strings.Contains(reason, "tls"):
		return nil
	}
	return fmt.Errorf("JDBC says %s, and the gate %s%s", copied, outcome, reason)
}
