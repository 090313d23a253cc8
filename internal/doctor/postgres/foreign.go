package postgres

import "pgwicket/internal/doctor/report"

// foreignChecks find ways to other servers, and their passwords.
func foreignChecks() []check {
	return []check{
		listCheck{
			about:  about{"foreign_server_public", report.DataAccess, "4.6", "Every role can make a mapping and tables of its own on it, and reach that server from this machine."},
			status: report.Warn, everywhere: true,
			sql: `select format('server %I', srvname), fix from pg_foreign_server s,
				lateral ` + revoke("s.srvacl", "s.srvowner", "grantee = 0", "format('revoke usage on foreign server %I from public;', srvname)") + ` x (fix) where fix is not null
				union all
				select format('wrapper %I', fdwname), fix from pg_foreign_data_wrapper w,
				lateral ` + revoke("w.fdwacl", "w.fdwowner", "grantee = 0", "format('revoke usage on foreign data wrapper %I from public;', fdwname)") + ` x (fix) where fix is not null order by 1`,
			reason: "foreign servers and wrappers that every role may use: {}",
			passed: "no foreign server is open to every role",
		},
		listCheck{
			about:  about{"user_mapping_public", report.DataAccess, "4.6", "Every role uses the account that it names on the other server."},
			status: report.Fail, everywhere: true,
			sql: `select quote_ident(s.srvname), format('drop user mapping for public server %I;', s.srvname) from pg_user_mapping m join pg_foreign_server s on s.oid = m.umserver
				where m.umuser = 0 and m.umoptions::text ~ '[{",]password=' order by 1`,
			reason: "user mappings with a password for every role: {}",
			passed: "no user mapping with a password is for every role",
		},
		listCheck{
			about:  about{"user_mapping_no_password", report.DataAccess, "4.3", "It connects as the account of PostgreSQL, with its certificates, .pgpass and peer authentication."},
			status: report.Warn, everywhere: true,
			sql: `select format('%I on %I', pg_get_userbyid(m.umuser), s.srvname), format('alter user mapping for %I server %I options (set password_required ''true'');', pg_get_userbyid(m.umuser), s.srvname)
				from pg_user_mapping m join pg_foreign_server s on s.oid = m.umserver join pg_roles r on r.oid = m.umuser
				where not r.rolsuper and m.umoptions::text ~* '[{",]password_required=(false|off|0)' order by 1`,
			reason: "user mappings that need no password: {}",
			passed: "no user mapping may connect without a password, superusers aside",
		},
		listCheck{
			about:  about{"user_mapping_password", report.Encryption, "", "It is stored in clear, and in every dump and base backup."},
			status: report.Note, everywhere: true,
			sql: `select format('%I on %I', pg_get_userbyid(m.umuser), s.srvname), format('alter user mapping for %I server %I options (drop password);', pg_get_userbyid(m.umuser), s.srvname)
				from pg_user_mapping m join pg_foreign_server s on s.oid = m.umserver where m.umuser <> 0 and m.umoptions::text ~ '[{",]password=' order by 1`,
			reason: "user mappings with a password: {}",
			passed: "no user mapping of a role has a password",
		},
		listCheck{
			about:  about{"publication_all_tables", report.DataAccess, "4.6", "Every table that is made from now on is sent to the subscribers, too."},
			status: report.Note, everywhere: true,
			sql:    `select quote_ident(pubname), format('drop publication %I;', pubname) from pg_publication where puballtables order by 1`,
			after:  `-- then make them again: create publication NAME for table ...`,
			reason: "publications of all tables: {}",
			passed: "every publication names its tables or schemas",
		},
		listCheck{
			about:  about{"subscription_password", report.Encryption, "", "It is stored in clear, and in every base backup."},
			status: report.Note, everywhere: true,
			sql: `select quote_ident(subname), format('alter subscription %I connection %L;', subname, case when subconninfo ~ '^postgres(ql)?://'
				then regexp_replace(regexp_replace(subconninfo, '^(postgres(ql)?://[^:/@]*):[^/@]*@', '\1@'), '([?&])password=[^&]*&?', '\1') ||
					case when regexp_replace(subconninfo, '([?&])password=[^&]*&?', '\1') ~ '[?&]$' then '' when subconninfo ~ '\?' then '&' else '?' end || 'passfile=/etc/postgresql/subscription.pgpass'
				else regexp_replace(subconninfo, 'password\s*=\s*(''([^''\\]|\\.)*''|\S+)', 'passfile=/etc/postgresql/subscription.pgpass', 'g') end)
				from pg_subscription where subconninfo ~ '(password\s*=|^postgres(ql)?://[^:/@]*:[^/@]+@)' and subdbid = (select oid from pg_database where datname = current_database()) order by 1`,
			after:  "-- write that file before: host:port:database:role:password, mode 0600, of the account of PostgreSQL",
			reason: "subscriptions with a password: {}",
			passed: "no subscription has a password",
		},
	}
}
