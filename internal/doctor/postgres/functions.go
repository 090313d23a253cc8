package postgres

import "pgwicket/internal/doctor/report"

// definers are the functions that run with the rights of their owner, and whose names are
// looked up when they run: a body in standard SQL is bound when it is made. words are the
// schemas in their search_path (SplitIdentifierString in src/backend/utils/adt/varlena.c). The
// setting itself must not get into a statement: SET search_path FROM CURRENT can make it
// pg_catalog;drop/**/table/**/x.
const definers = `pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
	left join lateral (select substr(c, 13) from unnest(p.proconfig) c where c like 'search_path=%') s (path) on true
	left join lateral (select array_agg(coalesce(replace(m[2], '""', '"'), lower(m[1])) order by i)
		from regexp_matches(s.path, '\s*("((?:[^"]|"")*)"|[^",\s][^,\s]*)\s*(?:,|$)', 'g') with ordinality x (m, i)) w (words) on true
	where p.prosecdef and p.prosqlbody is null and l.lanname not in ('c', 'internal') and `

// publicExecute is the condition that every role may execute the function p.
const publicExecute = `exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)`

// revokeExecute is the statement that takes this from it.
func revokeExecute() string {
	return revoke("coalesce(p.proacl, acldefault('f', p.proowner))", "p.proowner", "grantee = 0", "format('revoke execute on routine %s from public;', p.oid::regprocedure)")
}

// functionChecks find code that runs with the rights of another role.
func functionChecks() []check {
	return []check{
		listCheck{
			about:  about{"definer_search_path", report.DataAccess, "4.5", "The caller chooses which tables and functions it uses, and it uses them with the rights of its owner."},
			status: report.Fail, everywhere: true,
			sql: `select p.oid::regprocedure::text, format('alter routine %s set search_path = pg_catalog, %I, pg_temp;', p.oid::regprocedure, n.nspname)
				from ` + definers + own("pg_proc", "p") + ` and (s.path is null or '$user' = any (w.words)) order by 1`,
			reason: "security definer without a fixed search_path: {}",
			passed: "every security definer function has a fixed search_path",
		},
		listCheck{
			about:  about{"definer_pg_temp", report.DataAccess, "4.5", "If the list does not end with pg_temp, temporary tables of the caller are found before all others (\"Writing SECURITY DEFINER Functions Safely\" in PostgreSQL's documentation)."},
			status: report.Warn, everywhere: true,
			sql: `select p.oid::regprocedure::text, format('alter routine %s set search_path = %s, pg_temp;', p.oid::regprocedure,
				(select string_agg(case word when '' then '''''' else quote_ident(word) end, ', ' order by i) from unnest(w.words) with ordinality x (word, i)))
				from ` + definers + own("pg_proc", "p") + ` and w.words <> '{""}' and w.words <> '{pg_catalog}' and '$user' <> all (w.words) and w.words[cardinality(w.words)] <> 'pg_temp' order by 1`,
			reason: "security definer with a search_path that does not end with pg_temp: {}",
			passed: "temporary tables are last in the search_path of every security definer function",
		},
		listCheck{
			about:  about{"definer_public", report.DataAccess, "4.5", "A function can be executed by every role until that is revoked."},
			status: report.Warn, everywhere: true,
			sql: `select p.oid::regprocedure::text, ` + revokeExecute() + ` from pg_proc p join pg_namespace n on n.oid = p.pronamespace
				where p.prosecdef and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype) and ` + own("pg_proc", "p") + ` and ` + publicExecute + ` order by 1`,
			reason: "every role may execute, with the rights of its owner, {}",
			passed: "no security definer function can be executed by every role",
		},
		listCheck{
			about:  about{"untrusted_functions", report.DataAccess, "4.5", "Such a function can do what the account of PostgreSQL can do, files and programs included."},
			status: report.Warn, everywhere: true,
			sql: `select p.oid::regprocedure::text || format(' (%I)', l.lanname), ` + revokeExecute() + `
				from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
				where not l.lanpltrusted and l.lanname <> 'internal' and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype) and ` + own("pg_proc", "p") + ` and ` + publicExecute + ` order by 1`,
			reason: "functions in an untrusted language that every role may execute: {}",
			passed: "no function in an untrusted language can be executed by every role",
		},
		listCheck{
			about:  about{"event_triggers", report.DataAccess, "4.5", "It runs with the rights of the role that alters a table or logs in, a superuser included, and its owner can replace it."},
			status: report.Fail, everywhere: true,
			sql: `select format('%I (%s of %I)', e.evtname, p.oid::regprocedure, r.rolname), format('alter event trigger %I disable;', e.evtname)
				from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_roles r on r.oid = p.proowner
				where e.evtenabled <> 'D' and not r.rolsuper order by 1`,
			reason: "event triggers whose function does not belong to a superuser: {}",
			passed: "the functions of all event triggers belong to superusers",
		},
	}
}

// nameChecks find what is used in the place of something else, or around the privileges.
func nameChecks() []check {
	return []check{
		listCheck{
			about:  about{"shadowing_functions", report.DataAccess, "4.10", "A call that fits it better runs it instead of that of PostgreSQL, with the rights of the caller (CVE-2018-1058)."},
			status: report.Note, everywhere: true,
			sql: `select format('%s of %I', p.oid::regprocedure, r.rolname), format('drop routine %s;', p.oid::regprocedure)
				from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_roles r on r.oid = p.proowner
				where n.nspname = 'public' and not r.rolsuper and ` + own("pg_proc", "p") + `
				and exists (select from pg_proc q where q.pronamespace = 'pg_catalog'::regnamespace and q.proname = p.proname) order by 1`,
			reason: "functions in public with the name of one of PostgreSQL: {}",
			passed: "no function in public has the name of one of PostgreSQL",
		},
		listCheck{
			about:  about{"extensions_risky", report.DataAccess, "", "They read files, connect to other servers, or read and change pages below all privileges."},
			status: report.Note, everywhere: true,
			sql: `select quote_ident(extname), format('drop extension %I;', extname) from pg_extension
				where extname in ('adminpack', 'dblink', 'file_fdw', 'old_snapshot', 'pageinspect', 'pg_surgery', 'pg_visibility', 'xml2', 'plpython3u', 'plperlu', 'pltclu') order by 1`,
			reason: "extensions that few applications need: {}",
			passed: "no extension goes around the privileges",
		},
	}
}
