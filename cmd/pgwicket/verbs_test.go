//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/youmark/pkcs8"
	"golang.org/x/crypto/ocsp"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// verbs are what the scripts say besides testscript's own commands. Names are
// of processes that start or session has begun; the output of NAME, both
// streams, is in NAME.log.
var verbs = map[string]func(*testscript.TestScript, bool, []string){
	"home":     cmdHome,     // home: cd to $HOMEDIR, whose files belong to ACCOUNT as root
	"account":  cmdAccount,  // account: ACCOUNT, ACCOUNT_UID and so on become the database's, and the user of config
	"backend":  cmdBackend,  // backend PATH: a new socket that leads to the database
	"config":   cmdConfig,   // config [KEY=YAML...]: write pgwicket.yaml
	"db":       cmdDB,       // db SQL: as the superuser, past the gate
	"empty":    cmdEmpty,    // empty DIR: has nothing in it
	"exited":   cmdExited,   // exited NAME STATUS: wait for its end
	"exits":    cmdExits,    // exits STATUS PROGRAM [ARG...]
	"expand":   cmdExpand,   // expand FROM TO: with the variables of the script
	"freeport": cmdFreePort, // freeport NAME...: NAME becomes 127.0.0.1:PORT
	"hidden":   cmdHidden,   // hidden NAME: only root may see its memory, and it leaves no core dump
	"http":     cmdHTTP,     // http [OPTION...] STATUS METHOD URL: the answer becomes stdout, see there
	"jsonlog":  cmdJSONLog,  // jsonlog FILE: every line is a JSON record
	"logline":  cmdLogLine,  // logline FILE KEY=VALUE|KEY~REGEXP...: of just one line, see there
	"opendb":   cmdOpenDB,   // opendb: a PostgreSQL that is as open as can be, at $DBSOCKET and $DBPORT, its files in $DBDATA
	"pki":      cmdPKI,      // pki [VARIANT...]: write certificates, see there
	"process":  cmdProcess,  // [!] process TEXT: is part of a command line
	"psql":     cmdPsql,     // [!] psql [KEYWORD=VALUE...] [ARG...]: through the gate
	"reload":   cmdReload,   // [!] reload NAME: by SIGHUP, and wait for the result
	"reloads":  cmdReloads,  // reloads N NAME: one as soon as the other is done
	"send":     cmdSend,     // send NAME TEXT: a line of input
	"session":  cmdSession,  // session NAME [KEYWORD=VALUE...]: a psql that waits for send
	"signal":   cmdSignal,   // signal NAME HUP|INT|TERM|ALRM|KILL
	"socket":   cmdSocket,   // socket PATH: a Unix socket with a listener; ! socket PATH: one whose listener has gone
	"start":    cmdStart,    // start NAME PROGRAM [ARG...]: in the background
	"tcpdb":    cmdTCPDB,    // tcpdb: a PostgreSQL with TLS at 127.0.0.1:$DBPORT; db-ca.crt with its db-ca.crl, and gate.crt and gate.key for its role cert
	"threads":  cmdThreads,  // threads NAME FIELD=REGEXP...: of /proc/PID/status, each thread's
	"tmpdir":   cmdTmpDir,   // tmpdir: give TMPDIR to a directory like /tmp
	"waitdb":   cmdWaitDB,   // waitdb WANT SQL: until it answers that
	"waitlog":  cmdWaitLog,  // waitlog [-count=N] FILE TEXT: until it is there
	"waitport": cmdWaitPort, // [!] waitport ADDR: until something listens there, or nothing
}

// state is what one script has made.
type state struct {
	t         testing.TB
	ca        *tlstest.CA
	processes map[string]*process
}

type stateKey struct{}

func newState(t testing.TB) *state {
	return &state{t: t, ca: tlstest.NewCA("script CA"), processes: make(map[string]*process)}
}

func stateOf(ts *testscript.TestScript) *state { return ts.Value(stateKey{}).(*state) }

func (s *state) process(ts *testscript.TestScript, name string) *process {
	p, ok := s.processes[name]
	if !ok {
		ts.Fatalf("nothing has been started as %q", name)
	}
	return p
}

// process is a program in the background.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   string
	ended chan struct{}
}

