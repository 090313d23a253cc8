package postgres

import "pgwicket/internal/doctor/report"

// roleChecks are those of the heading "Roles": who can do more than the privileges on
// single objects say.
func roleChecks() []check {
	return append(powerChecks(),
		listCheck{
			about:  about{"role_unused", report.Roles, "4.4", "A role that nobody uses is one that nobody looks after."},
			status: report.Note,
			sql: `select quote_ident(r.rolname), format('drop role %I;', r.rolname) from pg_roles r
				where not rolcanlogin and oid >= 16384
				and not exists (select from pg_auth_members where r.oid in (roleid, member))
				and not exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = r.oid)
				and not exists (select from pg_db_role_setting where setrole = r.oid) order by 1`,
			reason: "no member, no privilege and no object: {}",
			passed: "every role without a login has a member, a privilege or an object",
		},
		listCheck{
			about:  about{"role_settings", report.Roles, "6.6", "A setting of a role or a database is stronger than postgresql.conf, and easily forgotten."},
			status: report.Warn,
			sql: `select format('%s of %s', c, x.name), format('alter %s reset %I;', x.name, split_part(c, '=', 1))
				from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase,
				lateral (select case when s.setrole = 0 and s.setdatabase = 0 then 'role all' when s.setrole = 0 then 'database ' || quote_ident(d.datname)
					else 'role ' || quote_ident(r.rolname) || coalesce(' in database ' || quote_ident(d.datname), '') end) x (name),
				unnest(s.setconfig) c
				where lower(c) in ('password_encryption=md5', 'log_statement=none', 'pgaudit.log=none')
				or c ~* '^(session_preload_libraries|local_preload_libraries|log_min_error_statement=(fatal|panic)|log_min_messages=(fatal|panic)|log_(dis)?connections=(off?|f(a(l(se?)?)?)?|no?|0)$)' order by 1`,
			reason: "settings that weaken the log, the passwords or the libraries for one role or database: {}",
			passed: "no role or database has a setting that weakens the log, the passwords or the libraries",
		},
		listCheck{
			about:  about{"parameter_grants", report.Roles, "4.3", "Some parameters run programs and load libraries as the account of PostgreSQL."},
			status: report.Warn, since: 15,
			sql: `select format('%s on %s to %s', lower(a.privilege_type), p.parname, x.who), ` + byGrantor("a.grantor", "10", "format('revoke %s on parameter %s from %s cascade;', lower(a.privilege_type), p.parname, x.who)") + `
				from pg_parameter_acl p, aclexplode(p.paracl) a left join pg_roles r on r.oid = a.grantee,
				lateral (select case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end) x (who)
				where not coalesce(r.rolsuper, false) and (a.grantee = 0 or a.privilege_type = 'ALTER SYSTEM') order by 1`,
			reason: "privileges on parameters of the server: {}",
			passed: "only superusers may change parameters of the server",
		},
	)
}

// ownerChecks find who owns tables, and what becomes open when they make objects.
func ownerChecks() []check {
	return []check{
		listCheck{
			about:  about{"default_privileges", report.Roles, "4.6", "Every object that is made from now on is open to every role."},
			status: report.Warn, everywhere: true,
			sql: `select format('%s of %I to public', x.kind, r.rolname) || coalesce(' in schema ' || quote_ident(n.nspname), ''),
				format('alter default privileges for role %I', r.rolname) || coalesce(' in schema ' || quote_ident(n.nspname), '') || format(' revoke %s on %s from public;', string_agg(lower(a.privilege_type), ', ' order by 1), x.kind)
				from pg_default_acl d join pg_roles r on r.oid = d.defaclrole left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a,
				lateral (select case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' when 'n' then 'schemas' when 'L' then 'large objects' end) x (kind)
				where a.grantee = 0 and not (d.defaclnamespace = 0 and (d.defaclobjtype = 'f' and a.privilege_type = 'EXECUTE' or d.defaclobjtype = 'T' and a.privilege_type = 'USAGE'))
				group by x.kind, r.rolname, n.nspname order by 1`,
			reason: "default privileges for every role: {}",
			passed: "no default privilege is for every role",
		},
		listCheck{
			about:  about{"owner_login", report.Roles, "4.6", "Anybody who takes over the application can drop the tables and switch their policies off."},
			status: report.Note, everywhere: true,
			sql: `select format('%I (%s)', r.rolname, case t.tables when 1 then '1 table' else t.tables || ' tables' end),
				format(E'%3$sreassign owned by %2$I to %1$I;\n%4$s', coalesce(o.owner, 'ANOTHER_ROLE'), r.rolname, case when o.there then '' else format(E'create role %I nologin;\n', o.owner) end,
				(select string_agg(format(E'grant usage on schema %1$I to %2$I;\ngrant select, insert, update, delete on all tables in schema %1$I to %2$I;\ngrant usage on all sequences in schema %1$I to %2$I;', s, r.rolname), E'\n' order by s) from unnest(t.schemas) s))
				from (select c.relowner, count(*) as tables, array_agg(distinct n.nspname) as schemas from pg_class c join pg_namespace n on n.oid = c.relnamespace
					where c.relkind in ('r', 'p') and c.relpersistence <> 't' and ` + own("pg_class", "c") + ` group by 1) t
				join pg_roles r on r.oid = t.relowner
				left join lateral (select name, exists (select from pg_roles where rolname = name) from (values (1, r.rolname || '_owner'), (2, r.rolname || '_owner_nologin'), (3, 'owner_of_' || r.oid)) v (i, name)
					where octet_length(name) < 64 and not exists (select from pg_roles where rolname = name and (rolcanlogin or exists (select from pg_auth_members where roleid = pg_roles.oid))) order by i limit 1) o (owner, there) on true
				where r.rolcanlogin and not r.rolsuper order by 1`,
			reason: "roles that can log in own tables: {}",
			passed: "no role that can log in owns a table, superusers aside",
		},
	}
}

