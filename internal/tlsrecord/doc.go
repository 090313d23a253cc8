// Package tlsrecord is the record layer of an established TLS connection:
// TLS 1.3, and TLS 1.2 with AEAD suites.
//
// crypto/tls makes the handshake. From its end on a Layer opens and seals the
// records, answers KeyUpdates, and judges alerts and what must not come. It does no
// I/O: its caller hands it the bytes that came and sends what it returns. So many
// records go out with one write, an idle connection holds two keys and no buffer,
// and State can take a connection to another process.
//
// It accepts no more than crypto/tls does, and sends the alert that RFC 8446,
// section 6, names. Its ciphers are those of crypto/cipher and
// golang.org/x/crypto/chacha20poly1305.
//
// What it cannot take over stays on crypto/tls: see Handshake.Conn.
package tlsrecord
