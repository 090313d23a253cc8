// postgres.js as a client.
"use strict";
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const fs = require("fs");
const path = require("path");
const postgres = require("postgres");
const { E, ca, lacks, common, asleep, main, moments } = require("./driver.js");

// Its package shows no other way to its version.
const { version } = JSON.parse(fs.readFileSync(path.join(E.NODE_PATH, "postgres", "package.json")));

const base = { host: E.INTEROP_HOST, port: +E.INTEROP_PORT, database: "postgres", user: "app", password: E.INTEROP_PASSWORD, ssl: { ca }, connect_timeout: 90, max: 1, fetch_types: false, onnotice: () => {}, backoff: () => 0 };

async function withClient(more, f) {
  const sql = postgres({ ...base, ...more });
  try { return await f(sql); } finally { await sql.end({ timeout: 5 }); }
}
const one = async (sql, q, values) => Object.values((await sql.unsafe(q, values))[0])[0];
const user = (more) => () => withClient(more, (sql) => one(sql, "select current_user"));

// It is a pool of one connection, which it opens again when a query needs it.
async function session(more) {
  const sql = postgres({ ...base, ...more });
  await one(sql, "select 1");
  let running;
  return {
    do: async (q) => { running = sql.unsafe(q); return Object.values((await running)[0])[0]; },
    cancel: async () => running.cancel(),
    close: () => sql.end({ timeout: 1 }),
  };
}

if (process.argv[2] === "moments") moments(session);
else main(`postgres.js ${version}`, {
  ...common(withClient, one, { startup: (parameters) => ({ connection: parameters }) }),
  "sslrequest": user({}),
  "direct": user({ sslnegotiation: "direct" }),
  "sslmode-disable": user({ ssl: false }),
  // Its allow asks for TLS first, as prefer does.
  "sslmode-allow": user({ ssl: "allow" }),
  "sslmode-prefer": user({ ssl: "prefer" }),
  "sslmode-require": user({ ssl: "require" }),
  "sslmode-verify-ca": lacks("postgres.js has no sslmode=verify-ca"),
  "sslmode-verify-full": user({}),
  "gssencmode": lacks("postgres.js has no GSSAPI"),
  "channel-binding": lacks("postgres.js has no channel binding"),
  "simple": () => withClient({}, async (sql) => (await sql`select 1; select 2`.simple()).length + " results"),
  "prepared": () => withClient({}, async (sql) => {
    const got = [];
    for (let n = 0; n < 3; n++) got.push((await sql`select ${n}::int as n`)[0].n);
    return got.join(" ");
  }),
  "pipeline": () => withClient({}, async (sql) => (await Promise.all([0, 1, 2, 3, 4].map((n) => sql`select ${n}::int as n`))).map((r) => r[0].n).join(" ")),
  "copy-in": () => withClient({}, async (sql) => {
    await sql`create temp table t (n int8)`;
    await pipeline(Readable.from((function* () { for (let n = 0; n < 50000; n++) yield n + "\n"; })()), await sql`copy t from stdin`.writable());
    return one(sql, "select count(*) || ' ' || sum(n) from t");
  }),
  "copy-out": () => withClient({}, async (sql) => {
    let size = 0;
    for await (const b of await sql`copy (select generate_series(1, 50000)) to stdout`.readable()) size += b.length;
    return size;
  }),
  "notify": () => withClient({}, async (sql) => {
    let heard;
    const got = new Promise((resolve) => { heard = resolve; });
    await sql.listen("ch", (payload) => heard("ch " + payload));
    await sql.notify("ch", "word");
    return got;
  }),
  "cancel": () => withClient({}, async (sql) => {
    const pid = await one(sql, "select pg_backend_pid()");
    const query = sql`select pg_sleep(120)`;
    const sleeping = query.then(() => "not cancelled", (e) => e.code);
    await asleep(withClient, one, pid);
    query.cancel();
    return sleeping;
  }),
  "protocol-3.2": lacks("postgres.js speaks 3.0"),
  "protocol-latest": lacks("postgres.js speaks 3.0"),
  "error": () => withClient({}, (sql) => sql`select 1/0`.catch((e) => `${e.severity} ${e.code} ${e.message}`)),
  "notice": async () => {
    const got = [];
    await withClient({ onnotice: (n) => got.push(`${n.severity} ${n.message} ${n.detail}`) }, (sql) => sql.unsafe("do $$ begin raise notice 'word' using detail = 'more'; end $$"));
    return got.join();
  },
  "client-encoding": () => withClient({ connection: { client_encoding: "UTF8" } }, (sql) => one(sql, "show client_encoding")),
});
