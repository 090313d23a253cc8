// Package tlsconfig turns files and names into a ready TLS server, and judges what has come in over it.
//
// The options speak PostgreSQL's language (ssl_min_protocol_version, ssl_ciphers, ssl_groups, ssl_ca_file,
// ssl_crl_file, ssl_crl_dir, ssl_passphrase_command) as far as crypto/tls can follow, and Load explains what it
// cannot. Three things are unlike OpenSSL:
//
//   - ciphers is a list of suites, for TLS 1.2 and TLS 1.3 alike, and the whole truth for both: what is not in it is
//     not negotiated.
//   - The order of ciphers counts for TLS 1.3 only, and there for the whole process (FixTLS13). Below that, and for
//     groups, crypto/tls has an order of its own.
//   - The certificate of a client is judged after the handshake, by Server.Verify: the handshake only proves that
//     the client has its key.
package tlsconfig

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"
)

// Options is the tls section of the configuration file. Paths are absolute or relative to the working directory.
type Options struct {
	CertFile     string `yaml:"cert_file"` // the gate's certificate, then its chain
	KeyFile      string `yaml:"key_file"`
	OCSPFile     string `yaml:"ocsp_file"`    // the response to staple, in DER
	Certificates []Pair `yaml:"certificates"` // in place of the three, several pairs: an RSA one beside an ECDSA one

	KeyOwner int `yaml:"-"` // the account that root is about to become, whose key files are as good as its own; 0: none

	PassphraseCommand string `yaml:"passphrase_command"` // for /bin/sh; %p is the prompt, its output the passphrase

	MinProtocolVersion string `yaml:"min_protocol_version"` // TLSv1, TLSv1.1, TLSv1.2, TLSv1.3; empty is TLSv1.2
	MaxProtocolVersion string `yaml:"max_protocol_version"` // empty is the highest
	// Ciphers holds OpenSSL's or IANA's names. crypto/tls heeds their order for TLS 1.3 only. Empty is ECDHE with
	// AES-GCM or ChaCha20-Poly1305, and the three suites of TLS 1.3.
	Ciphers []string `yaml:"ciphers"`
	Groups  []string `yaml:"groups"` // the order is crypto/tls's own; empty is all

	ClientCert   ClientCert `yaml:"client_cert"` // empty is require
	CAFile       string     `yaml:"ca_file"`
	PartialChain bool       `yaml:"partial_chain"` // a certificate of ca_file that is not self-signed may end a chain
	CRLFile      string     `yaml:"crl_file"`
	CRLDir       string     `yaml:"crl_dir"`

	CRLCheck   CRLCheck      `yaml:"crl_check"`   // empty is chain
	CRLMissing CRLMissing    `yaml:"crl_missing"` // empty is reject
	CRLStale   CRLStale      `yaml:"crl_stale"`   // empty is reject
	CRLGrace   time.Duration `yaml:"crl_grace"`   // how long after its next update a list is still in date
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

// report gathers the problems of one Load.
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

// Server is what Load made of its options. Nothing in it changes afterwards; a reload makes another one.
type Server struct {
	Config       *tls.Config // never changed after Load
	Certificates []CertificateInfo
	CRLs         []CRLInfo
	TLS13        []uint16 // the TLS 1.3 suites asked for, for FixTLS13
	// EndOnStaleCRL asks for more than Verify can do: to end a session that Verify refuses with ReasonCRLStale, as a
	// list has gone stale since it began.
	EndOnStaleCRL bool

	versions versions
	verifier *verifier
}

// Load reads every file that o names and reports all mistakes at once. The server is nil if any of them is more than
// a warning. previous is the server in force, whose revocation lists are kept where the new ones are older; nil at the
// start. An encrypted key without a PassphraseCommand is asked for with prompt, on behalf of a person at a terminal; a
// nil prompt means that there is none.
func Load(o Options, previous *Server, prompt func(text string) ([]byte, error), now time.Time) (*Server, []Problem) {
	r := &report{}
	secrets := passphrases{owner: o.KeyOwner, command: o.PassphraseCommand, ask: prompt, timeout: passphraseTimeout}
	certs, infos := loadPairs(o, secrets, now, r)
	offered, versionsOK := readVersions(o, r)
	chosen, suitesOK := readSuites(o.Ciphers, r)
	curves, groupsOK := readGroups(o.Groups, r)
	if versionsOK && suitesOK { // the rest would be blamed on the wrong option
		checkSuites(o, chosen, offered, r)
		checkKeys(chosen, offered, infos, r)
	}
	if versionsOK && groupsOK {
		checkGroups(curves, offered, r)
	}
	s := &Server{Certificates: infos, versions: offered}
	s.Config = &tls.Config{
		MinVersion: offered.min, // left out, GODEBUG tls10server=1 would lower it
		MaxVersion: offered.max,
		NextProtos: []string{"postgresql"},
		// A resumed session proves nothing anew; PostgreSQL has neither tickets nor a cache (CVE-2025-68121).
		SessionTicketsDisabled: true,
		// A relay of large results gains nothing from small first records.
		DynamicRecordSizingDisabled: true,
	}
	present(s.Config, certs)
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

// loadClients reads all that client certificates are judged by.
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
	if o.ClientCert == ClientCertNone {
		if o.CAFile != "" {
			r.warnf("ca_file", "has no effect with client_cert: none: remove it, or ask for client certificates")
		}
		s.verifier = newVerifier(ClientCertNone, nil, false, nil)
		return
	}
	ca := loadCA(o, now, r)
	if !o.hasCRLs() {
		r.warnf("crl_file", "is missing: a stolen client certificate cannot be revoked (crl_dir does as well)")
	}
	var inForce *crlSet
	if previous != nil {
		inForce = previous.verifier.crls
	}
	crls, problems := loadCRLs(o, ca, inForce, now)
	for _, p := range problems {
		if ca != nil || !p.Warning { // without a CA it would warn that every list is from a stranger
			r.problems = append(r.problems, p)
		}
	}
	if r.failed() {
		return
	}
	s.verifier = newVerifier(o.ClientCert, ca, o.PartialChain, crls)
	if previous != nil {
		s.verifier.inherit(previous.verifier)
	}
	s.CRLs, s.EndOnStaleCRL = crls.infos(), o.CRLStale == CRLStaleEnd
	// Only asked for: a certificate that does not pass is refused after the handshake, in words.
	s.Config.ClientAuth = tls.RequestClientCert
	s.Config.ClientCAs = announced(o, ca, r)
}

// PolicyError means that a handshake ended outside of what was configured.
type PolicyError struct {
	Version bool // the version is at fault, else the cipher suite
	text    string
}

func (e *PolicyError) Error() string { return e.text }

// Verify judges a finished handshake, and judges it again after a reload or as time passes: the version and the cipher
// suite, so that no later crypto/tls widens them unseen, then the certificates of the client. It returns nil, a
// *PolicyError or a *CertificateError.
func (s *Server) Verify(state tls.ConnectionState, at time.Time) error {
	switch {
	case !state.HandshakeComplete:
		return &PolicyError{text: "the TLS handshake is not complete"}
	case !s.versions.contains(state.Version):
		return &PolicyError{Version: true, text: fmt.Sprintf("%s is outside of %v", versionName(state.Version), s.versions)}
	case !slices.Contains(s.suites(state.Version), state.CipherSuite):
		return &PolicyError{text: fmt.Sprintf("cipher suite %s is not in the list", suiteName(state.CipherSuite))}
	}
	return s.verifier.verify(state.PeerCertificates, at)
}

// suites are those that may be negotiated with a version.
func (s *Server) suites(version uint16) []uint16 {
	if version == tls.VersionTLS13 {
		return tls13Allowed(s.TLS13)
	}
	return s.Config.CipherSuites
}
