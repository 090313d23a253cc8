package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pgwicket/internal/pgtest"
)

// finale is how a session of the hammer ends.
type finale int

const (
	terminates    finale = iota // the client takes its leave when all is said and heard
	halfCloses                  // the client ends its half and reads the rest
	clientResets                // at any moment
	backendCloses               // when it has said all, whatever the client is doing
	backendResets               // the same with unread input, as PostgreSQL at FATAL
	finales
	lasts // until the gate is shut down
)

func (f finale) String() string {
	return [...]string{"terminates", "halfCloses", "clientResets", "backendCloses", "backendResets", "", "lasts"}[f]
}

// fate is how a session ends. Both its ends know it: it comes from the
// seed. So do the two streams, of which every session has its own: a byte in a
// wrong place or in a wrong session is not the one that is expected there.
type fate struct {
	number   int
	seed     uint64
	finale   finale
	up, down int64 // bytes to be said each way, if nothing comes between
	cut      int64 // after how many received bytes it is reset
	late     side  // who does not listen before it has had its say
	version  uint16
}

// side is one end of a session.
type side int

const (
	nobody side = iota
	theClient
	theBackend
)

func fateOf(seed uint64, number int) fate {
	rnd := rand.New(rand.NewPCG(seed, uint64(number)))
	size := func() int64 {
		if rnd.IntN(50) == 0 {
			return rnd.Int64N(8 << 20) // more than the kernel takes from us
		}
		return rnd.Int64N(1 << rnd.IntN(20))
	}
	f := fate{
		number: number, seed: seed, finale: finale(rnd.IntN(int(finales))), up: size(), down: size(),
		late: side(rnd.IntN(3)), version: []uint16{tls.VersionTLS12, tls.VersionTLS13}[rnd.IntN(2)],
	}
	switch f.finale {
	case clientResets:
		f.cut = rnd.Int64N(f.down + 1)
	case backendResets:
		f.cut = rnd.Int64N(f.up + 1)
	}
	if (f.finale == backendCloses || f.finale == backendResets) && f.late == theClient {
		f.late = nobody // a client has only so long to hear the last of it
	}
	return f
}

func (f fate) String() string {
	return fmt.Sprintf("session %d (%s, %d up, %d down, cut %d, late %d, %s)", f.number, f.finale, f.up, f.down, f.cut, f.late, tls.VersionName(f.version))
}

// The two directions of a session.
const (
	upward byte = iota
	downward
)

// stream is the bytes of one direction from the beginning.
func (f fate) stream(direction byte) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], f.seed)
	binary.BigEndian.PutUint64(key[8:], uint64(f.number))
	key[16] = direction
	return rand.NewChaCha8(key)
}

// hammered is one session of the hammer and what its ends have seen of it.
type hammered struct {
	fate
	failed atomic.Bool
	served atomic.Int32 // connections to the backend

	sentUp, gotUp, acked atomic.Int64 // of the stream to the backend
	sentDown, gotDown    atomic.Int64 // of the stream to the client
	wrote, read          atomic.Int64 // by the client, from the end of its startup packet on
}

// hammer is the test's state.
type hammer struct {
	t        *testing.T
	sessions []*hammered
	client   *tls.Config
	address  string
	ticks    chan struct{} // what the lasting sessions say something at
	served   atomic.Int64  // sessions that are over at the backend, but for the lasting ones
}

// fail reports the first failure of a session; the others follow from it.
func (h *hammer) fail(s *hammered, format string, args ...any) {
	if !s.failed.Swap(true) {
		h.t.Errorf("%v: %s", s, fmt.Sprintf(format, args...))
	}
}

// The messages of the hammer are PostgreSQL's by their types: one with the next
// bytes of a stream, behind an acknowledgement where it is the backend's
// (CommandComplete), and where it is the client's (Close) in want of a Sync; Sync,
// which the backend answers with ReadyForQuery; Terminate.
const (
	next          = 'C'
	syncMessage   = "S\x00\x00\x00\x04"
	terminate     = "X\x00\x00\x00\x04"
	readyForQuery = "Z\x00\x00\x00\x05I"
	ackLen        = 8
	largest       = 1 << 16
)

