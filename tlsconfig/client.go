package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"pgwicket/internal/passphrase"
)

// SSLMode is libpq's sslmode: what a server's TLS must prove.
type SSLMode string

// The modes. libpq's allow is not supported, since it tries without TLS first.
const (
	SSLDisable    SSLMode = "disable"
	SSLPrefer     SSLMode = "prefer"
	SSLRequire    SSLMode = "require"
	SSLVerifyCA   SSLMode = "verify-ca"
	SSLVerifyFull SSLMode = "verify-full"
)

// SystemRoots is the RootCert for the CAs of the operating system, as in libpq 16.
const SystemRoots = "system"

// ClientOptions are libpq's parameters for a TLS client.
type ClientOptions struct {
	Mode     SSLMode
	RootCert string // the file of the CAs that the server's chain may end in, or "system"
	CRL      string // the revocation lists of those CAs, in a file and in a directory; both empty: no revocation checking
	CRLDir   string
	Cert     string // the gate's certificate with its chain, and its key; empty: none
	Key      string

	MinSecurityBits int // as in Options

	PassphraseCommand string // of the key, as in Options
	KeyOwner          int
	Account           string
}

// Client is the result of LoadClient. It does not change afterwards, and may be used by many goroutines at once.
type Client struct {
	// Mode is how servers are verified in effect: require with a RootCert is verify-ca, as in libpq.
	Mode SSLMode

	config  *tls.Config
	servers *serverVerifier // nil: crypto/tls verifies, or nobody
}

// For returns the configuration for one host. verify-full compares its name or address with the certificate.
func (c *Client) For(host string) *tls.Config {
	config := c.config.Clone()
	config.ServerName = host
	if c.servers != nil {
		config.VerifyConnection = func(s tls.ConnectionState) error { return c.servers.verify(s.PeerCertificates, host, time.Now()) }
	}
	return config
}

// LoadClient reads the files that o names and reports all mistakes at once, by libpq's names of the parameters. The
// client is nil if any of them is more than a warning, or if the mode is disable. prompt is as in Load.
func LoadClient(o ClientOptions, prompt func(text string) ([]byte, error), now time.Time) (*Client, []Problem) {
	r := &report{}
	switch o.Mode {
	case SSLDisable:
		return nil, nil
	case SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull:
	case "allow":
		r.errorf("sslmode", "allow would use TLS only if the server refuses a connection without it: write prefer, or better verify-full")
		return nil, r.problems
	default:
		r.errorf("sslmode", "%q is not known: write %s, %s, %s, %s or %s", string(o.Mode), SSLDisable, SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull)
		return nil, r.problems
	}
	c := &Client{Mode: o.Mode, config: &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"postgresql"},
		DynamicRecordSizingDisabled: true,
	}}
	c.setTrust(o, now, r)
	if o.Cert != "" || o.Key != "" {
		secrets := passphrases{owner: o.KeyOwner, account: o.Account, command: o.PassphraseCommand, ask: prompt, timeout: passphrase.Timeout}
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
			c.config.Certificates = []tls.Certificate{cert}
			if text := dateProblem(chain[0], now); text != "" {
				r.warnf("sslcert", "%s %s: servers refuse it, renew it", firstOf(o.Cert, chain[0]), text)
			}
		}
	}
	if r.failed() {
		return nil, r.problems
	}
	return c, r.problems
}

// setTrust sets how servers are verified. With a mode of require a RootCert is used too, as in libpq.
func (c *Client) setTrust(o ClientOptions, now time.Time, r *report) {
	verifies := o.Mode == SSLVerifyCA || o.Mode == SSLVerifyFull
	if o.RootCert == "" || o.RootCert == SystemRoots || o.Mode == SSLPrefer {
		for _, list := range []struct{ key, path string }{{"sslcrl", o.CRL}, {"sslcrldir", o.CRLDir}} {
			if list.path != "" {
				r.errorf(list.key, "has no effect here: certificates are checked for revocation only if sslrootcert is a file and sslmode is require or stronger")
			}
		}
	}
	// serverVerifier verifies instead of crypto/tls, or nobody does.
	c.config.InsecureSkipVerify = true
	switch {
	case o.RootCert == "" && verifies:
		r.errorf("sslrootcert", "is missing: sslmode %s checks the server's certificate against it (or write system for the CAs of the operating system)", o.Mode)
	case o.RootCert == "":
	case o.RootCert == SystemRoots && o.Mode != SSLVerifyFull:
		r.errorf("sslrootcert", "system needs sslmode verify-full, since anybody can get a certificate from a public CA")
	case o.RootCert == SystemRoots:
		c.config.InsecureSkipVerify = false
		c.config.RootCAs = systemRoots(r)
	case o.Mode == SSLPrefer:
		r.warnf("sslrootcert", "has no effect with sslmode prefer, which accepts a server without TLS too: write verify-full")
	default:
		if c.Mode == SSLRequire {
			c.Mode = SSLVerifyCA
		}
		c.servers = loadServers(o, now, r)
	}
}

// systemRoots reads the CAs of the operating system, which crypto/x509 does once in a
// process. Without a call at load it does so in the first handshake, when a sandbox may
// keep it from their files.
func systemRoots(r *report) *x509.CertPool {
	pool, err := x509.SystemCertPool()
	switch {
	case err != nil:
		r.errorf("sslrootcert", "system: the CAs of the operating system cannot be read: %v", err)
	case pool.Equal(x509.NewCertPool()):
		r.errorf("sslrootcert", "system: the operating system has no CA certificates; install its package (ca-certificates), or name a file")
	}
	return pool
}
