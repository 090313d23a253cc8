//go:build unix

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgconf"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// TestBackend makes a server on another machine wrong in each way that has to do with the
// network between the gate and it.
func TestBackend(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cert := &x509.Certificate{NotAfter: now.AddDate(1, 0, 0)}
	good := func() *server {
		return &server{
			examined: "connected as postgres",
			settings: map[string]string{"listen_addresses": "10.0.1.9", "ssl": "on", "ssl_min_protocol_version": "TLSv1.2", "ssl_ciphers": "HIGH:!aNULL:!3DES"},
			rules: []pgconf.Rule{
				rule("local all postgres peer"), rule("hostssl all app 10.0.1.5/32 scram-sha-256"), rule("hostssl all bob 10.0.1.5/32 cert map=gate"), rule("host all all all reject"),
			},
			mappings: []pgconf.Mapping{{Map: "gate", System: "gate", Role: "bob"}},
			roles:    []pgRole{{"app", false}, {"bob", false}, {"postgres", true}},
			unknown:  map[string]string{},
			gate:     gateState{rules: rulesFrom(t, []string{"postgres"})},
			sockets:  []socketState{{path: "/run/app/.s.PGSQL.5432", owner: "postgres", group: "app", dir: 0o750, socket: 0o777}},
			backend: &tcpBackend{
				host: &proxy.Host{Network: "tcp", Address: "10.0.1.9:5432", TLS: &tls.Config{ServerName: "db"}, SSLMode: "verify-full"},
				gate: netip.MustParseAddr("10.0.1.5"), server: netip.MustParseAddr("10.0.1.9"), now: now,
				tls: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, PeerCertificates: []*x509.Certificate{cert}},
			},
		}
	}
	first := func(text string) func(**server) {
		return func(s **server) { (*s).rules = append([]pgconf.Rule{rule(text)}, (*s).rules...) }
	}
	listen := func(addresses string) func(**server) {
		return func(s **server) { (*s).settings["listen_addresses"] = addresses }
	}
	ends := func(days int) func(**server) {
		return func(s **server) {
			(*s).backend.tls.PeerCertificates = []*x509.Certificate{{NotAfter: now.AddDate(0, 0, days)}}
		}
	}
	onLoopback := func(s **server) {
		(*s).backend.gate, (*s).backend.server = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		(*s).backend.host.Address, (*s).settings["listen_addresses"] = "localhost:5432", "localhost"
	}
	names := []string{"unix_socket", "backend_tls", "listen_addresses", "pg_hba_network", "superusers", "without_password", "ssl"}
	checks := func(s *server) []check[*server] {
		return slices.DeleteFunc(s.checks(), func(c check[*server]) bool {
			return !slices.Contains(names, c.name)
		})
	}
	testFaults(t, good, checks, []fault[*server]{
		{"unix_socket", func(s **server) { (*s).sockets = nil }, Skip, "on its own machine"},
		{"backend_tls", func(s **server) { (*s).backend.failed = "connection refused" }, Fail, "no session can start: connection refused"},
		{"backend_tls", func(s **server) { (*s).backend.tls = nil }, Fail, "in clear"},
		{"backend_tls", func(s **server) { onLoopback(s); (*s).backend.tls = nil }, Warn, "in clear"},
		{"backend_tls", ends(29), Warn, "the certificate of PostgreSQL ends on"},
		{"backend_tls", ends(6), Fail, "the certificate of PostgreSQL ends on"},
		{"backend_tls", func(s **server) {
			(*s).backend.tls.Version = tls.VersionTLS12
			(*s).backend.tls.CipherSuite = tls.TLS_RSA_WITH_AES_128_GCM_SHA256
		}, Warn, "no forward secrecy"},
		{"listen_addresses", listen("*"), Warn, "every network of its machine (*), and the gate needs 10.0.1.9"},
		{"listen_addresses", listen("10.0.1.9, 192.0.2.1"), Warn, "also listens on 192.0.2.1"},
		{"listen_addresses", listen("10.0.1.9, localhost"), Pass, ""},
		{"listen_addresses", onLoopback, Warn, "every account of its machine"},
		{"pg_hba_network", first("hostssl all all 10.0.0.0/8 scram-sha-256"), Fail, "allows other machines than the gate (10.0.1.5)"},
		{"pg_hba_network", first("hostssl all all samenet scram-sha-256"), Fail, "allows other machines than the gate"},
		{"pg_hba_network", first("hostssl all all all scram-sha-256"), Fail, "allows other machines than the gate"},
		{"pg_hba_network", first("hostssl all all 10.0.1.6/32 scram-sha-256"), Warn, "allows another machine than this gate"},
		{"pg_hba_network", first("hostssl all all gate.example.com scram-sha-256"), Warn, "what the DNS says"},
		{"pg_hba_network", first("host all all 10.0.1.5/32 scram-sha-256"), Warn, "also accepts connections in clear"},
		{"pg_hba_network", first("host all all samehost scram-sha-256"), Pass, ""},
		{"pg_hba_network", func(s **server) { first("hostssl all all 10.0.0.0/8 scram-sha-256")(s); onLoopback(s) }, Warn, "if PostgreSQL listened"},
		{"superusers", first("hostssl all postgres 10.0.0.0/8 scram-sha-256"), Fail, "around the gate"},
		{"superusers", func(s **server) {
			(*s).roles = append((*s).roles, pgRole{"dba", true})
			first("hostssl all dba 10.0.1.5/32 scram-sha-256")(s)
			(*s).gate.rules = nil
		}, Warn, `allow the superuser "dba"`},
		{"without_password", first("hostssl all app 10.0.1.5/32 trust"), Fail, "app can log in without a password"},
		{"without_password", func(s **server) { (*s).gate.rules = nil }, Fail, "the gate can log in as bob"},
		{"ssl", func(s **server) { (*s).settings["ssl"] = "off" }, Fail, "in clear"},
	})
	s := good()
	if f := s.checkBackendFirewall(); len(f) != 1 || f[0].Status != Skip || !strings.Contains(f[0].Fix, "tcp dport 5432 ip saddr 10.0.1.5 accept") {
		t.Errorf("%+v", f)
	}
	if onLoopback(&s); s.checkBackendFirewall()[0].Status != Pass {
		t.Errorf("on loopback: %+v", s.checkBackendFirewall())
	}
}