// speaker writes a stream in messages of random size.
type speaker struct {
	w    io.Writer
	from *rand.ChaCha8
	sent *atomic.Int64
	ack  *atomic.Int64 // nil: none is sent
	rnd  *rand.Rand
	buf  []byte
}

func (h *hammer) speaker(s *hammered, direction byte, w io.Writer) *speaker {
	p := &speaker{w: w, from: s.stream(direction), sent: &s.sentUp, rnd: rand.New(rand.NewPCG(s.seed, uint64(s.number)<<8|uint64(direction)))}
	if direction == downward {
		p.sent, p.ack = &s.sentDown, &s.gotUp
	}
	return p
}

// say sends up to most bytes more of the stream, in one message.
func (p *speaker) say(most int64) error {
	n := min(most, 1+p.rnd.Int64N(largest>>p.rnd.IntN(16)))
	p.buf = append(p.buf[:0], next, 0, 0, 0, 0)
	if p.ack != nil {
		p.buf = binary.BigEndian.AppendUint64(p.buf, uint64(p.ack.Load()))
	}
	p.buf = append(p.buf, make([]byte, n)...)
	binary.BigEndian.PutUint32(p.buf[1:], uint32(len(p.buf)-1))
	_, _ = p.from.Read(p.buf[int64(len(p.buf))-n:])
	p.sent.Add(n) // before it can have arrived
	_, err := p.w.Write(p.buf)
	return err
}

// sayUntil goes on until so much of the stream has been sent.
func (p *speaker) sayUntil(end int64) error {
	for p.sent.Load() < end {
		if err := p.say(end - p.sent.Load()); err != nil {
			return err
		}
	}
	return nil
}

// listener reads messages and compares what they bring with the stream.
type listener struct {
	h        *hammer
	s        *hammered
	r        io.Reader
	want     *rand.ChaCha8
	got      *atomic.Int64
	acked    *atomic.Int64 // nil: none comes
	buf, due []byte
}

func (h *hammer) listener(s *hammered, direction byte, r io.Reader) *listener {
	l := &listener{h: h, s: s, r: r, want: s.stream(direction), got: &s.gotUp}
	if direction == downward {
		l.got, l.acked = &s.gotDown, &s.acked
	}
	return l
}

// hear reads one message. io.EOF is an end between two messages.
func (l *listener) hear() (kind byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > ackLen+largest {
		l.h.fail(l.s, "a message %q of %d bytes", head[0], n)
		return 0, io.ErrUnexpectedEOF
	}
	if head[0] == next && l.acked != nil {
		var ack [ackLen]byte
		if _, err := io.ReadFull(l.r, ack[:]); err != nil {
			return 0, err
		}
		n -= ackLen
		now := int64(binary.BigEndian.Uint64(ack[:]))
		if before := l.acked.Swap(now); now < before || now > l.s.sentUp.Load() {
			l.h.fail(l.s, "%d bytes are acknowledged after %d; %d were sent", now, before, l.s.sentUp.Load())
		}
	}
	l.buf = slices.Grow(l.buf[:0], n)[:n]
	n, err = io.ReadFull(l.r, l.buf)
	if head[0] == next {
		l.compare(l.buf[:n]) // what has come of a message that was cut, too
	}
	return head[0], err
}

func (l *listener) compare(got []byte) {
	want := slices.Grow(l.due[:0], len(got))[:len(got)]
	_, _ = l.want.Read(want)
	if !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		l.h.fail(l.s, "byte %d is not the one that was sent", l.got.Load()+int64(at))
	}
	l.due = want
	l.got.Add(int64(len(got)))
}

// serve is the backend's end of a session.
func (h *hammer) serve(conn net.Conn) {
	c := conn.(*net.UnixConn)
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		h.t.Error("backend: a connection without a packet: ", err)
		return
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-8)
	if _, err := io.ReadFull(c, body); err != nil {
		h.t.Error("backend: a cut startup packet: ", err)
		return
	}
	_, name, _ := strings.Cut(string(body), "application_name\x00")
	name, _, _ = strings.Cut(name, "\x00")
	number, err := strconv.Atoi(name)
	if err != nil || number < 0 || number >= len(h.sessions) {
		h.t.Errorf("backend: a session of nobody's: %q", body)
		return
	}
	s := h.sessions[number]
	if s.served.Add(1) > 1 {
		h.fail(s, "a second connection to the backend")
		return
	}
	if _, err := io.WriteString(c, ready); err != nil {
		h.fail(s, "backend: %v", err)
		return
	}
	if s.finale == lasts {
		h.serveLasting(s, c)
		return
	}
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	h.serveMortal(s, c)
	h.served.Add(1)
}

// serveLasting answers every message with one.
func (h *hammer) serveLasting(s *hammered, c *net.UnixConn) {
	in, out := h.listener(s, upward, c), h.speaker(s, downward, c)
	for {
		if _, err := in.hear(); err != nil {
			return
		}
		if err := out.say(largest); err != nil {
			return
		}
	}
}

func (h *hammer) serveMortal(s *hammered, c *net.UnixConn) {
	said := make(chan struct{})  // what there was to say at first
	asked := make(chan struct{}) // the writer may come to its end
	over := make(chan error, 1)  // the reader has
	go func() {
		if s.late == theBackend {
			<-said
		}
		in := h.listener(s, upward, c)
		for {
			if s.finale == backendResets && s.gotUp.Load() >= s.cut {
				err := readable(c)
				close(asked)
				over <- err
				return
			}
			kind, err := in.hear()
			if kind == 'S' && s.finale == terminates || errors.Is(err, io.EOF) && s.finale == halfCloses {
				close(asked)
			}
			if err == nil && kind != 'X' {
				continue
			}
			if kind == 'X' {
				err = io.EOF
			}
			over <- err
			return
		}
	}()
	var err error
	out := h.speaker(s, downward, c)
	if s.finale == halfCloses { // the rest is for after the half-close
		err = out.sayUntil(s.down / 2)
	} else {
		err = out.sayUntil(s.down)
	}
	close(said)
	if s.finale == backendCloses {
		_ = c.Close()
	} else if s.finale != clientResets {
		select {
		case <-asked:
		case early := <-over:
			over <- early
		}
	}
	if s.finale == terminates || s.finale == halfCloses {
		if err == nil {
			err = out.sayUntil(s.down)
		}
		if err == nil {
			err = out.say(0) // the last acknowledgement
		}
		if err == nil {
			_, err = io.WriteString(c, readyForQuery)
		}
	}
	if s.finale != clientResets && err != nil {
		h.fail(s, "the backend cannot write: %v", err)
	}
	if s.finale == backendResets {
		_ = c.Close()
	}
	gone := <-over
	if (s.finale == terminates || s.finale == halfCloses) && !errors.Is(gone, io.EOF) || s.finale == backendResets && gone != nil {
		h.fail(s, "the backend cannot read: %v", gone)
	}
	if s.finale == clientResets && errors.Is(gone, os.ErrDeadlineExceeded) {
		h.fail(s, "the backend does not hear of its client's end")
	}
}

// counted counts what goes over a connection.
type counted struct {
	*tls.Conn
	s *hammered
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.s.wrote.Add(int64(n))
	return n, err
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.read.Add(int64(n))
	return n, err
}

// connect opens a session.
func (h *hammer) connect(s *hammered) (*tls.Conn, error) {
	raw, err := net.DialTimeout("tcp", h.address, patience)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(2 * patience))
	config := h.client.Clone()
	withVersion(s.version)(config)
	c := tls.Client(raw, config)
	if err := h.enter(s, raw, c); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

func (h *hammer) enter(s *hammered, raw net.Conn, c *tls.Conn) error {
	if _, err := raw.Write(sslRequest); err != nil {
		return err
	}
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		return err
	}
	if _, err := c.Write(startup(protocol3, "user", "app", "application_name", strconv.Itoa(s.number))); err != nil {
		return err
	}
	got := make([]byte, len(ready))
	if _, err := io.ReadFull(counted{c, s}, got); err != nil || string(got) != ready {
		return fmt.Errorf("got %q instead of ReadyForQuery, %w", got, err)
	}
	return nil
}

