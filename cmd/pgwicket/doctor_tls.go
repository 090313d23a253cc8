package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pgwicket/config"
	"pgwicket/tlsconfig"
)

// tlsFacts are what the files of the tls section hold.
type tlsFacts struct {
	certificates []certificate
	clientCert   tlsconfig.ClientCert
	crls         []tlsconfig.CRLInfo
	now          time.Time
}

// certificate is one of the gate's, with what its key file shows of itself.
type certificate struct {
	tlsconfig.CertificateInfo
	encrypted bool
	mode      fs.FileMode // of the key file
	dirMode   fs.FileMode // of its directory
}

func tlsFactsOf(cfg *config.Config, now time.Time) tlsFacts {
	t := tlsFacts{clientCert: cfg.TLS.ClientCert(), crls: cfg.TLS.CRLs, now: now}
	for _, info := range cfg.TLS.Certificates {
		c := certificate{CertificateInfo: info, encrypted: isEncrypted(info.KeyFile)}
		if st, err := os.Stat(info.KeyFile); err == nil {
			c.mode = st.Mode()
		}
		if st, err := os.Stat(filepath.Dir(info.KeyFile)); err == nil {
			c.dirMode = st.Mode()
		}
		t.certificates = append(t.certificates, c)
	}
	return t
}

// isEncrypted says whether the first key of a file, which is the one that is used,
// takes a passphrase.
func isEncrypted(file string) bool {
	data, _ := os.ReadFile(file)
	defer clear(data)
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""
		}
	}
}

func tlsChecks() []inspection[tlsFacts] {
	return []inspection[tlsFacts]{
		{"passphrase", tlsFacts.checkPassphrase},
		{"key_file", tlsFacts.checkKeyFile},
		{"certificate_strength", tlsFacts.checkStrength},
		{"certificate_names", tlsFacts.checkNames},
		{"certificate_days", tlsFacts.checkDays},
		{"certificate_chain", tlsFacts.checkChain},
		{"client_cert", tlsFacts.checkClientCert},
		{"crl", tlsFacts.checkCRL},
	}
}

func (t tlsFacts) checkPassphrase() (out []finding) {
	for _, c := range t.certificates {
		if !c.encrypted {
			f := found(warn, c.KeyFile, "the key is not encrypted: whoever gets a copy of the file, or of a backup, has it",
				"openssl pkey -aes256 -in "+c.KeyFile+" -out encrypted.key, and set tls.passphrase_command")
			out = append(out, f)
		}
	}
	return allPassed(out, "each key takes a passphrase")
}

// checkKeyFile: what PostgreSQL would refuse has not been loaded; an 0640 of root's is
// what a reading group has.
func (t tlsFacts) checkKeyFile() (out []finding) {
	for _, c := range t.certificates {
		if c.mode.Perm()&0o037 != 0 {
			out = append(out, found(fail, c.KeyFile, fmt.Sprintf("has mode %04o, and others have access to the key", c.mode.Perm()), "chmod 0600 "+c.KeyFile))
		}
		if c.dirMode.Perm()&0o002 != 0 {
			dir := filepath.Dir(c.KeyFile)
			out = append(out, found(fail, dir, fmt.Sprintf("has mode %04o, so that everybody can put another key in place", c.dirMode.Perm()), "chmod o-w "+dir))
		}
	}
	return allPassed(out, "nobody but the gate's account, its group and root gets at a key")
}

// What NIST (SP 800-57) takes for 112 and 128 bits.
const (
	weakRSA   = 2048
	strongRSA = 3072
	weakCurve = 256
)

func (t tlsFacts) checkStrength() (out []finding) {
	for _, c := range t.certificates {
		for _, link := range c.Chain {
			out = append(out, strength(c.File, link)...)
		}
	}
	return allPassed(out, "keys and signatures are strong, in the whole chain")
}

func strength(file string, c *x509.Certificate) (out []finding) {
	name := c.Subject.String()
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < weakRSA {
			out = append(out, found(fail, file, fmt.Sprintf("the RSA key of %q has %d bits", name, bits), "make one of 3072, or ECDSA P-256"))
		} else if bits < strongRSA {
			out = append(out, found(warn, file, fmt.Sprintf("the RSA key of %q has %d bits, which are good until about 2030", name, bits), "make one of 3072, or ECDSA P-256"))
		}
	case *ecdsa.PublicKey:
		if bits := k.Params().BitSize; bits < weakCurve {
			out = append(out, found(fail, file, fmt.Sprintf("the ECDSA key of %q has %d bits", name, bits), "make one on P-256"))
		}
	}
	switch c.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !bytes.Equal(c.RawSubject, c.RawIssuer) { // a root is trusted for its key
			out = append(out, found(fail, file, fmt.Sprintf("%q is signed with %v, which can be forged", name, c.SignatureAlgorithm), "have it issued anew, with SHA-256"))
		}
	}
	return out
}

