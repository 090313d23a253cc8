package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// oneByOne is a socket on which each byte comes alone, and counts how often it is read.
type oneByOne struct {
	pipe
	left, reads int
	began       time.Time
}

func (s *oneByOne) Read(p []byte) (int, error) {
	s.reads++
	came := int(time.Since(s.began)/time.Millisecond) + 1 // a byte each millisecond
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left, came)
	s.left, s.began = s.left-n, time.Now()
	return n, nil
}

// A client that sends one byte after the other costs some reads, and then what has come is read
// ten times a second: a wake-up for each of 16,000 bytes cost 158 times a plain handshake.
func TestClientIsReadSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const length = 16 << 10
		s := &oneByOne{left: length, began: time.Now()}
		c := NewPacedConn(s)
		got, err := io.Copy(io.Discard, c)
		if got != length || err != nil {
			t.Errorf("%d bytes, %v", got, err)
		}
		if most := freeReads + length/freeBytes + length/100 + 10; s.reads > most {
			t.Errorf("%d reads for %d bytes, want %d at most", s.reads, length, most)
		}
	})
}

// One that sends as fast as it can in segments of any usual size is not held up.
func TestSegmentsAreReadAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		began := time.Now()
		go func() {
			for range 200 {
				_, _ = far.Write(make([]byte, 1160)) // of IPv6 in a tunnel
			}
			_ = far.Close()
		}()
		c := NewPacedConn(pipe{near})
		if n, err := io.Copy(io.Discard, c); n != 200*1160 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the segments took %v", took)
		}
	})
}

// pipe makes a Socket of a net.Pipe.
type pipe struct{ net.Conn }

func (pipe) CloseWrite() error                     { return nil }
func (pipe) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }
