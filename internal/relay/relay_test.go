package relay

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/tlsrecord"
	"pgwicket/internal/tlstest"
)

// testTimeout is how long one test of the relay may take before it counts as hung;
// the machine is shared.
const testTimeout = time.Minute

var rigPair = tlstest.NewCA("relay root").Server("localhost")

// rig is a relay between a TLS client on TCP and a backend on a Unix socket,
// all of them real sockets, without the session round it.
type rig struct {
	t       *testing.T
	tcp     *net.TCPConn  // the client's socket
	client  *tls.Conn     // over tcp
	backend *net.UnixConn // the far end of the backend leg

	conn     *Conn // the relay's own ends
	near     *net.UnixConn
	counted  [2]atomic.Int64 // what count was told, up and down
	started  chan struct{}   // closed when the relay has it all
	failed   chan struct{}   // closed when it never will
	done     chan struct{}   // closed when the relay has ended
	handle   Handle          // once started
	result   Result          // once done
	panicked atomic.Int64
}

// starter hands a session to a new relay of one kind.
type starter struct {
	start  func(s Session, o Observer) Handle
	layers bool // over tlsrecord, not crypto/tls
}

// but is the starter with another way to start.
func (s starter) but(start func(s Session, o Observer) Handle) starter {
	return starter{start, s.layers}
}

// server makes a handshake as the gate does with its clients.
func (s starter) server(under *Conn, config *tls.Config) (tlsrecord.Secure, error) {
	if s.layers {
		h := tlsrecord.Server(under, config)
		return afterHandshake(h, h.Handshake())
	}
	c := tls.Server(under, config)
	return c, c.Handshake()
}

// client makes a handshake as the gate does with a backend.
func (s starter) client(under *Conn, config *tls.Config) (tlsrecord.Secure, error) {
	if s.layers {
		h := tlsrecord.Client(under, config)
		return afterHandshake(h, h.Handshake())
	}
	c := tls.Client(under, config)
	return c, c.Handshake()
}

func afterHandshake(h *tlsrecord.Handshake, err error) (tlsrecord.Secure, error) {
	if err != nil {
		return nil, err
	}
	c := h.Conn()
	if _, ok := c.(*tlsrecord.Conn); !ok {
		return nil, fmt.Errorf("the connection is a %T", c)
	}
	return c, nil
}

// eachRelay runs a test with the goroutines, which are the model, and with
// whatever this system has instead.
func eachRelay(t *testing.T, test func(t *testing.T, with starter)) {
	t.Helper()
	for name, with := range starters {
		t.Run(name, func(t *testing.T) { test(t, with) })
		t.Run(name+", TLS to the backend", func(t *testing.T) { test(t, behindTLS(t, with)) })
	}
}

var startPump = starter{start: func(s Session, o Observer) Handle {
	p := newPump(s, o)
	go p.run()
	return p
}}

// behindTLS puts TLS between a relay and its backend, which keeps its plain
// socket.
func behindTLS(t *testing.T, with starter) starter {
	return with.but(func(s Session, o Observer) Handle {
		near, far := unixPair(t)
		server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{rigPair.TLS()}, SessionTicketsDisabled: true})
		go terminateTLS(server, far, s.Backend.Socket.(*net.UnixConn))
		s.Backend = NewConn(near)
		client, err := with.client(s.Backend, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
		if err != nil {
			t.Error(err)
		}
		s.BackendTLS = client
		return with.start(s, o)
	})
}

// terminateTLS moves bytes and ends between TLS and a plain connection.
func terminateTLS(secure *tls.Conn, under, plain *net.UnixConn) {
	down := make(chan struct{})
	go func() {
		defer close(down)
		_, _ = io.Copy(secure, plain)
		_ = secure.CloseWrite()
		_ = under.CloseWrite()
	}()
	_, err := io.Copy(plain, secure)
	var gone *net.OpError
	switch {
	case err == nil: // in order
		_ = plain.CloseWrite()
	case errors.As(err, &gone) && gone.Op == "write": // the backend has closed
		_, _ = io.Copy(io.Discard, secure)
	default:
		_ = plain.Close()
	}
	<-down
	_ = plain.Close()
	_ = under.Close()
}

// rigging says how a rig differs from the plainest one.
type rigging struct {
	relay   starter
	version uint16    // of TLS; 0: the newest
	keys    io.Writer // where the client logs its secrets, or nil
	startup int       // bytes that the session reads before the relay takes over
	// dial replaces the client; it gets the address and owns what it opens.
	dial func(address string)
	// wrap comes between the client's TLS and its socket.
	wrap func(*net.TCPConn) net.Conn
}

