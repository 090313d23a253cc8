package proxy_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// countedConn counts what is written.
type countedConn struct {
	net.Conn
	written int
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written += n
	return n, err
}

// The handshake of a client of Active Directory Certificate Services, with the longest keys that are usual and more CAs than
// are, leaves some room in the default of limits.max_handshake_bytes.
func TestDefaultHandshakeBytes(t *testing.T) {
	t.Parallel()
	const room = 5 // percent
	chain := directoryChain(t, 5)
	certificates := 0
	for _, der := range chain.Certificate {
		certificates += len(der)
	}
	g := newGate(t, fakeBackend(t, func(*net.UnixConn) {}).SocketDir)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := g.clientTLS()
		config.MinVersion, config.MaxVersion = version, version
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &chain, nil }
		counted := &countedConn{Conn: g.dial(t)}
		send(t, counted.Conn, sslRequest)
		expectByte(t, counted.Conn, 'S')
		conn := shake(t, counted, config)
		handshake := counted.written
		send(t, conn, startup(protocol3, "user", "alice", "database", "shop"))
		readReady(t, conn)
		t.Logf("%s: %d bytes, of which %d are of %d certificates", tls.VersionName(version), handshake, certificates, len(chain.Certificate))
		if most := proxy.DefaultHandshakeBytes * (100 - room) / 100; handshake > most {
			t.Errorf("%s: the handshake takes %d bytes, and with %d %% of room it may take %d", tls.VersionName(version), handshake, room, most)
		}
	}
}

// directoryChain returns a client's certificate and its CAs without the root, n in all, with RSA keys of 4096 bits and the
// extensions that Active Directory Certificate Services writes by default.
func directoryChain(t *testing.T, n int) tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 4096) // one for all: only its size counts
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) pkix.Name {
		return pkix.Name{CommonName: fmt.Sprintf("Example Corporation Issuing CA %d", i), ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "corp"},
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "example"},
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "com"},
		}}
	}
	microsoft := func(arc ...int) []int { return append([]int{1, 3, 6, 1, 4, 1, 311}, arc...) }
	chain := tls.Certificate{PrivateKey: key}
	for i := range n {
		ldap := fmt.Sprintf("ldap:///CN=Example%%20Corporation%%20Issuing%%20CA%%20%d,CN=%%s,CN=Public%%20Key%%20Services,CN=Services,CN=Configuration,DC=corp,DC=example,DC=com?%%s", i+1)
		c := &x509.Certificate{
			SerialNumber: new(big.Int).Lsh(big.NewInt(0x4d), 144), Subject: name(i), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
			SubjectKeyId: make([]byte, 20), AuthorityKeyId: make([]byte, 20), SignatureAlgorithm: x509.SHA256WithRSA,
			CRLDistributionPoints: []string{fmt.Sprintf(ldap, "CA-SERVER-01,CN=CDP", "certificateRevocationList?base?objectClass=cRLDistributionPoint"), "http://pki.corp.example.com/CertEnroll/Example%20Corporation%20Issuing%20CA%201.crl"},
			IssuingCertificateURL: []string{fmt.Sprintf(ldap, "AIA", "cACertificate?base?objectClass=certificationAuthority"), "http://pki.corp.example.com/CertEnroll/CA-SERVER-01.corp.example.com_Example%20Corporation%20Issuing%20CA%201.crt"},
			OCSPServer:            []string{"http://ocsp.corp.example.com/ocsp"},
			PolicyIdentifiers:     []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 21, 8, 1234567, 1234567, 1, 400}},
		}
		if i == 0 {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Service Accounts of the Database Department"})
			c.EmailAddresses, c.DNSNames = []string{"firstname.lastname@corp.example.com"}, []string{"workstation-0001.corp.example.com"}
			c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageEmailProtection}
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{microsoft(10, 3, 4)}
			c.ExtraExtensions = []pkix.Extension{
				tlstest.Extension(microsoft(21, 7), false, make([]byte, 48)),                   // the template
				tlstest.Extension(microsoft(21, 10), false, make([]byte, 40)),                  // application policies
				tlstest.Extension(microsoft(25, 2), false, make([]byte, 70)),                   // the SID
				tlstest.Extension([]int{1, 2, 840, 113549, 1, 9, 15}, false, make([]byte, 66)), // capabilities of S/MIME
			}
		} else {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign|x509.KeyUsageDigitalSignature
			c.ExtraExtensions = []pkix.Extension{
				tlstest.Extension(microsoft(21, 1), false, make([]byte, 5)),  // the version of the CA
				tlstest.Extension(microsoft(21, 2), false, make([]byte, 22)), // the hash of the one before
				tlstest.Extension(microsoft(20, 2), false, make([]byte, 12)), // the template's name
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: name(i + 1), SubjectKeyId: make([]byte, 20)}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		chain.Certificate = append(chain.Certificate, der)
	}
	return chain
}
