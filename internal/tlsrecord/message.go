package tlsrecord

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
)

// The alerts that are sent or looked for (RFC 8446, section 6).
const (
	closeNotify       tls.AlertError = 0
	unexpectedMessage tls.AlertError = 10
	badRecordMAC      tls.AlertError = 20
	recordOverflow    tls.AlertError = 22
	illegalParameter  tls.AlertError = 47
	decodeError       tls.AlertError = 50
	protocolVersion   tls.AlertError = 70
	internalError     tls.AlertError = 80
	userCanceled      tls.AlertError = 90
	noRenegotiation   tls.AlertError = 100

	levelWarning = 1
	levelFatal   = 2
)

// The handshake messages that may come after the handshake.
const (
	helloRequest     = 0
	newSessionTicket = 4
	keyUpdate        = 24

	messageHeaderLen = 4
	maxMessage       = messageHeaderLen // no body is kept
	maxTicket        = 1 << 16          // maxHandshake in crypto/tls/common.go
)

// localError is the error of a connection that we have ended with an alert, as
// crypto/tls has it.
func localError(a tls.AlertError) error { return &net.OpError{Op: "local error", Err: a} }

// alert appends an alert, after which nothing is sealed any more.
func (l *Layer) alert(out []byte, a tls.AlertError) []byte {
	if l.closed {
		return out
	}
	level := byte(levelFatal)
	if a == closeNotify || a == noRenegotiation {
		level = levelWarning
	}
	out = l.seal(out, typeAlert, []byte{level, byte(a)})
	l.closed = true
	return out
}

// refuse ends the connection with an alert.
func (l *Layer) refuse(answer []byte, a tls.AlertError) ([]byte, error) {
	return l.alert(answer, a), localError(a)
}

// inMessage reports whether a handshake message has begun, between whose records no
// others may come (RFC 8446, section 5.1).
func (l *Layer) inMessage() bool { return len(l.message) > 0 || l.skip > 0 }

// control acts on a record that carries no data for the caller.
func (l *Layer) control(answer []byte, kind byte, p []byte) ([]byte, error) {
	switch {
	case kind == typeHandshake && len(p) > 0:
		if !l.suite.tls13 {
			return l.renegotiation(answer, p[0])
		}
		return l.handshake(answer, p)
	case l.inMessage():
	case kind == typeAlert && len(p) == 2:
		return l.alerted(answer, p[0], tls.AlertError(p[1]))
	case kind == typeData: // empty, which OpenSSL may send
		return l.ignore(answer)
	case kind == typeChangeCipherSpec && (len(p) != 1 || p[0] != 1):
		return l.refuse(answer, decodeError)
	case kind == typeChangeCipherSpec && l.suite.tls13:
		// RFC 8446, section 5, has no place for it here; crypto/tls ignores it.
		return l.ignore(answer)
	}
	return l.refuse(answer, unexpectedMessage)
}

// alerted acts on an alert of the peer.
func (l *Layer) alerted(answer []byte, level byte, a tls.AlertError) ([]byte, error) {
	switch {
	case a == closeNotify:
		return answer, io.EOF
	case l.suite.tls13 && a == userCanceled, !l.suite.tls13 && level == levelWarning: // JDK-8323517
		return l.ignore(answer)
	case !l.suite.tls13 && level != levelFatal:
		return l.refuse(answer, unexpectedMessage)
	}
	l.closed = true // nobody reads what follows
	return answer, &net.OpError{Op: "remote error", Err: a}
}

// ignore counts a record that says nothing.
func (l *Layer) ignore(answer []byte) ([]byte, error) { return l.count(answer, errIgnored) }

func (l *Layer) count(answer []byte, err error) ([]byte, error) {
	if l.useless++; l.useless > maxUseless {
		return l.alert(answer, unexpectedMessage), err
	}
	return answer, nil
}

// renegotiation refuses a new handshake in TLS 1.2.
func (l *Layer) renegotiation(answer []byte, kind byte) ([]byte, error) {
	if kind == helloRequest {
		return l.refuse(answer, noRenegotiation)
	}
	return l.refuse(answer, unexpectedMessage)
}

var errTicket = errors.New("tls: received new session ticket from a client")

// handshake follows the handshake messages of TLS 1.3 in a record.
func (l *Layer) handshake(answer, p []byte) (_ []byte, err error) {
	for len(p) > 0 && err == nil {
		if l.skip > 0 {
			n := min(len(p), int(l.skip))
			p = p[n:]
			if l.skip -= uint32(n); l.skip == 0 {
				answer, err = l.count(answer, errNonAdvancing)
			}
			continue
		}
		n := min(messageHeaderLen-len(l.message), len(p))
		l.message = append(l.message, p[:n]...)
		if p = p[n:]; len(l.message) < messageHeaderLen {
			return answer, nil
		}
		kind, length := l.message[0], int(l.message[1])<<16|int(l.message[2])<<8|int(l.message[3])
		switch {
		case kind == newSessionTicket && !l.client:
			return l.alert(answer, unexpectedMessage), errTicket
		case kind == newSessionTicket && length > maxTicket:
			return l.alert(answer, internalError), fmt.Errorf("tls: handshake message of length %d bytes exceeds maximum of %d bytes", length, maxTicket)
		case kind == newSessionTicket && length > 0:
			l.message, l.skip = nil, uint32(length)
		case kind != keyUpdate && kind != newSessionTicket:
			return l.alert(answer, unexpectedMessage), fmt.Errorf("tls: received unexpected handshake message of type %d", kind)
		case length != 1:
			return l.refuse(answer, decodeError)
		case len(p) == 0:
			return answer, nil // its body is in the next record
		default:
			l.message = nil
			return l.updateIn(answer, p)
		}
	}
	return answer, err
}

// updateIn acts on the body of a KeyUpdate (RFC 8446, section 4.6.3), and on what stands
// behind it in its record, where nothing may: the next byte has another key.
func (l *Layer) updateIn(answer, body []byte) (_ []byte, err error) {
	request := body[0]
	switch {
	case request > 1:
		return l.refuse(answer, illegalParameter)
	case len(body) > 1:
		return l.refuse(answer, unexpectedMessage)
	case request == 1 && l.grant > 0:
		l.grant--
		l.owes = true // one answer for all that came together, as the RFC says
	case l.budget == 0 && l.grant == 0:
		return l.alert(answer, unexpectedMessage), ErrKeyUpdates
	default:
		if l.budget > 0 {
			l.budget--
		} else {
			l.grant--
		}
		if answer, err = l.count(answer, errNonAdvancing); err != nil {
			return answer, err
		}
		if request == 1 {
			answer = l.updateOut(answer)
		}
	}
	l.in.update(l.suite)
	return answer, nil
}

// updateOut goes on to our next key.
func (l *Layer) updateOut(out []byte) []byte {
	if l.closed {
		return out
	}
	out = l.seal(out, typeHandshake, []byte{keyUpdate, 0, 0, 1, 0})
	l.out.update(l.suite)
	return out
}
