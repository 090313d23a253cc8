package doctor

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
	"pgwicket/internal/phrase"
	"pgwicket/tlsconfig"
)

// tlsFiles is the content of the files of section tls.
type tlsFiles struct {
	certificates []certificate
	authorities  []tlsconfig.Authority
	clientCert   tlsconfig.ClientCert
	crls         []tlsconfig.CRLInfo
	now          time.Time
}

// certificate is one of the gate, with what can be seen of its key file.
type certificate struct {
	tlsconfig.CertificateInfo
	encrypted bool
	beside    string      // a file of its passphrase that can be read by whoever reads the key; empty: none
	mode      fs.FileMode // of the key file
	dirMode   fs.FileMode // of its directory
}

func tlsFilesOf(cfg *config.Config, now time.Time) tlsFiles {
	t := tlsFiles{authorities: cfg.TLS.Authorities(), clientCert: cfg.TLS.ClientCert(), crls: cfg.TLS.CRLs, now: now}
	for _, info := range cfg.TLS.Certificates {
		c := certificate{CertificateInfo: info, encrypted: isEncrypted(info.KeyFile), beside: besides(info.KeyFile, cfg.Settings.PassphraseFiles())}
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

// isEncrypted reports whether the first key in a file, which is the one that is used,
// needs a passphrase.
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

// besides returns the first file that is in the directory of a key, with its owner and
// mode; empty: none.
func besides(key string, files []string) string {
	st, err := os.Stat(key)
	if err != nil {
		return ""
	}
	owner, group := ownerOf(st)
	for _, f := range files {
		other, err := os.Stat(f)
		if err != nil || !sameDirectory(f, key) {
			continue
		}
		if o, g := ownerOf(other); o == owner && g == group && other.Mode().Perm() == st.Mode().Perm() {
			return f
		}
	}
	return ""
}

// sameDirectory reports whether two files are in one directory, however they are named: a key is
// relative to a configuration with a relative path, and a passphrase_command most often names an
// absolute one.
func sameDirectory(a, b string) bool {
	first, err := os.Stat(filepath.Dir(a))
	if err != nil {
		return false
	}
	second, err := os.Stat(filepath.Dir(b))
	return err == nil && os.SameFile(first, second)
}

func tlsChecks() []check[tlsFiles] {
	return []check[tlsFiles]{
		{"passphrase", tlsFiles.checkPassphrase},
		{"key_file", tlsFiles.checkKeyFile},
		{"certificate_strength", tlsFiles.checkStrength},
		{"certificate_names", tlsFiles.checkNames},
		{"certificate_days", tlsFiles.checkDays},
		{"certificate_chain", tlsFiles.checkChain},
		{"client_cert", tlsFiles.checkClientCert},
		{"crl", tlsFiles.checkCRL},
	}
}

func (t tlsFiles) checkPassphrase() (out []Finding) {
	for _, c := range t.certificates {
		if !c.encrypted {
			f := finding(Warn, c.KeyFile, "the key is not encrypted: a copy of the file, or of a backup, is enough to use it",
				"openssl pkey -aes256 -in "+c.KeyFile+" -out encrypted.key, and set tls.passphrase_command")
			out = append(out, f)
		}
		if c.encrypted && c.beside != "" {
			out = append(out, finding(Warn, c.beside, fmt.Sprintf("the passphrase lies beside the key %s, with the same owner and mode: who can copy one can copy the other", c.KeyFile),
				"keep it elsewhere: systemd-creds (LoadCredentialEncrypted=), a TPM or a vault that tls.passphrase_command asks; a terminal asks a person"))
		}
	}
	return orPass(out, "each key is encrypted, and its passphrase does not lie beside it")
}

// checkKeyFile checks modes. config has refused a key that PostgreSQL would refuse;
// mode 0640 is right for a key of root with a group that reads it.
func (t tlsFiles) checkKeyFile() (out []Finding) {
	for _, c := range t.certificates {
		if c.mode.Perm()&0o037 != 0 {
			out = append(out, finding(Fail, c.KeyFile, fmt.Sprintf("has mode %04o, so other accounts have access to the key", c.mode.Perm()), "chmod 0600 "+c.KeyFile))
		}
		if c.dirMode.Perm()&0o002 != 0 {
			dir := filepath.Dir(c.KeyFile)
			out = append(out, finding(Fail, dir, fmt.Sprintf("has mode %04o, so every account can replace the key", c.dirMode.Perm()), "chmod o-w "+dir))
		}
	}
	return orPass(out, "only the account of the gate, its group and root have access to the keys")
}

// Key sizes for 112 and 128 bits of security (NIST SP 800-57 part 1, table 2).
const (
	weakRSA   = 2048
	strongRSA = 3072
	weakCurve = 256
)

func (t tlsFiles) checkStrength() (out []Finding) {
	for _, c := range t.certificates {
		for _, link := range c.Chain {
			out = append(out, strength(c.File, link)...)
		}
	}
	for _, ca := range t.authorities {
		out = append(out, authorityStrength(ca)...)
	}
	return orPass(out, "keys and signatures of the whole chain, and of the CAs of clients, are strong")
}

// Security bits of OpenSSL, which are those of NIST SP 800-57.
const (
	weakBits   = 112
	strongBits = 128
)

// authorityStrength judges a CA of clients, who are as good as its key.
func authorityStrength(ca tlsconfig.Authority) (out []Finding) {
	name := fmt.Sprintf("the CA %q (serial %s)", ca.Subject, ca.Serial)
	const fix = "make a CA with a key on P-256, and change to it as docs/certificates.md describes (A new CA)"
	switch {
	case ca.KeyBits < weakBits:
		out = append(out, finding(Fail, ca.Origin, fmt.Sprintf("%s has a key of %d bits of security (%s)", name, ca.KeyBits, ca.Key), fix))
	case ca.KeyBits < strongBits:
		out = append(out, finding(Warn, ca.Origin, fmt.Sprintf("%s has a key of %d bits of security (%s), which NIST accepts until 2030", name, ca.KeyBits, ca.Key), fix))
	}
	if !ca.Root && ca.SignatureBits < weakBits {
		out = append(out, finding(Fail, ca.Origin, fmt.Sprintf("%s is signed with %s, which can be forged", name, ca.Signature), "have it issued again with SHA-256"))
	}
	return out
}

func strength(file string, c *x509.Certificate) (out []Finding) {
	name := c.Subject.String()
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < weakRSA {
			out = append(out, finding(Fail, file, fmt.Sprintf("the RSA key of %q has %d bits", name, bits), "create an RSA key of 3072 bits, or one on P-256"))
		} else if bits < strongRSA {
			out = append(out, finding(Warn, file, fmt.Sprintf("the RSA key of %q has %d bits, which NIST accepts until 2030", name, bits), "create an RSA key of 3072 bits, or one on P-256"))
		}
	case *ecdsa.PublicKey:
		if bits := k.Params().BitSize; bits < weakCurve {
			out = append(out, finding(Fail, file, fmt.Sprintf("the ECDSA key of %q has %d bits", name, bits), "create one on P-256"))
		}
	}
	switch c.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !bytes.Equal(c.RawSubject, c.RawIssuer) { // a root is trusted for its key
			out = append(out, finding(Fail, file, fmt.Sprintf("%q is signed with %v, which can be forged", name, c.SignatureAlgorithm), "have it issued again with SHA-256"))
		}
	}
	return out
}

