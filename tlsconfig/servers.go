package tlsconfig

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/certs"
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
	pool := loadPool(poolOptions{option: "sslrootcert", file: o.RootCert, minBits: o.MinSecurityBits}, now, r)
	if pool == nil {
		return nil
	}
	files := crlFiles{file: o.CRL, dir: o.CRLDir, fileOption: "sslcrl", dirOption: "sslcrldir"}
	crls, problems := files.load(&crl.Builder{
		CAs: pool.Certificates(), Now: now, MinSecurityBits: bitsOf(o.MinSecurityBits), CAOption: "sslrootcert", Peers: "servers",
	})
	r.problems = append(r.problems, problems...)
	return &serverVerifier{&verifier{
		mode: ClientCertRequire, purpose: certs.Server, minBits: bitsOf(o.MinSecurityBits), pool: pool, crls: crls, chains: newChains(),
	}, o.Mode == SSLVerifyFull}
}

// verify returns nil if the server that has sent these certificates, its own first, is the one to be reached as host.
func (v *serverVerifier) verify(peer []*x509.Certificate, host string, at time.Time) error {
	if len(peer) == 0 {
		return errors.New("the server has sent no certificate")
	}
	if _, err := v.verifier.verify(certs.DER(peer), at); err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	if v.checkHost && !matchesHost(peer[0], host) {
		return fmt.Errorf("the server's certificate is for %s, not for %q", namesOf(peer[0]), host)
	}
	return nil
}

// matchesHost is libpq's pq_verify_peer_name_matches_certificate (fe-secure-common.c): the common name counts if the
// certificate has no alternative name of the host's kind. The verifier has held it against the name constraints of the
// CAs, as OpenSSL does.
func matchesHost(c *x509.Certificate, host string) bool {
	if c.VerifyHostname(host) == nil {
		return true
	}
	_, err := netip.ParseAddr(host)
	isAddress := err == nil
	if isAddress && len(c.IPAddresses) > 0 || !isAddress && len(c.DNSNames) > 0 {
		return false
	}
	cn := dn.CommonName(c.RawSubject)
	if isAddress {
		return strings.EqualFold(cn, host)
	}
	return (&x509.Certificate{DNSNames: []string{cn}}).VerifyHostname(host) == nil
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
