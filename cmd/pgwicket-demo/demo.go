//go:build unix

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/youmark/pkcs8"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// demo is a directory with certificates and a configuration, a PostgreSQL, and a gate
// that runs as a user would run it.
type demo struct {
	out      io.Writer
	dir      string
	pgwicket string   // the program
	account  *account // that the gate becomes; nil: this one
	password string
	address  string // of the gate
	admin    string
	psql     string
	lock     *os.File // of dir, while this process lives
	db       *pgtest.Server
	gate     *exec.Cmd
	ca       *tlstest.CA
	live     *tlstest.Pair       // of the session whose certificate is revoked
	revoked  []*x509.Certificate // those on the list
	lines    chan map[string]any // the gate's log
}

// timeout bounds each wait for the gate.
const timeout = 15 * time.Second

func newDemo(ctx context.Context, out io.Writer, pgwicket string) (_ *demo, err error) {
	d := &demo{out: out, pgwicket: pgwicket, password: rand.Text(), lines: make(chan map[string]any, 100)}
	defer func() {
		if err != nil {
			d.remove()
		}
	}()
	if d.psql, err = pgtest.Program("psql"); err != nil {
		return nil, err
	}
	removeLeft(out, pgtest.TempDir(os.Geteuid() == 0))
	if err := d.makeDir(); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "making a CA, certificates and a revocation list in", d.dir)
	if err := d.makeCertificates(); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "starting a PostgreSQL that listens on a Unix socket only (a few seconds)")
	d.db, err = pgtest.Start(ctx, pgtest.Options{
		Dir: d.file("pg"),
		// The superuser only for the accounts that own the server anyway.
		HBA:   "local all postgres peer map=setup\nlocal all all scram-sha-256",
		Ident: d.ident(),
		SQL:   "create role app login password '" + d.password + "'; create database app owner app",
	})
	if err != nil {
		return nil, err
	}
	if err := d.chgrp(d.db.SocketDir, 0o750); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "starting pgwicket in front of it")
	return d, d.startGate(ctx)
}

// makeDir makes the directory. A gate that root starts becomes another account, which
// reads the files of root by its group.
func (d *demo) makeDir() (err error) {
	if os.Geteuid() == 0 {
		if d.account, err = findAccount("nobody"); err != nil {
			return err
		}
	}
	if d.dir, err = os.MkdirTemp(pgtest.TempDir(d.account != nil), dirPrefix); err != nil {
		return err
	}
	if d.lock, err = lockDir(d.dir); err != nil {
		return err
	}
	// Its account passes through to PostgreSQL's directory.
	return d.chgrp(d.dir, 0o751)
}

// chgrp allows the account of the gate to read a file or enter a directory, by its
// group.
func (d *demo) chgrp(name string, mode os.FileMode) error {
	if d.account == nil {
		return nil
	}
	return cmp.Or(os.Chown(name, -1, d.account.gid), os.Chmod(name, mode))
}

// ident maps the accounts that own the server to its superuser: this account, or root
// and the one that the server runs under.
func (d *demo) ident() string {
	if d.account != nil {
		return "setup root postgres\nsetup postgres postgres"
	}
	return "setup " + accountName() + " postgres"
}

// account is one that the gate becomes.
type account struct {
	name string
	gid  int
}

func findAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return &account{name, gid}, err
}

// accountName is the name of this account, or its number if it has none.
func accountName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// remove ends the processes and deletes all files. It may be called at any time.
func (d *demo) remove() {
	if d.gate != nil {
		_ = d.gate.Process.Signal(syscall.SIGTERM)
		_ = d.gate.Wait()
	}
	if d.db != nil {
		d.db.Stop()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) makeCertificates() error {
	ca := tlstest.NewCA("pgwicket demo CA")
	good, stolen, live := ca.Client("app"), ca.Client("app"), ca.Client("app")
	d.ca, d.live = ca, live
	d.revoked = []*x509.Certificate{stolen.Leaf()}
	for name, pair := range map[string]*tlstest.Pair{"server": ca.Server("localhost", "127.0.0.1"), "app": good, "stolen": stolen, "live": live} {
		if err := pair.WriteFiles(d.file(name+".crt"), d.file(name+".key")); err != nil {
			return err
		}
	}
	passphrase := rand.Text()
	key, err := encrypted(d.file("server.key"), passphrase)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"ca.crt":     ca.CertPEM(),
		"ca.crl":     d.list(),
		"server.key": key,
		"passphrase": []byte(passphrase), // a real one belongs elsewhere
		// OpenSSL's defaults would not let psql even try an old TLS version.
		"openssl-old.cnf": []byte("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv1\nCipherString = DEFAULT@SECLEVEL=0\n"),
	} {
		if err := os.WriteFile(d.file(name), text, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"server.crt", "server.key", "passphrase", "ca.crt", "ca.crl"} {
		if err := d.chgrp(d.file(name), 0o640); err != nil {
			return err
		}
	}
	return nil
}

// encrypted returns the key of a file encrypted with a passphrase.
func encrypted(file, passphrase string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	der, err := pkcs8.MarshalPrivateKey(key, []byte(passphrase), nil)
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), err
}

