package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/phrase"
)

// own is the condition that an object belongs neither to PostgreSQL nor to an extension.
// Its row has the alias, and its schema the alias n. What initdb makes has oids below 16384
// (FirstNormalObjectId in src/include/access/transam.h); of that, only the schema public is for others.
func own(catalog, alias string) string {
	made := ""
	if catalog != "pg_namespace" {
		made = alias + ".oid >= 16384 and "
	}
	return made + `not starts_with(n.nspname, 'pg_') and n.nspname <> 'information_schema'
		and not exists (select from pg_depend e where e.classid = '` + catalog + `'::regclass and e.objid = ` + alias + `.oid and e.deptype = 'e')`
}

// byGrantor is the statement that revokes a privilege, as SQL. That of another grantor than the owner
// needs that role: a superuser revokes only what the owner has granted (src/backend/catalog/aclchk.c,
// select_best_grantor).
func byGrantor(grantor, owner, statement string) string {
	return `case when ` + grantor + ` = ` + owner + ` then ` + statement + ` else format('set role %I; ', pg_get_userbyid(` + grantor + `)) || ` + statement + ` || ' reset role;' end`
}

// revoke is the same for each grantor of the items in an access list that a condition is about.
func revoke(acl, owner, condition, statement string) string {
	return `(select string_agg(` + byGrantor("i.grantor", owner, statement) + `, ' ') from (select distinct grantor from aclexplode(` + acl + `) where ` + condition + `) i)`
}

// publicOn returns the tables, views and sequences on which PUBLIC has one of the
// privileges, by themselves or by column. It looks for the privileges first: most tables have none
// for PUBLIC.
func publicOn(privileges string) string {
	return `select format('%I.%I', n.nspname, c.relname),
		string_agg(` + byGrantor("a.grantor", "c.relowner", `format('revoke %s on %s%I.%I from public;', a.what, case c.relkind when 'S' then 'sequence ' else '' end, n.nspname, c.relname)`) + `, ' ')
		from (
			select r.oid, grantor, string_agg(lower(privilege_type), ', ' order by privilege_type) from pg_class r, aclexplode(r.relacl)
				where r.oid >= 16384 and grantee = 0 and privilege_type in ` + privileges + ` group by r.oid, grantor
			union all
			select t.attrelid, grantor, format('%s (%I)', lower(privilege_type), attname) from pg_attribute t, aclexplode(t.attacl)
				where t.attrelid >= 16384 and t.attacl is not null and grantee = 0 and privilege_type in ` + privileges + `
		) a (oid, grantor, what) join pg_class c on c.oid = a.oid join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and ` + own("pg_class", "c") + ` group by n.nspname, c.relname, c.relkind order by 1`
}

// grantChecks find what every role may do in a database as a whole.
func grantChecks() []check {
	return []check{
		funcCheck{about{"databases", report.DataAccess, "", "What is not examined is not known to be right."}, checkDatabases},
		listCheck{
			about:  about{"schema_public_create", report.DataAccess, "4.10", "Every role can put objects there that others then use instead of the right ones (CVE-2018-1058)."},
			status: report.Warn, everywhere: true,
			sql: `select quote_ident(n.nspname), fix from pg_namespace n,
				lateral ` + revoke("n.nspacl", "n.nspowner", "grantee = 0 and privilege_type = 'CREATE'", "format('revoke create on schema %I from public;', n.nspname)") + ` x (fix)
				where fix is not null and ` + own("pg_namespace", "n") + ` order by 1`,
			reason: "every role may create objects in {}",
			passed: "in no schema every role may create objects",
		},
		listCheck{
			about:  about{"database_public_create", report.DataAccess, "4.6", "Every role can make schemas in it."},
			status: report.Warn,
			sql: `select quote_ident(d.datname), fix from pg_database d,
				lateral ` + revoke("d.datacl", "d.datdba", "grantee = 0 and privilege_type = 'CREATE'", "format('revoke create on database %I from public;', d.datname)") + ` x (fix)
				where fix is not null order by 1`,
			reason: "every role may create schemas in the database {}",
			passed: "in no database every role may create schemas",
		},
		listCheck{
			about:  about{"database_public", report.DataAccess, "4.6", "Every role can connect, see the names of all tables, and fill the disk with temporary ones."},
			status: report.Note,
			sql: `select quote_ident(d.datname), case when users is null then '' else format('grant %s on database %I to %s; ', what, d.datname, users) end || fix from pg_database d,
				lateral (select string_agg(distinct lower(privilege_type), ', ') from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) where grantee = 0 and privilege_type in ('CONNECT', 'TEMPORARY')) w (what),
				lateral ` + revoke("coalesce(d.datacl, acldefault('d', d.datdba))", "d.datdba", "grantee = 0 and privilege_type in ('CONNECT', 'TEMPORARY')", "format('revoke %s on database %I from public;', what, d.datname)") + ` x (fix),
				lateral (select string_agg(quote_ident(rolname), ', ' order by rolname) from pg_roles r where not rolsuper and oid >= 16384 and oid <> d.datdba
					and (exists (select from pg_shdepend where dbid = d.oid and refclassid = 'pg_authid'::regclass and refobjid = r.oid) or exists (select from pg_stat_activity where datid = d.oid and usesysid = r.oid))) u (users)
				where fix is not null and not d.datistemplate order by 1`,
			after:  "-- these statements grant it to the roles that have something there; grant it to others that need it before",
			reason: "every role may connect to the database, or make temporary tables in it: {}",
			passed: "no database is open to every role",
		},
	}
}

