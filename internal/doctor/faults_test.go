//go:build unix

package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// made is one way to make a PostgreSQL wrong: what doctor must find then, and not before,
// and not after its fix.
type made struct {
	check  string
	status Status
	wrong  string // SQL; or a line of pg_hba.conf after "hba: "; or a command of sh after "sh: "
	text   string // in the reason, where it is wrong
	mend   string // as wrong; empty: the fix that doctor prints
	since  int    // major releases to which it applies, 0: all
	before int
}

// faultsOfServer are all of them, by heading.
func faultsOfServer() []made {
	const table = "create table %s (id int); "
	return slices.Concat([]made{
		{check: "data_checksums", status: Warn, text: "off", before: 18},
		{check: "data_directory_files", status: Note, wrong: `sh: touch "$PGDATA/old dump.sql"`, text: `"old dump.sql"`},
		{check: "tablespace_in_data_directory", status: Note, wrong: `sh: mkdir "$PGDATA/inner" && chown --reference="$PGDATA" "$PGDATA/inner" && echo "create tablespace inner_space location '$PGDATA/inner'" | psql -X -U postgres -d postgres`, text: "inner_space"},
		{check: "config_files", status: Fail, wrong: `sh: chmod o+w "$PGDATA/pg_hba.conf"`, text: "every account of this machine can write"},
		{check: "config_files", status: Warn, wrong: `sh: chmod g+w "$PGDATA/pg_ident.conf"`, text: "its group can write"},
		{check: "library_files", status: Fail, wrong: `sh: mkdir -m 777 "$PGDATA/../libraries"; echo "alter system set dynamic_library_path = '\$libdir:$PGDATA/../libraries'; select pg_reload_conf()" | psql -X -U postgres -d postgres`, text: "mode 0777"},
		{check: "library_files", status: Fail, wrong: `sh: printf '#!/bin/sh\n' > "$PGDATA/../clean.sh"; chmod 777 "$PGDATA/../clean.sh"; echo "alter system set archive_cleanup_command = '$(readlink -f "$PGDATA/../clean.sh") \"%r\"'; select pg_reload_conf()" | psql -X -U postgres -d postgres`, text: "mode 0777"},
		{check: "config_files", status: Fail, wrong: `sh: mkdir -m 777 "$PGDATA/conf.d" && echo "work_mem = 4MB" > "$PGDATA/conf.d/a.conf" && chmod 600 "$PGDATA/conf.d/a.conf" && chown -R --reference="$PGDATA" "$PGDATA/conf.d" && echo "include_dir 'conf.d'" >> "$PGDATA/postgresql.conf"`, text: "put other files in the place"},
	}, transportFaults(), authenticationFaults(), roleFaults(), []made{
		{check: "schema_public_create", status: Warn, text: "postgres.public", before: 15},
		{check: "schema_public_create", status: Warn, wrong: "grant create on schema public to public", text: "postgres.public", since: 15},
		{check: "database_public_create", status: Warn, wrong: "grant create on database app to public", text: "app"},
		{check: "schema_public_create", status: Warn, wrong: "create schema c1; grant create on schema c1 to app with grant option; set role app; grant create on schema c1 to public", text: "postgres.c1"},
		{check: "database_public_create", status: Warn, wrong: "grant create on database app to app with grant option; set role app; grant create on database app to public", text: "app"},
		{check: "database_public", status: Note, text: "app"},
		{check: "table_public_write", status: Fail, wrong: fmt.Sprintf(table, "w1") + "grant insert, select on w1 to public", text: "postgres.public.w1"},
		{check: "table_public_write", status: Fail, wrong: fmt.Sprintf(table, "w2") + "grant update (id) on w2 to public", text: "postgres.public.w2"},
		{check: "table_public_write", status: Fail, wrong: fmt.Sprintf(table, "w3") + "grant insert on w3 to public; grant insert, update (id) on w3 to app with grant option; set role app; grant insert, update (id) on w3 to public", text: "postgres.public.w3"},
		{check: "table_public_read", status: Warn, wrong: fmt.Sprintf(table, "r1") + "grant select on r1 to public", text: "postgres.public.r1"},
		{check: "table_public_read", status: Warn, wrong: "create sequence s1; grant usage on sequence s1 to public", text: "postgres.public.s1"},
		{check: "large_objects_public", status: Warn, wrong: "select lo_create(4711); grant select on large object 4711 to public", text: "large object 4711"},
		{check: "catalog_public", status: Fail, wrong: "grant execute on function pg_read_file(text) to public", text: "pg_read_file(text)"},
		{check: "large_objects_public", status: Warn, wrong: "select lo_create(4712); grant select on large object 4712 to app with grant option; set role app; grant select on large object 4712 to public", text: "large object 4712"},
		{check: "catalog_public", status: Fail, wrong: "grant select on pg_authid to public", text: "pg_authid"},
		{check: "catalog_public", status: Fail, wrong: "grant select (rolpassword) on pg_authid to public", text: "pg_authid.rolpassword"},
		{check: "definer_search_path", status: Fail, wrong: "create function d1(text) returns int security definer language sql as 'select 1'", text: "public.d1(text)"},
		{check: "definer_search_path", status: Fail, wrong: "create procedure d2() security definer set search_path = '$user', public language sql as 'select 1'", text: "public.d2()"},
		{check: "definer_pg_temp", status: Warn, wrong: "create function d3() returns int security definer set search_path = public language sql as 'select 1'", text: "public.d3()"},
		{check: "definer_public", status: Warn, wrong: "create function d4() returns int security definer set search_path = pg_catalog, pg_temp language sql as 'select 1'", text: "public.d4()"},
		{check: "definer_public", status: Warn, wrong: "create function d5() returns int security definer set search_path = pg_catalog, pg_temp language sql as 'select 1'; revoke execute on function d5 from public; grant execute on function d5 to app with grant option; set role app; grant execute on function d5 to public", text: "public.d5()"},
		{check: "untrusted_functions", status: Warn, wrong: "create language untrusted handler plpgsql_call_handler inline plpgsql_inline_handler validator plpgsql_validator; create function u1() returns int language untrusted as 'begin return 1; end'", text: "public.u1() (untrusted)"},
		{check: "event_triggers", status: Fail, wrong: "create function e1() returns event_trigger language plpgsql as 'begin end'; alter function e1() owner to app; create event trigger e1 on ddl_command_end execute function e1()", text: "e1 (public.e1() of app)"},
		{check: "shadowing_functions", status: Note, wrong: "create function lower(varchar) returns text language sql as 'select 1::text'; alter function lower(varchar) owner to app", text: "public.lower(character varying) of app"},
		{check: "extensions_risky", status: Note, wrong: "create extension pageinspect", text: "pageinspect"},
		{check: "row_security_off", status: Fail, wrong: fmt.Sprintf(table, "p1") + "create policy one on p1 to app using (id = 1)", text: "public.p1"},
		{check: "row_security_not_forced", status: Warn, wrong: fmt.Sprintf(table, "p2") + "alter table p2 enable row level security, owner to app", text: "public.p2 (of app)"},
		{check: "row_security_partitions", status: Warn, wrong: "create table p3 (id int) partition by list (id); create table p3_1 partition of p3 default; alter table p3 enable row level security; grant select on p3_1 to app", text: "public.p3_1"},
		{check: "policy_true", status: Warn, wrong: fmt.Sprintf(table, "p4") + "alter table p4 enable row level security; create policy every on p4 using (true)", text: "every on public.p4"},
		{check: "view_row_security", status: Warn, wrong: fmt.Sprintf(table, "p5") + "alter table p5 enable row level security; create view v5 as select * from p5; grant select on v5 to app", text: "public.v5"},
		{check: "view_row_security", status: Warn, wrong: fmt.Sprintf(table, "p6") + "alter table p6 enable row level security; create materialized view m6 as select * from p6; grant select on m6 to app, public", text: "public.m6"},
		{check: "view_row_security", status: Warn, wrong: fmt.Sprintf(table, "p7") + "alter table p7 enable row level security; create view v7 as select * from p7; create view w7 as select * from v7; create view x7 as select * from w7; grant select on x7 to app", text: "public.x7"},
		{check: "foreign_server_public", status: Warn, wrong: "create extension postgres_fdw; create server one foreign data wrapper postgres_fdw; grant usage on foreign server one to public", text: "server one"},
		{check: "foreign_server_public", status: Warn, wrong: "create server two foreign data wrapper postgres_fdw; grant usage on foreign server two to app with grant option; set role app; grant usage on foreign server two to public", text: "server two"},
		{check: "user_mapping_public", status: Fail, wrong: "create user mapping for public server one options (user 'x', password 'y')", text: "postgres.one"},
		{check: "user_mapping_no_password", status: Warn, wrong: "create user mapping for app server one options (user 'x', password_required 'false')", text: "app on one"},
		{check: "user_mapping_no_password", status: Warn, wrong: "create user mapping for app server two options (user 'x', password_required 'OFF')", text: "app on two"},
		{check: "user_mapping_password", status: Note, wrong: "create user mapping for dba server one options (user 'x', password 'y')", text: "dba on one"},
		{check: "publication_all_tables", status: Note, wrong: "create publication everything for all tables", text: "everything"},
		{check: "subscription_password", status: Note, wrong: "create subscription sub connection 'host=/nowhere user=x password=hidden dbname=x' publication p with (connect = false)", text: "sub"},
		{check: "subscription_password", status: Note, wrong: "create subscription uri connection 'postgresql://x:hidden@nowhere/x' publication p with (connect = false)", text: "uri"},
		{check: "subscription_password", status: Note, wrong: "create subscription uri2 connection 'postgres://x@nowhere/x?password=hidden&sslmode=require' publication p with (connect = false)", text: "uri2"},
		{check: "key_in_source", status: Warn, wrong: "create function k1(bytea) returns text language plpgsql as $$begin return pgp_sym_decrypt($1, 'secret key'); end$$", text: "public.k1(bytea)", mend: "drop function k1"},
		{check: "key_in_source", status: Warn, wrong: "create function k2(bytea) returns text language plpgsql as 'begin return pgp_sym_decrypt($1, $k$secret key$k$); end'", text: "public.k2(bytea)", mend: "drop function k2"},
		{check: "key_in_source", status: Warn, wrong: "create extension if not exists pgcrypto; create function k3(t text) returns bytea return pgp_sym_encrypt(t, 'secret key')", text: "public.k3(text)", mend: "drop function k3"},
		{check: "secret_columns", status: Note, wrong: "create domain word as text; create table c2 (\"apiKey\" word)", text: "public.c2.\"apiKey\"", mend: "drop table c2"},
		{check: "secret_columns", status: Note, wrong: "create table c1 (customer text, card_number text)", text: "public.c1.card_number", mend: "alter table c1 rename card_number to card_number_hash"},
		{check: "extension_outdated", status: Note, wrong: "create extension pg_stat_statements version '1.4'", text: "pg_stat_statements 1.4"},
	}, settingFaults())
}

