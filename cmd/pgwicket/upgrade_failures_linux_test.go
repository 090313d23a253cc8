package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/handover"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/upgrade"
)

// candidate is a process that asks for an upgrade, as far as a test lets it come.
type candidate struct {
	u *unit
	*handover.Conn
}

func (u *unit) candidate() *candidate {
	u.t.Helper()
	conn, err := net.Dial("unix", u.path("admin.sock"))
	u.check(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /upgrade HTTP/1.1\r\nHost: pgwicket\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\nContent-Length: 0\r\n\r\n")
	u.check(err)
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		_, err := io.ReadFull(conn, one)
		u.check(err)
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		u.t.Fatalf("%s", head)
	}
	f, err := handover.OverSocket(conn.(*net.UnixConn)).Receive()
	u.check(err)
	c, err := handover.NewConn(f.Files[0])
	u.check(err)
	c.SetDeadline(time.Now().Add(deadline))
	return &candidate{u, c}
}

func (c *candidate) hello(format int) {
	c.u.t.Helper()
	c.u.check(c.Send(handover.Hello, map[string]any{"format": format, "version": "candidate"}, nil))
}

// until receives frames up to one of a kind, and returns it.
func (c *candidate) until(k handover.Kind) handover.Frame {
	c.u.t.Helper()
	for {
		f, err := c.Receive()
		if err != nil {
			c.u.t.Fatalf("%v: %v", k, err)
		}
		f.Close()
		if f.Kind == k {
			return f
		}
		if f.Kind == handover.Failed {
			c.u.t.Fatalf("failed before %v: %s", k, f.Text)
		}
	}
}

// sockets receives what the old process passes.
func (c *candidate) sockets() {
	c.u.t.Helper()
	f := c.until(handover.Welcome)
	var w struct {
		Sockets int `json:"sockets"`
	}
	c.u.check(json.Unmarshal(f.Text, &w))
	for range w.Sockets {
		c.until(handover.Socket)
	}
}

// prepared takes the steps of an upgrade until the old process has stopped accepting, and returns the claim to do so.
func (c *candidate) prepared() handover.Claim {
	c.u.t.Helper()
	c.hello(handover.Version)
	c.sockets()
	return c.goes()
}

// goes is the rest of prepared.
func (c *candidate) goes() handover.Claim {
	c.u.t.Helper()
	c.u.check(c.Send(handover.Prepared, nil, nil))
	for {
		f, err := c.Receive()
		c.u.check(err)
		if f.Kind == handover.Go && len(f.Files) == 2 {
			claim := handover.ClaimOf(f.Files[0])
			f.Files = f.Files[1:]
			f.Close()
			return claim
		}
		f.Close()
	}
}

// serves takes the steps of an upgrade until the candidate has taken over.
func (c *candidate) serves() {
	c.u.t.Helper()
	if !c.prepared().Take() {
		c.u.t.Fatal("the claim is taken")
	}
	c.u.check(c.Send(handover.Serving, nil, nil))
}

// candidateVariable has TestCandidateProcess run, for the gate in that directory.
const candidateVariable = "TEST_CANDIDATE"

// stoppedVariable has it hear that all sessions were handed over, and be told to stop when its input ends.
const stoppedVariable = "TEST_CANDIDATE_STOPPED"

// TestCandidateProcess is the process of candidateProcess.
func TestCandidateProcess(t *testing.T) {
	dir := os.Getenv(candidateVariable)
	if dir == "" {
		t.Skip("another test runs it")
	}
	u := &unit{t: t, dir: dir}
	n := u.candidate()
	n.serves()
	last := handover.Batch
	if os.Getenv(stoppedVariable) != "" {
		last = handover.Rest
	}
	n.until(last)
	if last == handover.Batch {
		u.check(n.Close())
	}
	fmt.Println("there")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if last == handover.Rest {
		u.check(n.Send(handover.End, nil, nil))
	}
}

