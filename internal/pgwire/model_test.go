package pgwire_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/pgwire"
)

// postgres is a model of PostgreSQL's message loop (PostgresMain in postgres.c) and
// of CopyGetData (copyfromparse.c). It takes one message after the other and does not
// look ahead. Its statements are letters:
//
//	s  a SELECT, e  a failing one, n  one with a notice, b  BEGIN, k  COMMIT,
//	i  COPY FROM STDIN, t  one that fails before it reads data, o  COPY TO STDOUT,
//	w  START_REPLICATION
//
// and its rows of COPY are "g" good, "b" bad, "p" the beginning of a good one, "x"
// the beginning of one that turns out to be bad when the data ends.
type postgres struct {
	status, reported byte // of the transaction, and in the last ReadyForQuery
	active           bool // as pg_stat_activity has it
	acted            bool // it has been active since this was cleared
	ignore           bool // until the next Sync
	open             bool // the client owes a Sync
	failing          bool // the next Sync finds an error, as of a deferred constraint
	dead             bool

	// An Execute's COPY has failed. The tracker cannot know which Sync it had
	// ignored before.
	uncertain bool

	copying  bool
	both     bool   // in both directions
	extended bool   // the COPY is an Execute's
	bad      bool   // its data will turn out to be bad
	rest     string // statements of the Query that come after it

	statement, portal string // "-": none

	buffer, out []byte // before and after a flush
}

func newPostgres() *postgres {
	return &postgres{status: 'I', reported: 'I', statement: "-", portal: "-"}
}

func (p *postgres) say(kind byte, body ...byte) {
	p.buffer = append(p.buffer, message(kind, body...)...)
}

func (p *postgres) act() { p.active, p.acted = true, true }

func (p *postgres) flush() { p.out, p.buffer = append(p.out, p.buffer...), nil }

func (p *postgres) ready() {
	p.reported = p.status
	p.say('Z', p.status)
	p.flush()
	p.active, p.open, p.failing = false, false, false
}

// fail is what follows an ereport(ERROR).
func (p *postgres) fail(sqlstate string, extended bool) {
	p.say('E', []byte("SERROR\x00VERROR\x00C"+sqlstate+"\x00Mno\x00\x00")...)
	p.flush()
	p.uncertain = p.uncertain || p.copying && extended
	p.copying, p.both = false, false
	if p.status == 'T' {
		p.status = 'E'
	}
	if extended {
		p.ignore, p.open = true, true
	} else {
		p.ready()
	}
}

func (p *postgres) die(sqlstate string) {
	p.say('E', []byte("SFATAL\x00VFATAL\x00C"+sqlstate+"\x00Mno\x00\x00")...)
	p.flush()
	p.dead = true
}

// take processes one message.
func (p *postgres) take(kind byte, body string) {
	switch {
	case p.dead:
	case p.copying:
		p.takeCopy(kind, body)
	case kind == 'X':
		p.dead = true
	case kind == 'S':
		p.ignore = false
		if p.failing {
			p.status = 'I'
			p.fail("23505", false)
			return
		}
		p.ready()
	case p.ignore, strings.IndexByte("dcf", kind) >= 0:
	case kind == 'Q', kind == 'F':
		p.act()
		p.open = false // its ReadyForQuery answers what was open
		if body == "" {
			p.say('I')
		}
		p.run(body)
	case kind == 'H':
		p.flush()
	default:
		p.takeExtended(kind, body)
	}
}

// run executes the statements of a Query.
func (p *postgres) run(statements string) {
	for i, s := range statements {
		if p.copying || !p.execute(byte(s), statements[i+1:], false) {
			return
		}
	}
	p.ready()
}

// execute executes one statement, and reports whether it has been completed.
func (p *postgres) execute(statement byte, rest string, extended bool) bool {
	if p.status == 'E' && statement != 'k' {
		p.fail("25P02", extended)
		return false
	}
	switch statement {
	case 'e':
		p.fail("22012", extended)
		return false
	case 'n':
		p.say('N', []byte("SWARNING\x00VWARNING\x00C01000\x00Mno\x00\x00")...)
	case 's':
		if !extended {
			p.say('T', 0, 0)
		}
		p.say('D', 0, 0)
	case 'b':
		p.status = 'T'
	case 'k':
		p.status = 'I'
	case 'o':
		p.say('H', 0, 0, 0)
		p.say('d', 'x')
		p.say('c')
	case 'w':
		p.say('W', 0, 0, 0)
		p.say('d', 'w')
		p.flush()
		p.copying, p.extended, p.both, p.rest = true, false, true, ""
		return false
	case 'i', 't':
		p.say('G', 0, 0, 0)
		p.flush()
		if statement == 't' {
			p.uncertain = p.uncertain || extended
			p.fail("P0001", extended)
			return false
		}
		p.copying, p.extended, p.bad, p.rest = true, extended, false, rest
		return false
	}
	p.say('C', 'x', 0)
	return true
}