func transportFaults() []made {
	certificate := func(days string) string {
		return `cd "$PGDATA" && openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.crt -subj /CN=db -days ` + days + ` 2>/dev/null && chown --reference=. server.key server.crt && chmod 600 server.key && touch index.txt && echo 01 > crlnumber && ` +
			`printf '[ca]\ndefault_ca=a\n[a]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\n' > ca.conf && openssl ca -config ca.conf -gencrl -crldays ` + days + ` -keyfile server.key -cert server.crt -out server.crl 2>/dev/null && chown --reference=. server.crl && ` +
			`printf "alter system set ssl = on;\nalter system set ssl_ca_file = 'server.crt';\nalter system set ssl_crl_file = 'server.crl';\nselect pg_reload_conf()" | psql -X -U postgres -d postgres`
	}
	return []made{
		{check: "ssl_certificate", status: Warn, wrong: "sh: " + certificate("3"), text: "the certificate of PostgreSQL ends on", mend: "sh: " + certificate("300")},
		{check: "ssl_crl", status: Warn, wrong: "sh: " + certificate("3"), text: "the list in server.crl ends on", mend: "sh: " + certificate("300")},
	}
}

func authenticationFaults() []made {
	verifier := "SCRAM-SHA-256$1000:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	return []made{
		{check: "pg_hba_trust", status: Fail, wrong: "hba: host app app 127.0.0.1/32 trust", text: `"host app app 127.0.0.1/32 trust"`},
		{check: "pg_hba_method", status: Warn, wrong: "hba: host app app 127.0.0.1/32 md5", text: "accepts MD5"},
		{check: "pg_hba_method", status: Warn, wrong: "hba: local app app password", text: "in clear"},
		{check: "pg_hba_shadowed", status: Warn, wrong: "hba: host app app 127.0.0.0/8 scram-sha-256\nhost app app 127.0.0.1/32 reject", text: "rejects nobody", mend: "hba: host app app 127.0.0.1/32 reject\nhost app app 127.0.0.0/8 scram-sha-256"},
		{check: "pg_hba_shadowed", status: Note, wrong: "hba: host all all all scram-sha-256\nhost app app 10.0.0.0/8 scram-sha-256", text: "never decides", mend: "hba: host app app 10.0.0.0/8 scram-sha-256\nhost all all all scram-sha-256"},
		{check: "pg_hba_helpers", status: Warn, wrong: "hba: host app app 127.0.0.1/32 ldap ldapserver=localhost ldapprefix=x", text: "LDAP", mend: "hba: host app app 127.0.0.1/32 ldap ldapserver=localhost ldapprefix=x ldaptls=1"},
		{check: "pg_hba_helpers", status: Warn, wrong: "hba: host app app 127.0.0.1/32 radius radiusservers=127.0.0.1 radiussecrets=hidden", text: "RADIUS", before: 19},
		{check: "password_guessed", status: Fail, wrong: "alter role app password 'app'", text: "app", mend: "alter role app password 'x8Uq0-lesser-known'"},
		{check: "password_guessed", status: Fail, wrong: "set password_encryption = md5; alter role app password 'secret'", text: "app", mend: "alter role app password 'x8Uq0-lesser-known'"},
		{check: "password_encryption", status: Warn, wrong: "set password_encryption = md5; alter role app password 'long enough'", text: "stored as MD5", mend: "alter role app password 'x8Uq0-lesser-known'"},
		{check: "password_reused", status: Warn, wrong: "alter role app password '" + verifier + "'; alter role dba password '" + verifier + "'", text: "app, dba", mend: "alter role app password null; alter role dba password null"},
		{check: "password_iterations", status: Warn, wrong: "alter role app password '" + verifier + "'", text: "app", mend: "alter role app password null"},
		{check: "scram_iterations", status: Warn, wrong: "alter system set scram_iterations = 1000; select pg_reload_conf()", text: "is 1000", since: 16},
		{check: "role_expired", status: Note, wrong: "create role old login valid until '2020-01-01'", text: "old"},
		{check: "authentication_timeout", status: Note, wrong: "alter system set authentication_timeout = 300; select pg_reload_conf()", text: "is 300"},
		{check: "connection_limit", status: Note, wrong: "create role many login", text: "many"},
		{check: "auth_delay", status: Note, text: "nothing delays"},
		{check: "password_complexity", status: Note, wrong: "alter role app password 'x8Uq0-lesser-known'", text: "nothing checks"},
	}
}

