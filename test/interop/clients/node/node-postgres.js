// node-postgres as a client.
"use strict";
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const { Client } = require("pg");
const { from, to } = require("pg-copy-streams");
const { E, ca, lacks, common, asleep, main, moments } = require("./driver.js");

const base = { host: E.INTEROP_HOST, port: +E.INTEROP_PORT, database: "postgres", user: "app", password: E.INTEROP_PASSWORD, ssl: { ca }, connectionTimeoutMillis: 90000 };

async function withClient(more, f) {
  const c = new Client({ ...base, ...more });
  c.on("error", () => {});
  await c.connect();
  try { return await f(c); } finally { await c.end(); }
}
const one = async (c, q, values) => Object.values((await c.query(q, values)).rows[0])[0];
const tls = (more) => () => withClient(more, async (c) => (c.connection.stream.encrypted ? "over TLS" : "without TLS"));
const url = (mode) => ({ connectionString: `postgres://app:${encodeURIComponent(E.INTEROP_PASSWORD)}@${E.INTEROP_HOST}:${E.INTEROP_PORT}/postgres?sslmode=${mode}&sslrootcert=${E.INTEROP_CA}&uselibpqcompat=true`, ssl: undefined });

async function session(more) {
  const c = new Client({ ...base, ...more });
  const s = {
    do: (q) => one(c, q),
    cancel: async () => {
      const canceller = new Client(base);
      canceller.connection.on("error", () => {});
      canceller.cancel(c, c._activeQuery ?? c.activeQuery);
    },
    close: () => Promise.race([c.end(), new Promise((r) => setTimeout(r, 1000))]),
  };
  c.on("error", (e) => { s.lost ??= e; });
  await c.connect();
  return s;
}

if (process.argv[2] === "moments") moments(session);
else main(`node-postgres ${require("pg/package.json").version}`, {
  ...common(withClient, one, { startup: (parameters) => parameters }),
  "sslrequest": tls({}),
  "direct": tls({ sslnegotiation: "direct" }),
  "sslmode-disable": tls(url("disable")),
  "sslmode-allow": lacks("node-postgres has no sslmode=allow"),
  "sslmode-prefer": tls(url("prefer")),
  "sslmode-require": tls(url("require")),
  "sslmode-verify-ca": tls(url("verify-ca")),
  "sslmode-verify-full": tls(url("verify-full")),
  "gssencmode": lacks("node-postgres has no GSSAPI"),
  "channel-binding": lacks("node-postgres cannot require it"),
  "simple": () => withClient({}, async (c) => (await c.query("select 1; select 2")).length + " results"),
  "prepared": () => withClient({}, async (c) => {
    const got = [];
    for (let n = 0; n < 3; n++) got.push(Object.values((await c.query({ name: "p", text: "select $1::int", values: [n] })).rows[0])[0]);
    return got.join(" ");
  }),
  "pipeline": lacks("node-postgres sends one query at a time"),
  "copy-in": () => withClient({}, async (c) => {
    await c.query("create temp table t (n int8)");
    await pipeline(Readable.from((function* () { for (let n = 0; n < 50000; n++) yield n + "\n"; })()), c.query(from("copy t from stdin")));
    return one(c, "select count(*) || ' ' || sum(n) from t");
  }),
  "copy-out": () => withClient({}, async (c) => {
    let size = 0;
    for await (const b of c.query(to("copy (select generate_series(1, 50000)) to stdout"))) size += b.length;
    return size;
  }),
  "notify": () => withClient({}, async (c) => {
    const got = new Promise((resolve) => c.on("notification", (n) => resolve(n.channel + " " + n.payload)));
    await c.query("listen ch");
    await withClient({}, (other) => other.query("notify ch, 'word'"));
    return got;
  }),
  "cancel": () => withClient({}, async (c) => {
    const sleeping = c.query("select pg_sleep(120)").then(() => "not cancelled", (e) => e.code);
    await asleep(withClient, one, c.processID);
    // Its own cancel() knows the query, and opens a connection as the first one.
    const canceller = new Client(base);
    canceller.connection.on("error", () => {});
    canceller.cancel(c, c._activeQuery ?? c.activeQuery);
    return sleeping;
  }),
  "protocol-3.2": lacks("node-postgres speaks 3.0"),
  "protocol-latest": lacks("node-postgres speaks 3.0"),
  "error": () => withClient({}, (c) => c.query("select 1/0").catch((e) => `${e.severity} ${e.code} ${e.message}`)),
  "notice": () => withClient({}, async (c) => {
    const got = [];
    c.on("notice", (n) => got.push(`${n.severity} ${n.message} ${n.detail}`));
    await c.query("do $$ begin raise notice 'word' using detail = 'more'; end $$");
    return got.join();
  }),
  "client-encoding": () => withClient({ client_encoding: "UTF8" }, (c) => one(c, "show client_encoding")),
});