// takeCopy is CopyGetData.
func (p *postgres) takeCopy(kind byte, body string) {
	switch {
	case p.both && kind == 'c':
		p.say('c')
		p.both = false
	case p.both && kind != 'd':
		p.die("08P01")
		return
	}
	switch kind {
	case 'd':
		p.bad = p.bad || body == "x"
		if body == "b" || body == "g" && p.bad {
			p.fail("22P02", p.extended)
		}
	case 'c':
		if p.bad {
			p.fail("22P02", p.extended)
			return
		}
		p.copying = false
		p.say('C', 'x', 0)
		if !p.extended {
			p.run(p.rest)
		}
	case 'f':
		p.fail("57014", p.extended)
	case 'S', 'H':
	default:
		p.die("08P01")
	}
}

func (p *postgres) takeExtended(kind byte, body string) {
	p.open = true
	switch kind {
	case 'P':
		p.act()
		if body == "!" {
			p.fail("42601", true)
			return
		}
		p.statement = body
		p.say('1')
	case 'B':
		if p.statement == "-" || body == "!" {
			p.fail("26000", true)
			return
		}
		p.act()
		p.portal = p.statement
		p.say('2')
	case 'D':
		if p.statement == "-" || body == "!" {
			p.fail("26000", true)
			return
		}
		p.say('t', 0, 0)
		if p.statement == "s" {
			p.say('T', 0, 0)
		} else {
			p.say('n')
		}
	case 'C':
		p.say('3')
	case 'E':
		if p.portal == "-" || body == "!" {
			p.fail("34000", true)
			return
		}
		p.act()
		switch {
		case p.portal == "":
			p.say('I')
		case p.portal == "d": // an INSERT that a deferred constraint refuses
			p.failing = true
			p.say('C', 'x', 0)
		case body == "1" && p.portal == "s":
			p.say('D', 0, 0)
			p.say('s')
		default:
			p.execute(p.portal[0], "", true)
		}
	}
}

// step is one message of a client.
type step struct {
	kind byte
	body string
}

func (s step) String() string { return fmt.Sprintf("%c%q", s.kind, s.body) }

// somePart returns a few messages, mostly as clients send them.
func somePart(rnd *rand.Rand) []step {
	pick := func(s string) string { return s[rnd.IntN(len(s)):][:1] }
	statements := func() string {
		n := rnd.IntN(5)
		return pick("ssseinbkto") + strings.Repeat(pick("seino"), max(n-3, 0))
	}
	switch rnd.IntN(20) {
	case 0, 1, 2:
		return []step{{'Q', statements()}}
	case 3:
		return []step{{'Q', "i"}, {'d', "g"}, {'c', ""}}
	case 4:
		return [][]step{{{'Q', ""}}, {{'Q', "w"}, {'d', "r"}, {'c', ""}}}[rnd.IntN(2)]
	case 5:
		return []step{{'F', "s"}}
	case 6, 7, 8:
		return []step{{'P', pick("ssseinbkto!d")}, {'B', ""}, {'D', ""}, {'E', pick("00001!")}, {'S', ""}}
	case 9:
		return []step{{'P', "i"}, {'B', ""}, {'E', ""}, {'S', ""}, {'d', "g"}, {'c', ""}, {'S', ""}}
	case 10:
		return []step{{'P', pick("se!it")}, {'B', pick("0000!")}, {'E', ""}}
	case 11:
		return []step{{'S', ""}}
	case 12:
		return []step{{'H', ""}}
	case 13:
		return []step{{'d', pick("ggbpx")}}
	case 14:
		return []step{{pick("cccf")[0], ""}}
	case 15:
		return []step{{pick("DC")[0], pick("0!")}}
	case 16:
		return []step{{pick("PBE")[0], pick("s0!1")}}
	default:
		return []step{{pick("QSHPBEDCdcf")[0], pick("sei!gbx")}}
	}
}

// A session is a client, the tracker and the model, with bytes under way between
// them.
type session struct {
	t      *testing.T
	rnd    *rand.Rand
	tr     pgwire.Tracker
	server *postgres
	past   []string
	toward []byte // on the way to the server
	back   []byte // on the way to the tracker
}

func (s *session) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nafter %s", fmt.Sprintf(format, args...), strings.Join(s.past, " "))
}