func roleFaults() []made {
	return []made{
		{check: "superuser_roles", status: Warn, wrong: "create role second login superuser", text: "second"},
		{check: "role_power", status: Fail, wrong: "create role operators; grant operators to app; grant pg_execute_server_program to operators", text: "operators (of pg_execute_server_program)"},
		{check: "role_createrole", status: Fail, wrong: "create role maker login createrole", text: "maker", before: 16},
		{check: "role_createrole", status: Note, wrong: "create role maker login createrole", text: "maker", since: 16},
		{check: "role_bypassrls", status: Warn, wrong: "create role seer login bypassrls", text: "seer"},
		{check: "role_createdb", status: Note, wrong: "create role builder login createdb", text: "builder"},
		{check: "role_all_data", status: Note, wrong: "grant pg_read_all_data to app", text: "app (of pg_read_all_data)"},
		{check: "role_replication", status: Warn, wrong: "create role copier login replication; grant pg_monitor to copier", text: "copier"},
		{check: "role_unused", status: Note, wrong: "create role nobody_uses", text: "nobody_uses"},
		{check: "role_settings", status: Warn, wrong: "alter role app set log_statement = none", text: "log_statement=none of role app"},
		{check: "role_settings", status: Warn, wrong: "alter database app set password_encryption = md5", text: "password_encryption=md5 of database app"},
		{check: "role_settings", status: Warn, wrong: "alter role app set log_min_messages = 'PANIC'", text: "log_min_messages=PANIC of role app"},
		{check: "parameter_grants", status: Warn, wrong: "grant alter system on parameter archive_command to app with grant option; set role app; grant alter system on parameter archive_command to dba", text: "alter system on archive_command to app, alter system on archive_command to dba", since: 15},
		{check: "parameter_grants", status: Warn, wrong: "grant alter system on parameter archive_command to app", text: "alter system on archive_command to app", since: 15},
		{check: "default_privileges", status: Warn, wrong: "alter default privileges for role app in schema public grant select on tables to public", text: "tables of app to public in schema public"},
		{check: "default_privileges", status: Warn, wrong: "alter default privileges for role dba grant all on sequences to public", text: "sequences of dba to public"},
		{check: "owner_login", status: Note, wrong: "create role dba_owner login; create schema taken; create table taken.t (id int); alter table taken.t owner to dba", text: "postgres.dba (1 table)"},
		{check: "owner_login", status: Note, wrong: "create schema owned; create table owned.t (id int); alter table owned.t owner to dba", text: "postgres.dba (1 table)"},
	}
}

