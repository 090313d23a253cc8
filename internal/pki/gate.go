package pki

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const gateConfig = `# Written by "pgwicket ca server". config.example.yaml explains every key.
listen:
  - address: %s
tls:
  cert_file: %s
  key_file: %s
  ca_file: %s
  crl_file: %s
acl:
  # The networks that clients come from.
  allow: [127.0.0.0/8, "::1", 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "fc00::/7"]
  rules:
    # Each client may use the role that its certificate names.
    - {name: own, action: allow, databases: [all], users: [samename]}
backend:
  host: %s
admin:
  socket: %s
`

// gatePort is beside the 5432 of PostgreSQL.
const gatePort = "6432"

// WriteGateConfig writes a configuration for a gate with the certificate of a server, which
// was issued for r, and returns the address that it listens on: the first one of the
// certificate. backend is the directory of PostgreSQL's socket. The file must not exist.
func (c *CA) WriteGateConfig(path string, r *Request, backend string) (listen string, err error) {
	listen = net.JoinHostPort("0.0.0.0", gatePort)
	if len(r.IPs) > 0 {
		listen = net.JoinHostPort(r.IPs[0].String(), gatePort)
	}
	values := []any{quote(listen)}
	socket := filepath.Join(filepath.Dir(path), "admin.sock")
	for _, file := range []string{c.CertFile(r.Name), c.KeyFile(r.Name), c.TrustFile(), c.ListFile(), backend, socket} {
		if file, err = filepath.Abs(file); err != nil {
			return "", err
		}
		values = append(values, quote(file))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // it holds no secret, and the gate may have another account
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(f, gateConfig, values...)
	if closing := f.Close(); err == nil {
		err = closing
	}
	return listen, err
}

// Rule returns an entry of acl.rules that admits a client.
func (r *Request) Rule() string {
	certificate := "cn: " + literal(r.CommonName)
	if len(r.URIs) > 0 {
		certificate += ", uri: " + literal(r.URIs[0].String())
	}
	return fmt.Sprintf("- {name: %s, action: allow, databases: [all], users: [%s], certificate: {%s}}", quote(r.Name), literal(r.CommonName), certificate)
}

// literal writes a name for acl.rules. One that would be a keyword or a pattern there becomes the
// regular expression that matches it alone.
func literal(name string) string {
	if slices.Contains([]string{"all", "samename", "sameuser"}, name) || strings.ContainsAny(name[:1], "/+@") || strings.ContainsAny(name, `*\`) {
		name = "/^" + regexp.QuoteMeta(name) + "$"
	}
	return quote(name)
}

// quote writes a text as JSON, which is YAML, too.
func quote(text string) string {
	quoted, _ := json.Marshal(text) // cannot fail for a string
	return string(quoted)
}