// newRig starts a relay. The goroutines it leaves behind fail the test.
func newRig(t *testing.T, with rigging) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() { // a failure leaves goroutines enough
			goleak.VerifyNone(t, before)
		}
	})
	r := &rig{t: t, started: make(chan struct{}), failed: make(chan struct{}), done: make(chan struct{})}
	r.near, r.backend = unixPair(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if with.dial != nil {
		with.dial(ln.Addr().String())
	} else {
		r.dial(ln.Addr().String(), with)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r.conn = NewConn(conn.(*net.TCPConn))
	t.Cleanup(r.close)
	go r.run(with)
	return r
}

func (r *rig) dial(address string, with rigging) {
	r.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.tcp = conn.(*net.TCPConn)
	under := conn
	if with.wrap != nil {
		under = with.wrap(r.tcp)
	}
	r.client = tls.Client(under, &tls.Config{InsecureSkipVerify: true, MaxVersion: with.version, KeyLogWriter: with.keys, DynamicRecordSizingDisabled: true})
	_ = r.client.SetDeadline(time.Now().Add(testTimeout))
	_ = r.backend.SetDeadline(time.Now().Add(testTimeout))
}

// run is what a session does: handshake, a packet, the relay, the end.
func (r *rig) run(with rigging) {
	server, err := with.relay.server(r.conn, &tls.Config{
		Certificates: []tls.Certificate{rigPair.TLS()}, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		r.t.Error("handshake:", err)
		close(r.failed)
		return
	}
	if _, err := io.ReadFull(server, make([]byte, with.startup)); err != nil {
		r.t.Error("startup packet:", err)
		close(r.failed)
		return
	}
	r.handle = with.relay.start(Session{
		Client:        server,
		ClientConn:    r.conn,
		Backend:       NewConn(r.near),
		LoginDeadline: time.Now().Add(2 * testTimeout),
		Ready:         func(pgwire.Login) *Termination { return nil },
		Done: func(result Result) {
			r.result = result
			close(r.done)
		},
	}, Observer{
		Moved: func(fromClient, toClient int) {
			r.counted[0].Add(int64(fromClient))
			r.counted[1].Add(int64(toClient))
		},
		Panicked: func(any) { r.panicked.Add(1) },
	})
	close(r.started)
}

// close ends the relay, however far it has come, and waits for it.
func (r *rig) close() {
	_ = r.backend.Close()
	if r.tcp != nil {
		_ = r.tcp.Close()
	}
	select {
	case <-r.started:
		r.handle.Terminate(Termination{})
	case <-r.failed:
		return
	}
	select {
	case <-r.done:
	case <-time.After(testTimeout):
		r.t.Error("the relay does not end although it has been told to")
	}
}

// ended waits for the relay to return by itself and checks what it reports.
func (r *rig) ended(cause Cause, up, down int64) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(testTimeout):
		buf := make([]byte, 64<<10)
		r.t.Fatalf("the relay does not return; goroutines:\n%s", buf[:runtime.Stack(buf, true)])
	}
	if r.result.Cause != cause {
		r.t.Errorf("cause %s, want %s", r.result.Cause, cause)
	}
	if r.result.FromClient != up || r.result.ToClient != down {
		r.t.Errorf("relayed %d up and %d down, want %d and %d", r.result.FromClient, r.result.ToClient, up, down)
	}
	if u, d := r.counted[0].Load(), r.counted[1].Load(); u != up || d != down {
		r.t.Errorf("counted %d up and %d down, want %d and %d", u, d, up, down)
	}
}

// endedBy is ended, for a session that Terminate has ended.
func (r *rig) endedBy(reason uint8, up, down int64) {
	r.t.Helper()
	r.ended(Terminated, up, down)
	if r.result.Termination != reason {
		r.t.Errorf("terminated for reason %d, want %d", r.result.Termination, reason)
	}
}

// Reasons of terminations, which are the caller's own.
const (
	revoked uint8 = iota + 1
	drained
	drainTimeout
	idle
	lifetime
)

// digest is what a stream amounts to.
type digest struct {
	n   int64
	sum [sha256.Size]byte
}

func (d digest) String() string { return fmt.Sprintf("%d bytes, sha256 %x", d.n, d.sum[:6]) }

// send writes n random bytes in random chunks, with a stall now and then.
func send(w io.Writer, n int64, seed uint64) (digest, error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	bytesOf := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	h := sha256.New()
	buf := make([]byte, 256<<10)
	d := digest{}
	for d.n < n {
		chunk := buf[:min(n-d.n, 1+rnd.Int64N(1<<(1+rnd.IntN(18))))]
		_, _ = bytesOf.Read(chunk)
		h.Write(chunk)
		m, err := w.Write(chunk)
		d.n += int64(m)
		if err != nil {
			return d, err
		}
		stall(rnd)
	}
	h.Sum(d.sum[:0])
	return d, nil
}

