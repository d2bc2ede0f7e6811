// The exchange of ../README.md: pings and answers a partner at another server, until the partner says `bye`. Arguments
// are there too. Exit status: 0 if all nonces came, 1 if not, 2 for arguments that cannot be used.

import { createPrivateKey, generateKeyPair, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, promisify } from "node:util";
import { errorInfo } from "./calls.js";
import { Client } from "./client.js";
import { Device } from "./device.js";
import { hex, makeUser, sealMessage, sign } from "./documents.js";
import { receiveFile, safeName, sendFile } from "./files.js";
import { KINDS } from "./receipts.js";

const text = { type: "string" };
const optional = { key: text, files: text, receipts: text, seconds: text };
const names = { server: text, "server-id": text, ca: text, name: text, partner: text, ...optional };

function readArguments() {
  const { values } = parseArgs({ options: names });
  for (const name of ["server", "server-id", "ca", "name", "partner"])
    if (!values[name]) throw new Error(`\`--${name}\` is missing`);
  if (!values.partner.includes("@")) throw new Error("`--partner` is not USER@SERVER");
  if (values.receipts && !(values.receipts in KINDS)) throw new Error("`--receipts` is neither delivered nor read");
  const seconds = Number(values.seconds ?? 120);
  if (!(seconds > 0)) throw new Error("`--seconds` is not a number above 0");
  return { ...values, seconds, ca: readFileSync(values.ca) };
}

async function readKey(file) {
  try {
    if (file) return createPrivateKey(readFileSync(file));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: 4096 });
  if (file) writeFileSync(file, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600, flag: "wx" });
  return privateKey;
}

// Others' texts reach a terminal: no control characters.
const clean = (value) => value.replace(/\p{Cc}/gu, "?");
const say = (line) => console.log(clean(line));
const why = (error) => errorInfo(error).reason || error.message;

// Keeps its last login, to be sent again by `refusals`.
class Sample extends Client {
  signLogin(nonce) {
    return (this.lastLogin = super.signLogin(nonce));
  }
}