// memberships are the member of each role, and the statement that ends it: from 16 on, that of its own grantor.
const memberships = `select format('%I (of %I)', m.rolname, r.rolname),
	format('revoke %I from %I', r.rolname, m.rolname) || case when current_setting('server_version_num')::int >= 160000 then format(' granted by %I', g.rolname) else '' end || ';'
	from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member left join pg_roles g on g.oid = a.grantor `

// fileRoles are the predefined roles by which a member becomes the account of PostgreSQL.
const fileRoles = `('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')`

// powerChecks find the roles with attributes and memberships that are as good as those
// of a superuser.
func powerChecks() []check {
	attribute := func(id, name, cis, why string, status report.Status, passed string) listCheck {
		return listCheck{
			about: about{id, report.Roles, cis, why}, status: status,
			sql: `select quote_ident(rolname), format('alter role %I no` + name + `;', rolname) from pg_roles
				where rol` + name + ` and rolcanlogin and not rolsuper order by 1`,
			reason: "login roles with " + name + ": {}",
			passed: passed,
		}
	}
	createrole := attribute("role_createrole", "createrole", "4.3", "Up to release 15 it gives itself pg_execute_server_program, and so the account of PostgreSQL.", report.Fail, "no login role has createrole")
	createrole.before = 16
	admin := attribute("role_createrole", "createrole", "4.3", "It makes roles, and decides on the passwords of those that it has made.", report.Note, "no login role has createrole")
	admin.since = 16
	return []check{
		listCheck{
			about:  about{"superuser_roles", report.Roles, "4.3", "A superuser can read and run everything as the account of PostgreSQL; one is enough."},
			status: report.Warn,
			sql: `select quote_ident(rolname), format('alter role %I nosuperuser;', rolname) from pg_roles
				where rolsuper and rolcanlogin and oid <> 10 order by 1`,
			reason: "superusers that can log in, besides that of initdb: {}",
			passed: "only the superuser of initdb can log in",
		},
		listCheck{
			about:  about{"role_power", report.Roles, "4.9", "A member can run programs, read and write files, or do anything, as the account of PostgreSQL."},
			status: report.Fail,
			sql: memberships + `where (r.rolname in ` + fileRoles + ` or r.rolsuper) and not m.rolsuper and m.oid >= 16384
				and exists (select from pg_roles l where l.rolcanlogin and not l.rolsuper and pg_has_role(l.oid, m.oid, 'member')) order by 1`,
			reason: "members, by which login roles get the power of a superuser: {}",
			passed: "no membership leads to a superuser, to files or to programs of the server",
		},
		createrole, admin,
		attribute("role_bypassrls", "bypassrls", "4.7", "No policy holds for it.", report.Warn, "no login role has bypassrls"),
		attribute("role_createdb", "createdb", "4.3", "It can fill the disk with databases, and owns what is in them.", report.Note, "no login role has createdb"),
		listCheck{
			about:  about{"role_all_data", report.Roles, "4.9", "It reads or writes every table, whatever is granted; row security aside."},
			status: report.Note,
			sql:    memberships + `where r.rolname in ('pg_read_all_data', 'pg_write_all_data') and not m.rolsuper order by 1`,
			reason: "members of pg_read_all_data or pg_write_all_data: {}",
			passed: "no role reads or writes all data",
		},
		listCheck{
			about:  about{"role_replication", report.Roles, "7.1", "Replication copies the whole cluster, so its role should be used for nothing else."},
			status: report.Warn,
			sql: `select quote_ident(rolname), format('alter role %I noreplication;', rolname) from pg_roles r
				where rolreplication and rolcanlogin and not rolsuper
				and (exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = r.oid and deptype = 'o')
				or exists (select from pg_auth_members where member = r.oid)) order by 1`,
			reason: "roles with replication that also own objects or are members of others: {}",
			passed: "replication is by roles that do nothing else",
		},
	}
}
