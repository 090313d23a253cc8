package postgres

import "pgwicket/internal/doctor/report"

// encryptionChecks find keys and secrets that lie in clear.
func encryptionChecks() []check {
	return []check{
		listCheck{
			about:  about{"key_in_source", report.Encryption, "6.9", "Every role can read the source of every function, so the key protects nothing."},
			status: report.Warn, everywhere: true,
			sql: `select p.oid::regprocedure::text, '' from pg_proc p join pg_namespace n on n.oid = p.pronamespace
				where coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) ~* '\m(pgp_sym_(en|de)crypt(_bytea)?|(en|de)crypt(_iv)?|hmac)\s*\([^;'']*,\s*(''[^'']|\$\w*\$)' and ` + own("pg_proc", "p") + ` order by 1`,
			after:  "-- pass the key as an argument, from outside the database, and replace the key",
			reason: "functions with a key for pgcrypto in their source: {}",
			passed: "no function has a key for pgcrypto in its source",
		},
		listCheck{
			about:  about{"secret_columns", report.Encryption, "6.9", "Only their names tell; if they hold hashes or encrypted values, waive this."},
			status: report.Note, everywhere: true,
			sql: `select format('%I.%I.%I', n.nspname, c.relname, a.attname), '' from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
				join pg_type y on y.oid = a.atttypid
				where a.attrelid >= 16384 and a.attnum > 0 and not a.attisdropped
				and case when c.relkind in ('r', 'p') and coalesce(nullif(y.typbasetype, 0), y.oid) in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
				then regexp_replace(a.attname, '([a-z0-9])([A-Z])', '\1_\2', 'g') ~* '(^|_)(password|passwd|pwd|passphrase|secret|secret_?key|api_?key|(access|refresh|api|auth)_?token|private_?key|(credit_?)?card_?(number|no)|cvv|ssn|iban)$' end
				and ` + own("pg_class", "c") + ` order by 1`,
			after:  "-- store a hash, or encrypt in the application, and rename the column",
			reason: "text columns that seem to hold secrets: {}",
			passed: "no text column has the name of a secret",
		},
	}
}
