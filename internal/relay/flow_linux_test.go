package relay

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scriptedTLS opens every record as plain and answers it with answer. What it seals stays as it is.
type scriptedTLS struct{ plain, answer string }

func (s scriptedTLS) Open(plain, _, answer []byte) (opened, reply []byte, err error) {
	return append(plain, s.plain...), append(answer, s.answer...), nil
}

func (s scriptedTLS) End() error                         { return io.EOF }
func (s scriptedTLS) Seal(out, p []byte) ([]byte, error) { return append(out, p...), nil }
func (s scriptedTLS) CloseNotify(out []byte) []byte      { return out }
func (s scriptedTLS) Wipe()                              {}

// rawPair returns two connected sockets. The test closes the far one.
func rawPair(t *testing.T) (near, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// The answer that a session owes its backend ends with the session. The loop's buffer is shared,
// so another session's backend would get it.
func TestAnswerToABackendEndsWithItsSession(t *testing.T) {
	t.Parallel()
	l, err := newLoop(Observer{Moved: func(int, int) {}, Panicked: func(any) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	ended := make(chan struct{})
	first := &flow{loop: l, done: func(Result) { close(ended) }}
	first.client.tls, first.backend.tls = scriptedTLS{}, scriptedTLS{"row", "answer"}
	second := &flow{loop: l, done: func(Result) {}}
	second.client.tls, second.backend.tls = scriptedTLS{}, scriptedTLS{}
	var far [4]int
	first.client.fd, far[0] = rawPair(t)
	first.backend.fd, far[1] = rawPair(t)
	second.client.fd, far[2] = rawPair(t)
	second.backend.fd, far[3] = rawPair(t)
	_ = unix.Close(far[0]) // the first client has gone, so what its backend sends cannot be delivered
	sent := make(chan struct{})
	l.post(func() {
		defer close(sent)
		l.add(first)
		l.add(second)
		first.step(func() { first.decryptBackend([]byte("a record")) })
		second.step(func() { second.forward([]byte("query")) })
	})
	<-sent
	<-ended
	var got [100]byte
	n, err := unix.Read(far[3], got[:])
	if err != nil || string(got[:n]) != "query" {
		t.Errorf("the backend of the second session got %q (%v), want its query alone", got[:max(n, 0)], err)
	}
	over := make(chan struct{})
	l.post(func() { second.end(Failed); close(over) })
	<-over
	for _, fd := range far[1:] {
		_ = unix.Close(fd)
	}
}

// A session that another process was offered, and that has come back, ends like any other, though that process still
// has its sockets: the peers hear of it, and epoll does not report what nobody reads.
func TestEndWithDuplicates(t *testing.T) {
	t.Parallel()
	l, err := newLoop(Observer{Moved: func(int, int) {}, Panicked: func(any) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	ended := make(chan Result, 1)
	f := &flow{loop: l, done: func(r Result) { ended <- r }}
	f.client.tls = scriptedTLS{}
	var client, backend int
	f.client.fd, client = rawPair(t)
	f.backend.fd, backend = rawPair(t)
	for _, fd := range []int{f.client.fd, f.backend.fd} {
		duplicate, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(duplicate)
	}
	registered := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.epoll))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "tfd:")
	}
	none := registered()
	l.post(func() {
		l.add(f)
		f.step(func() { f.forward([]byte("query")) })
		if n := registered(); n != none+2 {
			t.Errorf("%d descriptors in epoll, want %d", n, none+2)
		}
		f.end(Failed)
		if n := registered(); n != none {
			t.Errorf("%d descriptors in epoll after the end, want %d", n, none)
		}
	})
	<-ended
	for fd, want := range map[int]string{client: "", backend: "query"} {
		file := os.NewFile(uintptr(fd), "peer")
		if err := file.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(file); err != nil || string(got) != want {
			t.Errorf("a peer got %q, %v, want %q and the end", got, err, want)
		}
		_ = file.Close()
	}
}
