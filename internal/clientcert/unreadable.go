package clientcert

import (
	"fmt"
	"strings"

	"pgwicket/internal/certs"
)

// unreadable is the beginning of crypto/tls's error for a client's certificate that
// crypto/x509 cannot read (processCertsFromClient in crypto/tls/handshake_server.go).
const unreadable = "tls: failed to parse client certificate"

// NameUnreadable adds to the error of a handshake that has failed because Go cannot read one of
// the client's certificates which one it is, and what to do. Other errors are returned as they
// are. sent returns the certificates that have come in clear. It reads them again, so it costs
// as much as the handshake did.
func NameUnreadable(err error, sent func() [][]byte) error {
	if err == nil || !strings.HasPrefix(err.Error(), unreadable) {
		return err
	}
	for i, raw := range sent() {
		if e := certs.GoProblem(fmt.Sprintf("certificate %d that the client has sent", i+1), raw); e != nil {
			return fmt.Errorf("%s: %w", unreadable, e)
		}
	}
	return fmt.Errorf("%w; TLS 1.3 does not show which certificate it is: pgwicket explain --cert FILE names it, given the client's file", err)
}
