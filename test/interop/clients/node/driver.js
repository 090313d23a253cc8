// What the clients on node have in common: what they are asked, and how they
// answer.
"use strict";
const fs = require("fs");

const E = process.env;
const ca = fs.readFileSync(E.INTEROP_CA);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Unsupported extends Error {}
const lacks = (why) => async () => { throw new Unsupported(why); };

// common are the features that need no more of a client than one(c, sql, values),
// which returns a value, and withClient(options, f), which has f use a connection.
// name says which options those are that the clients spell unlike.
function common(withClient, one, name) {
  const ask = (more, sql, values) => () => withClient(more, (c) => one(c, sql, values));
  const user = (more) => ask(more, "select current_user");
  const show = (setting, more) => ask(more, "show " + setting);
  return {
    "scram": user({}),
    "md5": user({ user: "md5_user" }),
    "clear": user({ user: "clear_user" }),
    "cert": () => user({ user: "cert_user", password: "", ssl: { ca, cert: fs.readFileSync(E.INTEROP_CERT), key: fs.readFileSync(E.INTEROP_KEY) } })(),
    "extended": ask({}, "select $1::text", ["7"]),
    "protocol-3.0": user({}),
    "lo": () => withClient({}, async (c) => {
      const id = await one(c, "select lo_from_bytea(0, $1)", [Buffer.alloc(3000000, "x")]);
      const got = await one(c, "select lo_get($1)", [id]);
      await one(c, "select lo_unlink($1)", [id]);
      return got.length;
    }),
    "large": () => withClient({}, async (c) => {
      const got = await one(c, "select repeat('x', $1)", [+E.INTEROP_SIZE]);
      return `${got.length} down, ${await one(c, "select length($1::text)", [got])} up`;
    }),
    "idle": () => withClient({}, async (c) => {
      await sleep(E.INTEROP_IDLE * 1000);
      return one(c, "select current_user");
    }),
    "options": show("statement_timeout", name.startup({ options: "-c statement_timeout=7min" })),
    "application-name": ask(name.startup({ application_name: "n".repeat(70) }), "select length(current_setting('application_name')) || ' bytes of 70'"),
    "search-path": show("search_path", name.startup({ options: "-csearch_path=interop,\\ public" })),
  };
}

// asleep waits until a session sleeps in its query: a request that comes before
// the query cancels nothing.
async function asleep(withClient, one, pid) {
  await withClient({}, async (c) => {
    for (let i = 0; i < 200; i++) {
      if (await one(c, "select count(*)::int from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'", [pid])) return;
      await sleep(50);
    }
    throw new Error("the query does not begin");
  });
}

async function main(version, features) {
  console.log(`version\t${version}, node ${process.version}`);
  for (const name of process.argv.slice(2)) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no answer")), 120000 + E.INTEROP_IDLE * 1000).unref());
    try {
      console.log(`${name}\tok\t${await Promise.race([features[name](), late])}`);
    } catch (e) {
      // Ports differ between the two ways.
      const text = String(e.message || e).replace(/\s+/g, " ").replaceAll(E.INTEROP_PORT, "PORT");
      console.log(`${name}\t${e instanceof Unsupported ? "unsupported" : "error"}\t${text}`);
    }
  }
  process.exit(0);
}

// moments obeys the commands that come on standard input, a line each, and answers each
// with a line: ok or error, the SQLSTATE and the text. open(user) returns a session:
// do(sql), cancel(), close(), and lost, an error that came while nothing was asked.
async function moments(open) {
  const more = (user) => (user === "cert_user" ? { user, password: "", ssl: { ca, cert: fs.readFileSync(E.INTEROP_CERT), key: fs.readFileSync(E.INTEROP_KEY) } } : { user });
  let session;
  let running;
  const close = async () => { if (session) await session.close(); session = undefined; };
  const commands = {
    open: async (user) => { await close(); session = await open(more(user)); },
    try: async (user) => {
      const other = await open(more(user));
      try { return await other.do("select 'in'"); } finally { await other.close(); }
    },
    ask: async () => {
      const { lost } = session;
      session.lost = undefined;
      if (lost) throw lost;
      return session.do("select 'in'");
    },
    sleep: async () => { running = session.do("select 'slept' from pg_sleep(120)").then(() => undefined, (e) => e); },
    cancel: async () => {
      await session.cancel();
      const e = await running;
      if (e) throw e;
      return "it was not cancelled";
    },
    close,
  };
  for await (const line of require("readline").createInterface({ input: process.stdin })) {
    const [command, user] = line.split(" ");
    try {
      console.log(`ok\t\t${(await commands[command](user)) ?? ""}`);
    } catch (e) {
      const text = String(e.message || e).replace(/\s+/g, " ").replaceAll(E.INTEROP_PORT, "PORT").replace(/^[0-9A-F]+:error:/, "error:");
      console.log(`error\t${e.severity || e.severity_local ? e.code : ""}\t${text}${!e.severity && e.code ? ` (${e.code})` : ""}`);
    }
  }
  process.exit(0);
}

module.exports = { moments, E, ca, lacks, common, asleep, main };