// candidateProcess is a new process that has taken over. It has not accepted the first sessions, and has closed the
// channel, unless env has stoppedVariable. end kills it, or waits until it has ended.
func (u *unit) candidateProcess(env ...string) (input io.Closer, end func()) {
	u.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCandidateProcess$")
	cmd.Env, cmd.Stderr = append(append(os.Environ(), candidateVariable+"="+u.dir), env...), os.Stderr
	stdin, err := cmd.StdinPipe()
	u.check(err)
	stdout, err := cmd.StdoutPipe()
	u.check(err)
	u.check(cmd.Start())
	end = func() {
		if len(env) == 0 {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
	}
	u.t.Cleanup(end)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "there\n" {
		u.t.Fatalf("the candidate has not come that far: %q, %v", line, err)
	}
	return stdin, end
}

// A new process that is told to stop, and ends at once, has told the old one, which must not accept again.
func TestStopOfANewProcess(t *testing.T) {
	t.Parallel()
	for range 5 {
		u := newUnit(t)
		first := u.startUpgradable()
		starting, err := net.Dial("tcp", u.address) // the old process keeps it, and so lives
		u.check(err)
		u.eventually("it is not counted", func() bool { return u.metrics()["pgwicket_connections_starting"] == 1 })
		input, wait := u.candidateProcess(stoppedVariable + "=1")
		first.signal(syscall.SIGSTOP) // so that it sees the message and the death together
		u.check(input.Close())
		wait()
		first.signal(syscall.SIGCONT)
		u.check(starting.Close())
		first.ends(0)
		if text := first.text(); strings.Contains(text, "accepts connections again") {
			t.Error("the old process has accepted connections again")
		}
	}
}

// As long as a new process lives that has taken over, the old one does not accept connections, also when it has all
// sessions and the channel is closed: two gates would accept. When the new one has died, it does.
func TestUpgradeWithoutChannel(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.replace("drain_timeout: 1m", "drain_timeout: 10m")
	notified := u.notifications()
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	first := u.start("first", nil, notified.env())
	c := u.talk()
	c.asks("begin; select 1;", "1")
	_, end := u.candidateProcess()
	first.logs("that process accepts the connections, and this one finishes its sessions")
	c.asks("select 2;", "2")
	conn, err := net.Dial("tcp", u.address) // the queue of the socket takes it
	u.check(err)
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	if n, _ := conn.Read(answer); n > 0 {
		t.Error("the old process accepts connections beside the new one")
	}
	end()
	first.logs("the new process is gone; this process accepts connections again")
	_ = conn.SetReadDeadline(time.Now().Add(deadline))
	if _, err := conn.Read(answer); err != nil || answer[0] != 'S' {
		t.Errorf("the connection that has waited: %q, %v", answer, err)
	}
	if out, err := u.psql("select 'new'"); err != nil || out != "new\n" {
		t.Errorf("a new client: %v, %s", err, out)
	}
	notified.wait(fmt.Sprintf("MAINPID=%d", first.cmd.Process.Pid), 1)
	c.asks("select 3;", "3")
}

// oldProcess is what a test does in the part of the old process, which has no sessions.
type oldProcess struct {
	prepared func() error                                          // when the new process is; nil: nothing
	serving  func(channel *handover.Conn, commands net.Conn) error // when it serves; both are closed then
	ended    chan error                                            // gets how it has ended
}

// hands has a test serve an admin socket, and hand its place over to the process that asks for an upgrade. Its log is
// new.log.
func (u *unit) hands(p *oldProcess) {
	u.t.Helper()
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	p.ended = make(chan error, 1)
	ln, err := net.Listen("unix", u.path("admin.sock"))
	u.check(err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	u.t.Cleanup(func() { _ = ln.Close() })
	plan := upgrade.Plan{PID: os.Getpid(), Version: "old", Format: handover.Version, UID: os.Geteuid()}
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				_ = json.NewEncoder(w).Encode(plan)
				return
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				err = u.handOver(conn.(*net.UnixConn), ln, p)
			}
			p.ended <- err
		}))
	}()
	u.t.Cleanup(func() {
		if u.t.Failed() {
			text, _ := os.ReadFile(u.path("new.log"))
			u.t.Logf("new.log:\n%s", text)
		}
	})
}

