package chains

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maker runs the openssl command in a directory and remembers the first error.
type maker struct {
	dir string
	n   int
	err error
}

func (m *maker) file(name string) string { return filepath.Join(m.dir, name) }

func (m *maker) run(args ...string) {
	if m.err == nil {
		_, m.err = openssl(nil, args...)
	}
}

// key makes a key by arguments of genpkey.
func (m *maker) key(name string, args ...string) string {
	file := m.file(name + ".key")
	m.run(append(append([]string{"genpkey"}, args...), "-out", file)...)
	return file
}

// made is a certificate that the command has made.
type made struct {
	file, key string
}

// config is an extension section for openssl.
func (m *maker) config(section string) string {
	m.n++
	file := m.file(fmt.Sprintf("%d.cnf", m.n))
	text := "[req]\ndistinguished_name=dn\n[dn]\n[x]\n" + strings.ReplaceAll(section, "; ", "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil && m.err == nil {
		m.err = err
	}
	return file
}

// cert makes a certificate by "openssl req -x509", self-signed if by is nil.
func (m *maker) cert(by *made, key, subject, extensions string, args ...string) *made {
	config := m.config(extensions)
	out := strings.TrimSuffix(config, ".cnf") + ".pem"
	all := []string{"req", "-x509", "-new", "-key", key, "-subj", subject, "-days", "30", "-config", config, "-extensions", "x", "-out", out}
	if by != nil {
		all = append(all, "-CA", by.file, "-CAkey", by.key)
	}
	m.run(append(all, args...)...)
	return &made{out, key}
}

// load reads a certificate that was made.
func (m *maker) load(c *made) []byte {
	if m.err != nil {
		return nil
	}
	data, err := os.ReadFile(c.file)
	block, _ := pem.Decode(data)
	if block == nil {
		m.err = fmt.Errorf("%s holds no PEM: %w", c.file, err)
		return nil
	}
	return block.Bytes
}

func (m *maker) chain(name string, nodes ...*made) Case {
	c := Case{Name: "openssl: " + name, Leaf: m.load(nodes[0]), CA: [][]byte{m.load(nodes[len(nodes)-1])}}
	for _, n := range nodes[1 : len(nodes)-1] {
		c.Sent = append(c.Sent, m.load(n))
	}
	if m.err == nil {
		c.Key, m.err = os.ReadFile(nodes[0].key)
	}
	return c
}

const (
	caSection   = "basicConstraints=critical,CA:TRUE; keyUsage=critical,keyCertSign,cRLSign; subjectKeyIdentifier=hash"
	leafSection = "basicConstraints=CA:FALSE; keyUsage=digitalSignature; extendedKeyUsage=clientAuth; subjectKeyIdentifier=hash; authorityKeyIdentifier=keyid"
)

// byOpenSSL makes the chains for which the openssl command is needed.
func byOpenSSL(dir string, k *keys) ([]Case, error) {
	m := &maker{dir: dir}
	for name, key := range map[string]*key{"rsa": k.rsa, "leaf": k.leaf, "root": k.root, "sub": k.sub} {
		if err := os.WriteFile(m.file(name+".key"), key.pem, 0o600); err != nil {
			return nil, err
		}
	}
	rsa, leafKey := m.file("rsa.key"), m.file("leaf.key")
	root := m.cert(nil, rsa, "/O=Ours/CN=Root", caSection)
	cases := []Case{m.chain("usual", m.cert(root, leafKey, "/CN=app_user", leafSection), root)}
	for _, digest := range []string{"md5", "sha1", "sha224", "sha384", "sha512", "sha3-256", "sha3-512", "ripemd160"} {
		signed := m.cert(nil, rsa, "/O=Ours/CN=Root", caSection, "-"+digest)
		cases = append(cases,
			m.chain("leaf signed with "+digest, m.cert(root, leafKey, "/CN=app_user", leafSection, "-"+digest), root),
			m.chain("root signed with "+digest, m.cert(signed, leafKey, "/CN=app_user", leafSection), signed))
	}
	cases = append(cases, m.pss(root, rsa, leafKey)...)
	cases = append(cases, m.algorithms(leafKey)...)
	cases = append(cases, m.sections(root, leafKey)...)
	return append(cases, m.trusted(leafKey)...), m.err
}

// pss are signatures of RSASSA-PSS with OpenSSL's defaults and others.
func (m *maker) pss(root *made, rsa, leafKey string) (cases []Case) {
	for name, args := range map[string][]string{
		"default salt":      nil,
		"salt of 32 bytes":  {"-sigopt", "rsa_pss_saltlen:32"},
		"salt of 0 bytes":   {"-sigopt", "rsa_pss_saltlen:0"},
		"salt of 100 bytes": {"-sigopt", "rsa_pss_saltlen:100"},
		"SHA-512":           {"-sha512"},
		"SHA-1":             {"-sha1"},
		"mask by SHA-1":     {"-sigopt", "rsa_mgf1_md:sha1"},
		"mask by SHA-512":   {"-sigopt", "rsa_mgf1_md:sha512"},
	} {
		args = append([]string{"-sigopt", "rsa_padding_mode:pss"}, args...)
		signed := m.cert(nil, rsa, "/O=Ours/CN=Root", caSection, args...)
		cases = append(cases,
			m.chain("RSASSA-PSS leaf, "+name, m.cert(root, leafKey, "/CN=app_user", leafSection, args...), root),
			m.chain("RSASSA-PSS root, "+name, m.cert(signed, leafKey, "/CN=app_user", leafSection, args...), signed))
	}
	for name, args := range map[string][]string{
		"free":       nil,
		"restricted": {"-pkeyopt", "rsa_pss_keygen_md:sha256", "-pkeyopt", "rsa_pss_keygen_mgf1_md:sha256", "-pkeyopt", "rsa_pss_keygen_saltlen:32"},
	} {
		key := m.key("pss-"+name, append([]string{"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"}, args...)...)
		signed := m.cert(nil, key, "/O=Ours/CN=Root", caSection)
		cases = append(cases,
			m.chain("key for RSASSA-PSS alone, "+name, m.cert(signed, leafKey, "/CN=app_user", leafSection), signed),
			m.chain("leaf with a key for RSASSA-PSS alone, "+name, m.cert(signed, key, "/CN=app_user", leafSection), signed))
	}
	return cases
}