// receive reads to the end of the stream, in random chunks too.
func receive(r io.Reader, seed uint64) (digest, error) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	h := sha256.New()
	buf := make([]byte, 256<<10)
	d := digest{}
	for {
		m, err := r.Read(buf[:1+rnd.IntN(1<<(1+rnd.IntN(18)))])
		h.Write(buf[:m])
		d.n += int64(m)
		if err != nil {
			h.Sum(d.sum[:0])
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return d, err
		}
		stall(rnd)
	}
}

// stall is part of the traffic, not a wait for anything: it lets the other
// side run dry or run full.
func stall(rnd *rand.Rand) {
	if rnd.IntN(500) == 0 {
		time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
	}
}

// result is a digest that comes from another goroutine.
type result struct {
	digest
	err error
}

func later(f func() (digest, error)) <-chan result {
	c := make(chan result, 1)
	go func() {
		d, err := f()
		c <- result{d, err}
	}()
	return c
}

func relayMiB() int64 {
	if n, err := strconv.ParseInt(os.Getenv("PGWICKET_RELAY_MIB"), 10, 64); err == nil && n > 0 {
		return n << 20
	}
	return 64 << 20
}

// Both directions at once, in chunks and stalls that no two runs share: the
// order of reads, writes, partial records and full sockets is what a relay gets
// wrong. PGWICKET_RELAY_MIB makes it longer.
func TestRelayMovesEveryByteBothWays(t *testing.T) { eachRelay(t, testRelayMovesEveryByteBothWays) }

func testRelayMovesEveryByteBothWays(t *testing.T, with starter) {
	for _, c := range []struct {
		version uint16
		n       int64
	}{{tls.VersionTLS13, relayMiB()}, {tls.VersionTLS12, relayMiB() / 4}} {
		t.Run(tls.VersionName(c.version), func(t *testing.T) {
			seed := rand.Uint64()
			t.Log("seed", seed)
			r := newRig(t, rigging{relay: with, version: c.version})
			up := later(func() (digest, error) {
				d, err := send(r.client, c.n, seed)
				if err == nil {
					err = r.client.CloseWrite()
				}
				return d, err
			})
			down := later(func() (digest, error) { return send(r.backend, c.n, seed+1) })
			atBackend := later(func() (digest, error) { return receive(r.backend, seed) })
			atClient := later(func() (digest, error) { return receive(r.client, seed+1) })

			sentUp, gotUp := <-up, <-atBackend
			if sentUp.err != nil || gotUp.err != nil || sentUp.digest != gotUp.digest {
				t.Errorf("to the backend: sent %v (%v), received %v (%v)", sentUp.digest, sentUp.err, gotUp.digest, gotUp.err)
			}
			sentDown := <-down
			_ = r.backend.CloseWrite() // only now: the client is to be the first to end
			gotDown := <-atClient
			if sentDown.err != nil || gotDown.err != nil || sentDown.digest != gotDown.digest {
				t.Errorf("to the client: sent %v (%v), received %v (%v)", sentDown.digest, sentDown.err, gotDown.digest, gotDown.err)
			}
			r.ended(ClientClosed, c.n, c.n)
		})
	}
}

// The same bytes in the smallest possible pieces: every byte is a TLS record
// and a wake-up of its own, and none may wait for the next.
func TestRelayOfSingleBytes(t *testing.T) { eachRelay(t, testRelayOfSingleBytes) }

func testRelayOfSingleBytes(t *testing.T, with starter) {
	r := newRig(t, rigging{relay: with})
	one := make([]byte, 1)
	for i := range 2000 {
		for _, leg := range []struct {
			from io.Writer
			to   io.Reader
		}{{r.client, r.backend}, {r.backend, r.client}} {
			if _, err := leg.from.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(leg.to, one); err != nil || one[0] != byte(i) {
				t.Fatalf("byte %d arrived as %d, %v", byte(i), one[0], err)
			}
		}
	}
	_ = r.client.Close()
	_ = r.backend.Close()
	<-r.done
	r.ended(r.result.Cause, 2000, 2000)
}

// segment collects what TLS writes, to send it in one piece.
type segment struct {
	*net.TCPConn
	hold bool
	held []byte
}

func (s *segment) Write(p []byte) (int, error) {
	if !s.hold {
		return s.TCPConn.Write(p)
	}
	s.held = append(s.held, p...)
	return len(p), nil
}

// flush sends the first n of the bytes held.
func (s *segment) flush(t *testing.T, n int) {
	t.Helper()
	_ = s.SetWriteDeadline(time.Now().Add(testTimeout)) // tls.Conn.CloseWrite has ended the one before
	if _, err := s.TCPConn.Write(s.held[:n]); err != nil {
		t.Fatal(err)
	}
	s.held = s.held[n:]
}

