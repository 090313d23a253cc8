package tlsconfig

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	_ "unsafe" // for go:linkname
)

// crypto/tls has no setting for the suites of TLS 1.3, and PostgreSQL has one (ssl_tls13_ciphers). A server of crypto/tls
// uses these two variables. Go keeps them, with their type, open to linkname (go.dev/issue/67401, and the comments in
// crypto/tls/defaults.go). If that ends, the build fails in the linker, and Server.Verify refuses other suites in any case.
// The second variable is for a client that prefers ChaCha20, and for a machine without AES instructions.
//
//go:linkname defaultCipherSuitesTLS13 crypto/tls.defaultCipherSuitesTLS13
var defaultCipherSuitesTLS13 []uint16

//go:linkname defaultCipherSuitesTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var defaultCipherSuitesTLS13NoAES []uint16

// ErrTLS13Fixed means that the process already uses another list of TLS 1.3 suites.
var ErrTLS13Fixed = errors.New("the TLS 1.3 cipher suites are fixed at startup: restart pgwicket to change them")

// tls13 is the list of the process; ids is meaningful once set is true.
var tls13 struct {
	sync.Mutex
	set bool
	ids []uint16
}

// FixTLS13 sets the TLS 1.3 suites of the whole process and their order, for its clients too. It must be called before the
// first handshake, since crypto/tls reads the list without a lock. The first call decides: a later one with the same list
// does nothing, one with another list changes nothing and returns ErrTLS13Fixed. An empty list, for a gate without TLS 1.3,
// leaves crypto/tls as it is, and cannot be changed later either.
func FixTLS13(suites []uint16) error {
	for _, id := range suites {
		if id != tls.TLS_AES_128_GCM_SHA256 && id != tls.TLS_AES_256_GCM_SHA384 && id != tls.TLS_CHACHA20_POLY1305_SHA256 {
			return fmt.Errorf("%s is not a TLS 1.3 cipher suite", suiteName(id))
		}
	}
	tls13.Lock()
	defer tls13.Unlock()
	if tls13.set {
		if !slices.Equal(suites, tls13.ids) {
			return ErrTLS13Fixed
		}
		return nil
	}
	tls13.set, tls13.ids = true, slices.Clone(suites)
	if len(suites) > 0 {
		defaultCipherSuitesTLS13 = slices.Clone(suites)
		defaultCipherSuitesTLS13NoAES = slices.Clone(suites)
	}
	return nil
}

// tls13Allowed returns the list of FixTLS13, or the configured one before that call.
func tls13Allowed(configured []uint16) []uint16 {
	tls13.Lock()
	defer tls13.Unlock()
	if tls13.set {
		return tls13.ids
	}
	return configured
}
