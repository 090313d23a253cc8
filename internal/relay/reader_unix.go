//go:build unix

package relay

import (
	"io"
	"syscall"
)

// reader reads a socket into a buffer that it borrows only when there is
// something to read.
type reader struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once, or each read would allocate it
	buf *[bufferSize]byte
	n   int
	err error
}

func newReader(s Socket) (*reader, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.try = func(fd uintptr) bool {
		buf := buffers.Get().(*[bufferSize]byte)
		n, err := syscall.Read(int(fd), buf[:])
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), buf[:])
		}
		if err != nil || n == 0 {
			buffers.Put(buf)
			buf = nil
		}
		if err == syscall.EAGAIN {
			return false
		}
		r.buf, r.n, r.err = buf, n, err
		return true
	}
	return r, nil
}

// read waits for bytes; the caller gives the buffer back. The end of the stream
// is io.EOF, without a buffer.
func (r *reader) read() (buf *[bufferSize]byte, n int, err error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	if r.err == nil && r.n == 0 {
		return nil, 0, io.EOF
	}
	buf = r.buf
	r.buf = nil // or an idle session would keep it alive
	return buf, r.n, r.err
}
