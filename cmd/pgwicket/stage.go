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
	"pgwicket/internal/sandbox"
	"pgwicket/internal/tlstest"
)

// stage is where the demo plays: a directory with certificates and a
// configuration, a PostgreSQL, and a gate that runs as a process of its own,
// as it would in earnest.
type stage struct {
	out      io.Writer
	dir      string
	account  *sandbox.Account // that the gate becomes; nil: ours
	password string
	address  string // of the gate
	admin    string
	psql     string
	db       *pgtest.Server
	gate     *exec.Cmd
	lines    chan map[string]any // the gate's log
}

// patience is how long the gate may take for anything that the story waits for.
const patience = 15 * time.Second

func newStage(ctx context.Context, out io.Writer) (_ *stage, err error) {
	st := &stage{out: out, password: rand.Text(), lines: make(chan map[string]any, 100)}
	defer func() {
		if err != nil {
			st.remove()
		}
	}()
	if st.psql, err = pgtest.Program("psql"); err != nil {
		return nil, err
	}
	if err := st.makeDir(); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "making a CA, certificates and a revocation list in", st.dir)
	if err := st.makeCertificates(); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "starting a PostgreSQL that listens on a Unix socket only (a few seconds)")
	st.db, err = pgtest.Start(ctx, pgtest.Options{
		// The superuser, for setting up, from accounts that need no gate anyway.
		HBA:   "local all postgres peer map=setup\nlocal all all scram-sha-256",
		Ident: st.ident(),
		SQL:   "create role app login password '" + st.password + "'; create database app owner app",
	})
	if err != nil {
		return nil, err
	}
	if err := st.lend(st.db.SocketDir, 0o750); err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "starting pgwicket in front of it")
	return st, st.startGate(ctx)
}

// makeDir makes the directory. Root does as one should: the gate becomes another
// account, and has of root's files what its group may read.
func (st *stage) makeDir() (err error) {
	if os.Geteuid() == 0 {
		if st.account, err = sandbox.FindAccount("nobody"); err != nil {
			return err
		}
	}
	if st.dir, err = os.MkdirTemp(pgtest.TempDir(st.account != nil), "pgwicket-demo-"); err != nil {
		return err
	}
	return st.lend(st.dir, 0o750)
}

// lend lets the gate's account read a file or enter a directory, by its group.
func (st *stage) lend(name string, mode os.FileMode) error {
	if st.account == nil {
		return nil
	}
	return cmp.Or(os.Chown(name, -1, st.account.GID), os.Chmod(name, mode))
}

// ident maps whom the database belongs to anyway to its superuser: us, and as root
// the account that it runs under.
func (st *stage) ident() string {
	if st.account != nil {
		return "setup root postgres\nsetup postgres postgres"
	}
	return "setup " + accountName() + " postgres"
}

// accountName is the name of this account, or its number if it has none.
func accountName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// remove ends the processes and deletes all files. It may be called at any
// stage of the stage.
func (st *stage) remove() {
	if st.gate != nil {
		_ = st.gate.Process.Signal(syscall.SIGTERM)
		_ = st.gate.Wait()
	}
	if st.db != nil {
		st.db.Stop()
	}
	if st.dir != "" {
		_ = os.RemoveAll(st.dir)
	}
}

func (st *stage) file(name string) string { return filepath.Join(st.dir, name) }

func (st *stage) makeCertificates() error {
	ca := tlstest.NewCA("pgwicket demo CA")
	good, stolen := ca.Client("app"), ca.Client("app")
	crl := ca.CRL(func(l *tlstest.CRL) {
		l.Revoke(stolen.Leaf())
	})
	for name, pair := range map[string]*tlstest.Pair{"server": ca.Server("localhost", "127.0.0.1"), "app": good, "stolen": stolen} {
		if err := pair.WriteFiles(st.file(name+".crt"), st.file(name+".key")); err != nil {
			return err
		}
	}
	passphrase := rand.Text()
	key, err := encrypted(st.file("server.key"), passphrase)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"ca.crt":     ca.CertPEM(),
		"ca.crl":     crl,
		"server.key": key,
		"passphrase": []byte(passphrase), // which one would keep elsewhere
		// OpenSSL's defaults would not let psql even try an old TLS version.
		"openssl-old.cnf": []byte("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv1\nCipherString = DEFAULT@SECLEVEL=0\n"),
	} {
		if err := os.WriteFile(st.file(name), text, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"server.crt", "server.key", "passphrase", "ca.crt", "ca.crl"} {
		if err := st.lend(st.file(name), 0o640); err != nil {
			return err
		}
	}
	return nil
}