func (t tlsFacts) checkNames() (out []finding) {
	for _, c := range t.certificates {
		if len(c.Chain) > 0 && len(c.Chain[0].DNSNames)+len(c.Chain[0].IPAddresses) == 0 {
			out = append(out, found(fail, c.File, "has no subject alternative name of a host, so that most clients cannot verify it (sslmode=verify-full)",
				"have it issued with the names and addresses that clients connect to"))
		}
	}
	return allPassed(out, "each certificate names its hosts as clients want it")
}

const (
	daysFail = 7
	daysWarn = 30
)

func (t tlsFacts) checkDays() (out []finding) {
	least := time.Duration(1<<63 - 1)
	for _, c := range t.certificates {
		for _, link := range c.Chain {
			left := link.NotAfter.Sub(t.now)
			least = min(least, left)
			name := link.Subject.String()
			switch days := left.Hours() / 24; {
			case t.now.Before(link.NotBefore):
				out = append(out, found(fail, c.File, fmt.Sprintf("%q is not valid before %s", name, link.NotBefore.UTC().Format(time.RFC3339)), "look at the clock, or wait"))
			case days < daysFail:
				out = append(out, found(fail, c.File, fmt.Sprintf("%q ends on %s", name, until(link.NotAfter, t.now)), "have it issued anew"))
			case days < daysWarn:
				out = append(out, found(warn, c.File, fmt.Sprintf("%q ends on %s", name, until(link.NotAfter, t.now)), "have it issued anew"))
			}
		}
	}
	return allPassed(out, "valid for %s more, the whole chain", plural(int(least.Hours()/24), "day"))
}

func (t tlsFacts) checkChain() (out []finding) {
	for _, c := range t.certificates {
		for i := 1; i < len(c.Chain); i++ {
			if err := c.Chain[i-1].CheckSignatureFrom(c.Chain[i]); err != nil {
				out = append(out, found(fail, c.File, fmt.Sprintf("certificate %d (%q) is not issued by the one behind it (%q)", i, c.Chain[i-1].Subject, c.Chain[i].Subject),
					"write the gate's own first, then each one's issuer"))
			}
		}
	}
	return allPassed(out, "each certificate that is sent is issued by the next")
}

func (t tlsFacts) checkClientCert() []finding {
	switch t.clientCert {
	case tlsconfig.ClientCertRequire:
		return []finding{well("clients must show a certificate")}
	case tlsconfig.ClientCertOptional:
		return []finding{found(warn, "tls.client_cert", "is optional: a client without a certificate comes as far as the rules and PostgreSQL's password", "write require")}
	}
	return []finding{found(fail, "tls.client_cert", "is none: nobody is asked for a certificate, and a password is all that protects PostgreSQL", "write require, and ca_file")}
}

// staleSoon is the share of a list's life below which the next one is late.
const staleSoon = 10

func (t tlsFacts) checkCRL() (out []finding) {
	if t.clientCert == tlsconfig.ClientCertNone {
		return []finding{{Status: skip, Reason: "no client certificates are asked for", Where: "tls.client_cert", Fix: "write require"}}
	}
	if len(t.crls) == 0 {
		return []finding{found(warn, "tls.crl_file", "there is no revocation list: a stolen client certificate cannot be revoked", "set crl_file or crl_dir")}
	}
	least := 100
	for _, l := range t.crls {
		fresh := freshness(l, t.now)
		least = min(least, fresh)
		const fix = "have the CA publish more often than the list lasts, and fetch it (docs/certificates.md)"
		switch {
		case l.NextUpdate.IsZero():
			out = append(out, found(warn, l.File, fmt.Sprintf("the list of %q has no next update: nobody notices when a new one does not come", l.Issuer), "openssl ca -gencrl -crldays 30"))
		case !t.now.Before(l.NextUpdate):
			out = append(out, found(fail, l.File, fmt.Sprintf("the list of %q is out of date since %s", l.Issuer, l.NextUpdate.UTC().Format(time.RFC3339)), fix))
		case fresh < staleSoon:
			out = append(out, found(warn, l.File, fmt.Sprintf("the list of %q is %d%% fresh, until %s", l.Issuer, fresh, until(l.NextUpdate, t.now)), fix))
		}
	}
	return allPassed(out, "every list is in date, %d%% fresh or more", least)
}

// freshness is how much of its life a list has before it, in percent.
func freshness(l tlsconfig.CRLInfo, now time.Time) int {
	whole, left := l.NextUpdate.Sub(l.ThisUpdate), l.NextUpdate.Sub(now)
	if whole <= 0 || left <= 0 {
		return 0
	}
	return min(int(100*left.Seconds()/whole.Seconds()), 100)
}