// backendLab is a server on TCP that a gate reaches with TLS.
type backendLab struct {
	*faultLab
	ca      *tlstest.CA
	address string // of the server and the gate
	host    string // with the port
	dir     string
}

func newBackendLab(t *testing.T) *backendLab {
	t.Helper()
	l := &backendLab{ca: tlstest.NewCA("backends"), address: ownAddress(t), dir: t.TempDir()}
	files := map[string][]byte{"ca.crt": l.ca.CertPEM(), "ca.crl": l.ca.CRL(nil)}
	server := l.ca.Server(l.address)
	files["server.crt"], files["server.key"] = server.CertPEM(), server.KeyPEM()
	prefix := netip.PrefixFrom(netip.MustParseAddr(l.address), netip.MustParseAddr(l.address).BitLen())
	o := pgtest.Options{
		Host: l.address, Files: files,
		HBA: "local all all peer map=test\nhostssl all postgres " + prefix.String() + " cert", Ident: "test root postgres\ntest postgres postgres",
		SQL: "create role app login connection limit 5; create database app; alter system set ssl = on; alter system set ssl_ca_file = 'ca.crt'; " +
			"alter system set ssl_crl_file = 'ca.crl'; alter system set ssl_ciphers = 'HIGH:!aNULL:!3DES'; select pg_reload_conf()",
	}
	db, err := pgtest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	l.faultLab = &faultLab{t, db, filepath.Join(filepath.Dir(db.SocketDir), "data"), o.HBA + "\n"}
	l.host = net.JoinHostPort(l.address, strconv.Itoa(db.Port))
	l.must(os.WriteFile(filepath.Join(l.dir, "ca.crt"), l.ca.CertPEM(), 0o600))
	l.must(l.ca.Client(pgtest.Superuser).WriteFiles(filepath.Join(l.dir, "gate.crt"), filepath.Join(l.dir, "gate.key")))
	return l
}