// need ends the script unless a verb is used as the table says.
func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// wait polls until ok, and fails with what when that takes too long.
func wait(ts *testscript.TestScript, ok func() bool, what func() string) {
	for end := time.Now().Add(deadline); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("after %v: %s", deadline, what())
		}
	}
}

// cmdStart's process is killed when the script ends; if the script fails, its
// output is part of the report.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "start NAME PROGRAM [ARG...]")
	name := args[0]
	path := args[1]
	if !strings.Contains(path, "/") {
		path = lookPath(ts, path)
	}
	p := &process{cmd: exec.Command(path, args[2:]...), log: ts.MkAbs(name + ".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	ts.Check(err)
	defer log.Close()
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = environment(ts)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.stdin, err = p.cmd.StdinPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	s := stateOf(ts)
	s.processes[name] = p
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if s.t.Failed() {
			text, _ := os.ReadFile(p.log)
			ts.Logf("[%s.log]\n%s", name, text)
		}
	})
}

// environment is the one of the script: testscript keeps it to itself.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK", "GORACE", "GOCOVERDIR", "LC_ALL", "PGPASSWORD", "PGCONNECT_TIMEOUT", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func lookPath(ts *testscript.TestScript, program string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	ts.Fatalf("there is no %s in PATH", program)
	return ""
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "ALRM": syscall.SIGALRM, "KILL": syscall.SIGKILL}
	need(ts, !neg && len(args) == 2 && signals[args[1]] != 0, "signal NAME HUP|INT|TERM|ALRM|KILL")
	ts.Check(stateOf(ts).process(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func cmdExited(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "exited NAME STATUS")
	p := stateOf(ts).process(ts, args[0])
	select {
	case <-p.ended:
	case <-time.After(deadline):
		ts.Fatalf("%s is still running after %v", args[0], deadline)
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s has ended with status %s (%v), not %s", args[0], got, p.cmd.ProcessState, args[1])
	}
}

func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "send NAME TEXT")
	_, err := io.WriteString(stateOf(ts).process(ts, args[0]).stdin, args[1]+"\n")
	ts.Check(err)
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "exits STATUS PROGRAM [ARG...]")
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %v", args[1], err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, not %s", got, args[0])
	}
}

// conninfo is a good client of the gate at $GATE, with the changes of a script:
// of two values libpq takes the later one.
func conninfo(ts *testscript.TestScript, changes []string) string {
	host, port, _ := strings.Cut(ts.Getenv("GATE"), ":")
	work := ts.Getenv("WORK")
	parts := append([]string{
		"host=localhost", "hostaddr=" + host, "port=" + port, "user=" + role, "dbname=" + role,
		"sslmode=verify-full", "sslrootcert=" + work + "/ca.crt",
		"sslcert=" + work + "/client.crt", "sslkey=" + work + "/client.key",
	}, changes...)
	return strings.Join(parts, " ")
}

var keywordValue = regexp.MustCompile(`^[a-z_]+=`)

func splitChanges(args []string) (changes, rest []string) {
	for len(args) > 0 && keywordValue.MatchString(args[0]) {
		changes, args = append(changes, args[0]), args[1:]
	}
	return changes, args
}

func cmdPsql(ts *testscript.TestScript, neg bool, args []string) {
	changes, rest := splitChanges(args)
	err := ts.Exec("psql", append([]string{"-XAtq", conninfo(ts, changes)}, rest...)...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("psql: %v", err)
	}
	if (err != nil) != neg {
		ts.Fatalf("psql: unexpected result: %v", err)
	}
}

func cmdSession(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 1, "session NAME [KEYWORD=VALUE...]")
	changes, rest := splitChanges(args[1:])
	need(ts, len(rest) == 0, "session NAME [KEYWORD=VALUE...]")
	cmdStart(ts, false, []string{args[0], "psql", "-XAtq", conninfo(ts, changes)})
}

func cmdDB(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "db SQL")
	db, err := database.get()
	ts.Check(err)
	out, err := db.SQL(args[0])
	ts.Check(err)
	_, _ = fmt.Fprintln(ts.Stdout(), out)
}

func cmdWaitDB(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "waitdb WANT SQL")
	db, err := database.get()
	ts.Check(err)
	var got string
	wait(ts, func() bool {
		got, err = db.SQL(args[1])
		ts.Check(err)
		return got == args[0]
	}, func() string { return fmt.Sprintf("the answer is %q, not %q", got, args[0]) })
}

