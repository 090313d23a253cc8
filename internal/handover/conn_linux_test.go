package handover

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, other, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(other.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = other.Close()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = NewConn(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

// Frames arrive in order, each with its own descriptors, however long they are.
func TestFramesBringTheirDescriptors(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan error, 1)
	go func() {
		err := a.Send(State, map[string]int{"a": 1}, long)
		if err == nil {
			err = a.Send(Session, nil, []byte("x"), int(r.Fd()), int(w.Fd()))
		}
		if err == nil {
			err = a.Send(Commit, nil, nil)
		}
		sent <- err
	}()
	f, err := b.Receive()
	if err != nil || f.Kind != State || string(f.Text) != `{"a":1}` || !bytes.Equal(f.Data, long) || len(f.Files) != 0 {
		t.Fatalf("%v, %v, %d files", f.Kind, err, len(f.Files))
	}
	f, err = b.Receive()
	if err != nil || f.Kind != Session || len(f.Files) != 2 || string(f.Data) != "x" {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := unix.Write(f.Files[1], []byte("through")); err != nil {
		t.Error(err)
	}
	var got [7]byte
	if _, err := io.ReadFull(r, got[:]); err != nil || string(got[:]) != "through" {
		t.Errorf("%q, %v", got, err)
	}
	flags, err := unix.FcntlInt(uintptr(f.Files[0]), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("a program that this process runs would inherit the descriptor")
	}
	f.Close()
	if f, err = b.Receive(); err != nil || f.Kind != Commit || len(f.Text)+len(f.Data)+len(f.Files) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	_ = a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// A process that dies in the middle of a frame has sent no frame.
func TestHalfAFrame(t *testing.T) {
	t.Parallel()
	for n := 1; n < headerLen+3; n++ {
		a, b := pair(t)
		h := putHeader(Commit, 0, 3)
		if _, err := a.socket.Write(append(h[:], "abc"...)[:n]); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if f, err := b.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) || f.Kind != 0 {
			t.Errorf("%d bytes: %+v, %v", n, f, err)
		}
	}
}

// More descriptors than a frame can have are refused, and closed.
func TestTooManyDescriptors(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		if err := a.Send(Session, nil, nil, int(w.Fd()), int(w.Fd()), int(w.Fd())); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Receive(); !errors.Is(err, ErrFormat) {
			t.Errorf("three descriptors: %v", err)
		}
	}
	h := putHeader(Session, 0, 2)
	_, _ = a.socket.Write(h[:])
	_, _ = a.socket.Write([]byte("a"))
	_, _, _ = a.socket.WriteMsgUnix([]byte("b"), unix.UnixRights(int(w.Fd())), nil)
	if _, err := b.Receive(); !errors.Is(err, ErrFormat) {
		t.Errorf("a descriptor in the middle of a frame: %v", err)
	}
	_ = w.Close()
	if n, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a descriptor that was refused is still open: %d, %v", n, err)
	}
}

// The kernel says who has made a pair, and who has connected to a socket.
func TestPeer(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for _, c := range []*Conn{a, b} {
		if _, p, err := c.Process(); err != nil || p.UID != os.Getuid() || p.PID != os.Getpid() {
			t.Errorf("%+v, %v", p, err)
		}
	}
	left, right := net.Pipe()
	_ = left.Close()
	_ = right.Close()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	fd, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = f.Close()
	if _, err := NewConn(fd); err == nil {
		t.Error("a file is a channel")
	}
}

// One of two processes takes a claim, and neither a second time.
func TestClaim(t *testing.T) {
	t.Parallel()
	ours, err := NewClaim()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd, err := unix.Dup(ours.Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	theirs := ClaimOf(fd)
	defer theirs.Close()
	var taken atomic.Int64
	var wg sync.WaitGroup
	for _, c := range []Claim{ours, theirs, ours, theirs} {
		wg.Go(func() {
			if c.Take() {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if n := taken.Load(); n != 1 {
		t.Errorf("taken %d times", n)
	}
	if ClaimOf(-1).Take() {
		t.Error("one that cannot be read is taken")
	}
}

// A process has ended when the kernel says so, and not before.
func TestProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := OpenProcess(cmd.Process.Pid)
	defer p.Close()
	known := Process{cmd.Process.Pid, -1} // as where the system has no pidfd
	if p.Ended(10*time.Millisecond) || known.Ended(10*time.Millisecond) || (Process{0, -1}).Ended(0) {
		t.Error("it has ended")
	}
	_ = cmd.Process.Kill()
	if !p.Ended(time.Minute) {
		t.Error("it has not ended")
	}
	_ = cmd.Wait()
	if !known.Ended(time.Minute) {
		t.Error("without a pidfd it has not ended")
	}
}