// segmented is a rig whose client holds back what it writes after the
// handshake, until it is flushed.
func segmented(t *testing.T, with starter, startup int) (*rig, *segment) {
	t.Helper()
	var seg *segment
	r := newRig(t, rigging{relay: with, startup: startup, wrap: func(c *net.TCPConn) net.Conn {
		seg = &segment{TCPConn: c}
		return seg
	}})
	if err := r.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	seg.hold = true
	return r, seg
}

// A client may send its startup packet, a first query and more in one segment,
// so that crypto/tls has decrypted or read ahead what belongs to the session
// before the relay starts. Nobody would wake the relay for these bytes.
// What TLS has buffered is the session's, not lost.
func TestRelayStartsWithWhatTLSHasReadAhead(t *testing.T) {
	eachRelay(t, testRelayStartsWithWhatTLSHasReadAhead)
}

func testRelayStartsWithWhatTLSHasReadAhead(t *testing.T, with starter) {
	const packet = "the startup packet"
	for _, c := range []struct {
		name    string
		records []int // how long each is; the packet is the beginning of the first
		late    int   // bytes of the last record that come when the relay has started
	}{
		{"one record", []int{1000}, 0},
		{"several records", []int{len(packet), 10, 1000}, 0},
		{"in the middle of a record", []int{len(packet), 1000}, 500},
		{"in the middle of a header", []int{len(packet), 1000}, 5 + 1000 + 1 + 16 - 2},
		{"more than a buffer", []int{3 * bufferSize}, 0},
	} {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ended %t", c.name, ended), func(t *testing.T) {
				r, seg := segmented(t, with, len(packet))
				all := []byte(packet)
				for i, n := range c.records {
					from := len(all)
					if i == 0 {
						from = 0
					}
					all = append(all, bytes.Repeat([]byte{'a' + byte(i)}, n)...)[:from+n]
					_, _ = r.client.Write(all[from:])
				}
				first := len(seg.held) - c.late
				if ended {
					_ = r.client.CloseWrite()
				}
				if c.late == 0 {
					first = len(seg.held)
				}
				seg.flush(t, first)
				<-r.started
				seg.flush(t, len(seg.held))
				want := all[len(packet):]
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r.backend, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("the backend got other bytes than those sent, %v", err)
				}
				if !ended {
					_ = r.tcp.CloseWrite()
				}
				if n, err := r.backend.Read(got); n != 0 || !errors.Is(err, io.EOF) {
					t.Fatalf("after the client's end the backend read %d bytes, %v; want EOF", n, err)
				}
				_ = r.backend.Close()
				r.ended(ClientClosed, int64(len(want)), 0)
			})
		}
	}
}

// ghostunnel#786, ghostunnel#794: a client that has said all it has to say
// still gets all of the answer. The end may be a close_notify, a FIN, or both.
func TestRelayHalfClosedByClient(t *testing.T) { eachRelay(t, testRelayHalfClosedByClient) }

func testRelayHalfClosedByClient(t *testing.T, with starter) {
	for _, c := range []struct {
		name   string
		notify bool
		fin    bool
	}{{"close_notify and FIN", true, true}, {"close_notify", true, false}, {"FIN without close_notify", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigging{relay: with})
			if _, err := r.client.Write([]byte("a question")); err != nil {
				t.Fatal(err)
			}
			if c.notify {
				_ = r.client.CloseWrite()
			}
			if c.fin {
				_ = r.tcp.CloseWrite()
			}
			question, err := io.ReadAll(r.backend)
			if string(question) != "a question" || err != nil {
				t.Fatalf("the backend read %q, %v", question, err)
			}
			const n = 10 << 20
			sent := later(func() (digest, error) {
				d, err := send(r.backend, n, 1)
				_ = r.backend.Close()
				return d, err
			})
			got, err := receive(r.client, 1)
			if s := <-sent; err != nil || s.err != nil || s.digest != got {
				t.Errorf("sent %v (%v), received %v (%v)", s.digest, s.err, got, err)
			}
			r.ended(ClientClosed, int64(len(question)), n)
		})
	}
}

// ghostunnel#786, ghostunnel#794: a connection that one side had ended got another
// second, and whoever thought about the answer for longer was cut off. The backend
// may take as long as it likes: no deadline of ours begins with the client's end.
func TestRelayHalfClosedClientWaits(t *testing.T) {
	rigs := make(map[string]*rig)
	for name, with := range starters {
		r := newRig(t, rigging{relay: with})
		if _, err := r.client.Write([]byte("a hard question")); err != nil {
			t.Fatal(err)
		}
		_ = r.client.CloseWrite()
		_ = r.tcp.CloseWrite()
		if question, err := io.ReadAll(r.backend); string(question) != "a hard question" || err != nil {
			t.Fatalf("%s: the backend read %q, %v", name, question, err)
		}
		rigs[name] = r
	}
	time.Sleep(lingerTimeout + lingerTimeout/5) // thinking
	for name, r := range rigs {
		const answer = "42, after due consideration"
		if _, err := io.WriteString(r.backend, answer); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = r.backend.Close()
		if got, err := io.ReadAll(r.client); string(got) != answer || err != nil {
			t.Errorf("%s: the client read %q, %v", name, got, err)
		}
		r.ended(ClientClosed, int64(len("a hard question")), int64(len(answer)))
	}
}

