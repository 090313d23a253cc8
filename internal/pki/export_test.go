package pki_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"pgwicket/internal/pki"
)

// Each format is read by the programs that it is for.
func TestExport(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{pki.ECDSA, pki.RSA} {
		c := open(t, initCA(t, nil))
		r, err := pki.ClientRequest("app", "")
		if err != nil {
			t.Fatal(err)
		}
		r.KeyType = kind
		issued := issue(t, c, r)
		out := t.TempDir()
		for _, format := range pki.Formats() {
			paths, err := c.Export("app", format, filepath.Join(out, format))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v", path, err)
				}
			}
		}
		want := strings.TrimPrefix(must(t, "", "openssl x509 -in %s -noout -pubkey", issued.CertFile), "")
		for _, key := range []string{"libpq/postgresql.key", "pem/app.pem", "-inform DER jdbc/app.pk8"} {
			if got := must(t, out, "openssl pkey -pubout -in %s", strings.Replace(key, "-inform DER ", "", 1)+strings.Repeat(" -inform DER", strings.Count(key, "DER"))); got != want {
				t.Errorf("%s: %s", key, got)
			}
		}
		must(t, out, "openssl verify -x509_strict -CAfile libpq/root.crt -untrusted libpq/postgresql.crt libpq/postgresql.crt")
		checkPKCS12(t, out, issued.Serial)
		checkSecret(t, filepath.Join(out, "kubernetes", "app.yaml"), read(t, issued.KeyFile))
	}
	c := open(t, initCA(t, nil))
	client(t, c, "app")
	_, err := c.Export("app", "jks", t.TempDir())
	checkError(t, err, `the format "jks" is unknown`)
}

// checkPKCS12 has OpenSSL, Java and NSS read the file.
func checkPKCS12(t *testing.T, dir, serial string) {
	t.Helper()
	text := must(t, dir, "openssl pkcs12 -in pkcs12/app.p12 -passin file:pkcs12/app.p12.password -nodes")
	if strings.Count(text, "BEGIN CERTIFICATE") != 3 || strings.Count(text, "BEGIN PRIVATE KEY") != 1 {
		t.Error(text)
	}
	t.Run("keytool", func(t *testing.T) {
		out := must(t, dir, "keytool -list -v -storetype PKCS12 -keystore pkcs12/app.p12 -storepass:file pkcs12/app.p12.password")
		if !strings.Contains(out, "Entry type: PrivateKeyEntry") || !strings.Contains(out, "Certificate chain length: 3") ||
			!strings.Contains(strings.ToUpper(out), serial) {
			t.Error(out)
		}
	})
	t.Run("NSS", func(t *testing.T) {
		db := t.TempDir()
		must(t, dir, "certutil -N -d sql:%s --empty-password", db)
		must(t, dir, "pk12util -i pkcs12/app.p12 -d sql:%s -w pkcs12/app.p12.password", db)
		list := must(t, dir, "certutil -L -d sql:%s", db)
		root := ""
		for line := range strings.Lines(list) {
			if strings.Contains(line, "root") {
				root = strings.TrimSpace(line[:strings.LastIndex(strings.TrimSpace(line), " ")])
			}
		}
		if keys := must(t, dir, "certutil -K -d sql:%s", db); strings.Count(keys, "< 0>") != 1 {
			t.Errorf("%s\n%s", keys, list)
		}
		if root == "" {
			t.Errorf("no root in\n%s", list)
		}
	})
}

// checkSecret reads the manifest as kubectl does.
func checkSecret(t *testing.T, path, key string) {
	t.Helper()
	var secret struct {
		APIVersion string `yaml:"apiVersion"`
		Kind, Type string
		Metadata   struct{ Name string }
		Data       map[string]string
	}
	if err := yaml.Unmarshal([]byte(read(t, path)), &secret); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range secret.Data {
		names = append(names, name)
	}
	slices.Sort(names)
	got, err := base64.StdEncoding.DecodeString(secret.Data["tls.key"])
	if err != nil || string(got) != key || secret.Type != "kubernetes.io/tls" || secret.Metadata.Name != "app" ||
		!slices.Equal(names, []string{"ca.crt", "tls.crt", "tls.key"}) {
		t.Errorf("%+v, %v", secret, err)
	}
}

// NSS accepts the chain of a server, and of a client, as its own CA.
func TestNSS(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	app, db := client(t, c, "app"), server(t, c, "db.example.com")
	nss := t.TempDir()
	must(t, "", "certutil -N -d sql:%s --empty-password", nss)
	dir := filepath.Dir(c.TrustFile())
	must(t, "", "certutil -A -d sql:%s -n root -t CT,, -i %s", nss, filepath.Join(dir, "root", "ca.crt"))
	must(t, "", "certutil -A -d sql:%s -n intermediate -t ,, -i %s", nss, filepath.Join(dir, "ca.crt"))
	for name, file := range map[string]string{"app": app.CertFile, "db": db.CertFile} {
		must(t, "", "certutil -A -d sql:%s -n %s -t ,, -i %s", nss, name, file)
	}
	must(t, "", "certutil -V -d sql:%s -n db -u V -e", nss)
	must(t, "", "certutil -V -d sql:%s -n app -u C -e", nss)
}
