package tlsrecord

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
)

const (
	// maxUseless is how many records may come in a row that carry nothing, as in
	// crypto/tls (maxUselessRecords in crypto/tls/common.go).
	maxUseless = 16
	// keyLimit is how many records are sealed with one key of TLS 1.3. RFC 8446, section
	// 5.5, allows 2^24.5 with AES-GCM.
	keyLimit = 1 << 24
	// maxGrant bounds the KeyUpdates that the peer may ask for beside maxUseless.
	maxGrant = 1 << 12
	// A peer may send so many other KeyUpdates, and one more for each updateData bytes of its
	// data: crypto/tls allows 16 before each byte, which cost us a hundred times what
	// their sender pays for the bytes. What is left over is kept up to maxBudget.
	firstBudget = 2 * maxUseless
	maxBudget   = 1 << 8
	updateData  = 1 << 10
)

// Layer is the record layer of one end of an established TLS connection. Only one
// goroutine may use it at a time. After Open has returned an error the connection
// receives nothing more.
type Layer struct {
	suite       *suite
	version, id uint16
	client      bool
	in, out     half

	partial []byte           // the beginning of a record
	lent    *[maxRecord]byte // under partial; nil: that is a slice of its own
	message []byte           // the beginning of a handshake message
	skip    uint32           // bytes of one to be ignored
	err     error            // why nothing more is opened
	closed  bool             // nothing more is sealed
	owes    bool             // an answer to a KeyUpdate
	useless uint16           // records in a row that carried nothing
	grant   uint16           // KeyUpdates that are not useless
	budget  uint16           // others that may come
	earning uint16           // bytes of data since the last that budget has got for them
	cache   *Cache           // nil: the ciphers are kept
	slot    int              // in cache; -1: none
	used    bool             // since cache has looked
}

// errShutdown is what is sealed after the end of our direction fails with.
var errShutdown = errors.New("tls: protocol is shutdown")

// The errors of a peer that sends too many records without data are those of crypto/tls.
var (
	errIgnored      = errors.New("tls: too many ignored records")
	errNonAdvancing = errors.New("tls: too many non-advancing records")
)

// ErrKeyUpdates is of a peer that changes its key again and again for little data.
var ErrKeyUpdates = errors.New("tls: too many KeyUpdates for so little data")

// records has room for a record that comes in parts.
var records = sync.Pool{New: func() any { return new([maxRecord]byte) }}

// Open takes bytes that came, with any beginning and end. It appends to plain the data
// in all records that are complete, and to answer what the peer must be sent now: an
// answer to its KeyUpdate, or an alert. The end of a record that is not complete is kept.
//
// The error is io.EOF for a close_notify. Any other one is final for the connection: what
// plain and answer hold then is still to be delivered, and nothing else. None of the three
// may overlap.
func (l *Layer) Open(plain, came, answer []byte) (opened, reply []byte, err error) {
	for l.err == nil {
		var record []byte
		var a tls.AlertError
		if record, came, a, l.err = l.next(came); a != 0 {
			answer = l.alert(answer, a)
		}
		if record == nil {
			break
		}
		plain, answer, l.err = l.open(plain, answer, record)
		if l.lent != nil || len(l.partial) > 0 {
			l.release()
		}
	}
	if l.err != nil {
		l.release()
	}
	if l.owes {
		l.owes = false
		answer = l.updateOut(answer)
	}
	return plain, answer, l.err
}

// End says what the end of the peer's stream means behind what came: io.EOF between two
// records, else io.ErrUnexpectedEOF. crypto/tls takes a stream without a close_notify in
// the same way.
func (l *Layer) End() error {
	switch {
	case l.err != nil:
	case len(l.partial) > 0:
		l.err = io.ErrUnexpectedEOF
	default:
		l.err = io.EOF
	}
	l.release()
	return l.err
}

// Seal appends to out the records that carry p. The array under p must be the caller's
// alone up to its capacity: Seal uses the byte behind p, and puts it back.
func (l *Layer) Seal(out, p []byte) ([]byte, error) {
	for len(p) > 0 {
		if l.closed {
			return out, errShutdown
		}
		if l.suite.tls13 && l.out.seq >= keyLimit {
			out = l.updateOut(out)
		}
		n := min(len(p), maxPlaintext)
		out = l.seal(out, typeData, p[:n])
		p = p[n:]
		// A JDK whose key has reached jdk.tls.keyLimits asks for a KeyUpdate at each record
		// that it gets, until it has the answer (golang/go#80528).
		l.grant = min(l.grant+1, maxGrant)
	}
	return out, nil
}

// CloseNotify appends to out the end of our direction, once.
func (l *Layer) CloseNotify(out []byte) []byte { return l.alert(out, closeNotify) }

// Wipe forgets the keys and all that is kept of the peer's records. The Layer opens and
// seals nothing any more.
func (l *Layer) Wipe() {
	l.in.wipe()
	l.out.wipe()
	l.release()
	clear(l.message)
	l.closed, l.owes = true, false
	if l.err == nil {
		l.err = net.ErrClosed
	}
	l.Use(nil)
}