class Exchange {
  #client;
  #partner;
  #nonces = { tell: hex(randomBytes(16)), all: hex(randomBytes(16)) };
  #answered = new Set();
  #heard = { message: new Set(), post: new Set() };
  #online = false;
  #shownAt; // the partner's home, once the partner was seen in the directory
  #pinging = new Set();
  #found; // the partner's name and home id
  #folder; // for files of the partner's
  #later = []; // to be said once the partner is away
  #queued = 0;
  #settled = [];
  #numbered = []; // of posts `number`
  #receipts = { delivered: new Set(), read: new Set() }; // the own messages that they speak of
  #bye;
  finished = new Promise((resolve) => (this.#bye = resolve));

  constructor(client, partner, folder) {
    this.#client = client;
    this.#partner = partner;
    this.#folder = folder;
    client.on("online", (user) => {
      say(`online as ${user}`);
      this.#online = true;
      this.#ping();
    });
    client.on("added", (entry) => this.#shown("added", entry));
    client.on("updated", (entry) => this.#shown("updated", entry));
    client.on("removed", (entry) => {
      say(`removed ${entry.user}`);
      if (entry.user === this.#partner) for (const argument of this.#later.splice(0)) this.#sayLater(argument);
    });
    client.on("settled", ({ id, to, kind, reason }) => {
      say(`settled: ${id} to ${to}: ${kind} ${reason}`);
      this.#settled.push(kind);
    });
    client.on("receipt", ({ from, receipt, answered }) => {
      const kind = receipt.kind === KINDS.read ? "read" : "delivered";
      say(`${from} says: ${kind} ${answered.join(" ")}`);
      for (const id of answered) this.#receipts[kind].add(id);
    });
    client.on("missed", (count) => say(`${count} messages are gone that this device has not had`));
    client.on("postsMissed", (count) => say(`up to ${count} posts are gone that this device has not had`));
    client.on("synced", () => say(`${client.view.size} users online`));
    for (const kind of ["message", "post"])
      client.on(kind, (read) => this.#read(kind, read).catch((error) => say(`not answered: ${why(error)}`)));
    client.on("unreadable", (error) => say(`unreadable: ${error.message}`));
    client.on("keyChanged", (error) => say(`WARNING: ${error.message}`));
    client.on("lost", (error) => say(`lost the connection: ${why(error)}`));
    client.on("ended", (error) => this.#bye(error && `ended: ${why(error)}`));
  }

  // Both nonces came back, and both of the partner's were opened.
  get complete() {
    return this.#answered.size === 2 && this.#heard.message.size > 0 && this.#heard.post.size > 0;
  }

  #shown(kind, entry) {
    say(`${kind} ${entry.user}, key ${entry.keyFingerprint.slice(0, 16)}`);
    if (entry.user !== this.#partner || this.#shownAt) return;
    this.#shownAt = entry.serverId;
    this.#ping();
  }

  // Not before the answer can come, so not before being online; and once more after coming back online, if an answer
  // did not come: it may have been refused meanwhile.
  #ping() {
    if (!this.#online || !this.#shownAt) return;
    const ways = {
      tell: (text) => this.#client.tell(this.#partner, text),
      all: async (text) => {
        const { recipients, silent } = await this.#client.all(text);
        say(`handed to ${recipients} users, ${silent.length} homes are silent`);
        return !silent.includes(this.#shownAt);
      },
    };
    for (const [way, send] of Object.entries(ways)) {
      const nonce = this.#nonces[way];
      if (this.#answered.has(nonce) || this.#pinging.has(way)) continue;
      this.#pinging.add(way);
      this.#try(`ping by ${way}`, () => send(`ping ${nonce}`)).finally(() => this.#pinging.delete(way));
    }
  }

  // Again while the partner is out of sight for a moment, as when a link between servers breaks.
  async #try(what, send) {
    const passing = ["RECIPIENT_OFFLINE", "HOME_UNREACHABLE", "NOBODY_ONLINE", "TIMEOUT"];
    for (;;) {
      try {
        if ((await send()) !== false) return say(`sent: ${what}`);
      } catch (error) {
        say(`not sent: ${what}: ${why(error)}`);
        if (!passing.includes(errorInfo(error).reason)) return;
      }
      await sleep(500);
    }
  }

  #answer(line) {
    return this.#try(line.split(" ")[0], async () => {
      const kind = await this.#client.tell(this.#partner, line);
      if (kind === "OUTCOME_KIND_QUEUED") this.#queued++;
      if (kind === "OUTCOME_KIND_QUEUED") say(`queued: ${line}`);
    });
  }

  async #sayLater(argument) {
    await this.#answer(`later ${argument}`);
    await this.#try("accepted", () => this.#client.all(`accepted ${argument}`));
  }

  // Saves a file, and sends it back.
  async #echo(file) {
    const path = await receiveFile(this.#client, file, this.#folder);
    say(`saved ${path}`);
    await this.#try(path, () => sendFile(this.#client, this.#partner, path));
  }

  async #read(kind, { sender, senderHomeId, text, file }) {
    say(`${sender}@${senderHomeId.slice(0, 16)}${kind === "post" ? " (to all)" : ""}: ${text}`);
    if (kind === "post" && text.startsWith("number ")) return this.#numbered.push(text.split(" ")[1]);
    this.#found ??= await this.#client.find(this.#partner); // a message may come before the directory
    if (sender !== this.#found.name || senderHomeId !== this.#found.homeId) return;
    if (file) {
      say(`a file: ${safeName(file.name)}, ${file.bytes} bytes`);
      if (this.#folder) await this.#echo(file);
      return;
    }
    const [word, argument] = text.split(" ");
    if (word === "ping") {
      this.#heard[kind].add(argument);
      this.#answer(`pong ${argument}`);
    } else if (word === "pong" && Object.values(this.#nonces).includes(argument)) {
      this.#answered.add(argument);
    } else if (text === "view") {
      const { view, counts } = this.#client;
      const { resumed, startedOver: started_over, mismatched } = counts;
      const shown = { digest: hex(view.digest()), users: view.size, resumed, started_over, mismatched };
      this.#answer(`view ${JSON.stringify(shown)}`);
    } else if (word === "later") {
      this.#later.push(argument);
    } else if (text === "posts") {
      this.#answer(`posts ${JSON.stringify(this.#numbered)}`);
    } else if (text === "receipts") {
      const { delivered, read } = this.#receipts;
      this.#answer(`receipts ${JSON.stringify({ delivered: delivered.size, read: read.size })}`);
    } else if (text === "outcomes") {
      this.#answer(`outcomes ${JSON.stringify({ queued: this.#queued, settled: this.#settled })}`);
    } else if (text === "refusals") {
      this.#refusals().then((found) => this.#answer(`refusals ${JSON.stringify(found)}`));
    } else if (text === "bye") {
      this.#bye();
    }
  }

  // Sends what has to be refused, and tells the reasons.
  async #refusals() {
    const { me, lastLogin } = this.#client;
    const to = { ...makeUser("nobody", me.homeId, me.privateKey), key: me.privateKey };
    const mislabelled = sealMessage(me, to, "");
    mislabelled.signature = sign(me.privateKey, "socp.v1.PostStatement", mislabelled.statement);
    const reason = (...call) =>
      this.#client.call(...call).then(
        () => "",
        (error) => errorInfo(error).reason,
      );
    return {
      login_replayed: await reason("logIn", lastLogin, { token: false }),
      wrong_signature: await reason("sendMessage", { message: mislabelled }),
      unknown_user: await reason("sendMessage", { message: sealMessage(me, to, "") }),
      no_token: await reason("listUsers", {}, { token: false }),
    };
  }
}

let options;
let late;
try {
  options = readArguments();
  late = sleep(options.seconds * 1000).then(() => `nothing after ${options.seconds} s`);
  options.privateKey = await readKey(options.key);
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(2);
}
const { server, ca, name, privateKey, partner, files, receipts } = options;
const device = new Device(options.key && `${options.key}.device`);
const status = "sample in Node";
const client = new Sample({ server, serverId: options["server-id"], ca, name, privateKey, device, receipts, status });
const exchange = new Exchange(client, partner, files);
client.start();
const failed = await Promise.race([exchange.finished, late]);
if (failed) say(failed);
await Promise.race([client.stop(), sleep(2000)]); // the server may be away
say(exchange.complete ? "all nonces came" : "not all nonces came");
process.exit(exchange.complete && !failed ? 0 : 1);