// serve has the server take up to n complete messages.
func (s *session) serve(n int) {
	for ; n > 0; n-- {
		kind, body, rest, ok := cutMessage(s.toward)
		if !ok {
			return
		}
		s.server.take(kind, body)
		s.toward = rest
		if s.rnd.IntN(20) == 0 {
			s.server.flush() // its buffer was full
		}
		s.back = append(s.back, s.server.out...)
		s.server.out = nil
	}
}

func cutMessage(b []byte) (kind byte, body string, rest []byte, ok bool) {
	if len(b) < 5 {
		return 0, "", nil, false
	}
	end := 1 + int(b[4]) + int(b[3])<<8
	if len(b) < end {
		return 0, "", nil, false
	}
	return b[0], string(b[5:end]), b[end:], true
}

// hear feeds the tracker up to n bytes of the server's.
func (s *session) hear(n int) {
	n = min(n, len(s.back))
	for part := range chunks(s.back[:n], 1+s.rnd.IntN(20)) {
		if s.rnd.IntN(2) == 0 {
			s.tr.Feed(part)
			continue
		}
		for len(part) > 0 {
			part = part[s.tr.Next(part):]
		}
	}
	s.back = s.back[n:]
}

// mustBeBusy reports whether the server is active, or will be by what is on its way.
func (s *session) mustBeBusy() bool {
	ahead := *s.server
	ahead.buffer, ahead.out, ahead.acted = nil, nil, ahead.active
	rest := s.toward
	for !ahead.acted {
		kind, body, next, ok := cutMessage(rest)
		if !ok {
			break
		}
		ahead.take(kind, body)
		rest = next
	}
	return ahead.acted
}

func (s *session) checkSettled() {
	s.serve(1 << 20)
	s.hear(1 << 20)
	s.past = append(s.past, "|")
	if s.server.dead {
		return
	}
	if s.tr.Status() != s.server.reported {
		s.fatalf("status %q, want %q", s.tr.Status(), s.server.reported)
	}
	if s.tr.CopyBoth() != s.server.both {
		s.fatalf("CopyBoth %v", s.tr.CopyBoth())
	}
	unfinished := s.server.open || s.server.copying && !s.server.both || len(s.toward) > 0
	if s.server.uncertain {
		if s.server.active && !s.tr.Busy() || (unfinished || s.tr.Busy() && !s.server.active) && !s.tr.Unfinished() {
			s.fatalf("busy %v, want %v; unfinished %v, want %v", s.tr.Busy(), s.server.active, s.tr.Unfinished(), unfinished)
		}
		s.server.uncertain = s.tr.Busy() || s.tr.Unfinished()
		return
	}
	if s.tr.Unfinished() != unfinished {
		s.fatalf("unfinished %v, want %v; %+v", s.tr.Unfinished(), unfinished, s.tr)
	}
	if s.tr.Busy() != s.server.active {
		s.fatalf("busy %v, want %v; %+v", s.tr.Busy(), s.server.active, s.tr)
	}
}

func (s *session) play(steps int) {
	for range steps {
		for _, m := range somePart(s.rnd) {
			s.past = append(s.past, m.String())
			raw := message(m.kind, []byte(m.body)...)
			for part := range chunks(raw, 1+s.rnd.IntN(8)) {
				s.tr.Ask(part)
				s.toward = append(s.toward, part...)
				switch s.rnd.IntN(8) {
				case 0:
					s.checkSettled()
				case 1, 2:
					s.serve(s.rnd.IntN(4))
					s.hear(s.rnd.IntN(40))
					s.past = append(s.past, ":")
				}
				if s.server.dead {
					return
				}
				if !s.tr.Busy() && s.mustBeBusy() {
					s.fatalf("idle before the server is; %+v", s.tr)
				}
			}
		}
	}
	s.checkSettled()
}

// The tracker agrees with a model of PostgreSQL on random sessions.
func TestTrackerAgreesWithModel(t *testing.T) {
	t.Parallel()
	for seed := range sequences(t, "PGWICKET_TRACKER_MODEL", 20_000) {
		s := &session{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), server: newPostgres()}
		s.tr.Feed(login(t, []byte{1, 2, 3, 4}))
		s.past = append(s.past, fmt.Sprintf("seed %d:", seed))
		s.play(1 + s.rnd.IntN(12))
	}
}

// sequences returns how many random sessions a test plays: n, or what the
// environment variable says.
func sequences(t *testing.T, variable string, n uint64) uint64 {
	t.Helper()
	if v := os.Getenv(variable); v != "" {
		var err error
		if n, err = strconv.ParseUint(v, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