// ownAddress returns an address of this machine that is not loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// findings examines the server as a gate does that reaches it with this sslmode.
func (l *backendLab) findings(mode tlsconfig.SSLMode) []Finding {
	l.Helper()
	h := &proxy.Host{Network: "tcp", Address: l.host, SSLMode: string(mode), Clear: mode == tlsconfig.SSLPrefer}
	o := tlsconfig.ClientOptions{Mode: mode, Cert: filepath.Join(l.dir, "gate.crt"), Key: filepath.Join(l.dir, "gate.key")}
	if mode == tlsconfig.SSLVerifyFull {
		o.RootCert = filepath.Join(l.dir, "ca.crt")
	}
	client, problems := tlsconfig.LoadClient(o, nil, time.Now())
	if client == nil {
		l.Fatal(problems)
	}
	h.TLS = client.For(l.address)
	gate := gateState{rules: rulesFrom(l.T, []string{pgtest.Superuser}), hosts: []*proxy.Host{h}}
	t := target{user: pgtest.Superuser, database: "postgres", now: time.Now()}
	var all []Finding
	for _, s := range t.servers(context.Background(), gate) {
		all = append(all, s.findings()...)
	}
	return append(all, runChecks("gate", "", gate, []check[gateState]{{"backend", gateState.checkBackend}})...)
}

func (l *backendLab) serve(p *tlstest.Pair) {
	l.Helper()
	l.must(os.WriteFile(filepath.Join(l.data, "server.crt"), p.CertPEM(), 0o600))
	l.must(os.WriteFile(filepath.Join(l.data, "server.key"), p.KeyPEM(), 0o600))
	l.mustSQL("select pg_reload_conf()")
}