// A client that leaves a backend which hangs, as a psql with connect_timeout does when the postmaster is
// stopped, does not stay in the gate until LoginDeadline. If the backend answers, the
// client had only ended its direction, and the login takes its time.
func TestRelayLeavesSilentBackend(t *testing.T) {
	gone, half := make(map[string]*rig), make(map[string]*rig)
	began := time.Now()
	for name, with := range starters {
		for _, rigs := range []map[string]*rig{gone, half} {
			r := newRig(t, rigging{relay: with})
			if err := r.client.Handshake(); err != nil {
				t.Fatal(err)
			}
			_ = r.client.CloseWrite()
			_ = r.tcp.CloseWrite()
			rigs[name] = r
		}
	}
	const asks = "R\x00\x00\x00\x08\x00\x00\x00\x03"
	for name, r := range half {
		if question, err := io.ReadAll(r.backend); len(question) != 0 || err != nil {
			t.Fatalf("%s: the backend read %q, %v", name, question, err)
		}
		if _, err := io.WriteString(r.backend, asks); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range gone {
		r.ended(ClientClosed, 0, 0)
		if d := time.Since(began); d < firstByteTimeout || d > testTimeout/2 {
			t.Errorf("%s: the session of a client that has gone ended after %v", name, d)
		}
	}
	time.Sleep(firstByteTimeout / 5) // longer than the other sessions had
	for name, r := range half {
		if _, err := io.WriteString(r.backend, asks); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = r.backend.Close()
		if got, err := io.ReadAll(r.client); string(got) != asks+asks || err != nil {
			t.Errorf("%s: the client read %q, %v", name, got, err)
		}
		r.ended(ClientClosed, 0, int64(2*len(asks)))
	}
}

// As in pgbouncer's test_ssl_eof: a stream that is cut inside a record is
// not an orderly end; the fragment must never reach the backend.
func TestRelayCutInTheMiddleOfARecord(t *testing.T) { eachRelay(t, testRelayCutInTheMiddleOfARecord) }

func testRelayCutInTheMiddleOfARecord(t *testing.T, with starter) {
	r, seg := segmented(t, with, 0)
	_, _ = r.client.Write([]byte("whole"))
	_, _ = r.client.Write(bytes.Repeat([]byte("x"), 5000))
	seg.flush(t, len(seg.held)-1)
	_ = r.tcp.CloseWrite()
	got, err := io.ReadAll(r.backend)
	if string(got) != "whole" || err != nil {
		t.Errorf("the backend read %q, %v; want only the whole record", got, err)
	}
	_ = r.backend.Close()
	r.ended(ClientLost, 5, 0)
}

// stolon#323, kviklet#537, proxysql#6129, alloydb-auth-proxy#282,
// pg_auto_failover#1180 (leaked backend sessions): a client that is cut off
// takes its backend session with it, be it idle, listening or talking.
func TestRelayResetByClient(t *testing.T) { eachRelay(t, testRelayResetByClient) }

func testRelayResetByClient(t *testing.T, with starter) {
	reset := func(r *rig) {
		_ = r.tcp.SetLinger(0)
		_ = r.tcp.Close()
	}
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		reset(r)
		if got, err := io.ReadAll(r.backend); len(got) != 0 || err != nil {
			t.Errorf("the backend read %q, %v", got, err)
		}
		r.ended(ClientLost, 0, 0)
	})
	t.Run("in the middle of a result", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		sent := later(func() (digest, error) { return send(r.backend, 1<<30, 1) })
		if _, err := io.CopyN(io.Discard, r.client, 1<<20); err != nil {
			t.Fatal(err)
		}
		reset(r)
		if s := <-sent; !errors.Is(s.err, syscall.EPIPE) && !errors.Is(s.err, syscall.ECONNRESET) {
			t.Errorf("the backend could write %v after the client had gone, error %v", s.digest, s.err)
		}
		<-r.done
		if c := r.result.Cause; c != ClientLost && c != ClientClosed {
			t.Errorf("cause %s, want %s or, if the write got the reset, %s", c, ClientLost, ClientClosed)
		}
		r.ended(r.result.Cause, 0, r.counted[1].Load())
	})
	t.Run("while nobody reads", func(t *testing.T) {
		// The pump that is stuck in a write to the backend does not see the
		// reset; the other one must, and take it along.
		r := newRig(t, rigging{relay: with})
		fill(t, r.client)
		fill(t, r.backend)
		reset(r)
		select {
		case <-r.done:
		case <-time.After(testTimeout):
			t.Error("the relay outlives its client")
		}
	})
}

