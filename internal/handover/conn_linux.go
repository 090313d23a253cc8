package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of the channel between the two processes. One goroutine may receive; any may
// send.
type Conn struct {
	socket  *net.UnixConn
	sending sync.Mutex
}

// Pair returns the ends of a channel: one for this process, and one to send to the other.
func Pair() (*Conn, *os.File, error) {
	u, other, err := SocketPair()
	if err != nil {
		return nil, nil, err
	}
	return OverSocket(u), other, nil
}

// SocketPair is Pair for bytes that are no frames.
func SocketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	other := os.NewFile(uintptr(fds[1]), "upgrade")
	u, err := UnixConn(fds[0])
	if err != nil {
		_ = other.Close()
		return nil, nil, err
	}
	return u, other, nil
}

// NewConn returns a channel over a descriptor, which it takes over.
func NewConn(fd int) (*Conn, error) {
	u, err := UnixConn(fd)
	if err != nil {
		return nil, err
	}
	return OverSocket(u), nil
}

// UnixConn returns the Unix socket that a descriptor is, which it takes over.
func UnixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "upgrade")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: a descriptor is no Unix socket", ErrFormat)
	}
	return u, nil
}

// OverSocket returns a channel over a socket, which it takes over.
func OverSocket(u *net.UnixConn) *Conn { return &Conn{socket: u} }

// With calls f with the descriptor of a file, a listener or a connection, for Send.
func With(of any, f func(fd int) error) error {
	c, ok := of.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", of)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// Close ends the channel. Frames that were sent can still be received.
func (c *Conn) Close() error { return c.socket.Close() }

// SetWriteDeadline bounds the sends from now on; the zero time is none. After one that has failed the channel is
// of no use: a part of a frame may have gone.
func (c *Conn) SetWriteDeadline(t time.Time) { _ = c.socket.SetWriteDeadline(t) }

// SetDeadline bounds the sends and receives from now on; the zero time is none.
func (c *Conn) SetDeadline(t time.Time) { _ = c.socket.SetDeadline(t) }

// Send sends a frame, with text as JSON (nil: none). The descriptors stay the caller's. When it returns
// without an error, the kernel has all of it: the other process gets it, also if this one dies. With any error but
// ErrTooLarge a part of it may have gone, and the channel is of no use any more.
func (c *Conn) Send(k Kind, text any, data []byte, files ...int) error {
	var encoded []byte
	if text != nil {
		var err error
		if encoded, err = json.Marshal(text); err != nil {
			return err
		}
	}
	if len(encoded)+len(data) > MaxFrame {
		return fmt.Errorf("%v: %d bytes: %w", k, len(encoded)+len(data), ErrTooLarge)
	}
	header := putHeader(k, len(encoded), len(data))
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if n, _, err := c.socket.WriteMsgUnix(header[:], rights, nil); err != nil || n < headerLen {
		return fmt.Errorf("%v: %w", k, shortWrite(err))
	}
	for _, part := range [][]byte{encoded, data} {
		if len(part) == 0 {
			continue // the other process may be content with what it has, and have closed its end
		}
		if _, err := c.socket.Write(part); err != nil {
			return fmt.Errorf("%v: %w", k, err)
		}
	}
	return nil
}

func shortWrite(err error) error {
	if err == nil {
		return io.ErrShortWrite
	}
	return err
}

// Receive returns the next frame; io.EOF when the other process has closed its end, or is gone.
func (c *Conn) Receive() (Frame, error) { return read(c.receive) }

// receive fills p, and returns the descriptors that came with it.
func (c *Conn) receive(p []byte) (files []int, err error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	for have := 0; have < len(p); {
		n, oob, flags, _, err := c.socket.ReadMsgUnix(p[have:], rights)
		have += n
		if oob > 0 {
			more, parseErr := descriptors(rights[:oob])
			files = append(files, more...)
			if parseErr != nil {
				return files, parseErr
			}
		}
		switch {
		case flags&unix.MSG_CTRUNC != 0:
			return files, ErrFormat
		case err == nil && n > 0:
		case err != nil && !errors.Is(err, io.EOF):
			return files, err
		case have > 0:
			return files, io.ErrUnexpectedEOF
		default:
			return files, io.EOF
		}
	}
	return files, nil
}

// descriptors returns those that control messages bring.
func descriptors(oob []byte) (all []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

// Close closes the descriptors that are still in f.
func (f *Frame) Close() {
	for _, fd := range f.Files {
		_ = unix.Close(fd)
	}
	f.Files = nil
}

// Peer is the process at the other end of a Unix socket, as the kernel saw it when the socket was
// connected or, of a pair, made.
type Peer struct{ UID, GID, PID int }

// PeerOf returns the peer of a socket.
func PeerOf(u *net.UnixConn) (p Peer, err error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return p, e
	}
	if err != nil {
		return p, os.NewSyscallError("getsockopt", err)
	}
	return Peer{int(cred.Uid), int(cred.Gid), int(cred.Pid)}, nil
}
