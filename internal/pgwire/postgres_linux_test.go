package pgwire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/pgwire"
)

// statements are the letters of the model, for a real server.
var statements = map[rune]string{
	's': "SELECT generate_series(1, 2)", 'e': "SELECT 1/0", 'n': "DO $$ BEGIN RAISE WARNING 'note'; END $$", 'b': "BEGIN", 'k': "COMMIT",
	'i': "COPY good FROM STDIN", 't': "COPY failing FROM STDIN", 'o': "COPY good TO STDOUT", 'w': "SET application_name = 'w'",
	'd': "INSERT INTO deferred VALUES (1)", '!': "SELEKT",
}

const tables = `
CREATE UNLOGGED TABLE good (a int);
CREATE UNLOGGED TABLE failing (a int);
CREATE UNLOGGED TABLE deferred (a int);
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON failing FOR EACH STATEMENT EXECUTE FUNCTION fail();
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail();`

func sql(letters string) string {
	var list []string
	for _, c := range letters {
		list = append(list, statements[c])
	}
	return strings.Join(list, "; ")
}

// encoded returns the bytes of a step of the model, for a real server.
func encoded(t testing.TB, m step) []byte {
	t.Helper()
	name := ""
	if m.body == "!" {
		name = "missing"
	}
	var f pgproto3.FrontendMessage
	switch m.kind {
	case 'Q':
		f = &pgproto3.Query{String: sql(m.body)}
	case 'F':
		f = &pgproto3.FunctionCall{Function: map[bool]uint32{true: 2026}[m.body == "s"]} // pg_backend_pid
	case 'P':
		f = &pgproto3.Parse{Query: sql(m.body)}
	case 'B':
		f = &pgproto3.Bind{PreparedStatement: name}
	case 'D':
		f = &pgproto3.Describe{ObjectType: map[bool]byte{true: 'P', false: 'S'}[m.body == ""], Name: name}
	case 'E':
		f = &pgproto3.Execute{Portal: name, MaxRows: map[bool]uint32{true: 1}[m.body == "1"]}
	case 'C':
		f = &pgproto3.Close{ObjectType: 'S', Name: name}
	case 'd':
		f = &pgproto3.CopyData{Data: []byte(map[string]string{"b": "x\n", "p": "1", "x": "x"}[m.body])}
		if m.body == "g" {
			f = &pgproto3.CopyData{Data: []byte("1\n")}
		}
	case 'f':
		f = &pgproto3.CopyFail{Message: "no"}
	default:
		return message(m.kind)
	}
	b, err := f.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A comparison is a session with a real server, whose bytes the tracker sees as
// they pass.
type comparison struct {
	t       *testing.T
	rnd     *rand.Rand
	monitor *pgx.Conn
	conn    *net.UnixConn
	raw     syscall.RawConn
	tr      pgwire.Tracker
	login   pgwire.Login
	past    []string
	ended   bool
	checks  int
	doubts  int // times that the tracker could not tell
}

func (c *comparison) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s\nafter %s", fmt.Sprintf(format, args...), strings.Join(c.past, " "))
}

func (c *comparison) write(b []byte) {
	c.tr.Ask(b)
	if _, err := c.conn.Write(b); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		c.fatalf("write: %v", err)
	}
}

// read feeds the tracker what the server has sent so far.
func (c *comparison) read() {
	buf := make([]byte, 1+c.rnd.IntN(4096))
	for {
		var n int
		var err error
		if rawErr := c.raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return true
		}); rawErr != nil {
			c.fatalf("read: %v", rawErr)
		}
		switch {
		case n > 0:
			c.tr.Feed(buf[:n])
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
		case n == 0, errors.Is(err, unix.ECONNRESET):
			c.ended = true
			return
		default:
			c.fatalf("read: %v", err)
		}
	}
}

// unread returns how much of what was written the server has not read.
func (c *comparison) unread() (n int) {
	if err := c.raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	}); err != nil {
		c.fatalf("control: %v", err)
	}
	return n
}

// asleep reports whether a process runs no more.
func asleep(pid uint32) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(after, "S") // there is none: ask
}

// settle waits until the server has read all that was sent and waits for more, and
// returns its state.
func (c *comparison) settle() (state string) {
	// PostgreSQL copies the state before it looks at what the backend waits for,
	// so a state is only good if the backend was waiting before.
	for waiting := false; ; {
		if c.ended || c.unread() == 0 && asleep(c.login.PID) {
			var wait string
			err := c.monitor.QueryRow(c.t.Context(), "SELECT coalesce(state, ''), coalesce(wait_event, '') FROM pg_stat_get_activity($1)", int32(c.login.PID)).Scan(&state, &wait)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				c.read()
				c.ended = true
				return ""
			case err != nil:
				c.fatalf("%v", err)
			case wait == "ClientRead" && waiting:
				c.read()
				return state
			}
			waiting = wait == "ClientRead"
		} else {
			time.Sleep(20 * time.Microsecond) // let it run
		}
		c.read()
	}
}