// algorithms are keys that Go does not have, or not for signatures.
func (m *maker) algorithms(leafKey string) (cases []Case) {
	const noGo = "the gate cannot check the signature"
	for _, a := range []struct {
		name string
		args []string
	}{
		{"Ed25519", []string{"-algorithm", "ED25519"}},
		{"Ed448", []string{"-algorithm", "ED448"}},
		{"secp256k1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"}},
		{"P-192", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-192"}},
		{"brainpoolP256r1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"}},
		{"brainpoolP512r1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP512r1"}},
		{"explicit P-256", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"}},
	} {
		key := m.key("alg-"+strings.ReplaceAll(a.name, " ", "-"), a.args...)
		signed := m.cert(nil, key, "/O=Ours/CN=Root", caSection)
		below := m.chain("leaf of a root with "+a.name, m.cert(signed, leafKey, "/CN=app_user", leafSection), signed)
		pinned := m.chain("pinned root with "+a.name, signed, signed)
		switch a.name {
		case "Ed25519", "P-192", "explicit P-256":
		default:
			below = below.stricter(noGo)
		}
		cases = append(cases, below, pinned)
	}
	return cases
}

// sections are extensions as openssl.cnf writes them.
func (m *maker) sections(root *made, leafKey string) (cases []Case) {
	subKey := m.file("sub.key")
	for name, section := range map[string]string{
		"permitted dirName inside":   "nameConstraints=permitted;dirName:d\n[d]\nO=Ours",
		"permitted dirName outside":  "nameConstraints=permitted;dirName:d\n[d]\nO=Partner",
		"critical DNS":               "nameConstraints=critical,permitted;DNS:ours.example",
		"excluded mail":              "nameConstraints=excluded;email:ours.example",
		"permitted IP":               "nameConstraints=permitted;IP:10.0.0.0/255.0.0.0",
		"requireExplicitPolicy":      "policyConstraints=critical,requireExplicitPolicy:0",
		"certificatePolicies":        "certificatePolicies=1.2.3.4,1.2.3.5",
		"inhibitAnyPolicy":           "inhibitAnyPolicy=critical,0",
		"pathlen 0":                  "",
		"nsCertType sslCA":           "nsCertType=sslCA",
		"extendedKeyUsage for both":  "extendedKeyUsage=clientAuth,serverAuth",
		"extendedKeyUsage for codes": "extendedKeyUsage=codeSigning",
	} {
		base := caSection
		if name == "pathlen 0" {
			base = strings.Replace(base, "CA:TRUE", "CA:TRUE,pathlen:0", 1)
		}
		sub := m.cert(root, subKey, "/O=Ours/CN=Sub", base+"\n"+section)
		for kind, x := range map[string]string{
			"leaf":         leafSection,
			"leaf of mail": leafSection + "; subjectAltName=email:app@ours.example",
			"leaf of host": leafSection + "; subjectAltName=DNS:a.ours.example,IP:10.1.2.3",
		} {
			cases = append(cases, m.chain("sub-CA with "+name+", "+kind, m.cert(sub, leafKey, "/O=Ours/CN=app_user", x), sub, root))
		}
	}
	return cases
}

// trusted are blocks "TRUSTED CERTIFICATE".
func (m *maker) trusted(leafKey string) (cases []Case) {
	rootKey, subKey := m.file("root.key"), m.file("sub.key")
	root := m.cert(nil, rootKey, "/O=Ours/CN=Root", caSection)
	restricted := m.cert(nil, rootKey, "/O=Ours/CN=Root", caSection+"; extendedKeyUsage=serverAuth")
	sub := m.cert(root, subKey, "/O=Ours/CN=Sub", caSection)
	for name, args := range map[string][]string{
		"for clients":      {"-addtrust", "clientAuth"},
		"for servers":      {"-addtrust", "serverAuth"},
		"for anything":     {"-addtrust", "anyExtendedKeyUsage"},
		"not for clients":  {"-addreject", "clientAuth"},
		"not for servers":  {"-addreject", "serverAuth"},
		"with a name":      {"-setalias", "root"},
		"for nothing":      {"-clrtrust"},
		"for and against":  {"-addtrust", "clientAuth", "-addreject", "clientAuth"},
		"not for anything": {"-addreject", "anyExtendedKeyUsage"},
	} {
		for kind, by := range map[string]*made{"root": root, "root for servers": restricted, "sub-CA": sub} {
			var block []byte
			if m.err == nil {
				block, m.err = openssl(nil, append([]string{"x509", "-in", by.file, "-trustout"}, args...)...)
			}
			c := m.chain("trusted "+kind+" "+name, m.cert(by, leafKey, "/CN=app_user", leafSection), by)
			c.CA, c.Trusted = nil, block
			partial := c.partial()
			partial.Name += ", partial chains"
			itself := m.chain("trusted "+kind+" "+name+" as leaf", by, by)
			itself.CA, itself.Trusted = nil, block
			cases = append(cases, c, partial, itself)
		}
	}
	return cases
}
