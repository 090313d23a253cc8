package tlsconfig

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/dn"
)

// serverVerifier decides whether a server is the one that was asked for, as libpq does: OpenSSL's chains, its lists for
// every CA of the chain, and libpq's own reading of names. It may be used by many connections at once.
type serverVerifier struct {
	*verifier      // of which the trust and the lists are used
	named     bool // the certificate must be for the host
}

// loadServers reads the root certificates and the lists.
func loadServers(o ClientOptions, now time.Time, r *report) *serverVerifier {
	ca, err := readCertificates(o.RootCert)
	if err != nil {
		r.errorf("sslrootcert", "%v", err)
		return nil
	}
	for i, c := range ca {
		if text := dateProblem(c, now); text != "" {
			r.warnf("sslrootcert", "certificate %d of %q (%q) %s: what it issued is refused", i+1, o.RootCert, nameText(c.RawSubject), text)
		}
	}
	if !slices.ContainsFunc(ca, isSelfSigned) {
		r.errorf("sslrootcert", "%q has no self-signed certificate, so no chain can end in it: add the root", o.RootCert)
	}
	crls, problems := crlSource{
		file: o.CRL, dir: o.CRLDir,
		fileOption: "sslcrl", dirOption: "sslcrldir", caFile: "sslrootcert", peers: "servers",
	}.load(ca, nil, now)
	r.problems = append(r.problems, problems...)
	return &serverVerifier{newVerifier(ClientCertRequire, ca, false, crls), o.Mode == SSLVerifyFull}
}

// verify returns nil if the server that has shown these certificates, its own first, is the one to be reached as host.
func (v *serverVerifier) verify(peer []*x509.Certificate, host string, at time.Time) error {
	if len(peer) == 0 {
		return errors.New("the server has shown no certificate")
	}
	between := v.intermediates.Clone()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{Roots: v.roots, Intermediates: between, CurrentTime: at})
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	for _, chain := range chains {
		if err = v.believe(chain, host, at); err == nil {
			return nil
		}
	}
	return err
}

// believe looks at what x509 does not.
func (v *serverVerifier) believe(chain []*x509.Certificate, host string, at time.Time) error {
	for i, c := range chain {
		if f := v.revocation(chain, i, at); f.reason != "" {
			return fmt.Errorf("the server's certificate: %q %s", nameText(c.RawSubject), f.detail(at))
		}
	}
	if v.named && !isFor(chain, host) {
		return fmt.Errorf("the server's certificate is for %s, and not for %q", namesOf(chain[0]), host)
	}
	return nil
}

// isFor is libpq's pq_verify_peer_name_matches_certificate: the common name counts where the certificate has no
// alternative name of the host's kind. crypto/x509 does not hold a common name against the name constraints of the CAs,
// as OpenSSL does, so below such a CA there is none.
func isFor(chain []*x509.Certificate, host string) bool {
	c := chain[0]
	if c.VerifyHostname(host) == nil {
		return true
	}
	_, err := netip.ParseAddr(host)
	isAddress := err == nil
	if isAddress && len(c.IPAddresses) > 0 || !isAddress && len(c.DNSNames) > 0 || slices.ContainsFunc(chain[1:], constrains) {
		return false
	}
	cn := dn.CommonName(c.RawSubject)
	if isAddress {
		return strings.EqualFold(cn, host)
	}
	return (&x509.Certificate{DNSNames: []string{cn}}).VerifyHostname(host) == nil
}

func constrains(ca *x509.Certificate) bool {
	return len(ca.PermittedDNSDomains)+len(ca.ExcludedDNSDomains)+len(ca.PermittedIPRanges)+len(ca.ExcludedIPRanges) > 0
}

// namesOf says what a certificate is for.
func namesOf(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return fmt.Sprintf("%q", nameText(c.RawSubject))
	}
	return fmt.Sprintf("%q", names)
}
