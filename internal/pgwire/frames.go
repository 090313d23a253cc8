package pgwire

import "encoding/binary"

// headerLen is the length of a message's type byte and length word; the length
// counts itself but not the type.
const headerLen = 5

// frames follows the framing of one direction, in chunks of any size. The zero
// value is the beginning of a stream.
type frames struct {
	rest   uint32 // bytes of the current message still to come, once its header is complete
	have   uint8  // bytes of its header so far
	broken bool   // a length that no message can have: the rest is unknown
	header [headerLen]byte
}

// next follows p to the end of the first message in it or to the end of p. It
// returns the number of bytes followed, those of them that are contents, and
// whether the message is complete.
func (f *frames) next(p []byte) (n int, contents []byte, complete bool) {
	if f.have < headerLen {
		n = copy(f.header[f.have:], p)
		f.have += uint8(n)
		if f.have < headerLen {
			return n, nil, false
		}
		length := binary.BigEndian.Uint32(f.header[1:])
		if length < 4 || length > 1<<31-1 {
			f.broken = true
			return len(p), nil, false
		}
		f.rest = length - 4
	}
	contents = p[n:]
	contents = contents[:min(int(f.rest), len(contents))]
	f.rest -= uint32(len(contents))
	if f.rest == 0 {
		f.have = 0
	}
	return n + len(contents), contents, f.rest == 0
}

// kind is the type of the message that next has followed.
func (f *frames) kind() byte { return f.header[0] }

// headerComplete reports whether the header of a message that is not complete is.
func (f *frames) headerComplete() bool { return f.have == headerLen }

// partial reports whether a message has begun and is not complete.
func (f *frames) partial() bool { return f.have > 0 }
