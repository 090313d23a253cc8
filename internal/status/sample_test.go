package status

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"time"
)

// at is when every sample was taken.
var at = time.Date(2026, 11, 26, 11, 20, 30, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// withZeros adds what a gate reports with 0: every outcome that it has not had.
func (t Totals) withZeros() Totals {
	add := func(counts []Count, names string) []Count {
		for name := range strings.FieldsSeq(names) {
			if !slices.ContainsFunc(counts, func(c Count) bool { return c.Name == name }) {
				counts = append(counts, Count{Name: name})
			}
		}
		return counts
	}
	t.Refused = add(t.Refused, `source_not_allowed source_denied proxy_header_invalid proxy_header_refused probe invalid_packet plaintext repeated_request
		startup_timeout client_gone connection_limit source_limit rate_limit startup_limit not_tls tls_timeout tls_version tls_cipher tls_group tls_alpn
		tls_rejected_by_client handshake_too_large tls_failed certificate_missing certificate_expired certificate_not_yet_valid certificate_revoked
		certificate_unknown_ca certificate_wrong_purpose certificate_name_constraint certificate_weak_key certificate_invalid crl_missing crl_stale
		protocol_violation unsupported_protocol no_user reserved_setting invalid_parameter no_rule rule_rejected account_limit auth_backoff
		backend_unavailable shutting_down internal_error`)
	t.Ended = add(t.Ended, `authentication_failed backend_refused oauth_discovery login_timeout client_closed client_lost tls_record_limit backend_closed
		backend_lost idle_timeout unfinished_request session_lifetime drained drain_timeout`)
	t.CancelRequests = add(t.CancelRequests, "forwarded over_limit unknown_key failed")
	return t
}

// sample is a gate with something of everything, and nothing to complain of.
func sample() Status {
	day := 24 * time.Hour
	s := Status{
		Time: at, State: Ready, ShowsClients: true,
		Build: Build{
			Version: cmp.Or(os.Getenv("VERSION"), "0.1.0"), Go: "go1.26.6", Platform: "linux/amd64", Host: "db1", Config: "/etc/pgwicket/pgwicket.yaml",
			Started: at.Add(-23*day - 4*time.Hour),
		},
		Listeners: []Listener{
			{Address: "10.0.0.5:5432", LoadBalancers: []string{}},
			{Address: "10.0.0.6:5432", LoadBalancers: []string{"10.0.0.2", "10.0.0.3"}},
		},
		Policy: []Line{
			{"offers", "TLSv1.2 to TLSv1.3; TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, ECDHE-ECDSA-AES256-GCM-SHA384"},
			{"clients", "certificate required, checked for revocation"},
			{"sources", "from 10.20.0.0/16, 192.0.2.0/24, but not from 10.20.99.0/24; others are closed without a word"},
			{"rules", "application, reports, people, standby; the first that fits decides"},
			{"live sessions", "judged again after each reload and every 30s, and ended at once"},
			{"forwards to", "/run/postgresql/.s.PGSQL.5432"},
		},
		Certificates: []Certificate{
			{
				File: "/etc/pgwicket/ecdsa.crt", Subject: "CN=db.example.com,O=Example", Key: "ECDSA P-256",
				NotBefore: at.Add(-20 * day), NotAfter: at.Add(70 * day), StapledUntil: ptr(at.Add(5 * day)),
				Chain: []Link{{Subject: "CN=Example Servers G2,O=Example", NotAfter: at.Add(1300 * day)}},
			},
			{
				File: "/etc/pgwicket/rsa.crt", Subject: "CN=db.example.com,O=Example", Key: "RSA 3072",
				NotBefore: at.Add(-20 * day), NotAfter: at.Add(70 * day),
				Chain: []Link{{Subject: "CN=Example Servers G2,O=Example", NotAfter: at.Add(1300 * day)}},
			},
		},
		CRLs: []CRL{
			{File: "/etc/pgwicket/crl.d/root.crl", Issuer: "CN=Example Root,O=Example", Number: "12", Entries: 3, ThisUpdate: at.Add(-40 * day), NextUpdate: ptr(at.Add(50 * day))},
			{File: "/etc/pgwicket/crl.d/clients.crl", Issuer: "CN=Example Clients,O=Example", Number: "4711", Entries: 1284, ThisUpdate: at.Add(-26 * time.Hour), NextUpdate: ptr(at.Add(142 * time.Hour))},
		},
		Backends: []Backend{
			{Name: "default", Address: "/run/postgresql/.s.PGSQL.5432", LastSuccess: ptr(at.Add(-2 * time.Second)), LastFailure: ptr(at.Add(-9 * day)), Reason: "dial unix /run/postgresql/.s.PGSQL.5432: connect: no such file or directory"},
			{Name: "reports", Address: "db2.example.com:5432"},
		},
		Sessions: Sessions{
			Open: 187, Starting: 2,
			Users: []Count{{"app", 142}, {"reports", 31}, {"anna", 9}, {"jonas", 4}, {"replicator", 1}},
			Rules: []Count{{"application", 142}, {"reports", 31}, {"people", 13}, {"standby", 1}},
		},
		Locks: []Lock{
			{ID: "3fa8c01d", Filter: "cn jonas", Reason: "stolen laptop", By: "uid 0, pid 4711", Created: at.Add(-3*time.Hour - 2*time.Second), Until: ptr(at.Add(21 * time.Hour))},
			{ID: "77b0e2a9", Filter: `serial 1A2B issuer CN=Example Clients,O=Example`, By: "uid 0, pid 801", Created: at.Add(-50 * time.Hour)},
		}, LocksTotal: 2,
		Groups: []Groups{{
			Backend: "default", User: "pgwicket_groups", Known: true, KnownUntil: ptr(at.Add(4 * time.Minute)), LastSuccess: ptr(at.Add(-time.Minute)),
			Roles: []Role{{Name: "analysts", Members: 31}, {Name: "dba", Members: 3}},
		}},
		Audit: &Audit{File: "/var/log/pgwicket/audit.log", Sequence: 58_420, SHA256: "9f2d1c5be0a4477c8e3b6a1d5c0f7e2b94a86d3f1e5c7b2a0d9e8f7c6b5a4938"},
		Totals: Totals{
			Accepted:       91_842,
			Refused:        []Count{{"probe", 33_120}, {"source_not_allowed", 214}, {"certificate_missing", 38}, {"no_rule", 12}, {"certificate_expired", 3}, {"certificate_revoked", 2}},
			Ended:          []Count{{"client_closed", 57_903}, {"idle_timeout", 311}, {"client_lost", 27}, {"authentication_failed", 19}, {"certificate_revoked", 1}},
			CancelRequests: []Count{{"forwarded", 3}},
		},
		Limits: []Limit{
			{Key: "limits.max_connections", What: "Connections", Used: 189, Of: 1000},
			{Key: "limits.max_connections_per_source", What: "Connections of the busiest source", Used: 71, Of: 200},
			{Key: "limits.max_sessions_per_account", What: "Sessions of the busiest user and database", Used: 142},
			{Key: "limits.max_cancel_requests", What: "Cancel requests under way", Used: 0, Of: 64},
		},
		Reload: Reload{
			At: at.Add(-3 * time.Hour), Trigger: "files", Successful: true, InForceSince: at.Add(-3 * time.Hour),
			Files: []string{"/etc/pgwicket/crl.d/clients.crl"}, Problems: []Problem{},
		},
	}
	s.Totals = s.Totals.withZeros()
	refusal := func(ago time.Duration, outcome, source, user, database, subject, reason string) {
		s.Refusals = append(s.Refusals, Refusal{
			Time: at.Add(-ago), Outcome: outcome, Listener: "10.0.0.5:5432", Source: source,
			User: user, Database: database, CertSubject: subject, Reason: reason,
		})
	}
	refusal(40*time.Second, "certificate_missing", "10.20.7.31:51022", "app", "shop", "", "")
	refusal(5*time.Minute, "no_rule", "10.20.1.7:40118", "anna", "payroll", "CN=anna,O=Example", `no pgwicket rule for host "10.20.1.7", user "anna", database "payroll"`)
	refusal(3*time.Hour+2*time.Second, "certificate_revoked", "10.20.3.9:60544", "jonas", "shop", "CN=jonas,O=Example", `revoked on 2026-11-26 (keyCompromise), says the list of "CN=Example Clients,O=Example" (number 4711)`)
	s.Refusals[2].Session = true
	refusal(4*time.Hour, "authentication_failed", "10.20.4.4:38002", "reports", "shop", "CN=reports,O=Example", "PostgreSQL says 28P01")
	refusal(9*time.Hour, "source_not_allowed", "203.0.113.77:44210", "", "", "", "the address is in no network of acl.allow")
	refusal(31*time.Hour, "plaintext", "10.20.8.2:55510", "app", "shop", "", "startup packet without TLS")
	return s
}

// degraded is the same gate in the night when everything comes together.
func degraded() Status {
	s := sample()
	s.Certificates[0].NotAfter = at.Add(6 * 24 * time.Hour)
	s.Certificates[0].StapledUntil = ptr(at.Add(-time.Hour))
	s.Certificates[1].NotAfter = at.Add(-26 * time.Hour)
	s.CRLs[1].NextUpdate = ptr(at.Add(-50 * time.Minute))
	s.CRLs[0].NextUpdate = ptr(at.Add(3 * 24 * time.Hour))
	s.Limits[0].Used, s.Limits[1].Used = 861, 200
	s.Backends[0].LastFailure, s.Backends[0].Reason = ptr(at.Add(-time.Second)), "dial unix /run/postgresql/.s.PGSQL.5432: connect: connection refused"
	s.Reload = Reload{
		At: at.Add(-4 * time.Minute), Trigger: "command", InForceSince: at.Add(-3 * time.Hour), Files: []string{"/etc/pgwicket/pgwicket.yaml", "/etc/pgwicket/rsa.crt"},
		Problems: []Problem{
			{"/etc/pgwicket/pgwicket.yaml", 12, "tls.certificates[1].key_file", `"/etc/pgwicket/rsa.key" is not the key of the certificate in "/etc/pgwicket/rsa.crt": give the pair that was made together`, false},
			{"/etc/pgwicket/pgwicket.yaml", 31, "acl.rules[2].users[0]", `"samname" is not known; did you mean "samename"?`, false},
			{"/etc/pgwicket/pgwicket.yaml", 40, "acl.allow[3]", "0.0.0.0/0 allows every address; list the networks of the clients", true},
		},
	}
	s.Totals.Refused = append([]Count{{"crl_stale", 8113}}, slices.DeleteFunc(s.Totals.Refused, func(c Count) bool { return c.Name == "crl_stale" })...)
	for i := range 6 {
		s.Refusals = append([]Refusal{{
			Time: at.Add(time.Duration(i-7) * time.Second), Outcome: "crl_stale", Listener: "10.0.0.5:5432", Source: "10.20.7.31:5104" + string(rune('0'+i)), User: "app", Database: "shop",
			CertSubject: "CN=app,O=Example", Reason: `the list of "CN=Example Clients,O=Example" (number 4711) was to be renewed on 2026-11-26T10:30:30Z`,
		}}, s.Refusals...)
	}
	return s
}

// empty is a gate that has just been started, and shows nobody.
func empty() Status {
	s := sample()
	s.ShowsClients = false
	s.Build.Started = at.Add(-8 * time.Second)
	s.Listeners = s.Listeners[:1]
	s.Certificates = []Certificate{{
		File: "/etc/pgwicket/server.crt", Subject: "CN=db.example.com", Key: "ECDSA P-256", NotBefore: at.Add(-time.Hour), NotAfter: at.Add(90 * 24 * time.Hour),
	}}
	s.CRLs, s.Refusals, s.Sessions, s.Totals = nil, nil, Sessions{}, Totals{}.withZeros()
	s.Backends = []Backend{{Name: "default", Address: s.Backends[0].Address}}
	for i := range s.Limits {
		s.Limits[i].Used = 0
	}
	s.Reload = Reload{At: s.Build.Started, InForceSince: s.Build.Started, Trigger: "start", Successful: true, Problems: []Problem{
		{"/etc/pgwicket/pgwicket.yaml", 4, "tls.crl_file", "is missing: a stolen client certificate cannot be revoked (crl_dir does as well)", true},
	}}
	return s
}