// seal appends one record of any type.
func (l *Layer) seal(out []byte, kind byte, p []byte) []byte {
	if l.out.seq == math.MaxUint64 { // which no connection lives to see
		l.closed = true
		return out
	}
	l.prepare(&l.out)
	return l.out.seal(l.suite, out, kind, p)
}

// prepare has the cipher of a direction ready.
func (l *Layer) prepare(h *half) {
	if l.used = true; h.cipher != nil {
		return
	}
	h.cipher = &sealer{aead: l.suite.aead(h.key[:l.suite.keyLen])}
	if l.cache != nil && l.slot < 0 {
		l.cache.add(l)
	}
}

// next cuts the first record off came; nil: it is not complete, and what there is of it
// has been kept.
func (l *Layer) next(came []byte) (record, rest []byte, a tls.AlertError, err error) {
	if len(l.partial) == 0 {
		n, a, err := l.recordLen(came)
		switch {
		case a != 0:
			return nil, nil, a, err
		case n == 0 || n > len(came):
			l.keep(came)
			return nil, nil, 0, nil
		}
		return came[:n], came[n:], 0, nil
	}
	if missing := headerLen - len(l.partial); missing > 0 {
		missing = min(missing, len(came))
		l.keep(came[:missing])
		came = came[missing:]
	}
	n, a, err := l.recordLen(l.partial)
	if n == 0 {
		return nil, nil, a, err
	}
	missing := min(n-len(l.partial), len(came))
	l.keep(came[:missing])
	if len(l.partial) < n {
		return nil, nil, 0, nil
	}
	return l.partial, came[missing:], 0, nil
}

// recordLen returns the length of the record that p begins with; 0: its header is not
// complete, or it is refused with an alert.
func (l *Layer) recordLen(p []byte) (n int, a tls.AlertError, err error) {
	if len(p) < headerLen {
		return 0, 0, nil
	}
	if version := binary.BigEndian.Uint16(p[1:]); version != tls.VersionTLS12 { // TLS 1.3 has the same
		return 0, protocolVersion, fmt.Errorf("tls: received record with version %x when expecting version %x", version, tls.VersionTLS12)
	}
	longest := maxSealed12
	if l.suite.tls13 {
		longest = maxSealed13
	}
	n = int(binary.BigEndian.Uint16(p[3:]))
	if n > longest {
		return 0, recordOverflow, fmt.Errorf("tls: oversized record received with length %d", n)
	}
	return headerLen + n, 0, nil
}

// keepSmall is the longest part of a record for which room is made that fits it. Clients
// that send one and then nothing would hold much otherwise.
const keepSmall = 1 << 10

// keep adds to partial.
func (l *Layer) keep(p []byte) {
	if l.lent == nil && len(l.partial)+len(p) > max(keepSmall, cap(l.partial)) {
		l.lent = records.Get().(*[maxRecord]byte)
		l.partial = append(l.lent[:0], l.partial...)
	}
	l.partial = append(l.partial, p...)
}

// release gives up the room of partial.
func (l *Layer) release() {
	if l.lent != nil {
		records.Put(l.lent)
	}
	l.lent, l.partial = nil, nil
}

// open opens one record and acts on it.
func (l *Layer) open(plain, answer, record []byte) (_, _ []byte, err error) {
	kind, data, all := record[0], record[headerLen:], plain
	if kind != typeChangeCipherSpec || !l.suite.tls13 { // which comes in clear (RFC 8446, appendix D.4)
		if l.in.seq == math.MaxUint64 {
			return plain, l.alert(answer, internalError), localError(internalError)
		}
		l.prepare(&l.in)
		var ok bool
		var a tls.AlertError
		if all, ok = l.in.open(l.suite, plain, record); !ok {
			a = badRecordMAC
		} else if data = all[len(plain):]; l.suite.tls13 {
			kind, data, a = inner(kind, data)
		}
		if a == 0 && len(data) > maxPlaintext {
			a = recordOverflow
		}
		if a != 0 {
			return plain, l.alert(answer, a), localError(a)
		}
	}
	if kind == typeData && len(data) > 0 && !l.inMessage() {
		l.useless = 0
		if l.earning += uint16(len(data)); l.earning >= updateData {
			l.budget, l.earning = min(l.budget+l.earning/updateData, maxBudget), l.earning%updateData
		}
		return all[:len(plain)+len(data)], answer, nil
	}
	answer, err = l.control(answer, kind, data)
	return plain, answer, err
}

// inner takes the type and the padding off what a record of TLS 1.3 holds (RFC 8446,
// section 5.4).
func inner(outer byte, p []byte) (kind byte, data []byte, a tls.AlertError) {
	if outer != typeData {
		return 0, nil, unexpectedMessage
	}
	if len(p) > maxPlaintext+1 {
		return 0, nil, recordOverflow
	}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0 {
			return p[i], p[:i], 0
		}
	}
	return 0, nil, unexpectedMessage
}