// fill writes until the other side accepts no more for a while, and returns how
// much it took.
func fill(t *testing.T, c net.Conn) int64 {
	t.Helper()
	buf := make([]byte, 64<<10)
	total := int64(0)
	for total < 1<<30 {
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(buf)
		total += int64(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.SetWriteDeadline(time.Now().Add(testTimeout))
			return total
		case err != nil:
			t.Error(err)
			return total
		}
	}
	t.Error("no back-pressure: 1 GiB was accepted although nobody read")
	return total
}

// A backend that ends the session has the last word: all it said arrives, and
// then a close_notify, so that the client can tell the end from a cut.
func TestRelayClosedByBackend(t *testing.T) { eachRelay(t, testRelayClosedByBackend) }

func testRelayClosedByBackend(t *testing.T, with starter) {
	const n = 10 << 20
	// talk sends n bytes and closes without having read a byte.
	talk := func(r *rig) <-chan result {
		return later(func() (digest, error) {
			d, err := send(r.backend, n, 3)
			_ = r.backend.Close()
			return d, err
		})
	}
	t.Run("data in flight", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		sent := talk(r)
		got, err := receive(r.client, 3)
		if s := <-sent; err != nil || s.err != nil || s.digest != got {
			t.Errorf("sent %v (%v), received %v (%v)", s.digest, s.err, got, err)
		}
		_ = r.client.Close()
		r.ended(BackendClosed, 0, n)
	})
	// A Unix socket that is closed with unread input resets its peer
	// (ECONNRESET), after the last of its output: what PostgreSQL does at
	// FATAL.
	t.Run("unread input", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		const unread = 64 << 10
		if _, err := r.client.Write(make([]byte, unread)); err != nil {
			t.Fatal(err)
		}
		wait(t, "the input at the backend", func() bool { return r.counted[0].Load() == unread })
		sent := talk(r)
		got, err := receive(r.client, 3)
		if s := <-sent; err != nil || s.err != nil || s.digest != got {
			t.Errorf("sent %v (%v), received %v (%v)", s.digest, s.err, got, err)
		}
		_ = r.client.Close()
		r.ended(BackendClosed, unread, n)
	})
	// The upload learns of it first, by EPIPE; the download must go on, and who
	// reads later must find all of it: a socket that is closed with unread
	// input resets its peer and throws away what it has still to send.
	t.Run("client goes on sending", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		sending := later(func() (digest, error) { return send(r.client, 1<<40, 4) })
		wait(t, "the first input", func() bool { return r.counted[0].Load() > 0 })
		sent, err := send(r.backend, 1<<20, 3)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.backend.Close()
		stopped(t, &r.counted[1])
		got, err := receive(r.client, 3)
		if err != nil || got != sent {
			t.Errorf("sent %v, received %v (%v)", sent, got, err)
		}
		_ = r.client.Close()
		<-sending
		<-r.done
		r.ended(BackendClosed, r.counted[0].Load(), sent.n)
	})
	// A client that neither reads nor closes must not hold the session for
	// ever, but what the kernel has taken for it is still its own.
	t.Run("client is slow to read and does not close", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		const n = 256 << 10 // no more than the kernel takes from us
		began := time.Now()
		sent, err := send(r.backend, n, 3)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.backend.Close()
		r.ended(BackendClosed, 0, n)
		if d := time.Since(began); d < lingerTimeout {
			t.Errorf("cut after %v although the client may take %v", d, lingerTimeout)
		}
		if got, err := receive(r.client, 3); err != nil || got != sent {
			t.Errorf("sent %v, received %v (%v)", sent, got, err)
		}
	})
}

// recorder keeps what its owner has read.
type recorder struct {
	*net.TCPConn
	read []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.TCPConn.Read(p)
	r.read = append(r.read, p[:n]...)
	return n, err
}

// A backend's end reaches the client at once and both ways: as a close_notify,
// without which a client of OpenSSL 3 reports "unexpected eof while reading",
// and as a FIN. crypto/tls would not miss either of the two.
func TestRelayEndsInOrder(t *testing.T) { eachRelay(t, testRelayEndsInOrder) }

func testRelayEndsInOrder(t *testing.T, with starter) {
	var rec *recorder
	r := newRig(t, rigging{
		relay:   with,
		version: tls.VersionTLS12, // whose alerts can be told by their type
		wrap: func(c *net.TCPConn) net.Conn {
			rec = &recorder{TCPConn: c}
			return rec
		},
	})
	if err := r.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	_, _ = r.backend.Write([]byte("the last words"))
	_ = r.backend.Close()
	if got, err := io.ReadAll(r.client); string(got) != "the last words" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
	if n, err := r.tcp.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the close_notify the client read %d bytes, %v; want FIN", n, err)
	}
	select {
	case <-r.done:
		t.Error("the relay has not waited for the client's end")
	default:
	}
	last := byte(0)
	for b := rec.read; len(b) >= 5; b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):] {
		last = b[0]
	}
	const alert = 21
	if last != alert {
		t.Errorf("the last record is of type %d, want an alert", last)
	}
	_ = r.client.Close()
	r.ended(BackendClosed, 0, int64(len("the last words")))
}

