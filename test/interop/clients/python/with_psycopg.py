# psycopg 3 as a client. Its libpq is the one that the loader finds.
import sys

import psycopg

from driver import BASE, RAISE, Unsupported, main, moments, of_libpq


def connect(**more):
    return psycopg.connect(autocommit=True, **(BASE | more))


def one(c, *query, **how):
    return c.execute(*query, **how).fetchone()[0]


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


def notice():
    got = []
    with connect() as c:
        c.add_notice_handler(lambda d: got.append(f"{d.severity} {d.message_primary} {d.message_detail}"))
        c.execute(RAISE)
    return str(got)


def simple():
    with connect() as c:
        return c.pgconn.exec_(b"select 1").get_value(0, 0).decode()


def extended():
    with connect() as c:
        return one(c, "select %s::text", ["7"], prepare=False)


if sys.argv[1:] == ["moments"]:
    moments(connect, one, lambda c: c.cancel(), lambda e: getattr(e, "sqlstate", None))
else:
    main(f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version()}", of_libpq(connect, one, lambda c: c.pgconn.ssl_in_use) | {
        "simple": simple, "extended": extended, "prepared": prepared, "pipeline": pipeline, "copy-in": copy_in, "copy-out": copy_out,
        "notify": notify, "lo": lo, "notice": notice,
    })
