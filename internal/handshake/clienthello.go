package handshake

import (
	"golang.org/x/crypto/cryptobyte"
)

// maxHello is how much of a client's first bytes is kept, to explain why its handshake
// has failed. A ClientHello with a post-quantum key share has some 2 KiB.
const maxHello = 4 << 10

// serverNameOf returns the host name in the server_name extension (RFC 6066, section 3)
// of the ClientHello that records begin with; empty if there is none, or if it cannot be
// found.
func serverNameOf(records []byte) string {
	var message []byte
	for s := cryptobyte.String(records); !s.Empty(); {
		var kind uint8
		var version uint16
		var body cryptobyte.String
		if !s.ReadUint8(&kind) || kind != RecordHandshake || !s.ReadUint16(&version) || !s.ReadUint16LengthPrefixed(&body) {
			break
		}
		message = append(message, body...)
	}
	const clientHello, versionAndRandom = 1, 2 + 32
	var kind uint8
	var hello, ignored, extensions cryptobyte.String
	s := cryptobyte.String(message)
	if !s.ReadUint8(&kind) || kind != clientHello || !s.ReadUint24LengthPrefixed(&hello) || !hello.Skip(versionAndRandom) ||
		!hello.ReadUint8LengthPrefixed(&ignored) || !hello.ReadUint16LengthPrefixed(&ignored) || !hello.ReadUint8LengthPrefixed(&ignored) ||
		!hello.ReadUint16LengthPrefixed(&extensions) {
		return ""
	}
	for !extensions.Empty() {
		var extension uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&extension) || !extensions.ReadUint16LengthPrefixed(&data) {
			return ""
		}
		const serverName, hostName = 0, 0
		var names, name cryptobyte.String
		var nameKind uint8
		if extension == serverName && data.ReadUint16LengthPrefixed(&names) &&
			names.ReadUint8(&nameKind) && nameKind == hostName && names.ReadUint16LengthPrefixed(&name) {
			return string(name)
		}
	}
	return ""
}