// live is the client's end of a session.
func (h *hammer) live(s *hammered) {
	c, err := h.connect(s)
	if err != nil {
		h.fail(s, "connect: %v", err)
		return
	}
	defer c.NetConn().Close()
	said := make(chan error, 1)
	go func() {
		out := h.speaker(s, upward, counted{c, s})
		err := out.sayUntil(s.up)
		if err == nil {
			_, err = io.WriteString(out.w, syncMessage)
		}
		if err == nil && s.finale == halfCloses {
			_ = c.CloseWrite()
			err = tcpOf(c).CloseWrite()
		}
		said <- err
	}()
	if s.late == theClient {
		said <- <-said
	}
	answered, err := h.listen(s, c)
	switch s.finale {
	case clientResets:
		reset(c)
		<-said
		if err != nil {
			h.fail(s, "the client was cut before it cut: %v", err)
		}
	case terminates, halfCloses:
		if !answered {
			h.fail(s, "no answer: %v", err)
			return
		}
		if err := <-said; err != nil {
			h.fail(s, "the client cannot write: %v", err)
			return
		}
		if s.finale == terminates {
			if _, err := io.WriteString(counted{c, s}, terminate); err != nil {
				h.fail(s, "Terminate: %v", err)
			}
		}
		_ = c.Close()
	default:
		if !errors.Is(err, io.EOF) {
			h.fail(s, "the backend's end came as %v", err)
		}
		_ = c.NetConn().Close() // the writer may be in the middle
		<-said
	}
}

// listen reads what the backend says, up to where the session's fate wants
// something of the client. answered says that ReadyForQuery has come.
func (h *hammer) listen(s *hammered, c *tls.Conn) (answered bool, err error) {
	in := h.listener(s, downward, bufio.NewReaderSize(counted{c, s}, 16<<(s.seed%12)))
	for {
		if s.finale == clientResets && s.gotDown.Load() >= s.cut || s.finale == terminates && answered {
			return answered, nil
		}
		kind, err := in.hear()
		switch {
		case errors.Is(err, io.EOF) && s.finale == halfCloses && answered:
			return true, nil
		case err != nil:
			return false, err
		}
		answered = kind == 'Z'
	}
}

// liveOn is the client's end of a session that lasts. It says something at
// every tick, and as much as it can when there are no more of them.
func (h *hammer) liveOn(s *hammered, c *tls.Conn) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		out := h.speaker(s, upward, counted{c, s})
		for {
			<-h.ticks
			if out.say(largest) != nil {
				return
			}
		}
	}()
	for in := h.listener(s, downward, counted{c, s}); ; {
		if _, err := in.hear(); err != nil {
			_ = c.NetConn().Close()
			<-said
			return
		}
	}
}

// underRace says whether the race detector is on.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Thousands of sessions that come and go while others run, with as much traffic
// as each likes, and end in every way that there is: what one of them leaves
// behind in the relay (a queue, a buffer, a slot, an event) must not reach the
// next. PGWICKET_HAMMER is how many.
func TestHammer(t *testing.T) {
	const lasting, atOnce = 8, 56
	n := 2000
	if underRace() {
		n = 1000 // each costs several times as much
	}
	if v, err := strconv.Atoi(os.Getenv("PGWICKET_HAMMER")); err == nil && v > 0 {
		n = v
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the first socket brings the runtime's poller
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	goroutines := goleak.IgnoreCurrent()
	files := 0
	if runtime.GOOS == "linux" {
		files = descriptors(t)
	}

	seed := rand.Uint64()
	t.Log("seed", seed)
	h := &hammer{t: t, ticks: make(chan struct{}, lasting)}
	for i := range n + lasting {
		s := &hammered{fate: fateOf(seed, i)}
		if i >= n {
			s.finale = lasts
		}
		h.sessions = append(h.sessions, s)
	}
	f, err := pgtest.StartFake(h.serve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	g := newGate(t, f.SocketDir)
	h.client, h.address = g.clientTLS(), g.Addr
	h.client.CurvePreferences = []tls.CurveID{tls.CurveP256} // the cheapest under the race detector

	var last sync.WaitGroup
	for _, s := range h.sessions[n:] {
		c, err := h.connect(s)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Time{})
		last.Go(func() { h.liveOn(s, c) })
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && !t.Failed(); i = next.Add(1) - 1 {
				h.live(h.sessions[i])
				select {
				case h.ticks <- struct{}{}:
				default:
				}
			}
		})
	}
	workers.Wait()
	close(h.ticks)
	if !t.Failed() {
		eventually(t, "the backend is through with all that came and went", func() bool { return h.served.Load() == int64(n) })
		eventually(t, "the gate is, too", func() bool { return g.Server.Sessions() == lasting })
		for _, s := range h.sessions[n:] {
			from := s.acked.Load()
			eventually(t, "a lasting session is busy", func() bool { return s.acked.Load() > from+largest || s.failed.Load() })
		}
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.Server.Shutdown(now)
	last.Wait()
	f.Stop()
	if t.Failed() {
		return // what is left undone would only be told again
	}

	h.judge(g)
	if runtime.GOOS == "linux" {
		eventually(t, "the descriptors are given back", func() bool { return descriptors(t) <= files })
	}
	goleak.VerifyNone(t, goroutines)
}