// settingFaults set parameters wrong; the others need a library or a certificate.
func settingFaults() (all []made) {
	for _, f := range []struct {
		check    string
		status   Status
		settings string // name = value, ...
		text     string
	}{
		{"log_line_prefix", Note, "log_line_prefix = '%m '", "lacks the process (%p), the role (%u), the database (%d)"},
		{"log_statement", Note, "", "is none"},
		{"log_min_messages", Note, "log_min_messages = fatal", "is fatal"},
		{"log_min_error_statement", Note, "log_min_error_statement = panic", "is panic"},
		{"log_error_verbosity", Note, "log_error_verbosity = terse", "is terse"},
		{"log_hostname", Note, "log_hostname = on", "is on"},
		{"log_timezone", Note, "log_timezone = 'Asia/Tokyo'", "is Asia/Tokyo"},
		{"log_parameter_max_length_on_error", Note, "log_parameter_max_length_on_error = 100", "is 100"},
		{"debug_print_parse", Note, "debug_print_parse = on", "is on"},
		{"debug_print_rewritten", Note, "debug_print_rewritten = on", "is on"},
		{"debug_print_plan", Note, "debug_print_plan = on", "is on"},
		{"syslog_sequence_numbers", Note, "syslog_sequence_numbers = off; log_destination = 'stderr,syslog'", "is off"},
		{"syslog_split_messages", Note, "syslog_split_messages = off; log_destination = 'stderr,syslog'", "is off"},
		{"lo_compat_privileges", Fail, "lo_compat_privileges = on", "are not checked"},
		{"row_security", Note, "row_security = off", "is off"},
		{"standard_conforming_strings", Warn, "standard_conforming_strings = off", "is off"},
		{"backslash_quote", Warn, "backslash_quote = on", "is on"},
		{"allow_system_table_mods", Warn, "allow_system_table_mods = on", "is on"},
		{"idle_in_transaction_session_timeout", Note, "", "is 0"},
		{"developer_options", Warn, "zero_damaged_pages = on", "zero_damaged_pages is on"},
		{"primary_conninfo", Warn, "primary_conninfo = 'host=10.0.0.1 user=x sslmode=prefer'", "is not verified"},
		{"password_encryption", Warn, "password_encryption = md5", "is md5"},
	} {
		m := made{check: f.check, status: f.status, text: f.text}
		for set := range strings.SplitSeq(f.settings, "; ") {
			if set != "" {
				m.wrong += "alter system set " + set + "; "
			}
		}
		if m.wrong != "" {
			m.wrong += "select pg_reload_conf()"
		}
		all = append(all, m)
	}
	return append(all,
		made{check: "log_replication_commands", status: Note, wrong: "create role standby login replication", text: "is off"},
		made{check: "wal_archiving", status: Note, text: "archive_mode is off", mend: "alter system set archive_mode = on; alter system set archive_command = 'cp %p /nowhere/%f'; -- restart"},
		made{check: "wal_archiving", status: Warn, wrong: "alter system set archive_command = '/bin/true'; select pg_reload_conf()", text: "archives nothing", mend: "alter system set archive_command = 'cp %p /nowhere/%f'; select pg_reload_conf()"},
		made{check: "pending_restart", status: Note, wrong: "alter system set max_worker_processes = 9; select pg_reload_conf()", text: "max_worker_processes"},
		made{check: "settings_files", status: Warn, wrong: `sh: echo "no_such_parameter = 1" >> "$PGDATA/postgresql.conf"`, text: "no_such_parameter", mend: `sh: sed -i /no_such_parameter/d "$PGDATA/postgresql.conf"`},
	)
}

