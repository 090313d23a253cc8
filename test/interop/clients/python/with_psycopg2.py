# psycopg2 as a client. Its libpq is the one that the loader finds.
import contextlib
import io
import select
import sys

import psycopg2
import psycopg2.extensions

from driver import BASE, RAISE, lacks, main, moments, of_libpq


@contextlib.contextmanager
def connect(**more):
    c = psycopg2.connect(**(BASE | more))
    try:
        c.autocommit = True
        yield c
    finally:
        c.close()


def one(c, *query):
    with c.cursor() as cur:
        cur.execute(*query)
        return cur.fetchone()[0]


def copy_in():
    with connect() as c, c.cursor() as cur:
        cur.execute("create temp table t (n int8)")
        cur.copy_expert("copy t from stdin", io.StringIO("".join(f"{n}\n" for n in range(50000))))
        return one(c, "select count(*) || ' ' || sum(n) from t")


def copy_out():
    got = io.BytesIO()
    with connect() as c, c.cursor() as cur:
        cur.copy_expert("copy (select generate_series(1, 50000)) to stdout", got)
    return len(got.getvalue())


def notify():
    with connect() as c:
        with c.cursor() as cur:
            cur.execute("listen ch")
        with connect() as other, other.cursor() as cur:
            cur.execute("notify ch, 'word'")
        select.select([c], [], [], 90)
        c.poll()
        n = c.notifies.pop()
        return n.channel + " " + n.payload


def lo():
    # By FunctionCall messages, as libpq's lo_ functions do.
    with connect() as c:
        c.autocommit = False
        o = c.lobject(0, "wb")
        o.write(b"x" * 3000000)
        o.seek(0)
        o.close()
        o = c.lobject(o.oid, "rb")
        got = len(o.read())
        o.unlink()
        c.commit()
        return got


def notice():
    with connect() as c:
        with c.cursor() as cur:
            cur.execute(RAISE)
        return str([" ".join(n.split()) for n in c.notices])


def simple():
    with connect() as c:
        return one(c, "select 1; select 2")


def version():
    n = psycopg2.extensions.libpq_version()
    return f"psycopg2 {psycopg2.__version__.split()[0]}, libpq {n}"


of_the_simple_protocol = lacks("psycopg2 speaks the simple query protocol only")


def autocommitting(**more):
    c = psycopg2.connect(**(BASE | more))
    c.autocommit = True
    return c


if sys.argv[1:] == ["moments"]:
    moments(autocommitting, one, lambda c: c.cancel(), lambda e: getattr(e, "pgcode", None))
else:
    main(version(), of_libpq(connect, one, lambda c: c.info.ssl_in_use) | {
        "simple": simple, "extended": of_the_simple_protocol, "prepared": of_the_simple_protocol, "pipeline": of_the_simple_protocol,
        "copy-in": copy_in, "copy-out": copy_out, "notify": notify, "lo": lo, "notice": notice,
    })
