#!/usr/bin/env bash
# psql and pgbench as clients: both are libpq's, whichever that is.
set -u
base="host=$INTEROP_HOST port=$INTEROP_PORT dbname=postgres user=app sslrootcert=$INTEROP_CA sslcert=none sslkey=none connect_timeout=90 gssencmode=disable"
export PGPASSWORD="$INTEROP_PASSWORD"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

sql() { # CONNINFO PSQL-ARGS...
	local dsn=$1
	shift
	timeout 300 "$PSQL" -XAtq -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$base sslmode=require $dsn" "$@" 2>&1
}
say() { printf '%s\t%s\t%s\n' "$1" "$2" "$(tr '\n\t' '  ' <<<"$3" | cut -c1-300)"; }
judge() { # FEATURE STATUS OUTPUT WANTED-IF-ANY
	local out=$3
	if grep -qE 'invalid connection option|invalid (ssl|gss)[a-z]* value|invalid .*protocol_version value|could not be parsed' <<<"$out"; then
		say "$1" unsupported "this libpq does not have it"
	elif [ "$2" = 0 ] && { [ $# -lt 4 ] || [ "$out" = "$4" ]; }; then
		say "$1" ok "$([ $# -lt 4 ] && echo "$out")"
	else
		# Ports and addresses differ between the two ways.
		say "$1" error "$(sed -E 's/port [0-9]+//; s/^psql: //; s/connection to server at [^:]*: //' <<<"$out")"
	fi
}
tls() { # FEATURE CONNINFO
	local out status
	out=$(sql "$2" -c '\conninfo'); status=$?
	if [ $status = 0 ]; then
		if grep -qE 'protocol: TLS|TLSv1' <<<"$out"; then out="over TLS"; else out="without TLS"; fi
	fi
	judge "$1" $status "$out"
}
bench() { # FEATURE MODE SCRIPT
	local out status
	printf '%s\n' "$3" >"$tmp/$1.sql"
	out=$(timeout 240 "$PGBENCH" -n -M "$2" -t 20 -c 2 -f "$tmp/$1.sql" "$base sslmode=require" 2>&1); status=$?
	[ $status != 0 ] || out=$(grep -E 'transactions actually' <<<"$out" | sed 's/.*: /pgbench: /')
	judge "$1" $status "$out"
}
check() { # FEATURE WANTED CONNINFO PSQL-ARGS...
	local f=$1 want=$2 dsn=$3 out status
	shift 3
	out=$(sql "$dsn" "$@"); status=$?
	judge "$f" $status "$out" "$want"
}

printf 'version\t%s, %s\n' "$("$PSQL" --version)" "$(ldd "$PSQL" | sed -n 's/.*\(libpq.so.5\) => \(.*\) (.*/\2/p' | xargs -r readlink -f | xargs -r basename)"
for f in "$@"; do
	case $f in
	sslrequest) tls "$f" "" ;;
	direct) tls "$f" "sslnegotiation=direct" ;;
	sslmode-*) tls "$f" "sslmode=${f#sslmode-}" ;;
	gssencmode) tls "$f" "gssencmode=prefer" ;;
	scram) check "$f" app "" -c 'select current_user' ;;
	channel-binding) check "$f" app "channel_binding=require" -c 'select current_user' ;;
	md5) check "$f" md5_user "user=md5_user" -c 'select current_user' ;;
	clear) check "$f" clear_user "user=clear_user" -c 'select current_user' ;;
	cert) PGPASSWORD='' check "$f" cert_user "user=cert_user sslcert=$INTEROP_CERT sslkey=$INTEROP_KEY" -c 'select current_user' ;;
	simple) check "$f" $'1\n2' "" -c 'select 1; select 2' ;;
	extended) bench "$f" extended $'\\set n 7\nselect :n::int' ;;
	prepared) bench "$f" prepared $'\\set n 7\nselect :n::int' ;;
	pipeline) bench "$f" extended $'\\startpipeline\nselect 1;\nselect 2;\nselect 3;\n\\endpipeline' ;;
	copy-in)
		seq 1 100000 | check "$f" "100000 5000050000" "" -c 'create temp table t (n int8)' -c '\copy t from pstdin' -c "select count(*) || ' ' || sum(n) from t" ;;
	copy-out)
		out=$(sql "" -c 'copy (select generate_series(1, 100000)) to stdout' | md5sum); judge "$f" "${PIPESTATUS[0]}" "$out" ;;
	notify)
		out=$(sql "" -c 'listen ch' -c "notify ch, 'word'" -c 'select 1' | sed -E 's/process with PID [0-9]+/a process/'); judge "$f" 0 "$out" ;;
	lo)
		head -c 3000000 /dev/zero | tr '\0' 'x' >"$tmp/lo"
		id=$(sql "" -c "\lo_import $tmp/lo" -c '\echo :LASTOID' | tail -1)
		sql "" -c "\lo_export $id $tmp/lo2" -c "\lo_unlink $id" >"$tmp/out"
		out=$(cmp "$tmp/lo" "$tmp/lo2" 2>&1); judge "$f" $? "$out" ;;
	large)
		out=$(sql "" -c "select repeat('x', $INTEROP_SIZE)" | wc -c); judge "$f" 0 "$out" $((INTEROP_SIZE + 1)) ;;
	cancel)
		# psql cancels at SIGINT, which timeout passes on.
		timeout --foreground 240 "$PSQL" -XAtq -v VERBOSITY=sqlstate "$base sslmode=require application_name=cancel-$$" -c 'select pg_sleep(120)' >"$tmp/cancel" 2>&1 &
		pid=$!
		for _ in $(seq 100); do
			[ "$(sql "" -c "select count(*) from pg_stat_activity where application_name = 'cancel-$$' and query like '%pg_sleep%'")" = 1 ] && break
			sleep 0.1
		done
		kill -INT $pid
		wait $pid
		out=$(grep -o 'ERROR:.*' "$tmp/cancel"); judge "$f" $? "$out" ;;
	protocol-3.0) check "$f" app "min_protocol_version=3.0 max_protocol_version=3.0" -c 'select current_user' ;;
	protocol-3.2) check "$f" app "min_protocol_version=3.2" -c 'select current_user' ;;
	protocol-latest) check "$f" app "max_protocol_version=latest" -c 'select current_user' ;;
	error) out=$(sql "" -v VERBOSITY=verbose -c 'select 1/0' | grep -v LOCATION); judge "$f" $? "$out" ;;
	notice) out=$(sql "" -v VERBOSITY=verbose -c "do \$\$ begin raise notice 'word' using detail = 'more', hint = 'try'; end \$\$" | grep -v LOCATION); judge "$f" $? "$out" ;;
	idle) check "$f" app "" -c "\\! sleep $INTEROP_IDLE" -c 'select current_user' ;;
	options) check "$f" "7min" "options='-c statement_timeout=7min'" -c 'show statement_timeout' ;;
	application-name) out=$(sql "application_name=$(printf 'n%.0s' {1..70})" -c 'show application_name'); judge "$f" $? "${#out} bytes of 70" ;;
	client-encoding) check "$f" LATIN1 "client_encoding=latin1" -c 'show client_encoding' ;;
	search-path) check "$f" "interop,public" "options='-csearch_path=interop,public'" -c 'show search_path' ;;
	*) say "$f" unsupported "the driver does not know it" ;;
	esac
done