// used are the ports that were given away, so that two scripts do not get one.
var used struct {
	sync.Mutex
	last int
}

// freePort takes from below the range that systems choose from for outgoing
// connections: of the thousands that the tests make, one could get the port
// before the gate listens on it.
func freePort() (int, error) {
	used.Lock()
	defer used.Unlock()
	if used.last == 0 {
		used.last = 20000 + rand.IntN(10000)
	}
	for range 1000 {
		used.last++
		if used.last > 32000 {
			used.last = 20000
		}
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", used.last)); err == nil {
			return used.last, ln.Close()
		}
	}
	return 0, errors.New("no free port between 20000 and 32000")
}

func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) > 0, "freeport NAME...")
	for _, name := range args {
		port, err := freePort()
		ts.Check(err)
		ts.Setenv(name, fmt.Sprintf("127.0.0.1:%d", port))
	}
	if slices.Contains(args, "GATE") {
		ts.Setenv("CONNINFO", conninfo(ts, nil))
	}
}

func cmdWaitPort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1, "[!] waitport ADDR")
	wait(ts, func() bool {
		c, err := net.Dial("tcp", args[0])
		if err == nil {
			_ = c.Close()
		}
		return (err == nil) != neg
	}, func() string { return fmt.Sprintf("something listens on %s: %t", args[0], neg) })
}

func cmdWaitLog(ts *testscript.TestScript, neg bool, args []string) {
	count := 1
	if len(args) == 3 && strings.HasPrefix(args[0], "-count=") {
		count, _ = strconv.Atoi(strings.TrimPrefix(args[0], "-count="))
		args = args[1:]
	}
	need(ts, !neg && len(args) == 2 && count > 0, "waitlog [-count=N] FILE TEXT")
	wait(ts, func() bool { return strings.Count(ts.ReadFile(args[0]), args[1]) >= count },
		func() string { return fmt.Sprintf("no %q in %s", args[1], args[0]) })
}

// What the gate says when it has dealt with a SIGHUP.
const (
	reloadDone   = `"msg":"configuration reloaded"`
	reloadFailed = `"msg":"reload failed,`
)

func cmdReload(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1, "[!] reload NAME")
	reload(ts, stateOf(ts).process(ts, args[0]), neg)
}

func cmdReloads(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "reloads N NAME")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for range n {
		reload(ts, stateOf(ts).process(ts, args[1]), false)
	}
}

// reload makes p read its configuration again, which must work or, with fails,
// must not.
func reload(ts *testscript.TestScript, p *process, fails bool) {
	counts := func() (done, failed int) {
		text := ts.ReadFile(p.log)
		return strings.Count(text, reloadDone), strings.Count(text, reloadFailed)
	}
	done, failed := counts()
	ts.Check(p.cmd.Process.Signal(syscall.SIGHUP))
	var doneNow, failedNow int
	wait(ts, func() bool {
		doneNow, failedNow = counts()
		return doneNow+failedNow > done+failed
	}, func() string { return "nothing in the log about a reload" })
	if (failedNow > failed) != fails {
		ts.Fatalf("reloads since: %d done, %d failed", doneNow-done, failedNow-failed)
	}
}

func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	host := ""
	for ; len(args) > 0 && strings.HasPrefix(args[0], "-"); args = args[1:] {
		option, value, _ := strings.Cut(args[0], "=")
		switch option {
		case "-host":
			host = value
		case "-socket":
			transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", ts.MkAbs(value))
			}
		case "-cert":
			pair, err := tls.LoadX509KeyPair(ts.MkAbs(value+".crt"), ts.MkAbs(value+".key"))
			ts.Check(err)
			transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
		case "-server":
			want := readCertificate(ts, value)
			transport.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
				if !s.PeerCertificates[0].Equal(want) {
					return fmt.Errorf("the server does not show %s", value)
				}
				return nil
			}
		default:
			ts.Fatalf("http: unknown option %s", option)
		}
	}
	need(ts, !neg && len(args) == 3, "http [-host=NAME] [-socket=PATH] [-cert=NAME] [-server=FILE] STATUS METHOD URL")
	req, err := http.NewRequest(args[1], args[2], http.NoBody)
	ts.Check(err)
	if host != "" {
		req.Host = host
	}
	client := http.Client{Timeout: deadline, Transport: transport}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, _ = ts.Stdout().Write(body)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s %s: status %s, not %s", args[1], args[2], got, args[0])
	}
}

