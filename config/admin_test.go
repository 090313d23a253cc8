package config

import (
	"path/filepath"
	"reflect"
	"testing"
)

// Health checks work while the file of a gate is being edited.
func TestAdminOf(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		text string
		want Admin
		tls  bool
		ok   bool
	}{
		{"admin: {socket: run/admin.sock}", Admin{Address: "127.0.0.1:10432", Socket: s.path("run/admin.sock")}, false, true},
		{"admin: {address: \"\", socket: /run/a.sock, tls: {cert_file: nowhere}}", Admin{Socket: "/run/a.sock"}, true, true},
		{"tls: {ciper: []}\nlisten: none\nadmin: {socket: a.sock}", Admin{Address: "127.0.0.1:10432", Socket: s.path("a.sock")}, false, true},
		{"admin: {socket: a.sock", Admin{}, false, false},
		{"", Admin{}, false, false},
	} {
		path := s.write(t, "pgwicket.yaml", []byte(c.text), 0o600)
		a, overTLS, problems := AdminOf(path)
		if !reflect.DeepEqual(a, c.want) || overTLS != c.tls || Failed(problems) == c.ok {
			t.Errorf("%q: %+v, TLS %v, %v", c.text, a, overTLS, problems)
		}
	}
	if _, _, problems := AdminOf(filepath.Join(s.dir, "missing.yaml")); !Failed(problems) {
		t.Error("a file that is missing has no problem")
	}
}

// An address that other hosts can reach needs client certificates or unprotected: true.
func TestAdminIsProtected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const files = "cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl"
	for admin, want := range map[string]bool{
		"address: 127.0.0.1:10432":                                                                       true,
		"address: '[::1]:10432'":                                                                         true,
		"address: 10.0.0.5:10432":                                                                        false,
		"address: 10.0.0.5:10432, unprotected: true":                                                     true,
		"address: 10.0.0.5:10432, tls: {" + files + "}":                                                  true,
		"address: 10.0.0.5:10432, tls: {client_cert: require, " + files + "}":                            true,
		"address: 10.0.0.5:10432, tls: {client_cert: optional, " + files + "}":                           false,
		"address: 10.0.0.5:10432, tls: {cert_file: server.crt, key_file: server.key, client_cert: none}": false,
		"address: 10.0.0.5:10432, unprotected: true, tls: {cert_file: server.crt, key_file: server.key, client_cert: none}": true,
	} {
		text := string(testdata(t, s, "defaults.good.yaml")) + "admin: {" + admin + "}\n"
		if cfg, problems := s.load(t, "pgwicket.yaml", text); (cfg != nil) != want {
			t.Errorf("%s: %v", admin, problems)
		}
	}
}
