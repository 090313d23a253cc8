package tlsconfig

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/passphrase"
)

// Circumstances is what a caller says of a load, beside the keys of the file.
type Circumstances struct {
	KeepGone bool `yaml:"-"` // a list that is gone stays in use if crl_missing is allow and its CA has no other one
	KeyOwner int  `yaml:"-"` // the account that root is about to become, which may own key files; 0: none
	// Account is that account's name, as which PassphraseCommand runs: an account that may change the command's program must
	// not become root by it. It counts only in a process of root. Empty: none.
	Account string `yaml:"-"`
}

// Options is the tls section of the configuration file. Paths are absolute or relative to the working directory. The
// names are those of PostgreSQL without "ssl_", where it has them.
type Options struct {
	CertFile     string `yaml:"cert_file"` // the gate's certificate, then its chain
	KeyFile      string `yaml:"key_file"`
	OCSPFile     string `yaml:"ocsp_file"`    // the response to staple, in DER
	Certificates []Pair `yaml:"certificates"` // in place of the three, several pairs: an RSA one beside an ECDSA one

	Circumstances `yaml:"-"`

	PassphraseCommand string `yaml:"passphrase_command"` // for /bin/sh; %p is the prompt, the output is the passphrase

	MinProtocolVersion string `yaml:"min_protocol_version"` // TLSv1, TLSv1.1, TLSv1.2, TLSv1.3; empty is TLSv1.2
	MaxProtocolVersion string `yaml:"max_protocol_version"` // empty is the highest
	// Ciphers has names of OpenSSL or IANA. crypto/tls uses their order for TLS 1.3 only. Empty is ECDHE with AES-GCM or
	// ChaCha20-Poly1305, and the three suites of TLS 1.3.
	Ciphers []string `yaml:"ciphers"`
	Groups  []string `yaml:"groups"` // crypto/tls decides the order; empty is all

	ClientCert ClientCert `yaml:"client_cert"` // empty is require
	CAFile     string     `yaml:"ca_file"`
	// MinSecurityBits is the least strength of keys and signatures in a client's chain: OpenSSL's levels 1 to 5 are 80, 112,
	// 128, 192 and 256. 0 is 112.
	MinSecurityBits int    `yaml:"min_security_bits"`
	PartialChain    bool   `yaml:"partial_chain"` // a certificate of ca_file that is not self-signed may end a chain
	CRLFile         string `yaml:"crl_file"`
	CRLDir          string `yaml:"crl_dir"`
	// CRLURLs are where "pgwicket fetch" gets the lists in CRLDir from.
	CRLURLs []string `yaml:"crl_urls"`

	CRLCheck   CRLCheck      `yaml:"crl_check"`   // empty is chain
	CRLMissing CRLMissing    `yaml:"crl_missing"` // empty is reject
	CRLStale   CRLStale      `yaml:"crl_stale"`   // empty is reject
	CRLGrace   time.Duration `yaml:"crl_grace"`   // how long a list stays in date after its next update
}

// Pair is a certificate and its key, with the OCSP response that is stapled to it, if any.
type Pair struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	OCSPFile string `yaml:"ocsp_file"`
}

// Problem is one mistake in the options or in a file that they name.
type Problem struct {
	Key     string // as in the file, below the section: "ciphers[2]", "certificates[0].key_file"
	Text    string // one line: what is wrong and what to do
	Warning bool   // the gate works all the same
}

func (p Problem) String() string { return p.Key + ": " + p.Text }

// report collects the problems of one Load.
type report struct{ problems []Problem }

func (r *report) errorf(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (r *report) warnf(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...), Warning: true})
}

func (r *report) failed() bool {
	return slices.ContainsFunc(r.problems, func(p Problem) bool { return !p.Warning })
}

// Server is the result of Load. It does not change afterwards; a reload makes another one. It may be used by many
// goroutines at once.
type Server struct {
	Config       *tls.Config
	Certificates []CertificateInfo
	CRLs         []CRLInfo
	TLS13        []uint16 // the configured TLS 1.3 suites, for FixTLS13
	// EndOnStaleCRL means that the caller must terminate a live session that Verify refuses with ReasonCRLStale, because
	// a list has become stale since it began.
	EndOnStaleCRL bool

	versions versions
	verifier *verifier
}