// records are the lines of a log. Numbers stay as they are written.
func records(ts *testscript.TestScript, file string) []map[string]any {
	var all []map[string]any
	for line := range strings.Lines(ts.ReadFile(file)) {
		if !strings.HasSuffix(line, "\n") {
			continue // being written
		}
		record := make(map[string]any)
		dec := json.NewDecoder(strings.NewReader(line))
		dec.UseNumber()
		if err := dec.Decode(&record); err != nil || dec.More() {
			ts.Fatalf("%s has a line that is not one JSON record (%v): %s", file, err, line)
		}
		all = append(all, record)
	}
	return all
}

func cmdJSONLog(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "jsonlog FILE")
	all := records(ts, args[0])
	if len(all) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	for _, r := range all {
		_, err := time.Parse(time.RFC3339Nano, fmt.Sprint(r["time"]))
		if err != nil || r["level"] == nil || r["msg"] == nil {
			ts.Fatalf("a record without time, level or msg: %v", r)
		}
	}
}

// cmdLogLine waits for a line with all of the KEY=VALUEs, of which there must be
// no second one then, and compares it with the KEY~REGEXPs, each of them with
// the whole value.
func cmdLogLine(ts *testscript.TestScript, neg bool, args []string) {
	const usage = "logline FILE KEY=VALUE|KEY~REGEXP..."
	need(ts, !neg && len(args) >= 2, usage)
	values, patterns := make(map[string]string), make(map[string]*regexp.Regexp)
	for _, a := range args[1:] {
		i := strings.IndexAny(a, "=~")
		need(ts, i > 0, usage)
		if a[i] == '=' {
			values[a[:i]] = a[i+1:]
			continue
		}
		re, err := regexp.Compile("^(?:" + a[i+1:] + ")$")
		ts.Check(err)
		patterns[a[:i]] = re
	}
	var found []map[string]any
	wait(ts, func() bool {
		found = slices.DeleteFunc(records(ts, args[0]), func(r map[string]any) bool {
			for key, want := range values {
				if fmt.Sprint(r[key]) != want {
					return true
				}
			}
			return false
		})
		return len(found) > 0
	}, func() string { return "no such line" })
	if len(found) > 1 {
		ts.Fatalf("%d lines, not 1: %v", len(found), found)
	}
	for key, re := range patterns {
		v, ok := found[0][key]
		if text := fmt.Sprint(v); !ok || !re.MatchString(text) {
			ts.Fatalf("%s is %q (there: %t), which does not match %s; the line: %v", key, text, ok, re, found[0])
		}
	}
}

// cmdConfig writes pgwicket.yaml: a gate at $GATE with what the verb pki makes,
// in front of the shared database, and these changes. A key without a value is
// left out.
func cmdConfig(ts *testscript.TestScript, neg bool, args []string) {
	db, err := database.get()
	ts.Check(err)
	ts.Setenv("PGSOCKET", db.SocketDir)
	entries := [][2]string{
		{"listen", fmt.Sprintf("[{address: %q}]", ts.Getenv("GATE"))},
		{"tls.cert_file", "server.crt"},
		{"tls.key_file", "server.key"},
		{"tls.client_cert", "require"},
		{"tls.ca_file", "ca.crt"},
		{"tls.crl_file", "ca.crl"},
		{"acl.allow", "[127.0.0.0/8]"},
		{"backend.host", db.SocketDir},
		{"limits.drain_timeout", "10m"}, // a script that waits for its end would fail
		{"admin.address", fmt.Sprintf("%q", ts.Getenv("ADMIN"))},
		{"log.format", "json"},
		{"watch_files", "false"}, // most scripts change several files before they reload
	}
	if account := ts.Getenv("ACCOUNT"); account != "" {
		entries = append(entries, [2]string{"user", account})
	}
	if testing.CoverMode() != "" { // what it has covered, the gate writes at its end
		entries = append(entries, [2]string{"landlock", "false"})
	}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		need(ts, ok && !neg, "config [KEY=YAML...]")
		entries = slices.DeleteFunc(entries, func(e [2]string) bool { return e[0] == key })
		if value != "" {
			entries = append(entries, [2]string{key, value})
		}
	}
	slices.SortStableFunc(entries, func(a, b [2]string) int { return strings.Compare(section(a[0]), section(b[0])) })
	var b strings.Builder
	last := ""
	for _, e := range entries {
		name, key, nested := strings.Cut(e[0], ".")
		if !nested {
			fmt.Fprintf(&b, "%s: %s\n", name, e[1])
			continue
		}
		if name != last {
			fmt.Fprintf(&b, "%s:\n", name)
			last = name
		}
		fmt.Fprintf(&b, "  %s: %s\n", key, e[1])
	}
	// In one step, as an editor does it: a gate may be reading it.
	ts.Check(os.WriteFile(ts.MkAbs(".pgwicket.yaml"), []byte(b.String()), 0o600))
	ts.Check(os.Rename(ts.MkAbs(".pgwicket.yaml"), ts.MkAbs("pgwicket.yaml")))
	giveAway(ts)
}

