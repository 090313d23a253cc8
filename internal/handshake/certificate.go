package handshake

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
)

// maxCertificates is how long a Certificate message may be that is kept. A chain of
// three certificates with RSA keys has some 5 KiB.
const maxCertificates = 16 << 10

// messages follows the handshake messages that a client sends in clear, and keeps the last
// Certificate message. In TLS 1.3 the client sends none but its ClientHello in clear.
//
// The zero value has seen nothing.
type messages struct {
	header  []byte // of the next message, as far as it has come
	rest    int    // bytes of the current message still to come
	current *bytes.Buffer
	last    []byte // the last Certificate message that is complete
	ended   bool   // by a ChangeCipherSpec: what follows is encrypted
}

// add takes a part of a handshake record.
func (m *messages) add(p []byte) {
	const headerLen, certificate = 4, 11 // RFC 5246, section 7.4
	for len(p) > 0 && !m.ended {
		if m.rest > 0 {
			n := min(m.rest, len(p))
			if m.rest -= n; m.current != nil {
				m.current.Write(p[:n])
				if m.rest == 0 {
					m.last, m.current = m.current.Bytes(), nil
				}
			}
			p = p[n:]
			continue
		}
		n := min(headerLen-len(m.header), len(p))
		m.header = append(m.header, p[:n]...)
		p = p[n:]
		if len(m.header) == headerLen {
			m.rest = int(m.header[1])<<16 | int(m.header[2])<<8 | int(m.header[3])
			if m.header[0] == certificate && 0 < m.rest && m.rest <= maxCertificates {
				m.current = new(bytes.Buffer)
			}
			m.header = m.header[:0]
		}
	}
}

// certificates returns what the last Certificate message holds, as far as it can be read
// (RFC 5246, section 7.4.2).
func (m *messages) certificates() (found [][]byte) {
	s := cryptobyte.String(m.last)
	var list cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&list) {
		return nil
	}
	for !list.Empty() {
		var one cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&one) {
			break
		}
		found = append(found, one)
	}
	return found
}