// configure writes the configuration with an allowlist.
func (d *demo) configure(allow string) error {
	file := d.file("pgwicket.yaml")
	text := fmt.Appendf(nil, `listen:
  - address: %s
tls:
  cert_file: server.crt
  key_file: server.key
  passphrase_command: %q
  min_protocol_version: TLSv1.2
  client_cert: require
  ca_file: ca.crt
  crl_file: ca.crl
acl:
  allow: [%s]
  refusal: explain
  rules:
    - {name: app, action: allow, users: [app], databases: [app], certificate: {cn: app}}
backend:
  host: %s
admin:
  address: %s
  socket: %s
log:
  format: json
`, d.address, "cat '"+strings.ReplaceAll(d.file("passphrase"), "%", "%%")+"'", allow, d.db.SocketDir, d.admin, d.file("admin.sock"))
	if d.account != nil {
		text = fmt.Appendf(text, "user: %s\n", d.account.name)
	}
	return cmp.Or(os.WriteFile(file, text, 0o600), d.chgrp(file, 0o640))
}

func (d *demo) startGate(ctx context.Context) (err error) {
	if d.address, err = pgtest.FreeAddress(); err != nil {
		return err
	}
	if d.admin, err = pgtest.FreeAddress(); err != nil {
		return err
	}
	if err := d.configure("127.0.0.0/8"); err != nil {
		return err
	}
	d.gate = exec.Command(d.pgwicket, "serve", "--config", d.file("pgwicket.yaml"))
	d.gate.Env = pgtest.Environ("TMPDIR=" + filepath.Dir(d.dir)) // without PGWICKET_ variables; in a directory that the account can enter
	// In its own process group, so that Ctrl-C reaches the demo only, which ends it.
	d.gate.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := d.gate.StderrPipe()
	if err != nil {
		return err
	}
	if err := d.gate.Start(); err != nil {
		d.gate = nil
		return err
	}
	go d.readLog(log)
	_, err = d.awaitLog(ctx, "ready")
	return err
}

// readLog keeps the lines of the log for the scenarios. It must never block the gate.
func (d *demo) readLog(r io.Reader) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		line := make(map[string]any)
		if json.Unmarshal(sc.Bytes(), &line) != nil {
			line["msg"] = sc.Text()
		}
		select {
		case d.lines <- line:
		default:
		}
	}
	close(d.lines)
}

// awaitLog returns the next line of the log with a message.
func (d *demo) awaitLog(ctx context.Context, msg string) (map[string]any, error) {
	expired := time.After(timeout)
	var seen []string
	for {
		select {
		case line, ok := <-d.lines:
			if !ok {
				return nil, fmt.Errorf("the gate has ended; its log: %s", strings.Join(seen, "; "))
			}
			if line["msg"] == msg {
				return line, nil
			}
			seen = append(seen, fmt.Sprint(line["msg"]))
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-expired:
			return nil, fmt.Errorf("no %q in the gate's log within %v, only: %s", msg, timeout, strings.Join(seen, "; "))
		}
	}
}

// reload changes the allowlist and waits until the gate has loaded it.
func (d *demo) reload(ctx context.Context, allow string) error {
	if err := d.configure(allow); err != nil {
		return err
	}
	if err := d.gate.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	_, err := d.awaitLog(ctx, "configuration reloaded")
	return err
}

// conninfo is that of an admitted client, with the changes of a scenario.
func (d *demo) conninfo(changes ...string) string {
	host, port, _ := net.SplitHostPort(d.address)
	parts := append([]string{
		"host=localhost", "hostaddr=" + host, "port=" + port, "user=app", "dbname=app",
		"sslmode=verify-full", "sslrootcert=" + d.file("ca.crt"),
		"sslcert=" + d.file("app.crt"), "sslkey=" + d.file("app.key"),
	}, changes...) // libpq takes the later of two
	return strings.Join(parts, " ")
}

// psqlOutput runs psql and returns what it prints, to both streams.
func (d *demo) psqlOutput(ctx context.Context, conninfo string, commands ...string) string {
	args := []string{"-XAt"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	cmd := exec.CommandContext(ctx, d.psql, append(args, conninfo)...)
	cmd.Env = d.environ()
	out, _ := cmd.CombinedOutput()
	return string(bytes.TrimSpace(out))
}