// wait polls until it is so.
func wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still waiting for " + what)
		}
	}
}

// Back-pressure: who does not read stops who writes, at a bounded cost in
// memory, and nothing is lost when he reads again.
func TestRelayStalledReader(t *testing.T) { eachRelay(t, testRelayStalledReader) }

func testRelayStalledReader(t *testing.T, with starter) {
	const n = 64 << 20
	for _, c := range []struct {
		name  string
		roles func(r *rig) (from, to net.Conn)
		cause Cause
		up    int64
	}{
		{"client", func(r *rig) (from, to net.Conn) { return r.backend, r.client }, BackendClosed, 0},
		{"backend", func(r *rig) (from, to net.Conn) { return r.client, r.backend }, ClientClosed, n},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigging{relay: with})
			if err := r.client.Handshake(); err != nil {
				t.Fatal(err)
			}
			_ = r.tcp.SetReadBuffer(64 << 10) // what the kernel keeps is not the relay's, but slows the test
			_ = r.tcp.SetWriteBuffer(64 << 10)
			from, to := c.roles(r)
			heap := settledHeap()
			var written atomic.Int64
			sent := later(func() (digest, error) {
				d, err := send(&counter{from, &written}, n, 5)
				_ = from.(interface{ CloseWrite() error }).CloseWrite()
				return d, err
			})
			stopped(t, &written)
			if w := written.Load(); w > n/2 {
				t.Fatalf("no back-pressure: %d bytes were accepted although nobody read", w)
			}
			if grown := settledHeap() - heap; grown > 2<<20 {
				t.Errorf("the stalled session holds %d KiB", grown>>10)
			}
			got, err := receive(to, 5)
			if s := <-sent; err != nil || s.err != nil || s.digest != got {
				t.Errorf("sent %v (%v), received %v (%v)", s.digest, s.err, got, err)
			}
			_ = to.Close()
			r.ended(c.cause, c.up, n-c.up)
		})
	}
}

// counter counts what has been written.
type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// stopped waits until n has not grown for a while.
func stopped(t *testing.T, n *atomic.Int64) {
	t.Helper()
	last, since := int64(0), time.Now()
	wait(t, "back-pressure", func() bool {
		if now := n.Load(); now == 0 || now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// settledHeap is the heap without garbage and without what sync.Pools keep,
// which takes two collections to go.
func settledHeap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// CVE-2026-32283 and CVE-2026-56862 were in crypto/tls's handling of KeyUpdate;
// here it must also pass through the relay, whose upload reads the request
// and whose download must not mind the answer. Go's client cannot start one,
// openssl's can.
func TestRelayKeyUpdate(t *testing.T) { eachRelay(t, testRelayKeyUpdate) }

func testRelayKeyUpdate(t *testing.T, with starter) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl in PATH")
	}
	var cmd *exec.Cmd
	var in io.WriteCloser
	var out, notes *bufio.Reader
	r := newRig(t, rigging{relay: with, dial: func(address string) {
		cmd = exec.Command(openssl, "s_client", "-connect", address, "-tls1_3")
		in, _ = cmd.StdinPipe()
		stdout, _ := cmd.StdoutPipe()
		stderr, _ := cmd.StderrPipe()
		out, notes = bufio.NewReader(stdout), bufio.NewReader(stderr)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}})
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	_ = r.backend.SetDeadline(time.Now().Add(testTimeout))
	up, down := int64(0), int64(0)
	backend := bufio.NewReader(r.backend)
	// There and back, under whatever keys are in force.
	echo := func(text string) {
		t.Helper()
		_, _ = io.WriteString(in, text+"\n")
		line, err := backend.ReadString('\n')
		if err != nil || line != text+"\n" {
			t.Fatalf("the backend read %q, %v; want %q", line, err, text)
		}
		up += int64(len(line))
		down += int64(len(line))
		_, _ = io.WriteString(r.backend, line)
		until(t, out, text)
	}
	echo("under the first keys")
	for range 3 {
		for _, command := range []string{"K\n", "k\n"} { // with and without a request to follow
			_, _ = io.WriteString(in, command)
			until(t, notes, "KEYUPDATE")
			echo("after " + command[:1] + strconv.Itoa(rand.IntN(1000)))
		}
	}
	_, _ = io.WriteString(in, "Q\n")
	if n, err := backend.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the backend read %d bytes, %v", n, err)
	}
	_ = r.backend.Close()
	r.ended(ClientClosed, up, down)
}