func (c *comparison) check() {
	c.past = append(c.past, "|")
	state := c.settle()
	if c.ended {
		if _, fatal := c.tr.Fatal(); !fatal && !c.tr.Terminated() {
			c.fatalf("the server has closed the session without a FATAL")
		}
		return
	}
	c.checks++
	active := false
	switch state {
	case "active", "fastpath function call":
		active = true
	case "idle", "idle in transaction", "idle in transaction (aborted)":
		want := map[string]byte{"idle": 'I', "idle in transaction": 'T', "idle in transaction (aborted)": 'E'}[state]
		if c.tr.Status() != want {
			c.fatalf("%s: status %q", state, c.tr.Status())
		}
	default:
		c.fatalf("state %q", state)
	}
	busy, unfinished := c.tr.Busy(), c.tr.Unfinished()
	switch {
	case busy && !active && unfinished:
		c.doubts++
	case busy != active, busy && !unfinished: // for it waits for the client
		c.fatalf("%s, waiting for the client: busy %v, unfinished %v; %+v", state, busy, unfinished, c.tr)
	}
}

// connect opens a session and follows it to its first ReadyForQuery.
func (c *comparison) connect(db *pgtest.Server) {
	conn, err := net.Dial("unix", filepath.Join(db.SocketDir, fmt.Sprintf(".s.PGSQL.%d", db.Port)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.conn = conn.(*net.UnixConn)
	if c.raw, err = c.conn.SyscallConn(); err != nil {
		c.t.Fatal(err)
	}
	if _, err := conn.Write(packet(protocol3, []byte("user\x00postgres\x00database\x00postgres\x00client_min_messages\x00warning\x00\x00")...)); err != nil {
		c.t.Fatal(err)
	}
	c.tr.Login = &c.login
	for c.tr.Login != nil {
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		if err != nil {
			c.t.Fatal(err)
		}
		c.tr.Feed(buf[:n])
	}
}

// play sends some random requests in random parts.
func (c *comparison) play() {
	for range 1 + c.rnd.IntN(5) {
		var b []byte
		for range 1 + c.rnd.IntN(2) {
			for _, m := range somePart(c.rnd) {
				c.past = append(c.past, m.String())
				b = append(b, encoded(c.t, m)...)
			}
		}
		for len(b) > 0 && !c.ended {
			n := len(b)
			if c.rnd.IntN(3) == 0 {
				n = 1 + c.rnd.IntN(n)
				c.past = append(c.past, fmt.Sprintf("(but %d bytes)", len(b)-n))
			}
			c.write(b[:n])
			if b = b[n:]; c.rnd.IntN(2) == 0 || len(b) > 0 {
				c.check()
			} else {
				c.read()
			}
		}
	}
	if !c.ended {
		c.check()
	}
}

// The tracker agrees with pg_stat_activity of a real PostgreSQL on random sessions.
func TestTrackerAgreesWithPostgreSQL(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(t.Context(), pgtest.Options{
		Settings: []string{"fsync=off", "autovacuum=off", "log_min_messages=fatal", "log_min_error_statement=fatal"},
		SQL:      tables,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	n := sequences(t, "PGWICKET_TRACKER_POSTGRESQL", 2000)
	const workers = 4 // most of the time is spent waiting for a backend
	for worker := range uint64(workers) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			comparePostgreSQL(t, db, worker, n, workers)
		})
	}
}

// comparePostgreSQL plays the sessions of every seed from first to n, in steps.
func comparePostgreSQL(t *testing.T, db *pgtest.Server, first, n, step uint64) {
	monitor, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", db.SocketDir, db.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = monitor.Close(context.Background()) }()
	checks, doubts := 0, 0
	for seed := first; seed < n; seed += step {
		c := &comparison{t: t, rnd: rand.New(rand.NewPCG(seed, 2)), monitor: monitor, past: []string{fmt.Sprintf("seed %d:", seed)}}
		c.connect(db)
		c.play()
		_ = c.conn.Close()
		checks, doubts = checks+c.checks, doubts+c.doubts
	}
	t.Logf("%d states compared; in %d the tracker was in doubt", checks, doubts)
	if doubts*100 > checks {
		t.Errorf("in doubt %d times of %d", doubts, checks)
	}
}

// What PostgreSQL sends a session that it ends is known as such: on an administrator's
// command, by a timeout, at a shutdown and after a crash.
func TestTrackerFatalOfPostgreSQL(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(t.Context(), pgtest.Options{Settings: []string{"fsync=off", "restart_after_crash=off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	run := func(statement string) {
		if _, err := db.SQL(statement); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name     string
		sends    string
		end      func(*comparison)
		sqlstate string
	}{
		{"pg_terminate_backend", "", func(c *comparison) { run(fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.login.PID)) }, "57P01"},
		{"pg_terminate_backend, running", "SELECT pg_sleep(600)", func(c *comparison) { run(fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.login.PID)) }, "57P01"},
		{"idle_session_timeout", "SET idle_session_timeout = 1", nil, "57P05"},
		{"idle_in_transaction_session_timeout", "SET idle_in_transaction_session_timeout = 1; BEGIN", nil, "25P03"},
		{"crash", "", func(c *comparison) { // of another session
			other := &comparison{t: t, rnd: c.rnd}
			other.connect(db)
			_ = syscall.Kill(int(other.login.PID), syscall.SIGKILL)
		}, "57P02"},
	} {
		s := &comparison{t: t, rnd: rand.New(rand.NewPCG(1, 2))}
		s.connect(db)
		if c.sends != "" {
			s.write(message('Q', []byte(c.sends+"\x00")...))
		}
		if c.end != nil {
			c.end(s)
		}
		for deadline := time.Now().Add(time.Minute); !s.ended && time.Now().Before(deadline); {
			s.read()
			time.Sleep(time.Millisecond)
		}
		if sqlstate, ok := s.tr.Fatal(); !ok || sqlstate != c.sqlstate {
			t.Errorf("%s: %q, %v, want %s", c.name, sqlstate, ok, c.sqlstate)
		}
	}
}