func (u *unit) handOver(conn *net.UnixConn, ln net.Listener, p *oldProcess) error {
	defer conn.Close()
	c, other, err := handover.Pair()
	if err != nil {
		return err
	}
	defer c.Close()
	defer other.Close()
	mark, err := handover.NewMark()
	if err != nil {
		return err
	}
	defer mark.Close()
	claim, err := handover.NewClaim()
	if err != nil {
		return err
	}
	defer claim.Close()
	ours, theirs, err := handover.SocketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	log, err := os.Create(u.path("new.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: pgwicket-upgrade\r\n\r\n"); err != nil {
		return err
	}
	send := func(of any, role, address string) error {
		return handover.With(of, func(fd int) error {
			return c.Send(handover.Socket, map[string]string{"role": role, "address": address}, nil, fd)
		})
	}
	err = errors.Join(
		handover.With(other, func(fd int) error { return handover.OverSocket(conn).Send(handover.Welcome, nil, nil, fd) }),
		c.Send(handover.Welcome, map[string]any{"format": handover.Version, "version": "old", "sockets": 3, "notify_socket": "", "watchdog_usec": ""}, nil),
		send(log, "log", ""), send(theirs, "commands", ""), send(ln, "admin socket", u.path("admin.sock")),
		ln.Close(), theirs.Close(), other.Close(),
	)
	for err == nil {
		var f handover.Frame
		if f, err = c.Receive(); err != nil {
			break
		}
		f.Close()
		switch f.Kind {
		case handover.Failed:
			err = fmt.Errorf("failed: %s", f.Text)
		case handover.Prepared:
			if p.prepared != nil {
				err = p.prepared()
			}
			if err == nil {
				err = c.Send(handover.Go, map[string]int{"sessions": 0, "starting": 0, "drain": 0}, nil, claim.Descriptor(), mark.Descriptor())
			}
		case handover.Serving:
			if claim.Take() {
				return errors.New("the new process serves without its claim")
			}
			return p.serving(c, ours)
		}
	}
	return err
}

// said has the new process know that the old one has heard of it.
func said(c *handover.Conn) error {
	return c.Send(handover.Ended, map[string][]string{"ids": nil}, nil)
}

// upgradesFrom runs the command, which must succeed.
func (u *unit) upgradesFrom(p *oldProcess) {
	u.t.Helper()
	u.hands(p)
	out, err := u.upgrade("--timeout", "30s")
	if err != nil || !strings.Contains(out, "with 0 sessions") {
		u.t.Fatalf("%v: %s", err, out)
	}
}

// A new process that serves says so even if the channel breaks before the old one has handed everything over. It still
// has the old one carry out commands.
func TestUpgradeWithABrokenChannel(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	broken := make(chan struct{})
	u.upgradesFrom(&oldProcess{serving: func(c *handover.Conn, commands net.Conn) error {
		if err := errors.Join(said(c), c.Close()); err != nil {
			return err
		}
		close(broken)
		requests := bufio.NewReader(commands)
		for range 3 { // the sessions that match, and all, are asked for first
			r, err := http.ReadRequest(requests)
			if err != nil {
				return err
			}
			answer := "[]"
			if r.Method == http.MethodPost {
				answer = `{"terminated": 7}`
			}
			if _, err := fmt.Fprintf(commands, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer); err != nil {
				return err
			}
		}
		return nil
	}})
	if got, err := u.psql("select 'new'"); err != nil || got != "new\n" {
		t.Errorf("a new client: %v, %s", err, got)
	}
	<-broken
	if out, err := u.run("terminate", "--yes", "--user", "nobody"); err != nil || !strings.Contains(out, "terminated 7 sessions") {
		t.Errorf("%v: %s", err, out)
	}
	if p, err := u.plan(); err != nil || !strings.Contains(p.Problem, "the process before this one still has sessions") {
		t.Errorf("another upgrade while that process lives: %v, %q", err, p.Problem)
	}
}

// talk is a psql that a test talks to line by line.
type talk struct {
	u   *unit
	in  io.WriteCloser
	out *bufio.Reader
}

func (u *unit) talk() *talk {
	u.t.Helper()
	path, err := pgtest.Program("psql")
	u.check(err)
	cmd := exec.Command(path, "-X", "-A", "-t", "-q", u.conninfo())
	cmd.Env = pgtest.Environ()
	in, err := cmd.StdinPipe()
	u.check(err)
	out, err := cmd.StdoutPipe()
	u.check(err)
	u.check(cmd.Start())
	u.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &talk{u, in, bufio.NewReader(out)}
}

// asks sends a query that returns one line.
func (c *talk) asks(query, want string) {
	c.u.t.Helper()
	_, err := fmt.Fprintln(c.in, query)
	c.u.check(err)
	if got, err := c.out.ReadString('\n'); err != nil || got != want+"\n" {
		c.u.t.Errorf("%s: %q, %v, want %q", query, got, err, want)
	}
}

// Wherever the new process dies or misbehaves, the old one goes on as if nothing had happened: the session in
// its transaction, and new clients. After that a real upgrade is possible.
func TestFailedUpgrades(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first := u.startUpgradable()
	c := u.talk()
	c.asks("begin; create temp table t(x int); insert into t values (0); select 0;", "0")
	say := func(kind handover.Kind) func(*candidate) {
		return func(n *candidate) { u.check(n.Send(kind, nil, nil)) }
	}
	steps := []struct {
		name string
		do   func(n *candidate)
		log  string
	}{
		{"no hello", func(*candidate) {}, "the other process has ended before hello"},
		{"another format", func(n *candidate) {
			n.hello(handover.Version + 1)
			if text := string(n.until(handover.Failed).Text); !strings.Contains(text, "restart the gate") {
				t.Error(text)
			}
		}, "candidate hands over in format"},
		{"a wrong frame", say(handover.Commit), "commit has come instead of hello"},
		{"no sockets taken", func(n *candidate) { n.hello(handover.Version) }, "upgrade failed"},
		{"not prepared", func(n *candidate) { n.hello(handover.Version); n.sockets() }, "the other process has ended before prepared"},
		{"refuses to start", func(n *candidate) {
			n.hello(handover.Version)
			n.sockets()
			u.check(n.Send(handover.Failed, map[string]string{"reason": "no space left"}, nil))
		}, "no space left"},
		{"not serving", func(n *candidate) {
			n.hello(handover.Version)
			n.sockets()
			say(handover.Prepared)(n)
			n.until(handover.Go)
		}, "the other process has ended before serving"},
		{"serves without a claim", func(n *candidate) {
			n.prepared().Close()
			say(handover.Serving)(n)
			if text := string(n.until(handover.Failed).Text); !strings.Contains(text, "no claim") {
				t.Error(text)
			}
		}, "has no claim to it"},
		{"dies before it says that it serves", func(n *candidate) { n.prepared().Close() }, "the other process has ended before serving"},
	}
	descriptors := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", first.cmd.Process.Pid))
		if errors.Is(err, fs.ErrPermission) {
			return 0 // the gate hides them from its own account
		}
		u.check(err)
		return len(all)
	}
	open := descriptors()
	for i, step := range steps {
		before := strings.Count(first.text(), `"level":"ERROR"`)
		n := u.candidate()
		if out, err := u.upgrade(); err == nil || !strings.Contains(out, "an upgrade is under way") {
			t.Errorf("%s: a second upgrade: %v %s", step.name, err, out)
		}
		step.do(n)
		_ = n.Close()
		u.eventually("nothing about "+step.name, func() bool { return strings.Count(first.text(), `"level":"ERROR"`) > before })
		if !strings.Contains(first.text(), step.log) {
			t.Errorf("%s: the log does not say %q", step.name, step.log)
		}
		u.eventually("no end of the upgrade", func() bool {
			p, err := u.plan()
			return err == nil && p.Problem == ""
		})
		c.asks(fmt.Sprintf("insert into t values (%d); select count(*) from t;", i+1), fmt.Sprint(i+2))
		if out, err := u.psql("select 'new'"); err != nil || out != "new\n" {
			t.Errorf("%s: a new client: %v, %s", step.name, err, out)
		}
		u.eventually("no end of the descriptors of an upgrade: "+step.name, func() bool { return descriptors() <= open })
	}
	if out, err := u.upgrade(); err != nil || !strings.Contains(out, "with 1 session\n") {
		t.Errorf("%v: %s", err, out)
	}
	first.ends(0)
	c.asks("commit; select count(*) from t;", fmt.Sprint(len(steps)+1))
}

