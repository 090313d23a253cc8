package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"pgwicket/internal/pgtest"
	"pgwicket/test/harness"
	"pgwicket/test/wire"
)

// The roles: PostgreSQL's own TLS asks the second one for a certificate.
const (
	benchUser = "bench"
	certUser  = "benchcert"
)

// postgresTLS has no process to start: it is the same PostgreSQL that serves
// the others, over TCP.
func postgresTLS() contender {
	return contender{
		id: "postgres", title: "PostgreSQL's own TLS",
		about:   "the same server over TCP, `ssl=on`; its cost is in the server's column; key exchange on P-256, the only group of PostgreSQL before 18",
		noIdle:  true,
		version: func(l *lab) string { return firstLine(filepath.Join(l.db.BinDir, "postgres"), "--version") },
		start:   nil,
	}
}

// database is the one PostgreSQL behind all contenders.
type database struct {
	*pgtest.Server
	address string // for its own TLS
	pid     int
}

// startDatabase starts PostgreSQL on its socket and on one loopback address of
// its own, as pgtest fixes the port.
func startDatabase(ctx context.Context, l *lab) (_ *database, err error) {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(256), 1+rand.IntN(250)) //nolint:gosec // no secret
	s, err := pgtest.Start(ctx, pgtest.Options{
		HBA: "local all all trust\n" +
			"hostssl all " + benchUser + " 127.0.0.0/8 trust\n" +
			"hostssl all " + certUser + " 127.0.0.0/8 trust clientcert=verify-ca",
		Settings: []string{
			"listen_addresses=" + host, "max_connections=600", "log_connections=off", "log_disconnections=off",
			"shared_buffers=128MB", "autovacuum=off", "jit=off", "max_parallel_workers_per_gather=0",
			"ssl_min_protocol_version=TLSv1.3", "ssl_prefer_server_ciphers=off",
		},
		SQL: "create role " + benchUser + " login; create role " + certUser + " login;" +
			// Copied many times over it makes a COPY that costs the server little: lines of 1,019 bytes, messages of 1,024.
			"create table filler as select repeat('x', 1018) as t from generate_series(1, 1024);" +
			"create unlogged table sink (t text); grant all on filler, sink to public",
	})
	if err != nil {
		return nil, err
	}
	db := &database{Server: s, address: net.JoinHostPort(host, fmt.Sprint(s.Port))}
	if err := db.finish(ctx, l); err != nil {
		s.Stop()
		return nil, err
	}
	return db, nil
}

func (db *database) finish(ctx context.Context, l *lab) error {
	data, err := db.SQL("show data_directory")
	if err != nil {
		return err
	}
	pidFile, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(pidFile), "\n")
	db.pid = atoi(first)
	if err := db.installCertificates(l, data); err != nil {
		return err
	}
	pgbench, err := pgtest.Program("pgbench")
	if err != nil {
		return err
	}
	err = harness.Complete(ctx, pgtest.Environ(), pgbench, "-i", "-q", "-s", "1", "-h", db.SocketDir, "-U", pgtest.Superuser, "postgres")
	if err != nil {
		return err
	}
	_, err = db.SQL("grant select on all tables in schema public to public; vacuum analyze; checkpoint")
	return err
}

func (db *database) installCertificates(l *lab, data string) error {
	owner, err := ownerOf(data)
	if err != nil {
		return err
	}
	l.account = owner
	for _, name := range []string{"server.crt", "server.key", "ca.crt"} {
		if err := copyFile(l.file(name), filepath.Join(data, name), 0o600, owner); err != nil {
			return err
		}
	}
	return db.ssl("alter system set ssl = on")
}

// requestClientCertificates turns the CA on or off: with one the server asks every client.
func (db *database) requestClientCertificates(yes bool) error {
	if yes {
		return db.ssl("alter system set ssl_ca_file = 'ca.crt'")
	}
	return db.ssl("alter system reset ssl_ca_file")
}

func (db *database) ssl(statement string) error {
	if _, err := db.SQL(statement); err != nil {
		return err
	}
	_, err := db.SQL("select pg_reload_conf()")
	return err
}

// ownerOf returns the account that a file belongs to, nil if it is ours.
func ownerOf(path string) (*syscall.Credential, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("cannot tell the owner of " + path)
	}
	if int(s.Uid) == os.Geteuid() {
		return nil, nil
	}
	return &syscall.Credential{Uid: s.Uid, Gid: s.Gid}, nil
}

// fakeBackend answers every startup and every query at once, and stores
// nothing. Ten thousand sessions of PostgreSQL would be ten thousand processes.
func fakeBackend() (*pgtest.Fake, error) {
	f, err := pgtest.StartFake(func(c net.Conn) { _ = fakeSession(c) })
	if err != nil {
		return nil, err
	}
	// PgBouncer runs under another account.
	err = errors.Join(os.Chmod(f.SocketDir, 0o711), os.Chmod(filepath.Join(f.SocketDir, ".s.PGSQL.5432"), 0o777)) //nolint:gosec // it holds nothing
	if err != nil {
		f.Stop()
		return nil, err
	}
	return f, nil
}

// discard skips the body of a message whose length, itself included, is given.
func discard(r io.Reader, length []byte) error {
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(length))-4)
	return err
}

func fakeSession(c net.Conn) error {
	var head [5]byte
	r := bufio.NewReaderSize(c, 256)
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return err
	}
	if err := discard(r, head[:4]); err != nil {
		return err
	}
	hello := wire.Message('R', "\x00\x00\x00\x00") + wire.Message('S', "server_version\x0015.0\x00") + wire.Message('S', "client_encoding\x00UTF8\x00") +
		wire.Message('S', "standard_conforming_strings\x00on\x00") + wire.Message('K', "\x00\x00\x00\x01\x00\x00\x00\x02") + wire.Message('Z', "I")
	if _, err := io.WriteString(c, hello); err != nil {
		return err
	}
	answers := map[byte]string{
		'Q': wire.Message('C', "SELECT 0\x00") + wire.Message('Z', "I"),
		'P': wire.Message('1', ""),
		'B': wire.Message('2', ""),
		'E': wire.Message('D', "\x00\x01\x00\x00\x00\x010") + wire.Message('C', "SELECT 1\x00"),
		'S': wire.Message('Z', "I"),
	}
	answer := ""
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil || head[0] == 'X' {
			return err
		}
		if err := discard(r, head[1:]); err != nil {
			return err
		}
		answer += answers[head[0]]
		if head[0] != 'Q' && head[0] != 'S' {
			continue // the server, too, answers when it is asked to synchronise
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return err
		}
		answer = ""
	}
}
