// node-postgres as a client.
"use strict";
const fs = require("fs");
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const { Client } = require("pg");
const { from, to } = require("pg-copy-streams");

const E = process.env;
const ca = fs.readFileSync(E.INTEROP_CA);
const base = { host: E.INTEROP_HOST, port: +E.INTEROP_PORT, database: "postgres", user: "app", password: E.INTEROP_PASSWORD, ssl: { ca }, connectionTimeoutMillis: 20000 };

class Unsupported extends Error {}
const lacks = (why) => async () => { throw new Unsupported(why); };

async function withClient(more, f) {
  const c = new Client({ ...base, ...more });
  c.on("error", () => {});
  await c.connect();
  try { return await f(c); } finally { await c.end(); }
}
const one = async (c, q, values) => Object.values((await c.query(q, values)).rows[0])[0];
const user = (more) => () => withClient(more, (c) => one(c, "select current_user"));
const tls = (more) => () => withClient(more, async (c) => (c.connection.stream.encrypted ? "over TLS" : "without TLS"));
const url = (mode) => ({ connectionString: `postgres://app:${encodeURIComponent(E.INTEROP_PASSWORD)}@${E.INTEROP_HOST}:${E.INTEROP_PORT}/postgres?sslmode=${mode}&sslrootcert=${E.INTEROP_CA}&uselibpqcompat=true`, ssl: undefined });
const show = (name, more) => () => withClient(more, (c) => one(c, "show " + name));

const features = {
  "sslrequest": tls({}),
  "direct": tls({ sslnegotiation: "direct" }),
  "sslmode-disable": tls(url("disable")),
  "sslmode-allow": lacks("node-postgres has no sslmode=allow"),
  "sslmode-prefer": tls(url("prefer")),
  "sslmode-require": tls(url("require")),
  "sslmode-verify-ca": tls(url("verify-ca")),
  "sslmode-verify-full": tls(url("verify-full")),
  "gssencmode": lacks("node-postgres has no GSSAPI"),
  "scram": user({}),
  "channel-binding": lacks("node-postgres cannot require it"),
  "md5": user({ user: "md5_user" }),
  "clear": user({ user: "clear_user" }),
  "cert": () => user({ user: "cert_user", password: "", ssl: { ca, cert: fs.readFileSync(E.INTEROP_CERT), key: fs.readFileSync(E.INTEROP_KEY) } })(),
  "simple": () => withClient({}, async (c) => (await c.query("select 1; select 2")).length + " results"),
  "extended": () => withClient({}, (c) => one(c, "select $1::text", ["7"])),
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
  "lo": () => withClient({}, async (c) => {
    const id = await one(c, "select lo_from_bytea(0, $1)", [Buffer.alloc(3000000, "x")]);
    const got = await one(c, "select lo_get($1)", [id]);
    await c.query("select lo_unlink($1)", [id]);
    return got.length;
  }),
  "large": () => withClient({}, async (c) => {
    const got = await one(c, "select repeat('x', $1)", [+E.INTEROP_SIZE]);
    return `${got.length} down, ${await one(c, "select length($1::text)", [got])} up`;
  }),
  "cancel": () => withClient({}, async (c) => {
    const sleeping = c.query("select pg_sleep(40)").then(() => "not cancelled", (e) => e.code);
    await withClient({}, async (other) => {
      for (let i = 0; i < 200 && (await one(other, "select count(*)::int from pg_stat_activity where pid = $1 and query like '%pg_sleep%'", [c.processID])) === 0; i++) await new Promise((r) => setTimeout(r, 50));
    });
    // Its own cancel() knows the query, and opens a connection as the first one.
    const canceller = new Client(base);
    canceller.connection.on("error", () => {});
    canceller.cancel(c, c._activeQuery ?? c.activeQuery);
    return sleeping;
  }),
  "protocol-3.0": user({}),
  "protocol-3.2": lacks("node-postgres speaks 3.0"),
  "protocol-latest": lacks("node-postgres speaks 3.0"),
  "error": () => withClient({}, (c) => c.query("select 1/0").catch((e) => `${e.severity} ${e.code} ${e.message}`)),
  "notice": () => withClient({}, async (c) => {
    const got = [];
    c.on("notice", (n) => got.push(`${n.severity} ${n.message} ${n.detail}`));
    await c.query("do $$ begin raise notice 'word' using detail = 'more'; end $$");
    return got.join();
  }),
  "idle": () => withClient({}, async (c) => {
    await new Promise((r) => setTimeout(r, E.INTEROP_IDLE * 1000));
    return one(c, "select current_user");
  }),
  "options": show("statement_timeout", { options: "-c statement_timeout=7min" }),
  "application-name": () => withClient({ application_name: "n".repeat(70) }, async (c) => (await one(c, "show application_name")).length + " bytes of 70"),
  "client-encoding": show("client_encoding", { client_encoding: "UTF8" }),
  "search-path": show("search_path", { options: "-csearch_path=interop,\\ public" }),
};

(async () => {
  console.log(`version\tnode-postgres ${require("pg/package.json").version}, node ${process.version}`);
  for (const name of process.argv.slice(2)) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no answer")), 120000 + E.INTEROP_IDLE * 1000).unref());
    try {
      console.log(`${name}\tok\t${await Promise.race([features[name](), late])}`);
    } catch (e) {
      const text = String(e.message || e).replace(/\s+/g, " ").replaceAll(E.INTEROP_PORT, "PORT");
      console.log(`${name}\t${e instanceof Unsupported ? "unsupported" : "error"}\t${text}`);
    }
  }
  process.exit(0);
})();
