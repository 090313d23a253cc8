# asyncpg as a client.
import asyncio
import contextlib
import platform
import ssl
import sys

import asyncpg

from driver import E, RAISE, SLEEPS, clean, lacks, main

PAIR = f"&sslcert={E['INTEROP_CERT']}&sslkey={E['INTEROP_KEY']}"


@contextlib.asynccontextmanager
async def connect(mode="verify-full", user="app", pair="", **more):
    c = await asyncpg.connect(f"postgres://{user}@{E['INTEROP_HOST']}:{E['INTEROP_PORT']}/postgres?sslmode={mode}&sslrootcert={E['INTEROP_CA']}{pair}",
                              **(dict(password=E["INTEROP_PASSWORD"], timeout=90) | more))
    try:
        yield c
    finally:
        await c.close()


def use(f, **more):
    """A feature: what f returns, which has the use of a connection."""
    async def whole():
        async with connect(**more) as c:
            return await f(c)
    return lambda: asyncio.run(whole())


def ask(*query, **more):
    return use(lambda c: c.fetchval(*query), **more)


def user(**more):
    return ask("select current_user", **more)


async def tls(c):
    return "over TLS" if c._transport.get_extra_info("ssl_object") else "without TLS"


async def simple(c):
    return await c.execute("select 1; select 2")


async def prepared(c):
    statement = await c.prepare("select $1::int")
    return [await statement.fetchval(n) for n in range(3)]


async def copy_in(c):
    await c.execute("create temp table t (n int8)")
    await c.copy_records_to_table("t", records=[(n,) for n in range(50000)])
    return await c.fetchval("select count(*) || ' ' || sum(n) from t")


async def copy_out(c):
    size = 0

    async def add(b):
        nonlocal size
        size += len(b)
    await c.copy_from_query("select generate_series(1, 50000)", output=add)
    return size


async def notify(c):
    got = asyncio.get_running_loop().create_future()
    await c.add_listener("ch", lambda _, pid, channel, payload: got.set_result(f"{channel} {payload}"))
    async with connect() as other:
        await other.execute("notify ch, 'word'")
    return await asyncio.wait_for(got, 90)


async def lo(c):
    oid = await c.fetchval("select lo_from_bytea(0, $1)", b"x" * 3000000)
    got = await c.fetchval("select lo_get($1)", oid)
    await c.execute(f"select lo_unlink({oid})")
    return len(got)


async def large(c):
    got = await c.fetchval("select repeat('x', $1)", int(E["INTEROP_SIZE"]))
    return f"{len(got)} down, {await c.fetchval('select length($1::text)', got)} up"


async def cancel(c):
    """A task that is cancelled has its query cancelled; the error is asyncpg's to hide."""
    pid = c.get_server_pid()
    sleeping = asyncio.create_task(c.execute("select pg_sleep(120)"))
    async with connect() as other:
        async def until(n):
            for _ in range(200):
                if await other.fetchval(SLEEPS % pid) == n:
                    return
                await asyncio.sleep(0.05)
            raise RuntimeError(f"the queries that sleep are not {n}")
        await until(1)
        sleeping.cancel()
        await until(0)
    with contextlib.suppress(asyncio.CancelledError):
        await sleeping
    return await c.fetchval("select 'no longer asleep'")


async def error(c):
    try:
        await c.execute("select 1/0")
    except asyncpg.PostgresError as e:
        return f"{e.severity} {e.sqlstate} {e}"


async def notice(c):
    got = []
    c.add_log_listener(lambda _, n: got.append(f"{n.severity} {n.message} {n.detail}"))
    await c.execute(RAISE)
    await asyncio.sleep(0)  # listeners are called soon, not at once
    return got


async def idle(c):
    await asyncio.sleep(int(E["INTEROP_IDLE"]))
    return await c.fetchval("select current_user")


def verifying():
    return ssl.create_default_context(cafile=E["INTEROP_CA"])


FEATURES = {
    "sslrequest": use(tls), "direct": lambda: use(tls, direct_tls=True, ssl=verifying())(),
    "gssencmode": lacks("asyncpg has no GSSAPI"), "scram": user(), "channel-binding": lacks("asyncpg has no channel binding"),
    "md5": user(user="md5_user"), "clear": user(user="clear_user"), "cert": user(user="cert_user", password="", pair=PAIR),
    "simple": use(simple), "extended": ask("select $1::text", "7", statement_cache_size=0), "prepared": use(prepared),
    "pipeline": lacks("asyncpg sends one query at a time"), "copy-in": use(copy_in), "copy-out": use(copy_out), "notify": use(notify),
    "lo": use(lo), "large": use(large), "cancel": use(cancel), "protocol-3.0": user(),
    "protocol-3.2": lacks("asyncpg speaks 3.0"), "protocol-latest": lacks("asyncpg speaks 3.0"),
    "error": use(error), "notice": use(notice), "idle": use(idle),
    "options": ask("show statement_timeout", server_settings={"options": "-c statement_timeout=7min"}),
    "application-name": ask("select length(current_setting('application_name')) || ' bytes of 70'", server_settings={"application_name": "n" * 70}),
    "client-encoding": lacks("asyncpg allows UTF8 only"),
    "search-path": ask("show search_path", server_settings={"search_path": "interop, public"}),
}
for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]:
    FEATURES["sslmode-" + mode] = use(tls, mode=mode)



class Moments:
    """What driver.moments does, for a client without threads."""

    session = running = None

    async def open(self, user):
        await self.close()
        self.session = await self.opened(user)

    async def opened(self, user):
        pair, more = (PAIR, dict(password="")) if user == "cert_user" else ("", dict(password=E["INTEROP_PASSWORD"]))
        return await asyncpg.connect(f"postgres://{user}@{E['INTEROP_HOST']}:{E['INTEROP_PORT']}/postgres?sslmode=verify-full&sslrootcert={E['INTEROP_CA']}{pair}",
                                     timeout=30, **more)

    async def attempt(self, user):
        other = await self.opened(user)
        try:
            return await other.fetchval("select 'in'")
        finally:
            await other.close()

    async def ask(self):
        return await self.session.fetchval("select 'in'")

    async def sleep(self):
        self.running = asyncio.ensure_future(self.session.fetchval("select 'slept' from pg_sleep(120)"))

    async def cancel(self):
        # As by a timeout: asyncpg sends the request, and the next query waits until it is done.
        self.running.cancel()
        try:
            return await self.running
        except asyncio.CancelledError:
            raise RuntimeError("CancelledError, of the client itself") from None

    async def close(self):
        if self.session:
            self.session.terminate()
        self.session = None

    async def obey(self):
        commands = {"open": self.open, "try": self.attempt, "ask": self.ask, "sleep": self.sleep, "cancel": self.cancel, "close": self.close}
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, *user = line.split()
            try:
                print(f"ok\t\t{await commands[name](*user) or ''}", flush=True)
            except Exception as e:
                print(f"error\t{getattr(e, 'sqlstate', None) or ''}\t{clean(e)}", flush=True)


if sys.argv[1:] == ["moments"]:
    asyncio.run(Moments().obey())
else:
    main(f"asyncpg {asyncpg.__version__}, Python {platform.python_version()}", FEATURES)
