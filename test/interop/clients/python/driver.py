# What the Python clients have in common: what they are asked, and how they answer.
import os
import sys
import threading
import time

E = os.environ
# libpq's words.
BASE = dict(host=E["INTEROP_HOST"], port=E["INTEROP_PORT"], dbname="postgres", user="app", password=E["INTEROP_PASSWORD"],
            sslmode="require", sslrootcert=E["INTEROP_CA"], sslcert="none", sslkey="none", gssencmode="disable", connect_timeout=90)
RAISE = "do $$ begin raise notice 'word' using detail = 'more'; end $$"
SLEEPS = "select count(*) from pg_stat_activity where pid = %d and wait_event = 'PgSleep'"


class Unsupported(Exception):
    pass


def lacks(why):
    def f():
        raise Unsupported(why)
    return f


def of_libpq(connect, one, in_tls):
    """The features that need no more of a client than a connection and one value of a query.

    connect takes libpq's words, and what it returns is for a with statement. in_tls says whether that is over TLS.
    """
    def tls(**more):
        with connect(**more) as c:
            return "over TLS" if in_tls(c) else "without TLS"

    def ask(sql, **more):
        with connect(**more) as c:
            return one(c, sql)

    def user(**more):
        return ask("select current_user", **more)

    def large():
        with connect() as c:
            got = one(c, "select repeat('x', %s)", [int(E["INTEROP_SIZE"])])
            return f"{len(got)} down, {one(c, 'select length(%s::text)', [got])} up"

    def idle():
        with connect() as c:
            time.sleep(int(E["INTEROP_IDLE"]))
            return one(c, "select current_user")

    def cancel():
        with connect() as c:
            def stop():
                asleep(connect, one, c.info.backend_pid)
                c.cancel()

            t = threading.Thread(target=stop)
            t.start()
            try:
                one(c, "select pg_sleep(120)")
                return "not cancelled"
            except Exception as e:
                return e.diag.sqlstate
            finally:
                t.join()

    def error():
        with connect() as c:
            try:
                return one(c, "select 1/0")
            except Exception as e:
                return f"{e.diag.severity} {e.diag.sqlstate} {e.diag.message_primary}"

    features = {
        "sslrequest": tls, "direct": lambda: tls(sslnegotiation="direct"), "gssencmode": lambda: tls(gssencmode="prefer"),
        "scram": user, "channel-binding": lambda: user(channel_binding="require"), "md5": lambda: user(user="md5_user"),
        "clear": lambda: user(user="clear_user"),
        "cert": lambda: user(user="cert_user", password="", sslcert=E["INTEROP_CERT"], sslkey=E["INTEROP_KEY"]),
        "large": large, "cancel": cancel, "error": error, "idle": idle,
        "protocol-3.0": lambda: user(min_protocol_version="3.0", max_protocol_version="3.0"),
        "protocol-3.2": lambda: user(min_protocol_version="3.2"), "protocol-latest": lambda: user(max_protocol_version="latest"),
        "options": lambda: ask("show statement_timeout", options="-c statement_timeout=7min"),
        "application-name": lambda: f"{len(ask('show application_name', application_name='n' * 70))} bytes of 70",
        "client-encoding": lambda: ask("show client_encoding", client_encoding="latin1"),
        "search-path": lambda: ask("show search_path", options="-csearch_path=interop,\\ public"),
    }
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]:
        features["sslmode-" + mode] = lambda mode=mode: tls(sslmode=mode)
    return features


def asleep(connect, one, pid):
    """Waits until a session sleeps in its query: a request that comes before the query cancels nothing."""
    with connect() as c:
        for _ in range(200):
            if one(c, SLEEPS % pid):
                return
            time.sleep(0.05)
    raise RuntimeError("the query does not begin")


def clean(e):
    # Ports differ between the two ways.
    text = " ".join(str(e).split()) or type(e).__name__
    return text.replace(f"port {E['INTEROP_PORT']} ", "").split("failed: ", 1)[-1].replace(E["INTEROP_PORT"], "PORT")[:300]


def main(version, features):
    print(f"version\t{version}", flush=True)
    for name in sys.argv[1:]:
        try:
            print(f"{name}\tok\t{features[name]()}", flush=True)
        except Unsupported as e:
            print(f"{name}\tunsupported\t{e}", flush=True)
        except Exception as e:
            if "invalid connection option" in str(e) or "invalid gssencmode value" in str(e) or "protocol_version value" in str(e):
                print(f"{name}\tunsupported\tthis libpq does not have it", flush=True)
            else:
                print(f"{name}\terror\t{clean(e)}", flush=True)


def answered(code, f):
    """Answers a command: ok or error, the SQLSTATE and the text."""
    try:
        print(f"ok\t\t{f() or ''}", flush=True)
    except Exception as e:
        print(f"error\t{code(e) or ''}\t{clean(e)}", flush=True)


def moments(connect, one, cancel, code):
    """Obeys the commands that come on standard input, a line each, and answers each with a line.

    connect takes libpq's words and returns a connection, code the SQLSTATE of an error.
    """
    session = running = None

    def opened(user):
        pair = dict(password="", sslcert=E["INTEROP_CERT"], sslkey=E["INTEROP_KEY"]) if user == "cert_user" else {}
        return connect(user=user, sslmode="verify-full", **pair)

    def close():
        nonlocal session
        if session:
            session.close()
        session = None

    def reopen(user):
        nonlocal session
        close()
        session = opened(user)

    def attempt(user):
        other = opened(user)
        try:
            return one(other, "select 'in'")
        finally:
            other.close()

    def sleep():
        nonlocal running
        ended = []

        def run():
            try:
                one(session, "select 'slept' from pg_sleep(120)")
            except Exception as e:
                ended.append(e)

        running = threading.Thread(target=run), ended
        running[0].start()

    def stop():
        cancel(session)
        running[0].join()
        if running[1]:
            raise running[1][0]
        return "it was not cancelled"

    commands = {"open": reopen, "try": attempt, "ask": lambda: one(session, "select 'in'"), "sleep": sleep, "cancel": stop, "close": close}
    for line in sys.stdin:
        name, *user = line.split()
        answered(code, lambda: commands[name](*user))
