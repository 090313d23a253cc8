//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// peer is another program in front of the database, whose clients must have a certificate
// of ca.
type peer struct {
	t                 *testing.T
	ca                *tlstest.CA
	dir, address      string
	process           *exec.Cmd
	db                *pgtest.Server
	clientCert, clKey string
	client            *tlstest.Pair
}

// newPeer writes the files of the program; config returns its configuration.
func newPeer(t *testing.T, config func(*peer) string, argv ...string) *peer {
	t.Helper()
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, ca: tlstest.NewCA("CA of a peer"), address: freeTestAddress(t), db: db}
	if p.dir, err = os.MkdirTemp("", "pgw-peer-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.dir) })
	p.client = p.ca.Client(role)
	p.clientCert, p.clKey = p.file("client.crt"), p.file("client.key")
	write := func(name string, content []byte) {
		if err := os.WriteFile(p.file(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := p.ca.Server("localhost")
	write("server.crt", server.CertPEM())
	write("server.key", server.KeyPEM())
	write("ca.crt", p.ca.CertPEM())
	write("ca.crl", p.ca.CRL(nil))
	if err := p.client.WriteFiles(p.clientCert, p.clKey); err != nil {
		t.Fatal(err)
	}
	write("config", []byte(config(p)))
	p.process = exec.Command(argv[0], append(argv[1:], p.file("config"))...)
	// The account of the database can use its socket, and PgBouncer refuses to be root.
	st, err := os.Stat(db.SocketDir)
	if err != nil {
		t.Fatal(err)
	}
	if owner := st.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		if err := os.Chown(p.dir, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p.file("server.key"), int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
		p.process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := os.Chmod(p.file("server.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	p.process.Stdout, p.process.Stderr = &said, &said
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.process.Process.Kill()
		_ = p.process.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	p.eventually("the program listens", func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return p
}

func (p *peer) file(name string) string { return filepath.Join(p.dir, name) }

func (p *peer) eventually(what string, so func() bool) {
	p.t.Helper()
	for end := time.Now().Add(deadline); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("in vain: %s", what)
		}
	}
}

// connect opens a session. resumed is set to whether its TLS was resumed.
func (p *peer) connect(cache tls.ClientSessionCache, resumed *bool) (*pgconn.PgConn, error) {
	roots := x509.NewCertPool()
	roots.AddCert(p.ca.Cert)
	c, err := pgconn.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%[1]s?sslmode=disable&sslrootcert=&sslcert=&sslkey=", role, strings.ReplaceAll(password, " ", "%20"), p.address))
	if err != nil {
		p.t.Fatal(err)
	}
	c.TLSConfig = &tls.Config{
		RootCAs: roots, ServerName: "localhost", ClientSessionCache: cache, Certificates: []tls.Certificate{p.client.TLS()},
		VerifyConnection: func(s tls.ConnectionState) error { *resumed = s.DidResume; return nil },
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err == nil {
		p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

// works is whether a session answers. To PostgreSQL it has no address, as through a gate
// without client_info.
func (p *peer) works(conn *pgconn.PgConn) error {
	all, err := conn.Exec(context.Background(), "select coalesce(client_addr::text, 'none') from pg_stat_activity where pid = pg_backend_pid()").ReadAll()
	if err != nil {
		return err
	}
	if got := string(all[0].Rows[0][0]); got != "none" {
		return fmt.Errorf("PostgreSQL has the address %s", got)
	}
	return nil
}

// resumes says whether a second connection resumes the TLS session of the first one.
func (p *peer) resumes() bool {
	cache, resumed := tls.NewLRUClientSessionCache(1), false
	for range 2 {
		conn, err := p.connect(cache, &resumed)
		if err != nil {
			p.t.Fatal(err)
		}
		if err := p.works(conn); err != nil { // a ticket comes with the first bytes
			p.t.Fatal(err)
		}
		_ = conn.Close(context.Background())
	}
	return resumed
}

// cancels says whether Ctrl-C ends psql's query.
func (p *peer) cancels() bool {
	psql, err := pgtest.Program("psql")
	if err != nil {
		p.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(p.address)
	query := fmt.Sprintf("select pg_sleep(600) -- %s", port)
	cmd := exec.Command(psql, "-X", "-c", query, fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%s user=%s dbname=%[2]s sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s",
		port, role, p.file("ca.crt"), p.clientCert, p.clKey))
	cmd.Env = append(pgtest.Environ(), "PGPASSWORD="+password)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	sleeps := func() bool {
		out, err := p.db.SQL("select count(*) from pg_stat_activity where query = '" + query + "' and wait_event = 'PgSleep'")
		if err != nil {
			p.t.Fatal(err)
		}
		return out == "1"
	}
	p.eventually("the query runs", sleeps)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-ended:
		return strings.Contains(said.String(), "canceling statement due to user request")
	case <-time.After(3 * time.Second): // that nothing happens takes its time
	}
	still := sleeps()
	if _, err := p.db.SQL("select pg_terminate_backend(pid) from pg_stat_activity where query = '" + query + "'"); err != nil {
		p.t.Error(err)
	}
	<-ended
	if !still {
		p.t.Errorf("the query has ended: %s", said.String())
	}
	return false
}

// revoke writes a list that revokes the client, and has the program read its files again.
func (p *peer) revoke() {
	p.t.Helper()
	if err := os.WriteFile(p.file("ca.crl"), p.ca.CRL(func(l *tlstest.CRL) { l.Revoke(p.client.Leaf()) }), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := p.process.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
}

// What the first table of docs/coming-from.md says of stunnel.
func TestComingFromStunnelClaims(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(p *peer) string {
		return fmt.Sprintf("foreground = yes\npid =\nsyslog = no\n[postgresql]\naccept = %s\nconnect = %s\nprotocol = pgsql\ncert = %s\nkey = %s\nCAfile = %s\nCRLfile = %s\nverifyChain = yes\nrequireCert = yes\n",
			p.address, filepath.Join(p.db.SocketDir, fmt.Sprintf(".s.PGSQL.%d", p.db.Port)), p.file("server.crt"), p.file("server.key"), p.file("ca.crt"), p.file("ca.crl"))
	}, otherProgram(t, "stunnel4", "stunnel"))
	if !p.resumes() {
		t.Error("stunnel resumes no TLS session")
	}
	if p.cancels() {
		t.Error("stunnel forwards the CancelRequest of Ctrl-C")
	}
	resumed := false
	open, err := p.connect(nil, &resumed)
	if err != nil {
		t.Fatal(err)
	}
	p.revoke()
	p.eventually("stunnel refuses the revoked client", func() bool {
		_, err := p.connect(nil, &resumed)
		return err != nil
	})
	if err := p.works(open); err != nil {
		t.Errorf("stunnel ends the session of a revoked certificate: %v", err)
	}
}

// What the first table of docs/coming-from.md says of PgBouncer.
func TestComingFromPgBouncerClaims(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(p *peer) string {
		host, port, _ := net.SplitHostPort(p.address)
		return fmt.Sprintf("[databases]\n%s = host=%s port=%d user=%s password='%s'\n[pgbouncer]\nlisten_addr = %s\nlisten_port = %s\nunix_socket_dir =\nauth_type = any\n"+
			"client_tls_sslmode = verify-ca\nclient_tls_ca_file = %s\nclient_tls_cert_file = %s\nclient_tls_key_file = %s\nignore_startup_parameters = extra_float_digits\n",
			role, p.db.SocketDir, p.db.Port, role, password, host, port, p.file("ca.crt"), p.file("server.crt"), p.file("server.key"))
	}, otherProgram(t, "pgbouncer"))
	if !p.cancels() {
		t.Error("PgBouncer does not forward the CancelRequest of Ctrl-C")
	}
	if !p.resumes() {
		t.Error("PgBouncer resumes no TLS session")
	}
	resumed := false
	open, err := p.connect(nil, &resumed)
	if err != nil {
		t.Fatal(err)
	}
	p.revoke()
	if err := p.works(open); err != nil {
		t.Errorf("PgBouncer ends the session of a revoked certificate: %v", err)
	}
	if _, err := p.connect(nil, &resumed); err != nil {
		t.Errorf("PgBouncer reads a list that it has no setting for: %v", err)
	}
}