func section(key string) string {
	name, _, _ := strings.Cut(key, ".")
	return name
}

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "expand FROM TO")
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// cmdPKI writes, in the current directory, ca.crt, ca.crl, server.crt,
// server.key, client.crt and client.key. With a VARIANT it changes some of them:
//
//	client             a new client.crt and client.key
//	server             a new server.crt and server.key
//	rsa-server         the same with an RSA key
//	revoke=FILE        a ca.crl that lists this certificate
//	stale-crl          a ca.crl that is out of date
//	expired-server     a server.crt that was good until yesterday
//	mismatched-key     a server.key that belongs to another certificate
//	ocsp               a server.ocsp, the response about server.crt
//	encrypted-key=PASS the same server.key, encrypted
//	half-server        a new server.crt, as if its key were still to be written
//	cut-server         a server.crt that ends in the middle
func cmdPKI(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg, "pki [VARIANT...]")
	if len(args) == 0 {
		args = []string{"server", "client", "revoke"}
		writeFile(ts, "ca.crt", stateOf(ts).ca.CertPEM(), 0o644)
	}
	for _, a := range args {
		variant, value, _ := strings.Cut(a, "=")
		writePKI(ts, variant, value)
	}
	giveAway(ts)
}

func writePKI(ts *testscript.TestScript, variant, value string) {
	ca := stateOf(ts).ca
	server := func() *tlstest.Pair { return ca.Server("localhost", "127.0.0.1") }
	switch variant {
	case "client":
		ts.Check(ca.Client(role).WriteFiles(ts.MkAbs("client.crt"), ts.MkAbs("client.key")))
	case "server":
		ts.Check(server().WriteFiles(ts.MkAbs("server.crt"), ts.MkAbs("server.key")))
	case "rsa-server":
		rsa := ca.WithKey(tlstest.RSA).Server("localhost", "127.0.0.1")
		ts.Check(rsa.WriteFiles(ts.MkAbs("server.crt"), ts.MkAbs("server.key")))
	case "revoke":
		writeFile(ts, "ca.crl", ca.CRL(func(l *tlstest.CRL) {
			if value != "" {
				l.Revoke(readCertificate(ts, value))
			}
		}), 0o644)
	case "stale-crl":
		writeFile(ts, "ca.crl", ca.CRL(func(l *tlstest.CRL) { l.NextUpdate = time.Now().Add(-time.Minute) }), 0o644)
	case "expired-server":
		expired := ca.Client("localhost", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.DNSNames = []string{"localhost"}
			c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, -10), time.Now().AddDate(0, 0, -1)
		})
		ts.Check(expired.WriteFiles(ts.MkAbs("server.crt"), ts.MkAbs("server.key")))
	case "mismatched-key":
		writeFile(ts, "server.key", server().KeyPEM(), 0o600)
	case "encrypted-key":
		block, _ := pem.Decode([]byte(ts.ReadFile("server.key")))
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		ts.Check(err)
		der, err := pkcs8.MarshalPrivateKey(key, []byte(value), nil)
		ts.Check(err)
		writeFile(ts, "server.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), 0o600)
	case "ocsp":
		now := time.Now()
		der, err := ocsp.CreateResponse(ca.Cert, ca.Cert, ocsp.Response{
			Status: ocsp.Good, SerialNumber: readCertificate(ts, "server.crt").SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour),
		}, ca.Key)
		ts.Check(err)
		writeFile(ts, "server.ocsp", der, 0o644)
	case "half-server":
		writeFile(ts, "server.crt", server().CertPEM(), 0o644)
	case "cut-server":
		whole := server().CertPEM()
		writeFile(ts, "server.crt", whole[:len(whole)/2], 0o644)
	default:
		ts.Fatalf("pki: unknown variant %q", variant)
	}
}

