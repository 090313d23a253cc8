package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// SSLMode is libpq's sslmode: what is asked of a server's TLS.
type SSLMode string

// The modes. libpq's allow is not among them: it tries in clear first.
const (
	SSLDisable    SSLMode = "disable"
	SSLPrefer     SSLMode = "prefer"
	SSLRequire    SSLMode = "require"
	SSLVerifyCA   SSLMode = "verify-ca"
	SSLVerifyFull SSLMode = "verify-full"
)

// SystemRoots is the RootCert that means the CAs of the operating system, as in libpq 16.
const SystemRoots = "system"

// ClientOptions say how the gate is a TLS client of a server, as libpq's parameters of the same names do.
type ClientOptions struct {
	Mode     SSLMode
	RootCert string // the CAs that may vouch for the server, or "system"
	Cert     string // the gate's certificate with its chain, and its key; empty: none
	Key      string

	PassphraseCommand string // of the key, as in Options
	KeyOwner          int
}

// LoadClient reads the files that o names and reports all mistakes at once, by libpq's names of the parameters. The
// configuration is nil if any of them is more than a warning, or if there is to be no TLS. Whoever uses it for a host
// must give it a ServerName, which verify-full compares with the server's certificate. prompt is Load's.
func LoadClient(o ClientOptions, prompt func(text string) ([]byte, error), now time.Time) (*tls.Config, []Problem) {
	r := &report{}
	switch o.Mode {
	case SSLDisable:
		return nil, nil
	case SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull:
	case "allow":
		r.errorf("sslmode", "allow would ask for TLS only where the server refuses to do without; write prefer, or better verify-full")
		return nil, r.problems
	default:
		r.errorf("sslmode", "%q is not known: write %s, %s, %s, %s or %s", string(o.Mode), SSLDisable, SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull)
		return nil, r.problems
	}
	config := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"postgresql"},
		DynamicRecordSizingDisabled: true,
	}
	trust(config, o, now, r)
	if o.Cert != "" || o.Key != "" {
		secrets := passphrases{owner: o.KeyOwner, command: o.PassphraseCommand, ask: prompt, timeout: passphraseTimeout}
		pair := &report{}
		cert, chain, ok := loadPair("", Pair{CertFile: o.Cert, KeyFile: o.Key}, secrets, pair)
		for _, p := range pair.problems {
			switch p.Key {
			case "cert_file":
				p.Key = "sslcert"
			case "key_file":
				p.Key = "sslkey"
			}
			r.problems = append(r.problems, p)
		}
		if ok {
			config.Certificates = []tls.Certificate{cert}
			if text := dateProblem(chain[0], now); text != "" {
				r.warnf("sslcert", "the certificate in %q %s: the server will refuse it", o.Cert, text)
			}
		}
	}
	if r.failed() {
		return nil, r.problems
	}
	return config, r.problems
}

// trust decides which servers are believed. A root that is there is used, whatever the mode, as in libpq.
func trust(config *tls.Config, o ClientOptions, now time.Time, r *report) {
	verifies := o.Mode == SSLVerifyCA || o.Mode == SSLVerifyFull
	switch {
	case o.RootCert == "" && verifies:
		r.errorf("sslrootcert", "is missing: sslmode %s checks the server's certificate against it (or write system for the CAs of the operating system)", o.Mode)
		return
	case o.RootCert == "":
		config.InsecureSkipVerify = true
		return
	case o.RootCert == SystemRoots && o.Mode != SSLVerifyFull:
		r.errorf("sslrootcert", "system goes with sslmode verify-full only, for anybody can get a certificate from a public CA")
		return
	case o.RootCert == SystemRoots:
		return
	case o.Mode == SSLPrefer:
		r.warnf("sslrootcert", "has no effect with sslmode prefer, which takes a server without TLS as well; write verify-full")
		config.InsecureSkipVerify = true
		return
	}
	certs, err := readCertificates(o.RootCert)
	if err != nil {
		r.errorf("sslrootcert", "%v", err)
		return
	}
	roots := x509.NewCertPool()
	for i, c := range certs {
		if text := dateProblem(c, now); text != "" {
			r.warnf("sslrootcert", "certificate %d of %q (%q) %s: what it issued is refused", i+1, o.RootCert, nameText(c.RawSubject), text)
		}
		roots.AddCert(c)
	}
	config.RootCAs = roots
	if o.Mode == SSLVerifyFull {
		return
	}
	// What is left out of crypto/tls's own verification is the name.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, roots) }
}

func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server has shown no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}
