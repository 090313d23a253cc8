package tlsconfig

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestSuitesAreGos(t *testing.T) {
	t.Parallel()
	insecure := tls.InsecureCipherSuites()
	for _, want := range append(tls.CipherSuites(), insecure...) {
		s, ok := findSuite(want.Name)
		if !ok {
			t.Errorf("%s is not in the table: decide on it", want.Name)
			continue
		}
		v := versions{slices.Min(want.SupportedVersions), slices.Max(want.SupportedVersions)}
		if s.id != want.ID || s.iana != want.Name || s.versions() != v {
			t.Errorf("%s: %#x %q %v, crypto/tls has %#x %v", want.Name, s.id, s.iana, s.versions(), want.ID, v)
		}
		isInsecure := slices.Contains(insecure, want)
		if weak := s.weakness() != ""; weak != (isInsecure || strings.HasSuffix(s.iana, "_CBC_SHA")) {
			t.Errorf("%s: weakness %q, crypto/tls says insecure = %v", s.iana, s.weakness(), isInsecure)
		}
	}
	for _, s := range defaultSuites {
		if s.weakness() != "" {
			t.Errorf("%s is weak and in the default list", s.openssl)
		}
	}
}

func TestSuitesAreOpenSSLs(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	out, err := exec.Command(openssl, "ciphers", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // IANA - OPENSSL …
		if s, ok := findSuite(f[0]); ok && len(f) > 2 {
			seen++
			if s.openssl != f[2] {
				t.Errorf("%s is %s to OpenSSL and %s to us", s.iana, f[2], s.openssl)
			}
		}
	}
	if seen < 15 {
		t.Errorf("openssl knows only %d of our suites", seen)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, s := range suites {
		for _, name := range []string{s.iana, s.openssl, strings.ToLower(s.iana), strings.ToLower(s.openssl)} {
			if got, ok := findSuite(name); !ok || got != s {
				t.Errorf("findSuite(%q) = %v, %v", name, got, ok)
			}
		}
	}
	for _, g := range groups {
		for _, name := range append([]string{strings.ToUpper(g.names[0]), g.id.String()}, g.names...) {
			if got, ok := findGroup(name); !ok || got.id != g.id {
				t.Errorf("findGroup(%q) = %v, %v", name, got, ok)
			}
		}
	}
	for _, c := range []struct {
		name string
		want uint16
	}{
		{"TLSv1", tls.VersionTLS10},
		{"tlsv1.1", tls.VersionTLS11},
		{"TLSV1.2", tls.VersionTLS12},
		{"TLSv1.3", tls.VersionTLS13},
	} {
		if got, ok := findVersion(c.name); !ok || got != c.want {
			t.Errorf("findVersion(%q) = %#x, %v", c.name, got, ok)
		}
	}
	for _, name := range []string{"", "1.2", "TLS1.2", "TLSv1.0", "TLSv1.4", "TLSv1.2 "} {
		if _, ok := findVersion(name); ok {
			t.Errorf("findVersion(%q) found one", name)
		}
	}
}

const (
	useDefault = "leave ciphers out for the default"
	ecdheRSA   = "write ECDHE-RSA-AES256-GCM-SHA384 instead"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		explain    func(string) string
		name, want string
	}{
		{explainSuite, "ECDHE-RSA-AES256-GCM-SHA348", "did you mean ECDHE-RSA-AES256-GCM-SHA384?"},
		{explainSuite, "ECDHE_ECDSA_AES128_GCM_SHA256", "did you mean ECDHE-ECDSA-AES128-GCM-SHA256?"},
		{explainSuite, "TLS_AES_256_GCM_SHA256", "did you mean TLS_AES_"},
		{explainSuite, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "did you mean TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256?"},
		{explainSuite, "", "write a name such as"},
		{explainSuite, "fast", "write a name such as"},
		{explainSuite, "two\nlines", "none of which Go has"},

		{explainSuite, "DHE-RSA-AES256-GCM-SHA384", "Diffie-Hellman (DHE): " + ecdheRSA},
		{explainSuite, "DHE-RSA-CHACHA20-POLY1305", "write ECDHE-RSA-CHACHA20-POLY1305 instead"},
		{explainSuite, "EDH-RSA-DES-CBC3-SHA", "Diffie-Hellman"},
		{explainSuite, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "write ECDHE-RSA-AES128-GCM-SHA256 instead"},
		{explainSuite, "ECDH-RSA-AES128-SHA", "no static ECDH"},
		{explainSuite, "ECDHE-RSA-AES256-SHA384", "no AES-256-CBC with SHA-256 or SHA-384: " + ecdheRSA},
		{explainSuite, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", "write ECDHE-ECDSA-AES256-GCM-SHA384 instead"},
		{explainSuite, "AES256-SHA256", ecdheRSA},
		{explainSuite, "ECDHE-ECDSA-AES128-CCM8", "no AES-CCM: write ECDHE-ECDSA-AES128-GCM-SHA256 instead"},
		{explainSuite, "ECDHE-ECDSA-AES256-CCM", "write ECDHE-ECDSA-AES256-GCM-SHA384 instead"},
		{explainSuite, "TLS_AES_128_CCM_SHA256", "no AES-CCM: write TLS_AES_128_GCM_SHA256 instead"},
		{explainSuite, "TLS_AES_128_CCM_8_SHA256", "write TLS_AES_128_GCM_SHA256 instead"},
		{explainSuite, "ECDHE-RSA-CAMELLIA256-SHA384", "AES (and 3DES) only: " + ecdheRSA},
		{explainSuite, "ECDHE-ARIA128-GCM-SHA256", "write ECDHE-RSA-AES128-GCM-SHA256 instead"},
		{explainSuite, "PSK-AES256-GCM-SHA384", "no pre-shared keys and no SRP: " + ecdheRSA},
		{explainSuite, "ECDHE-PSK-CHACHA20-POLY1305", "no pre-shared keys"},
		{explainSuite, "SRP-RSA-AES-128-CBC-SHA", "no pre-shared keys and no SRP"},
		{explainSuite, "ECDHE-RSA-NULL-SHA", "without encryption or without authentication"},
		{explainSuite, "ADH-AES128-SHA", "without authentication"},
		{explainSuite, "TLS_ECDH_anon_WITH_AES_128_CBC_SHA", "without authentication"},
		{explainSuite, "EXP-RC4-MD5", "export-grade"},
		{explainSuite, "DES-CBC-SHA", "single-DES"},

		{explainSuite, "HIGH", useDefault},
		{explainSuite, "MEDIUM", useDefault},
		{explainSuite, "!aNULL", useDefault},
		{explainSuite, "+3DES", useDefault},
		{explainSuite, "-RC4", useDefault},
		{explainSuite, "@SECLEVEL=2", useDefault},
		{explainSuite, "@STRENGTH", useDefault},
		{explainSuite, "ECDHE+AESGCM", useDefault},
		{explainSuite, "kEECDH", useDefault},
		{explainSuite, "TLSv1.2", useDefault},
		{explainSuite, "DEFAULT", useDefault},
		{explainSuite, "PROFILE=SYSTEM", useDefault},
		{explainSuite, "HIGH:MEDIUM:+3DES:!aNULL", useDefault},
		{explainSuite, "HIGH:!aNULL", "name each suite, such as"},

		{explainSuite, "ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256", "write them as a list, ciphers: [ECDHE-RSA-AES128-GCM-SHA256, TLS_AES_128_GCM_SHA256]"},
		{explainSuite, "AES128-SHA, AES256-SHA", "ciphers: [AES128-SHA, AES256-SHA]"},
		{explainSuite, " AES128-SHA", "ciphers: [AES128-SHA]"},
		{explainSuite, "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:!MD5", `Go does not have ["DHE-RSA-AES128-GCM-SHA256" "!MD5"]: write ciphers: [ECDHE-RSA-AES128-GCM-SHA256]`},
		{explainSuite, "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384", "none of which Go has"},

		{explainGroup, "X2519", "did you mean X25519?"},
		{explainGroup, "prime256r1", "did you mean prime256v1?"},
		{explainGroup, "x25519_mlkem768", "did you mean X25519MLKEM768?"},
		{explainGroup, "fast", "write X25519, prime256v1 or X25519MLKEM768"},
		{explainGroup, "ffdhe2048", "no finite-field Diffie-Hellman: write X25519"},
		{explainGroup, "x448", "no X448"},
		{explainGroup, "brainpoolP256r1", "no Brainpool"},
		{explainGroup, "secp256k1", "no curve but P-256"},
		{explainGroup, "P-224", "no curve but P-256"},
		{explainGroup, "sect283r1", "no curve but P-256"},
		{explainGroup, "MLKEM768", "only together with an elliptic curve"},
		{explainGroup, "X25519Kyber768Draft00", "Go has the final one"},
		{explainGroup, "curveSM2", "no SM2"},
		{explainGroup, "X25519:prime256v1", "groups: [X25519, prime256v1]"},
		{explainGroup, "*X25519MLKEM768/?P-256:ffdhe3072", `Go does not have ["ffdhe3072"]: write groups: [X25519MLKEM768, prime256v1]`},
		{explainGroup, "?X25519", "write X25519"},
		{explainGroup, "DEFAULT", "leave groups out"},

		{explainVersion, "1.2", "did you mean TLSv1.2?"},
		{explainVersion, "TLS1.2", "did you mean TLSv1.2?"},
		{explainVersion, "TLSv1_3", "did you mean TLSv1.3?"},
		{explainVersion, "TLSv1.0", "write TLSv1"},
		{explainVersion, "1.0", "write TLSv1"},
		{explainVersion, "SSLv3", "write TLSv1.2"},
		{explainVersion, "latest", "write TLSv1.2 or TLSv1.3"},
	} {
		got := c.explain(c.name)
		if !strings.Contains(got, c.want) || strings.ContainsAny(got, "\n\r") {
			t.Errorf("%q: %s\nwant: %s", c.name, got, c.want)
		}
	}
}

// No name that OpenSSL has may be explained as a spelling mistake.
func TestExplainOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	out, err := exec.Command(openssl, "ciphers", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		for _, name := range []string{f[0], f[2]} {
			if _, ok := findSuite(name); ok {
				continue
			}
			if text := explainSuite(name); !strings.Contains(text, "instead") {
				t.Error(text)
			}
		}
	}
}
