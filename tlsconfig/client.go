package tlsconfig

import (
	"crypto/tls"
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
	CRL      string // the lists of those CAs, in a file and in a directory; without either nothing is revoked
	CRLDir   string
	Cert     string // the gate's certificate with its chain, and its key; empty: none
	Key      string

	PassphraseCommand string // of the key, as in Options
	KeyOwner          int
}

// Client is what LoadClient made of its options. Nothing in it changes afterwards.
type Client struct {
	// Mode is how much is asked of a server after all: require checks the chain where there is a root, and prefer
	// nothing.
	Mode SSLMode

	config  *tls.Config
	servers *serverVerifier // nil: crypto/tls decides
}

// For returns the configuration for one host, whose name or address is what verify-full compares.
func (c *Client) For(host string) *tls.Config {
	config := c.config.Clone()
	config.ServerName = host
	if c.servers != nil {
		config.VerifyConnection = func(s tls.ConnectionState) error { return c.servers.verify(s.PeerCertificates, host, time.Now()) }
	}
	return config
}

// LoadClient reads the files that o names and reports all mistakes at once, by libpq's names of the parameters. The
// client is nil if any of them is more than a warning, or if there is to be no TLS. prompt is Load's.
func LoadClient(o ClientOptions, prompt func(text string) ([]byte, error), now time.Time) (*Client, []Problem) {
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
	c := &Client{Mode: o.Mode, config: &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"postgresql"},
		DynamicRecordSizingDisabled: true,
	}}
	c.trust(o, now, r)
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
			c.config.Certificates = []tls.Certificate{cert}
			if text := dateProblem(chain[0], now); text != "" {
				r.warnf("sslcert", "the certificate in %q %s: the server will refuse it", o.Cert, text)
			}
		}
	}
	if r.failed() {
		return nil, r.problems
	}
	return c, r.problems
}

// trust decides which servers are believed. A root that is there is used, whatever the mode, as in libpq.
func (c *Client) trust(o ClientOptions, now time.Time, r *report) {
	verifies := o.Mode == SSLVerifyCA || o.Mode == SSLVerifyFull
	if o.RootCert == "" || o.RootCert == SystemRoots || o.Mode == SSLPrefer {
		for _, list := range []struct{ key, path string }{{"sslcrl", o.CRL}, {"sslcrldir", o.CRLDir}} {
			if list.path != "" {
				r.errorf(list.key, "has no effect here: certificates are checked for revocation where sslrootcert is a file and sslmode is require or more")
			}
		}
	}
	// What crypto/tls would do is done by serverVerifier, or by nobody.
	c.config.InsecureSkipVerify = true
	switch {
	case o.RootCert == "" && verifies:
		r.errorf("sslrootcert", "is missing: sslmode %s checks the server's certificate against it (or write system for the CAs of the operating system)", o.Mode)
	case o.RootCert == "":
	case o.RootCert == SystemRoots && o.Mode != SSLVerifyFull:
		r.errorf("sslrootcert", "system goes with sslmode verify-full only, for anybody can get a certificate from a public CA")
	case o.RootCert == SystemRoots:
		c.config.InsecureSkipVerify = false
	case o.Mode == SSLPrefer:
		r.warnf("sslrootcert", "has no effect with sslmode prefer, which takes a server without TLS as well; write verify-full")
	default:
		if c.Mode == SSLRequire {
			c.Mode = SSLVerifyCA
		}
		c.servers = loadServers(o, now, r)
	}
}
