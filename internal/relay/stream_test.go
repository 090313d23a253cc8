package relay

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// fromEnv is a number that the environment may make larger.
func fromEnv(name string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// way is one direction of a relay, as its two ends see it.
type way struct {
	sent, got int64
	gone      bool // nobody reads it any more
	stalls    int
}

// traffic is both directions of a relay. Who stalls waits here for what the
// others do, so that a stall is as long as it takes for everything in between to
// run full, or dry, on a machine of any speed.
//
// A writer waits for the reader of its own direction, a reader for the one of
// the other direction. Never two readers wait at once, and no writer while one
// of them does. So somebody can always go on, unless a direction that is stalled
// stops the other one, and that would be the relay's fault.
type traffic struct {
	n     int64 // bytes each way
	mu    sync.Mutex
	moved sync.Cond
	ways  [2]way
	still bool // a reader is stalled
	turn  *way // whose reader stalls next
}

func newTraffic(n int64) *traffic {
	t := &traffic{n: n}
	t.turn = &t.ways[0]
	t.moved.L = &t.mu
	return t
}

// stalling is one end of one direction, which stops now and then.
type stalling struct {
	io.ReadWriter
	t          *traffic
	own, other *way
	rnd        *rand.Rand
}

// end is a direction at one of its ends; seed makes no two ends stall alike.
func (t *traffic) end(c io.ReadWriter, direction int, seed uint64) *stalling {
	return &stalling{c, t, &t.ways[direction], &t.ways[1-direction], rand.New(rand.NewPCG(seed, 3))}
}

// Write stalls until all that was written has been read: the relay runs dry, and
// has to notice the next byte.
func (s *stalling) Write(p []byte) (int, error) {
	n, err := s.ReadWriter.Write(p)
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.own.sent += int64(n)
	if err == nil && !s.t.still && s.rnd.IntN(20) == 0 {
		s.own.stalls++
		for s.own.got < s.own.sent && !s.own.gone && !s.t.still {
			s.t.moved.Wait()
		}
	}
	return n, err
}

// Read stalls while a few MiB go the other way: the relay runs full, and has to
// go on with the other direction meanwhile and with this one afterwards.
func (s *stalling) Read(p []byte) (int, error) {
	s.t.mu.Lock()
	if !s.t.still && (s.t.turn == s.own || s.other.got == s.t.n) && s.rnd.IntN(40) == 0 {
		s.own.stalls++
		s.t.still, s.t.turn = true, s.other
		s.t.moved.Broadcast()
		until := min(s.other.got+s.rnd.Int64N(16<<s.rnd.IntN(20)), s.t.n)
		for s.other.got < until && !s.other.gone {
			s.t.moved.Wait()
		}
		s.t.still = false
	}
	s.t.mu.Unlock()
	n, err := s.ReadWriter.Read(p)
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.own.got += int64(n)
	if err != nil {
		s.own.gone = true
	}
	s.t.moved.Broadcast()
	return n, err
}

// A stream each way at once, in chunks that no two runs share, between ends that
// stop for as long as they like: it arrives, whole and in order.
// TestRelayMovesEveryByteBothWays has the same without the stalls.
// PGWICKET_STREAM_MIB is how long the streams are, PGWICKET_STREAM_TIMES how often.
func TestStreamsBothWaysWithStalls(t *testing.T) { eachRelay(t, testStreamsBothWaysWithStalls) }

func testStreamsBothWaysWithStalls(t *testing.T, with starter) {
	n := fromEnv("PGWICKET_STREAM_MIB", 16) << 20
	for i := range fromEnv("PGWICKET_STREAM_TIMES", 2) {
		version := []uint16{tls.VersionTLS13, tls.VersionTLS12}[i%2]
		t.Run(fmt.Sprintf("%d, %s", i+1, tls.VersionName(version)), func(t *testing.T) { testStreamsOnce(t, with, version, n) })
	}
}

func testStreamsOnce(t *testing.T, with starter, version uint16, n int64) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := newRig(t, rigging{relay: with, version: version})
	deadline := time.Now().Add(testTimeout + time.Duration(n>>20)*time.Second)
	for _, c := range []net.Conn{r.client, r.backend} {
		_ = c.SetDeadline(deadline)
	}
	// The buffers of the client's socket stay as they are. Where two packets (of
	// 64 KiB here) fill them, Linux 6.18 drops the acknowledgements that come
	// with what has no room, so that a client that does not read cannot write.
	const up, down = 0, 1
	both := newTraffic(n)
	sendingUp := later(func() (digest, error) {
		d, err := send(both.end(r.client, up, seed), n, seed)
		if err == nil {
			err = r.client.CloseWrite()
		}
		return d, err
	})
	sendingDown := later(func() (digest, error) { return send(both.end(r.backend, down, seed+1), n, seed+1) })
	hearingUp := later(func() (digest, error) { return receive(both.end(r.backend, up, seed+2), seed+2) })
	hearingDown := later(func() (digest, error) { return receive(both.end(r.client, down, seed+3), seed+3) })

	sentUp, gotUp := <-sendingUp, <-hearingUp
	if sentUp.err != nil || gotUp.err != nil || sentUp.digest != gotUp.digest {
		t.Errorf("to the backend: sent %v (%v), received %v (%v)", sentUp.digest, sentUp.err, gotUp.digest, gotUp.err)
	}
	sentDown := <-sendingDown
	_ = r.backend.CloseWrite() // only now: a backend that ends takes no more
	gotDown := <-hearingDown
	if sentDown.err != nil || gotDown.err != nil || sentDown.digest != gotDown.digest {
		t.Errorf("to the client: sent %v (%v), received %v (%v)", sentDown.digest, sentDown.err, gotDown.digest, gotDown.err)
	}
	if t.Failed() {
		return // and the relay may go on for ever
	}
	r.ended(ClientClosed, n, n)
	t.Logf("stalls: %d up, %d down", both.ways[up].stalls, both.ways[down].stalls)
}