// judge holds what was seen at both ends against each other and against the log.
func (h *hammer) judge(g *gate) {
	h.t.Helper()
	logged, began := make(map[string]logLine), make(map[string]bool)
	for _, text := range g.Log.all() {
		line := logLine{}
		err := json.Unmarshal([]byte(text), &line)
		switch id := line.get("session"); {
		case err == nil && line.get("msg") == "session began" && !began[id]:
			began[id] = true
			continue
		case err != nil || line.get("msg") != "session ended" || !began[id]:
			h.t.Errorf("the log has %q", text)
			continue
		}
		if name := line.get("application_name"); logged[name] != nil {
			h.t.Errorf("session %s has ended twice", name)
		} else {
			logged[name] = line
		}
	}
	outcomes := map[finale]string{
		terminates: "client_closed", halfCloses: "client_closed", clientResets: "client_lost",
		backendCloses: "backend_closed", backendResets: "backend_closed", lasts: "drain_timeout",
	}
	var total int64
	for _, s := range h.sessions {
		sentUp, gotUp, acked := s.sentUp.Load(), s.gotUp.Load(), s.acked.Load()
		sentDown, gotDown := s.sentDown.Load(), s.gotDown.Load()
		wrote, read := s.wrote.Load(), s.read.Load()
		total += gotUp + gotDown
		line := logged[strconv.Itoa(s.number)]
		if line == nil || s.served.Load() != 1 {
			h.fail(s, "it has been served %d times; the log has %v", s.served.Load(), line)
			continue
		}
		if got := line.get("outcome"); got != outcomes[s.finale] {
			h.fail(s, "outcome %s, want %s", got, outcomes[s.finale])
		}
		up, _ := line["bytes_from_client"].(float64)
		down, _ := line["bytes_to_client"].(float64)
		if acked > gotUp || gotUp > sentUp || gotDown > sentDown {
			h.fail(s, "up: %d sent, %d received, %d acknowledged; down: %d sent, %d received", sentUp, gotUp, acked, sentDown, gotDown)
		}
		if int64(up) < gotUp || int64(down) < read {
			h.fail(s, "the log has %.0f bytes up and %.0f down; %d and %d arrived", up, down, gotUp, read)
		}
		switch s.finale {
		case terminates, halfCloses:
			if sentUp != s.up || gotUp != s.up || acked != s.up || int64(up) != wrote {
				h.fail(s, "up: %d sent, %d received, %d acknowledged; %d written, %.0f in the log", sentUp, gotUp, acked, wrote, up)
			}
			fallthrough
		case backendCloses, backendResets:
			if sentDown != s.down || gotDown != s.down || int64(down) != read {
				h.fail(s, "down: %d sent, %d received; %d read, %.0f in the log", sentDown, gotDown, read, down)
			}
		}
	}
	h.t.Logf("%d sessions, %d MiB", len(h.sessions), total>>20)
}