// until reads lines up to the one that holds text.
func until(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%q never came: %v", text, err)
		}
		if strings.Contains(line, text) {
			return
		}
	}
}

// A session in which TLS breaks is over, at once and on both legs: nothing after
// a record that does not authenticate can be trusted.
func TestRelayBrokenTLS(t *testing.T) { eachRelay(t, testRelayBrokenTLS) }

func testRelayBrokenTLS(t *testing.T, with starter) {
	t.Run("record that does not authenticate", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if _, err := r.client.Write([]byte("good")); err != nil {
			t.Fatal(err)
		}
		wait(t, "the good bytes", func() bool { return r.counted[0].Load() == 4 })
		_, _ = r.tcp.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...))
		got, err := io.ReadAll(r.backend)
		if string(got) != "good" || err != nil {
			t.Errorf("the backend read %q, %v", got, err)
		}
		r.ended(ClientLost, 4, 0)
	})
	t.Run("no record at all", func(t *testing.T) {
		r := newRig(t, rigging{relay: with})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = r.tcp.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		if got, err := io.ReadAll(r.backend); len(got) != 0 || err != nil {
			t.Errorf("the backend read %q, %v", got, err)
		}
		r.ended(ClientLost, 0, 0)
	})
	t.Run("fatal alert from the client", func(t *testing.T) {
		// Garbage in the gate's name makes the client give up with an alert.
		forged := make(chan *os.File, 1)
		r := newRig(t, rigging{relay: with.but(func(s Session, o Observer) Handle {
			f, err := s.ClientConn.Socket.(*net.TCPConn).File()
			if err != nil {
				t.Error(err)
			}
			forged <- f
			return with.start(s, o)
		})})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		f := <-forged
		_, _ = f.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...))
		_ = f.Close()
		if _, err := r.client.Read(make([]byte, 1)); err == nil {
			t.Fatal("the client took garbage for a record")
		}
		if got, err := io.ReadAll(r.backend); len(got) != 0 || err != nil {
			t.Errorf("the backend read %q, %v", got, err)
		}
		r.ended(ClientLost, 0, 0)
	})
}

// Terminate ends a session although both directions are stuck in a write.
func TestRelayEndedFromOutside(t *testing.T) { eachRelay(t, testRelayEndedFromOutside) }

func testRelayEndedFromOutside(t *testing.T, with starter) {
	r := newRig(t, rigging{relay: with})
	fill(t, r.client)
	fill(t, r.backend)
	<-r.started
	r.handle.Terminate(Termination{})
	r.handle.Terminate(Termination{Reason: revoked}) // the first cause stays
	select {
	case <-r.done:
	case <-time.After(testTimeout):
		t.Fatal("the relay does not end when it is told to")
	}
	if r.result.Cause != Terminated || r.result.Termination != 0 {
		t.Errorf("cause %s, reason %d; want the first termination's", r.result.Cause, r.result.Termination)
	}
}

// A panic costs one session its life and no other.
func TestRelayContainsPanics(t *testing.T) { eachRelay(t, testRelayContainsPanics) }

func testRelayContainsPanics(t *testing.T, with starter) {
	r := newRig(t, rigging{relay: with.but(func(s Session, o Observer) Handle {
		s.Client = nil // which nothing but a bug would do
		return with.start(s, o)
	})})
	if err := r.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	r.ended(Failed, 0, 0)
	if n := r.panicked.Load(); n == 0 {
		t.Error("nobody is told of the panic")
	}
	if _, err := r.backend.Read(make([]byte, 1)); err == nil {
		t.Error("the backend's socket is still open")
	}
}

// Records for a client are as short as PostgreSQL's own, for the sake of libpq's
// asynchronous readers, and hold all of it.
func TestRelayRecordsAreShort(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		var rec *recorder
		r := newRig(t, rigging{relay: with, wrap: func(c *net.TCPConn) net.Conn {
			rec = &recorder{TCPConn: c}
			return rec
		}})
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
		go func() {
			_, _ = r.backend.Write(want)
			_ = r.backend.Close()
		}()
		if got, err := io.ReadAll(r.client); !bytes.Equal(got, want) || err != nil {
			t.Errorf("the client read %d bytes, %v", len(got), err)
		}
		longest := 0
		for b := rec.read; len(b) >= 5; {
			n := int(b[3])<<8 + int(b[4])
			longest = max(longest, n)
			b = b[min(len(b), 5+n):]
		}
		const overhead = 1 + 16 // of TLS 1.3 with AES-GCM
		if longest > 8<<10+overhead || longest < 4<<10 {
			t.Errorf("the longest record has %d bytes", longest)
		}
		_ = r.client.Close()
		r.ended(BackendClosed, 0, int64(len(want)))
	})
}