// encrypted returns the key of a file as one that takes a passphrase.
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

// configure writes the configuration with these networks allowed.
func (st *stage) configure(allow string) error {
	file := st.file("pgwicket.yaml")
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
log:
  format: json
`, st.address, "cat '"+strings.ReplaceAll(st.file("passphrase"), "%", "%%")+"'", allow, st.db.SocketDir, st.admin)
	if st.account != nil {
		text = fmt.Appendf(text, "user: %s\n", st.account.Name)
	}
	return cmp.Or(os.WriteFile(file, text, 0o600), st.lend(file, 0o640))
}

func (st *stage) startGate(ctx context.Context) (err error) {
	if st.address, err = pgtest.FreeAddress(); err != nil {
		return err
	}
	if st.admin, err = pgtest.FreeAddress(); err != nil {
		return err
	}
	if err := st.configure("127.0.0.0/8"); err != nil {
		return err
	}
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	st.gate = exec.Command(self, "serve", "--config", st.file("pgwicket.yaml"))
	st.gate.Env = pgtest.Environ("TMPDIR=" + filepath.Dir(st.dir)) // without a person's PGWICKET_ variables; where the account can enter
	// A process group of its own: Ctrl-C is for the demo, which then ends it.
	st.gate.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := st.gate.StderrPipe()
	if err != nil {
		return err
	}
	if err := st.gate.Start(); err != nil {
		st.gate = nil
		return err
	}
	go st.readLog(log)
	_, err = st.awaitLog(ctx, "ready")
	return err
}

// readLog keeps the lines that the story will tell, and must never block the
// gate.
func (st *stage) readLog(r io.Reader) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		line := make(map[string]any)
		if json.Unmarshal(sc.Bytes(), &line) != nil {
			line["msg"] = sc.Text()
		}
		select {
		case st.lines <- line:
		default:
		}
	}
	close(st.lines)
}

// awaitLog returns the next line of the log with that message.
func (st *stage) awaitLog(ctx context.Context, msg string) (map[string]any, error) {
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-st.lines:
			if !ok {
				return nil, fmt.Errorf("the gate has ended; its log: %s", strings.Join(seen, "; "))
			}
			if line["msg"] == msg {
				return line, nil
			}
			seen = append(seen, fmt.Sprint(line["msg"]))
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout:
			return nil, fmt.Errorf("no %q in the gate's log within %v, only: %s", msg, patience, strings.Join(seen, "; "))
		}
	}
}

// reload allows these networks and waits until the gate has taken it.
func (st *stage) reload(ctx context.Context, allow string) error {
	if err := st.configure(allow); err != nil {
		return err
	}
	if err := st.gate.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	_, err := st.awaitLog(ctx, "configuration reloaded")
	return err
}

// conninfo is what psql needs to get in, with the changes of one scene.
func (st *stage) conninfo(changes ...string) string {
	host, port, _ := net.SplitHostPort(st.address)
	parts := append([]string{
		"host=localhost", "hostaddr=" + host, "port=" + port, "user=app", "dbname=app",
		"sslmode=verify-full", "sslrootcert=" + st.file("ca.crt"),
		"sslcert=" + st.file("app.crt"), "sslkey=" + st.file("app.key"),
	}, changes...) // of two, libpq takes the later one
	return strings.Join(parts, " ")
}

// run runs psql and returns what it prints, to both streams.
func (st *stage) run(ctx context.Context, conninfo string, commands ...string) string {
	args := []string{"-XAt"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	cmd := exec.CommandContext(ctx, st.psql, append(args, conninfo)...)
	cmd.Env = pgtest.Environ("PGPASSWORD="+st.password, "PGCONNECT_TIMEOUT="+strconv.Itoa(int(patience.Seconds())),
		"OPENSSL_CONF="+st.file("openssl-old.cnf"), "LC_ALL=C")
	out, _ := cmd.CombinedOutput()
	return string(bytes.TrimSpace(out))
}