// faultLab is a PostgreSQL that is made wrong and right again.
type faultLab struct {
	*testing.T
	*pgtest.Server
	data, hba string
}

func newFaultLab(t *testing.T, o pgtest.Options) *faultLab {
	t.Helper()
	o.HBA, o.Host = "local all all trust", "127.0.0.1"
	o.SQL = "create role app login connection limit 5; create role dba login connection limit 5; create database app"
	db, err := pgtest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return &faultLab{t, db, filepath.Join(filepath.Dir(db.SocketDir), "data"), o.HBA + "\n"}
}

// examine returns all that is found.
func (l *faultLab) examine() []Finding {
	l.Helper()
	r, err := ExaminePostgres(context.Background(), "host="+l.SocketDir+" port="+strconv.Itoa(l.Port)+" user=postgres dbname=postgres", time.Now(), nil)
	l.must(err)
	for _, f := range r.Findings {
		if f.Status == Skip {
			l.Errorf("skipped: %+v", f)
		}
	}
	return r.Findings
}

// run makes a change, as made.wrong describes it.
func (l *faultLab) run(change string) {
	l.Helper()
	if lines, ok := strings.CutPrefix(change, "hba: "); ok {
		l.write(l.hba + lines + "\n")
		return
	}
	command, isShell := strings.CutPrefix(change, "sh: ")
	for _, word := range []string{"chmod ", "mv ", "pg_checksums "} {
		isShell = isShell || strings.HasPrefix(change, word)
	}
	switch {
	case strings.HasPrefix(change, "pg_checksums"):
		l.Kill()
		l.must(l.Restart(l.Context())) // after recovery, for a clean shutdown
		l.shell(`"$BIN/pg_ctl" stop -w -D "$PGDATA"; "$BIN/` + strings.Replace(command, "pg_checksums", `pg_checksums"`, 1))
		l.must(l.Restart(l.Context()))
	case isShell:
		l.shell(strings.ReplaceAll(command, "ELSEWHERE", filepath.Join(l.TempDir(), "gone")))
	default:
		_, err := l.SQL(change)
		l.must(err)
		if strings.Contains(change, "restart") {
			l.Kill()
			l.must(l.Restart(l.Context()))
		}
	}
}