// Load reads every file that o names and reports all mistakes at once. The server is nil if any of them is more than a
// warning. previous is the server in use, whose revocation lists are kept where the new ones are older; nil at the start.
// The passphrase of an encrypted key is asked with prompt if there is no PassphraseCommand; a nil prompt means that there
// is no terminal.
func Load(o Options, previous *Server, prompt func(text string) ([]byte, error), now time.Time) (*Server, []Problem) {
	r := &report{}
	secrets := passphrases{owner: o.KeyOwner, account: o.Account, command: o.PassphraseCommand, ask: prompt, timeout: passphrase.Timeout}
	certs, infos := loadPairs(o, secrets, now, r)
	offered, versionsOK := readVersions(o, r)
	chosen, suitesOK := readSuites(o.Ciphers, r)
	curves, groupsOK := readGroups(o.Groups, r)
	if versionsOK && suitesOK { // else the errors would name the wrong option
		checkSuites(o, chosen, offered, r)
		checkKeys(chosen, offered, infos, r)
	}
	if versionsOK && groupsOK {
		checkGroups(curves, offered, r)
	}
	s := &Server{Certificates: infos, versions: offered}
	s.Config = &tls.Config{
		MinVersion: offered.min, // without it GODEBUG=tls10server=1 would lower the version
		MaxVersion: offered.max,
		NextProtos: []string{"postgresql"},
		// A resumed session does not prove the client's key again (CVE-2025-68121). PostgreSQL has no resumption either.
		SessionTicketsDisabled: true,
		// Small first records are for browsers; a relay of large results only pays for them.
		DynamicRecordSizingDisabled: true,
	}
	setCertificates(s.Config, certs)
	for _, g := range curves {
		s.Config.CurvePreferences = append(s.Config.CurvePreferences, g.id)
	}
	for _, c := range chosen {
		switch {
		case !c.versions().overlaps(offered):
		case c.is13():
			s.TLS13 = append(s.TLS13, c.id)
		default:
			s.Config.CipherSuites = append(s.Config.CipherSuites, c.id)
		}
	}
	loadClients(s, o, previous, now, r)
	if r.failed() {
		return nil, r.problems
	}
	return s, r.problems
}

// loadClients reads what client certificates are judged by.
func loadClients(s *Server, o Options, previous *Server, now time.Time, r *report) {
	switch o.ClientCert {
	case "":
		o.ClientCert = ClientCertRequire
	case ClientCertRequire, ClientCertOptional, ClientCertNone:
	default:
		r.errorf("client_cert", "%q is not known: write %s, %s or %s", string(o.ClientCert),
			ClientCertRequire, ClientCertOptional, ClientCertNone)
		return
	}
	checkCRLOptions(o, r)
	checkCRLURLs(o, r)
	if o.MinSecurityBits < 0 || o.MinSecurityBits > 256 {
		r.errorf("min_security_bits", "%d is not a strength: write 112 (the default: RSA of 2048 bits, SHA-256), or 80, 128, 192 or 256", o.MinSecurityBits)
		return
	}
	if o.ClientCert == ClientCertNone {
		if o.CAFile != "" {
			r.warnf("ca_file", "has no effect with client_cert: none: remove it, or set client_cert to require or optional")
		}
		s.verifier = &verifier{mode: ClientCertNone, chains: newChains()}
		return
	}
	ca := loadCA(o, now, r)
	switch {
	case !o.hasCRLs():
		r.warnf("crl_file", "is missing: a stolen client certificate cannot be revoked (crl_dir will do too)")
	case o.PartialChain && ca != nil:
		warnNotRevocable(ca, r)
	}
	var inUse *crl.Set
	if previous != nil {
		inUse = previous.verifier.crls
	}
	crls, problems := loadClientCRLs(o, ca, inUse, now)
	for _, p := range problems {
		if ca != nil || !p.Warning { // without a CA every list would get a warning that its issuer is unknown
			r.problems = append(r.problems, p)
		}
	}
	if r.failed() {
		return
	}
	s.verifier = &verifier{
		mode: o.ClientCert, minBits: bitsOf(o.MinSecurityBits), pool: ca, partialChain: o.PartialChain, crls: crls, chains: newChains(),
	}
	if previous != nil {
		s.verifier.inherit(previous.verifier)
	}
	s.verifier.steps = s.verifier.stepsOf()
	s.CRLs, s.EndOnStaleCRL = crls.Infos(), o.CRLStale == CRLStaleEnd
	// Requested only: Verify judges it after the handshake, when the client can be told why it is refused.
	s.Config.ClientAuth = tls.RequestClientCert
	s.Config.ClientCAs = advertisedCAs(o, ca, r)
}

// Verify judges a finished handshake, and judges it again after a reload or as time passes: the version, the cipher suite
// and the key exchange, in case a later crypto/tls does not keep to the configuration, then the certificates of the client,
// which are not those of the state but are given in DER, its own first (see certs.DER). They are kept, and must not be changed.
// It returns nil or a *VerifyError, and those certificates of the verified chain that the client has sent, its own first;
// nil if it was asked for none or has sent none. The others that it sent are not needed to judge it again.
func (s *Server) Verify(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error) {
	switch {
	case !state.HandshakeComplete:
		return nil, &VerifyError{Reason: ReasonCipher, Detail: "the TLS handshake is not complete"}
	case !s.versions.contains(state.Version):
		return nil, &VerifyError{Reason: ReasonVersion, Detail: fmt.Sprintf("%s is outside of %v", versionName(state.Version), s.versions)}
	case !slices.Contains(s.suites(state.Version), state.CipherSuite):
		return nil, &VerifyError{Reason: ReasonCipher, Detail: fmt.Sprintf("cipher suite %s is not configured", suiteName(state.CipherSuite))}
	case state.CurveID != 0 && !slices.Contains(s.Config.CurvePreferences, state.CurveID): // 0: RSA key exchange
		return nil, &VerifyError{Reason: ReasonGroup, Detail: fmt.Sprintf("key exchange group %s is not configured", groupName(state.CurveID))}
	}
	return s.verifier.verify(sent, at)
}

// suites returns the cipher suites that may be negotiated with a version.
func (s *Server) suites(version uint16) []uint16 {
	if version == tls.VersionTLS13 {
		return tls13Allowed(s.TLS13)
	}
	return s.Config.CipherSuites
}
