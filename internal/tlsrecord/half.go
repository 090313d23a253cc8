package tlsrecord

import (
	"crypto/cipher"
	"encoding/binary"
)

// The bounds of records (RFC 8446, section 5; RFC 5246, section 6.2).
const (
	headerLen    = 5
	maxPlaintext = 1 << 14
	maxSealed13  = maxPlaintext + 256
	maxSealed12  = maxPlaintext + 2048
	maxRecord    = headerLen + maxSealed12
)

// The types of records (RFC 8446, section 5.1).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeData             = 23
)

// half is one direction of a connection: its keys and how far it is.
type half struct {
	secret [maxHash]byte // of TLS 1.3; its first bytes
	key    [32]byte      // its first bytes
	iv     [nonceLen]byte
	seq    uint64  // of the next record
	cipher *sealer // nil: made for the next record
}

// maxHash is the size of SHA-384.
const maxHash = 48

// sealer is a cipher ready for use. The arrays are here as they escape through the
// interface, and one record after the other needs them.
type sealer struct {
	aead  cipher.AEAD
	nonce [nonceLen]byte
	ad    [13]byte
}

// setSecret begins a key of TLS 1.3 (RFC 8446, section 7.3).
func (h *half) setSecret(s *suite, secret []byte) {
	copy(h.secret[:], secret)
	key, iv := s.expand(secret, "key", s.keyLen), s.expand(secret, "iv", nonceLen)
	h.setKey(key, iv)
	clear(key)
}

func (h *half) setKey(key, iv []byte) {
	copy(h.key[:], key)
	copy(h.iv[:], iv)
	h.seq, h.cipher = 0, nil
}

// update goes on to the next key (section 7.2).
func (h *half) update(s *suite) {
	next := s.expand(h.secret[:s.hashLen], "traffic upd", s.hashLen)
	h.setSecret(s, next)
	clear(next)
}

// wipe forgets the keys.
func (h *half) wipe() { *h = half{seq: h.seq} }

// prepare fills in the nonce of the next record: the sequence number XORed into the IV
// (RFC 8446, section 5.3; RFC 7905, section 2), or behind it (RFC 5288, section 3).
func (h *half) prepare(s *suite) *sealer {
	c := h.cipher
	c.nonce = h.iv
	if s.explicit > 0 {
		binary.BigEndian.PutUint64(c.nonce[4:], h.seq)
		return c
	}
	tail := c.nonce[4:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^h.seq)
	return c
}

// additional12 is what TLS 1.2 authenticates besides a record's data (RFC 5246,
// section 6.2.3.3).
func (h *half) additional12(c *sealer, kind byte, length int) []byte {
	binary.BigEndian.PutUint64(c.ad[:], h.seq)
	c.ad[8], c.ad[9], c.ad[10] = kind, 3, 3
	binary.BigEndian.PutUint16(c.ad[11:], uint16(length))
	return c.ad[:]
}

// seal appends a record that carries p. It saves a copy where p has room for a byte more,
// which it puts back.
func (h *half) seal(s *suite, out []byte, kind byte, p []byte) []byte {
	c := h.prepare(s)
	start := len(out)
	if s.tls13 {
		out = append(out, typeData, 3, 3, 0, 0)
		binary.BigEndian.PutUint16(out[start+3:], uint16(len(p)+1+tagLen))
		copy(c.ad[:], out[start:])
		if cap(p) > len(p) {
			p = p[:len(p)+1]
			last := len(p) - 1
			behind := p[last]
			p[last] = kind
			out = c.aead.Seal(out, c.nonce[:], p, c.ad[:headerLen])
			p[last] = behind
		} else {
			out = append(append(out, p...), kind)
			out = c.aead.Seal(out[:start+headerLen], c.nonce[:], out[start+headerLen:], c.ad[:headerLen])
		}
	} else {
		out = append(out, kind, 3, 3, 0, 0)
		binary.BigEndian.PutUint16(out[start+3:], uint16(s.explicit+len(p)+tagLen))
		out = append(out, c.nonce[nonceLen-s.explicit:]...)
		out = c.aead.Seal(out, c.nonce[:], p, h.additional12(c, kind, len(p)))
	}
	h.seq++
	return out
}

// open appends what a record holds. In TLS 1.3 that is data, the type and padding. It
// reports false for a record that does not authenticate.
func (h *half) open(s *suite, out, record []byte) ([]byte, bool) {
	c := h.prepare(s)
	sealed := record[headerLen:]
	if len(sealed) < s.explicit+tagLen {
		return out, false
	}
	copy(c.nonce[nonceLen-s.explicit:], sealed[:s.explicit])
	sealed = sealed[s.explicit:]
	var ad []byte
	if s.tls13 {
		ad = c.ad[:copy(c.ad[:], record[:headerLen])]
	} else {
		ad = h.additional12(c, record[0], len(sealed)-tagLen)
	}
	opened, err := c.aead.Open(out, c.nonce[:], sealed, ad)
	if err != nil {
		return out, false
	}
	h.seq++
	return opened, true
}