func (t tlsFiles) checkNames() (out []Finding) {
	for _, c := range t.certificates {
		if len(c.Chain) > 0 && len(c.Chain[0].DNSNames)+len(c.Chain[0].IPAddresses) == 0 {
			out = append(out, finding(Fail, c.File, "has no host in its subject alternative names, so most clients cannot verify it (sslmode=verify-full)",
				"have it issued with the names and addresses that clients connect to"))
		}
	}
	return orPass(out, "each certificate has subject alternative names")
}

const (
	daysFail = 7
	daysWarn = 30
)

func (t tlsFiles) checkDays() (out []Finding) {
	least := time.Duration(1<<63 - 1)
	for _, c := range t.certificates {
		for _, link := range c.Chain {
			left := link.NotAfter.Sub(t.now)
			least = min(least, left)
			name := fmt.Sprintf("%q", link.Subject)
			if t.now.Before(link.NotBefore) {
				out = append(out, finding(Fail, c.File, fmt.Sprintf("%s is not valid before %s", name, link.NotBefore.UTC().Format(time.RFC3339)), "check the clock, or wait"))
				continue
			}
			out = append(out, t.ends(c.File, name, link.NotAfter)...)
		}
	}
	for _, ca := range t.authorities {
		out = append(out, t.ends(ca.Origin, fmt.Sprintf("the CA %q (serial %s)", ca.Subject, ca.Serial), ca.NotAfter)...)
	}
	return orPass(out, "the whole chain is valid for %s more", phrase.Count(int(least.Hours()/24), "day"))
}

// ends is a finding about a certificate that ends soon.
func (t tlsFiles) ends(where, name string, end time.Time) []Finding {
	status := Warn
	switch days := end.Sub(t.now).Hours() / 24; {
	case days < daysFail:
		status = Fail
	case days >= daysWarn:
		return nil
	}
	return []Finding{finding(status, where, name+" ends on "+phrase.Until(end, t.now), "have it issued again")}
}

func (t tlsFiles) checkChain() (out []Finding) {
	for _, c := range t.certificates {
		for i := 1; i < len(c.Chain); i++ {
			if err := c.Chain[i-1].CheckSignatureFrom(c.Chain[i]); err != nil {
				out = append(out, finding(Fail, c.File, fmt.Sprintf("certificate %d (%q) is not issued by the next one (%q)", i, c.Chain[i-1].Subject, c.Chain[i].Subject),
					"put the certificate of the gate first, then the issuer of each"))
			}
		}
	}
	return orPass(out, "each certificate in the file is issued by the next")
}