// writeFile replaces a file, with that mode whatever the old one had.
func writeFile(ts *testscript.TestScript, name string, data []byte, mode os.FileMode) {
	name = ts.MkAbs(name)
	_ = os.Remove(name)
	ts.Check(os.WriteFile(name, data, mode))
}

func readCertificate(ts *testscript.TestScript, name string) *x509.Certificate {
	block, _ := pem.Decode([]byte(ts.ReadFile(name)))
	need(ts, block != nil, name+" in PEM")
	c, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	return c
}

func cmdSocket(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1, "[!] socket PATH")
	ln, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	if neg {
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ts.Check(ln.Close())
		return
	}
	ts.Defer(func() { _ = ln.Close() })
}

// cmdTmpDir is for programs that start a PostgreSQL: as root it runs under
// another account, which does not get through to $WORK, and its socket's path
// has a hundred bytes.
func cmdTmpDir(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "tmpdir")
	dir, err := os.MkdirTemp("", "pgw-")
	ts.Check(err)
	ts.Check(os.Chmod(dir, 0o777|os.ModeSticky))
	ts.Defer(func() {
		for pid := range processes(dir) { // that a failed demo has left behind
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	})
	ts.Setenv("TMPDIR", dir)
}

func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "empty DIR")
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %v", args[0], entries)
	}
}

// cmdProcess waits for a process to come, or for all to go.
func cmdProcess(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1 && args[0] != "", "[!] process TEXT")
	wait(ts, func() bool { return (len(processes(args[0])) > 0) != neg },
		func() string { return fmt.Sprintf("running with %q: %v", args[0], processes(args[0])) })
}

// processes returns the command lines with that part, by their process.
func processes(part string) map[int]string {
	found := make(map[int]string)
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f) // gone meanwhile: empty
		text := string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		if pid, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil && strings.Contains(text, part) {
			found[pid] = text
		}
	}
	return found
}

// cmdTCPDB starts a PostgreSQL for this script alone.
func cmdTCPDB(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "tcpdb")
	ca := tlstest.NewCA("database CA")
	pair := ca.Server("localhost", "127.0.0.1")
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		Host:     "127.0.0.1",
		HBA:      "local all all trust\nhostssl all cert all cert\nhostssl all all all trust",
		Files:    map[string][]byte{"server.crt": pair.CertPEM(), "server.key": pair.KeyPEM(), "ca.crt": ca.CertPEM()},
		Settings: []string{"ssl=on", "ssl_ca_file=ca.crt"},
		SQL:      "create role app login; create role cert login; create database app; create database other; create database cert",
	})
	ts.Check(err)
	ts.Defer(db.Stop)
	ts.Setenv("DBPORT", strconv.Itoa(db.Port))
	writeFile(ts, "db-ca.crt", ca.CertPEM(), 0o644)
	writeFile(ts, "db-ca.crl", ca.CRL(func(*tlstest.CRL) {}), 0o644)
	ts.Check(ca.Client("cert").WriteFiles(ts.MkAbs("gate.crt"), ts.MkAbs("gate.key")))
}

// cmdOpenDB starts a PostgreSQL that admits every client, in a network namespace
// without any.
func cmdOpenDB(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "opendb")
	real, err := pgtest.Find()
	ts.Check(err)
	dir, err := os.MkdirTemp(pgtest.TempDir(true), "pgw-")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	for name, before := range map[string]string{"initdb": "", "postgres": alone + " "} {
		text := fmt.Sprintf("#!/bin/sh\nexec %s%s/%s \"$@\"\n", before, real, name)
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		BinDir: dir, Host: "*", HBA: "local all all trust\nhost all all 0.0.0.0/0 trust",
	})
	ts.Check(err)
	ts.Defer(db.Stop)
	data, err := db.SQL("show data_directory")
	ts.Check(err)
	ts.Check(os.Chmod(db.SocketDir, 0o755))
	ts.Setenv("DBSOCKET", db.SocketDir)
	ts.Setenv("DBPORT", strconv.Itoa(db.Port))
	ts.Setenv("DBDATA", data)
}
