package postgres

import "pgwicket/internal/doctor/report"

// hasBarrier is the condition that a view has security_barrier, which somebody has thought about.
func hasBarrier(alias string) string {
	return `coalesce(` + alias + `.reloptions && array['security_barrier=true', 'security_barrier=on', 'security_barrier=1'], false)`
}

// readsAsOwner is the condition that a view reads with the rights of its owner, and nobody has thought about it.
func readsAsOwner(alias string) string {
	return `not coalesce(` + alias + `.reloptions && array['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false) and not ` + hasBarrier(alias)
}

// rowChecks find row security that does not hold.
func rowChecks() []check {
	return []check{
		listCheck{
			about:  about{"row_security_off", report.DataAccess, "4.7", "Policies do nothing until row security is enabled."},
			status: report.Fail, everywhere: true,
			sql: `select format('%I.%I', n.nspname, c.relname), format('alter table %I.%I enable row level security;', n.nspname, c.relname)
				from pg_class c join pg_namespace n on n.oid = c.relnamespace
				where not c.relrowsecurity and exists (select from pg_policy where polrelid = c.oid) order by 1`,
			reason: "policies, but no row security: {}",
			passed: "row security is enabled for every table with policies",
		},
		listCheck{
			about:  about{"row_security_not_forced", report.DataAccess, "4.7", "The policies do not hold for the owner of a table unless they are forced."},
			status: report.Warn, everywhere: true,
			sql: `select format('%I.%I (of %I)', n.nspname, c.relname, r.rolname), format('alter table %I.%I force row level security;', n.nspname, c.relname)
				from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
				where c.relrowsecurity and not c.relforcerowsecurity and r.rolcanlogin and not r.rolsuper and not r.rolbypassrls order by 1`,
			reason: "row security that does not hold for an owner who can log in: {}",
			passed: "row security holds for every owner who can log in",
		},
		listCheck{
			about:  about{"row_security_partitions", report.DataAccess, "4.7", "The policies of a table do not hold for its partitions when these are read directly."},
			status: report.Warn, everywhere: true,
			sql: `select format('%I.%I', n.nspname, c.relname), format('alter table %I.%I enable row level security;', n.nspname, c.relname)
				from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class t on t.oid = i.inhparent join pg_namespace n on n.oid = c.relnamespace
				where t.relrowsecurity and not c.relrowsecurity and exists (select from aclexplode(c.relacl) where grantee <> c.relowner) order by 1`,
			reason: "partitions and children without the row security of their table, and granted to others: {}",
			passed: "no partition goes around the row security of its table",
		},
		listCheck{
			about:  about{"policy_true", report.DataAccess, "4.7", "One permissive policy that is true for every role undoes all others."},
			status: report.Warn, everywhere: true,
			sql: `select format('%I on %I.%I', p.polname, n.nspname, c.relname), format('drop policy %I on %I.%I;', p.polname, n.nspname, c.relname)
				from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
				where p.polpermissive and p.polroles = '{0}' and pg_get_expr(p.polqual, p.polrelid) = 'true' order by 1`,
			reason: "policies that admit every role to every row: {}",
			passed: "no policy admits every role to every row",
		},
		listCheck{
			about:  about{"view_row_security", report.DataAccess, "4.7", "It reads with the rights of its owner, so the policies for the caller do not hold."},
			status: report.Warn, everywhere: true,
			sql: `with recursive above (oid) as (
					select oid from pg_class where relrowsecurity
				union
					select w.ev_class from above join pg_class b on b.oid = above.oid and not ` + hasBarrier("b") + `
					join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = b.oid and d.classid = 'pg_rewrite'::regclass
					join pg_rewrite w on w.oid = d.objid
				)
				select format('%I.%I', n.nspname, v.relname), case when v.relkind = 'v' and current_setting('server_version_num')::int >= 150000
					then format('alter view %I.%I set (security_invoker = true);', n.nspname, v.relname)
					else g.revokes end
				from above join pg_class v on v.oid = above.oid join pg_namespace n on n.oid = v.relnamespace,
				lateral (select string_agg(` + byGrantor("i.grantor", "v.relowner", "format('revoke all on %I.%I from %s;', n.nspname, v.relname, i.who)") + `, ' ') from (
					select grantor, string_agg(distinct case when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end, ', ')
					from aclexplode(v.relacl) where grantee <> v.relowner group by grantor) i (grantor, who)) g (revokes)
				where v.relkind in ('v', 'm') and g.revokes is not null and ` + readsAsOwner("v") + ` order by 1`,
			reason: "views of tables with row security, granted to others, without security_invoker or security_barrier: {}",
			passed: "no view goes around row security",
		},
	}
}