func (l *faultLab) shell(command string) {
	l.Helper()
	cmd := exec.Command("sh", "-c", command)
	if strings.Contains(command, "pg_ctl") && os.Geteuid() == 0 {
		cmd = exec.Command("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-c", command)
	}
	cmd.Env = pgtest.Environ("PGDATA="+l.data, "BIN="+l.BinDir, "PGHOST="+l.SocketDir, "PGPORT="+strconv.Itoa(l.Port))
	cmd.Dir = l.SocketDir
	if out, err := cmd.CombinedOutput(); err != nil {
		l.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (l *faultLab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *faultLab) write(hba string) {
	l.Helper()
	l.must(os.WriteFile(filepath.Join(l.data, "pg_hba.conf"), []byte(hba), 0o600))
	_, err := l.SQL("select pg_reload_conf()")
	l.must(err)
}

// examineUntil examines until all faults are found, or none is any more: a reload takes a
// moment. It gives up after three times.
func (l *faultLab) examineUntil(batch []made, found bool) (all []Finding) {
	l.Helper()
	for range 3 {
		all = l.examine()
		if !slices.ContainsFunc(batch, func(m made) bool { return (has(all, m) >= 0) != found }) {
			break
		}
	}
	return all
}

// mend runs the fix of a finding, as a DBA would paste it.
func (l *faultLab) mend(f Finding) {
	l.Helper()
	_, lines, ok := strings.Cut(f.Fix, "write instead: ")
	if !ok {
		l.run(f.Fix)
		return
	}
	lines, _, _ = strings.Cut(lines, "\nselect ")
	l.write(l.hba + lines + "\n")
}

func has(findings []Finding, m made) int {
	return slices.IndexFunc(findings, func(f Finding) bool {
		return f.Check == m.check && f.Status == m.status && strings.Contains(f.Reason, m.text)
	})
}

// TestFaultsOfServer makes a PostgreSQL wrong in each way, and right again by what doctor
// prints.
func TestFaultsOfServer(t *testing.T) {
	t.Parallel()
	testFaultsOfServer(t, pgtest.Options{Settings: []string{"timezone=UTC"}}, 15)
}

// conflict returns what two faults cannot both change at the same time.
func (m made) conflict() string {
	switch {
	case strings.HasPrefix(m.wrong, "hba: "):
		return "pg_hba.conf"
	case strings.Contains(m.wrong, "openssl"):
		return "server.crt"
	case strings.Contains(m.wrong, "alter role app password"):
		return "the password of app"
	}
	return m.check
}

// restarts returns 1 if the mending restarts the server, and 0 if it does not.
func (m made) restarts(wrong []Finding) int {
	text := m.mend
	if at := has(wrong, m); at >= 0 && text == "" {
		text = wrong[at].Fix
	}
	if strings.Contains(text, "restart") || strings.Contains(text, "pg_checksums") {
		return 1
	}
	return 0
}

// breaksFile reports whether the fault is a mistake in postgresql.conf, for which PostgreSQL
// applies nothing of the file at a reload (ProcessConfigFileInternal in guc.c): no other parameter could
// be changed beside it.
func (m made) breaksFile() bool { return m.check == "settings_files" }

// batches returns the faults of a release in groups whose faults can be made at once.
func batches(release int) (all [][]made) {
	for _, m := range faultsOfServer() {
		if release < m.since || m.before > 0 && release >= m.before {
			continue
		}
		at := slices.IndexFunc(all, func(b []made) bool {
			return !slices.ContainsFunc(b, func(o made) bool {
				return o.check == m.check || o.conflict() == m.conflict() || o.breaksFile() || m.breaksFile()
			})
		})
		if at < 0 {
			all = append(all, nil)
			at = len(all) - 1
		}
		all[at] = append(all[at], m)
	}
	return all
}

func testFaultsOfServer(t *testing.T, o pgtest.Options, release int) {
	t.Helper()
	l := newFaultLab(t, o)
	_, err := os.Stat(filepath.Join(l.BinDir, "pg_checksums"))
	for _, batch := range batches(release) {
		batch = slices.DeleteFunc(batch, func(m made) bool { return err != nil && m.check == "data_checksums" }) // npm's servers come without it
		before := l.examine()
		for _, m := range batch {
			if m.wrong != "" {
				if has(before, m) >= 0 {
					t.Errorf("%s: found before it is wrong", m.check)
				}
				l.run(m.wrong)
			}
		}
		wrong := l.examineUntil(batch, true)
		slices.SortStableFunc(batch, func(a, b made) int { return a.restarts(wrong) - b.restarts(wrong) })
		for _, m := range batch {
			at := has(wrong, m)
			switch {
			case at >= 0:
			case slices.ContainsFunc(wrong, func(f Finding) bool { return strings.Contains(f.Reason, "not supported by this build") }):
				t.Logf("%s: this PostgreSQL is built without it", m.check)
				l.write(l.hba)
				continue
			default:
				t.Errorf("%s: not found: %v with %q", m.check, m.status, m.text)
				continue
			}
			f := wrong[at]
			if f.Fix == "" || f.Why == "" || f.Heading == "" {
				t.Errorf("%s: no fix, reason why or heading: %+v", m.check, f)
			}
			if m.mend != "" {
				l.run(m.mend)
			} else {
				l.mend(f)
			}
		}
		after := l.examineUntil(batch, false)
		for _, m := range batch {
			if at := has(after, m); at >= 0 {
				t.Errorf("%s: still there after its fix: %+v", m.check, after[at])
			}
		}
		l.write(l.hba)
	}
}