// Either process may be killed at any moment of an upgrade: each session goes on or ends with the process that
// had it, none is served by two, and a gate is there for new clients where one has lived.
func TestKilledUpgrades(t *testing.T) {
	t.Parallel()
	lost, kept := 0, 0
	for round := range 12 {
		u := newUnit(t)
		first := u.startUpgradable()
		var clients []*talk
		for range 20 {
			c := u.talk()
			c.asks("begin; select 'first';", "first")
			clients = append(clients, c)
		}
		cmd := exec.Command("pgwicket", "upgrade", "--config", u.config)
		u.check(cmd.Start())
		next := 0
		u.eventually("no new process", func() bool {
			for _, pid := range u.gates() {
				if pid != first.cmd.Process.Pid {
					next = pid
				}
			}
			return next != 0
		})
		time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
		victim := next
		if round%2 == 0 {
			victim = first.cmd.Process.Pid
		}
		_ = syscall.Kill(victim, syscall.SIGKILL)
		_ = cmd.Wait()
		for _, c := range clients {
			_, err := fmt.Fprintln(c.in, "select 'second';")
			got, readErr := c.out.ReadString('\n')
			switch {
			case err == nil && readErr == nil && got == "second\n":
				kept++
			case got == "":
				lost++
			default:
				t.Errorf("round %d: %q, %v, %v", round, got, err, readErr)
			}
		}
		if victim == next {
			u.eventually("the old process neither serves nor has ended", func() bool {
				select {
				case <-first.ended: // it had handed everything over
					return true
				default:
				}
				out, err := u.psql("select 'new'")
				return err == nil && out == "new\n"
			})
		}
		if text := first.text(); strings.Contains(text, "bad record MAC") || strings.Contains(text, "panic") {
			t.Errorf("round %d: two processes have served a session", round)
		}
		for _, pid := range u.gates() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	t.Logf("%d sessions have gone on, %d have ended with their process", kept, lost)
}
