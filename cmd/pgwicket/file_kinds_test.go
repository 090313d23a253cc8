//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf16"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/tlstest"
)

// check says of a file that holds something else what it holds and how to convert it, and reads what an editor has saved with
// a byte order mark or as UTF-16. The files are openssl's.
func TestFilesOfOtherKinds(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	stageExplain(t)
	openssl := func(command string) []byte {
		t.Helper()
		cmd := exec.Command("openssl", strings.Fields(command)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", command, err)
		}
		return out
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	mark := func(name string) []byte { return append([]byte("\xef\xbb\xbf"), read(name)...) }
	wide := func(name string, little bool) (out []byte) {
		for _, u := range utf16.Encode([]rune("\ufeff" + string(read(name)))) {
			if little {
				out = append(out, byte(u), byte(u>>8))
			} else {
				out = append(out, byte(u>>8), byte(u))
			}
		}
		return out
	}
	other := tlstest.NewCA("other")
	if err := os.WriteFile("ca.key", (&tlstest.Pair{Key: other.Key}).KeyPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	const fine = ""
	for _, c := range []struct {
		key, name string // the option, and what its file holds
		data      []byte
		want      string
	}{
		{"ca_file", "a byte order mark", mark("ca.crt"), fine},
		{"ca_file", "UTF-16", wide("ca.crt", true), fine},
		{"ca_file", "UTF-16, big endian, without a mark", wide("ca.crt", false)[2:], fine},
		{"ca_file", "nothing", nil, "holds no certificate in PEM: it is empty"},
		{"ca_file", "DER", openssl("x509 -in ca.crt -outform DER"), "holds no certificate in PEM: convert it with openssl x509 -inform DER"},
		{"ca_file", "PKCS #7", openssl("crl2pkcs7 -nocrl -certfile ca.crt"), "convert it with openssl pkcs7 -print_certs"},
		{"ca_file", "PKCS #7 in DER", openssl("crl2pkcs7 -nocrl -certfile ca.crt -outform DER"), "convert it with openssl pkcs7 -inform DER -print_certs"},
		{"ca_file", "PKCS #12", openssl("pkcs12 -export -nokeys -in ca.crt -passout pass:x"), "convert it with openssl pkcs12 -nokeys"},
		{"ca_file", "a list", read("ca.crl"), "it holds a revocation list"},
		{"ca_file", "a key", read("ca.key"), "it holds a private key alone"},
		{"crl_file", "a byte order mark", mark("ca.crl"), fine},
		{"crl_file", "UTF-16", wide("ca.crl", true), fine},
		{"crl_file", "DER", openssl("crl -in ca.crl -outform DER"), fine},
		{"crl_file", "nothing", nil, "holds no CRL, neither in DER nor in PEM (-----BEGIN X509 CRL-----): it is empty"},
		{"crl_file", "a certificate", read("ca.crt"), "it holds a certificate"},
		{"crl_file", "a certificate in DER", openssl("x509 -in ca.crt -outform DER"), "it holds a certificate"},
		{"crl_file", "PKCS #7", openssl("crl2pkcs7 -in ca.crl -certfile ca.crt"), "openssl pkcs7 -print_certs, which prints the lists as well"},
		{"crl_file", "PKCS #7 in DER", openssl("crl2pkcs7 -in ca.crl -certfile ca.crt -outform DER"), "openssl pkcs7 -inform DER -print_certs, which prints the lists as well"},
		{"key_file", "a byte order mark", mark("server.key"), fine},
		{"key_file", "UTF-16", wide("server.key", true), fine},
		{"key_file", "nothing", nil, "holds no private key in PEM: it is empty"},
		{"key_file", "DER", openssl("pkey -in server.key -outform DER"), "convert it with openssl pkey -inform DER"},
		{"key_file", "PKCS #12", openssl("pkcs12 -export -in server.crt -inkey server.key -passout pass:x"), "convert it with openssl pkcs12 -nocerts"},
		{"key_file", "the public key", openssl("pkey -in server.key -pubout"), "it holds the public key, and the private one is needed"},
		{"key_file", "its certificate", read("server.crt"), "it holds a certificate alone: name the file of its key"},
		{"cert_file", "UTF-16", wide("server.crt", true), fine},
		{"cert_file", "PKCS #7", openssl("crl2pkcs7 -nocrl -certfile server.crt"), "convert it with openssl pkcs7 -print_certs"},
		// A root that says that another key has signed it is none to OpenSSL.
		{"ca_file", "a root with the identifier of another key", foreignRoot(t, openssl), "has its own name as its issuer's, but its authority key identifier is not its own"},
	} {
		if err := os.WriteFile("the.file", c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		config := "acl: {allow: [10.0.0.0/8]}\nbackend: {host: \"@postgresql\"}\nlisten: [{address: \"127.0.0.1:0\"}]\ntls: {client_cert: optional"
		for _, file := range [][2]string{{"cert_file", "server.crt"}, {"key_file", "server.key"}, {"ca_file", "ca.crt"}, {"crl_file", "ca.crl"}} {
			name := file[1]
			if file[0] == c.key {
				name = "the.file"
			}
			config += fmt.Sprintf(", %s: %s", file[0], name)
		}
		if err := os.WriteFile("pgwicket.yaml", []byte(config+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		status := run([]string{"check", "--config", "pgwicket.yaml"}, cli.Streams{In: os.Stdin, Out: &stdout, Err: &stderr})
		out := stdout.String() + stderr.String()
		about := strings.Contains(out, "tls."+c.key+": ")
		switch {
		case c.want == fine && about:
			t.Errorf("%s with %s: %s", c.key, c.name, out)
		case c.want != fine && (status != cli.BadConfig || !about || !strings.Contains(out, c.want)):
			t.Errorf("%s with %s: status %d, want %q: %s", c.key, c.name, status, c.want, out)
		}
	}
}

// foreignRoot is a self-issued certificate whose authority key identifier is that of another key.
func foreignRoot(t *testing.T, openssl func(string) []byte) []byte {
	t.Helper()
	const extensions = "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n"
	if err := os.WriteFile("root.ext", []byte(extensions), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout old.key -out old.crt -subj /CN=Root -days 30")
	openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout new.key -out new.csr -subj /CN=Root")
	return openssl("x509 -req -in new.csr -CA old.crt -CAkey old.key -set_serial 7 -days 30 -extfile root.ext")
}