// A server on TCP is examined as the gate reaches it: with its certificate and over its TLS.
// Each fault is found, and gone after the fix that doctor prints.
func TestBackendOnTCP(t *testing.T) {
	t.Parallel()
	l := newBackendLab(t)
	find := func(mode tlsconfig.SSLMode, check string, status Status, text string) (f Finding) {
		t.Helper()
		var all []Finding
		for range 3 { // a reload takes a moment
			all = l.findings(mode)
			if at := has(all, made{check: check, status: status, text: text}); at >= 0 {
				return all[at]
			}
		}
		for _, f := range all {
			if f.Check == check || f.Check == "examined" {
				t.Errorf("%s: %v %s (%s)", f.Check, f.Status, f.Reason, f.Where)
			}
		}
		t.Fatalf("no %v %s with %q", status, check, text)
		return f
	}
	all := l.findings(tlsconfig.SSLVerifyFull)
	for check, text := range map[string]string{
		"examined": "connected as postgres", "backend_tls": "uses TLSv1.3", "listen_addresses": "where the gate connects to it", "pg_hba_network": "no line allows another machine",
		"backend": "TLS that verifies the server", "superusers": "", "ssl_certificate": "ends on", "ssl_crl": "ends on", "config_files": "only their owners", "unix_socket": "access to the socket",
	} {
		if has(all, made{check: check, status: Pass, text: text}) < 0 {
			t.Errorf("%s does not pass with %q: %+v", check, text, all)
		}
	}
	for _, c := range []struct {
		line   string
		status Status
		text   string
	}{
		{"hostssl app app 0.0.0.0/0 scram-sha-256", Fail, "allows other machines than the gate"},
		{"host app app " + l.address + "/32 scram-sha-256", Warn, "also accepts connections in clear"},
	} {
		l.write(l.hba + c.line + "\n")
		l.mend(find(tlsconfig.SSLVerifyFull, "pg_hba_network", c.status, c.text))
		find(tlsconfig.SSLVerifyFull, "pg_hba_network", Pass, "")
	}
	l.write(l.hba)
	l.serve(l.ca.Client(l.address, func(c *x509.Certificate) {
		c.ExtKeyUsage, c.IPAddresses, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.ParseIP(l.address)}, time.Now().AddDate(0, 0, 10)
	}))
	find(tlsconfig.SSLVerifyFull, "backend_tls", Warn, "the certificate of PostgreSQL ends on")
	find(tlsconfig.SSLVerifyFull, "ssl_certificate", Warn, "the certificate of PostgreSQL ends on")
	l.serve(l.ca.Server("elsewhere"))
	find(tlsconfig.SSLVerifyFull, "backend_tls", Fail, `no session can start`)
	l.serve(l.ca.Server(l.address))
	find(tlsconfig.SSLVerifyFull, "backend_tls", Pass, "")
	find(tlsconfig.SSLRequire, "backend", Fail, "is not verified")
	l.must(l.ca.Client(pgtest.Superuser, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, 3) }).WriteFiles(filepath.Join(l.dir, "gate.crt"), filepath.Join(l.dir, "gate.key")))
	find(tlsconfig.SSLVerifyFull, "backend_tls", Fail, "the certificate that the gate shows PostgreSQL ends on")
	l.must(l.ca.Client(pgtest.Superuser).WriteFiles(filepath.Join(l.dir, "gate.crt"), filepath.Join(l.dir, "gate.key")))
	l.write(l.hba + "host all all " + l.address + "/32 trust\n")
	l.mustSQL("alter system set ssl = off; select pg_reload_conf()")
	fix := find(tlsconfig.SSLPrefer, "backend_tls", Fail, "in clear").Fix
	find(tlsconfig.SSLVerifyFull, "backend_tls", Fail, "no session can start")
	_, statements, _ := strings.Cut(fix, "\n") // the first line is about files
	statements, _, _ = strings.Cut(statements, "and write")
	l.mustSQL(statements)
	l.write(l.hba)
	find(tlsconfig.SSLVerifyFull, "backend_tls", Pass, "uses TLSv1.3")
}

// The server reads its certificate and list for a superuser who is on another machine.
func TestRemoteDates(t *testing.T) {
	t.Parallel()
	l := newBackendLab(t)
	conninfo := func(user string) string {
		return "host=" + l.address + " port=" + strconv.Itoa(l.Port) + " user=" + user + " dbname=postgres sslmode=verify-ca sslrootcert=" + l.dir + "/ca.crt sslcert=" + l.dir + "/gate.crt sslkey=" + l.dir + "/gate.key"
	}
	l.must(os.WriteFile(filepath.Join(l.data, "ca.crl"), l.ca.CRL(func(c *tlstest.CRL) { c.NextUpdate = time.Now().AddDate(0, 0, 5) }), 0o600))
	l.write(l.hba + "hostssl all app " + l.address + "/32 trust\n")
	for _, c := range []struct {
		user   string
		list   Status
		reason string
	}{{pgtest.Superuser, Warn, "the list in ca.crl ends on"}, {"app", Skip, "permission denied"}} {
		r, err := ExaminePostgres(context.Background(), conninfo(c.user), time.Now(), nil)
		l.must(err)
		if has(r.Findings, made{check: "ssl_crl", status: c.list, text: c.reason}) < 0 {
			for _, f := range r.Findings {
				if f.Check == "ssl_crl" || f.Check == "ssl_certificate" || f.Check == "examined" {
					t.Errorf("%s: %+v", c.user, f)
				}
			}
		}
	}
}
