# psycopg 3 as a client. Its libpq is the one that the loader finds.
import os
import sys
import threading
import time

import psycopg

E = os.environ
BASE = dict(host=E["INTEROP_HOST"], port=E["INTEROP_PORT"], dbname="postgres", user="app", password=E["INTEROP_PASSWORD"],
            sslmode="require", sslrootcert=E["INTEROP_CA"], sslcert="none", sslkey="none", gssencmode="disable", connect_timeout=20)


class Unsupported(Exception):
    pass


def connect(**more):
    return psycopg.connect(autocommit=True, **(BASE | more))


def one(c, *query, **how):
    return c.execute(*query, **how).fetchone()[0]


def user(**more):
    with connect(**more) as c:
        return one(c, "select current_user")


def tls(**more):
    with connect(**more) as c:
        return "over TLS" if c.pgconn.ssl_in_use else "without TLS"


def pipeline():
    if not psycopg.Pipeline.is_supported():
        raise Unsupported("this libpq does not have it")
    with connect() as c, c.pipeline():
        cursors = [c.execute("select %s::int", [n]) for n in range(5)]
        return str([x.fetchone()[0] for x in cursors])


def prepared():
    with connect() as c:
        return str([one(c, "select %s::int", [n], prepare=True) for n in range(3)])


def copy_in():
    with connect() as c:
        c.execute("create temp table t (n int8)")
        with c.cursor() as cur, cur.copy("copy t from stdin") as copy:
            for n in range(50000):
                copy.write_row([n])
        return str(c.execute("select count(*), sum(n) from t").fetchone())


def copy_out():
    with connect() as c, c.cursor() as cur, cur.copy("copy (select generate_series(1, 50000)) to stdout") as copy:
        return sum(len(b) for b in copy)


def notify():
    with connect() as c:
        c.execute("listen ch")
        with connect() as other:
            other.execute("notify ch, 'word'")
        n = next(c.notifies())
        return n.channel + " " + n.payload


def lo():
    with connect() as c:
        oid = one(c, "select lo_from_bytea(0, %s)", [b"x" * 3000000])
        got = one(c, "select lo_get(%s)", [oid])
        c.execute("select lo_unlink(%s)", [oid])
        return len(got)


def large():
    with connect() as c:
        n = int(E["INTEROP_SIZE"])
        got = one(c, "select repeat('x', %s)", [n])
        return f"{len(got)} down, {one(c, 'select length(%s::text)', [got])} up"


def cancel():
    with connect() as c:
        pid = c.info.backend_pid

        def stop():
            with connect() as other:
                for _ in range(200):
                    if one(other, "select count(*) from pg_stat_activity where pid = %s and query like '%%pg_sleep%%'", [pid]):
                        break
                    time.sleep(0.05)
            c.cancel()

        t = threading.Thread(target=stop)
        t.start()
        try:
            c.execute("select pg_sleep(40)")
            return "not cancelled"
        except psycopg.errors.QueryCanceled as e:
            return e.sqlstate
        finally:
            t.join()


def error():
    with connect() as c:
        try:
            c.execute("select 1/0")
        except psycopg.Error as e:
            return f"{e.diag.severity} {e.sqlstate} {e.diag.message_primary}"


def notice():
    got = []
    with connect() as c:
        c.add_notice_handler(lambda d: got.append(f"{d.severity} {d.message_primary} {d.message_detail}"))
        c.execute("do $$ begin raise notice 'word' using detail = 'more'; end $$")
    return str(got)


def idle():
    with connect() as c:
        time.sleep(int(E["INTEROP_IDLE"]))
        return one(c, "select current_user")


def show(name, **more):
    with connect(**more) as c:
        return one(c, "show " + name)


def simple():
    with connect() as c:
        return str([r for r in c.pgconn.exec_(b"select 1").get_value(0, 0).decode()])


def extended():
    with connect() as c:
        return one(c, "select %s::text", ["7"], prepare=False)


FEATURES = {
    "sslrequest": tls, "direct": lambda: tls(sslnegotiation="direct"), "gssencmode": lambda: tls(gssencmode="prefer"),
    "scram": user, "channel-binding": lambda: user(channel_binding="require"), "md5": lambda: user(user="md5_user"),
    "clear": lambda: user(user="clear_user"),
    "cert": lambda: user(user="cert_user", password="", sslcert=E["INTEROP_CERT"], sslkey=E["INTEROP_KEY"]),
    "simple": simple, "extended": extended, "prepared": prepared, "pipeline": pipeline, "copy-in": copy_in, "copy-out": copy_out,
    "notify": notify, "lo": lo, "large": large, "cancel": cancel,
    "protocol-3.0": lambda: user(min_protocol_version="3.0", max_protocol_version="3.0"),
    "protocol-3.2": lambda: user(min_protocol_version="3.2"), "protocol-latest": lambda: user(max_protocol_version="latest"),
    "error": error, "notice": notice, "idle": idle, "options": lambda: show("statement_timeout", options="-c statement_timeout=7min"),
    "application-name": lambda: f"{len(show('application_name', application_name='n' * 70))} bytes of 70",
    "client-encoding": lambda: show("client_encoding", client_encoding="latin1"),
    "search-path": lambda: show("search_path", options="-csearch_path=interop,\\ public"),
}
for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]:
    FEATURES["sslmode-" + mode] = lambda mode=mode: tls(sslmode=mode)


def clean(e):
    text = " ".join(str(e).split())
    for secret in (f"port {E['INTEROP_PORT']} ",):
        text = text.replace(secret, "")
    return text.split("failed: ", 1)[-1][:300]


print(f"version\tpsycopg {psycopg.__version__}, libpq {psycopg.pq.version()}", flush=True)
for name in sys.argv[1:]:
    try:
        print(f"{name}\tok\t{FEATURES[name]()}", flush=True)
    except Unsupported as e:
        print(f"{name}\tunsupported\t{e}", flush=True)
    except Exception as e:
        if "invalid connection option" in str(e) or "invalid gssencmode value" in str(e) or "protocol_version value" in str(e):
            print(f"{name}\tunsupported\tthis libpq does not have it", flush=True)
        else:
            print(f"{name}\terror\t{clean(e)}", flush=True)