// publicChecks find the objects that are open to every role.
func publicChecks() []check {
	return []check{
		listCheck{
			about:  about{"table_public_write", report.DataAccess, "4.6", "Every role can change these rows, or run code as those who use the table."},
			status: report.Fail, everywhere: true,
			sql:    publicOn(`('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN')`),
			reason: "every role may write to {}",
			passed: "no table is open for writing to every role",
		},
		listCheck{
			about:  about{"table_public_read", report.DataAccess, "4.6", "Every role that can connect reads these rows."},
			status: report.Warn, everywhere: true,
			sql:    publicOn(`('SELECT', 'USAGE')`),
			reason: "every role may read {}",
			passed: "no table is open for reading to every role",
		},
		listCheck{
			about:  about{"large_objects_public", report.DataAccess, "4.6", "Large objects have no schema, so nothing else is between them and every role."},
			status: report.Warn, everywhere: true,
			sql: `select 'large object ' || m.oid, fix from pg_largeobject_metadata m,
				lateral ` + revoke("m.lomacl", "m.lomowner", "grantee = 0", "format('revoke all on large object %s from public;', m.oid)") + ` x (fix)
				where fix is not null order by m.oid`,
			reason: "every role may use {}",
			passed: "no large object is open to every role",
		},
		listCheck{
			about:  about{"catalog_public", report.DataAccess, "4.5", "PostgreSQL keeps these for superusers: they read files, hashes, or end the sessions of others."},
			status: report.Fail, everywhere: true,
			sql: `select p.oid::regprocedure::text, fix from pg_proc p
				join pg_init_privs k on k.classoid = 'pg_proc'::regclass and k.objoid = p.oid,
				lateral ` + revoke("coalesce(p.proacl, acldefault('f', p.proowner))", "p.proowner", "grantee = 0", "format('revoke execute on routine %s from public;', p.oid::regprocedure)") + ` x (fix)
				where not exists (select from aclexplode(k.initprivs) where grantee = 0) and fix is not null
				union all
				select c.oid::regclass::text, fix from pg_class c
				join pg_init_privs k on k.classoid = 'pg_class'::regclass and k.objoid = c.oid and k.objsubid = 0,
				lateral ` + revoke("c.relacl", "c.relowner", "grantee = 0", "format('revoke all on table %s from public;', c.oid::regclass)") + ` x (fix)
				where c.relkind in ('r', 'v') and not exists (select from aclexplode(k.initprivs) where grantee = 0) and fix is not null
				union all
				select format('%s.%I', c.oid::regclass, t.attname), fix from pg_class c
				join pg_init_privs k on k.classoid = 'pg_class'::regclass and k.objoid = c.oid and k.objsubid = 0
				join pg_attribute t on t.attrelid = c.oid and t.attacl is not null,
				lateral ` + revoke("t.attacl", "c.relowner", "grantee = 0", "format('revoke all (%I) on table %s from public;', t.attname, c.oid::regclass)") + ` x (fix)
				where c.relkind in ('r', 'v') and not exists (select from aclexplode(k.initprivs) where grantee = 0) and fix is not null
				and not exists (select from pg_init_privs o, aclexplode(o.initprivs) where o.classoid = 'pg_class'::regclass and o.objoid = c.oid and o.objsubid = t.attnum and grantee = 0) order by 1`,
			reason: "every role may use what PostgreSQL or an extension keeps from it: {}",
			passed: "every role has only what PostgreSQL and the extensions give it",
		},
	}
}

// checkDatabases says which databases were examined.
func checkDatabases(_ context.Context, s *server) []report.Finding {
	if len(s.skipped) > 0 {
		return []report.Finding{report.New(report.Skip, "", "databases that were not examined: "+s.namesSkipped(), "connect as a superuser, and allow it in pg_hba.conf; for slow databases, run doctor when the server has less to do")}
	}
	return []report.Finding{report.Passed("%s examined", phrase.Count(len(s.databases), "database"))}
}

// maxSkipped is how many databases that were not examined are named for each reason.
const maxSkipped = 250

// namesSkipped returns the databases that were not examined, by reason.
func (s *server) namesSkipped() string {
	var reasons []string
	names := make(map[string][]string)
	for _, d := range s.skipped {
		if !slices.Contains(reasons, d.reason) {
			reasons = append(reasons, d.reason)
		}
		names[d.reason] = append(names[d.reason], quoted(d.name))
	}
	for i, reason := range reasons {
		list := names[reason]
		if more := len(list) - maxSkipped; more > 0 {
			list = append(list[:maxSkipped], fmt.Sprintf("and %d more", more))
		}
		reasons[i] = strings.Join(list, ", ") + " (" + reason + ")"
	}
	return strings.Join(reasons, "; ")
}
