package tlsconfig

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/dn"
)

// serverVerifier decides whether a server is the one that the client means, as libpq does: with OpenSSL's chains, its
// lists for every CA of the chain, and libpq's own rules for names. It may be used by many connections at once.
type serverVerifier struct {
	*verifier      // for its trust anchors and lists
	checkHost bool // the certificate must be for the host
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
			r.warnf("sslrootcert", "certificate %d of %q (%q) %s: certificates that it has issued are refused", i+1, o.RootCert, nameText(c.RawSubject), text)
		}
	}
	if !slices.ContainsFunc(ca, isSelfSigned) {
		r.errorf("sslrootcert", "%q has no self-signed certificate, so no chain can end in it: add the root", o.RootCert)
	}
	files := crlFiles{file: o.CRL, dir: o.CRLDir, fileOption: "sslcrl", dirOption: "sslcrldir"}
	crls, problems := files.load(&crl.Builder{CAs: ca, Now: now, CAOption: "sslrootcert", Peers: "servers"})
	r.problems = append(r.problems, problems...)
	return &serverVerifier{newVerifier(ClientCertRequire, ca, false, crls), o.Mode == SSLVerifyFull}
}

// verify returns nil if the server that has sent these certificates, its own first, is the one to be reached as host.
func (v *serverVerifier) verify(peer []*x509.Certificate, host string, at time.Time) error {
	if len(peer) == 0 {
		return errors.New("the server has sent no certificate")
	}
	intermediates := v.intermediates.Clone()
	for _, c := range peer[1:] {
		intermediates.AddCert(c)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{Roots: v.roots, Intermediates: intermediates, CurrentTime: at})
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	for _, chain := range chains {
		if err = v.checkServerChain(chain, host, at); err == nil {
			return nil
		}
	}
	return err
}

// checkServerChain checks what x509 does not.
func (v *serverVerifier) checkServerChain(chain []*x509.Certificate, host string, at time.Time) error {
	for i, c := range chain {
		if f, exempt := v.revocation(chain, i, at); exempt == "" && !f.OK() {
			return fmt.Errorf("the server's certificate: %q %s", nameText(c.RawSubject), f.Detail(at))
		}
	}
	if v.checkHost && !matchesHost(chain, host) {
		return fmt.Errorf("the server's certificate is for %s, not for %q", namesOf(chain[0]), host)
	}
	return nil
}

// matchesHost is libpq's pq_verify_peer_name_matches_certificate (fe-secure-common.c): the common name counts if the
// certificate has no alternative name of the host's kind. crypto/x509 does not check a common name against the name
// constraints of the CAs, as OpenSSL does, so below a CA with constraints it does not count.
func matchesHost(chain []*x509.Certificate, host string) bool {
	c := chain[0]
	if c.VerifyHostname(host) == nil {
		return true
	}
	_, err := netip.ParseAddr(host)
	isAddress := err == nil
	if isAddress && len(c.IPAddresses) > 0 || !isAddress && len(c.DNSNames) > 0 || slices.ContainsFunc(chain[1:], constrainsNames) {
		return false
	}
	cn := dn.CommonName(c.RawSubject)
	if isAddress {
		return strings.EqualFold(cn, host)
	}
	return (&x509.Certificate{DNSNames: []string{cn}}).VerifyHostname(host) == nil
}

func constrainsNames(ca *x509.Certificate) bool {
	return len(ca.PermittedDNSDomains)+len(ca.ExcludedDNSDomains)+len(ca.PermittedIPRanges)+len(ca.ExcludedIPRanges) > 0
}

// namesOf returns the names that a certificate is for, quoted.
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
