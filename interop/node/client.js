// A client of the federated directory and messages, after docs/PROTOCOL.md, which comments quote. A library: it tells
// by events and prints nothing. What it signs, seals and opens is in documents.js, files are in files.js, its posts in channel.js,
// who is online in view.js, whose key is whose in pins.js, why a call was refused in calls.js, and device.js keeps how far the inbox and the channel were read. `./build` installs its packages and
// makes the stubs in gen/ from the contracts; exchange.js is a program that uses it:
// `./start --server HOST:PORT --server-id HEX --ca FILE --name NAME --partner USER@SERVER`.
//
//   const ca = readFileSync("ca.pem");
//   const device = new Device("alice.device");
//   const client = new Client({ server: "127.0.0.1:7443", serverId, ca, name: "alice", privateKey, device });
//   client.on("message", ({ from, text }) => client.tell(from, `you said: ${text}`));
//   client.start();
//
// Events: online (user); added, updated, removed (entry); synced; message, post ({ from, text, id, timeUnixMs; file: the
// manifest of one that it brings }); receipt (likewise, with `receipt`: the word of its sender on messages to them, and
// `answered`: those of the own ones that it speaks of); settled ({ id, to, kind, reason }): what became of a message that was queued; missed
// (a number): messages that are gone from the inbox, and this device has not had; postsMissed (a number): posts that are
// gone from the channel's log, at most; unreadable (error); keyChanged (error: say it loudly); lost (error), before another attempt; ended (error, or none
// after stop()).

import * as crypto from "node:crypto";
import { EventEmitter } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import * as message from "./gen/socp/v1/message_pb.js";
import * as statement from "./gen/socp/v1/statement_pb.js";
import { Api, CALL_MS, deferred, errorInfo, jitter, lost, mayRepeat, unary } from "./calls.js";
import { Channel } from "./channel.js";
import { Device } from "./device.js";
import { checkServer, encode, ensure, ID, makeUser, NoChannelKey, openMessage, openPost } from "./documents.js";
import { readOutcome, readSettled, same, sealMessage, sha256, sign } from "./documents.js";
import { Pins } from "./pins.js";
import { Receipts } from "./receipts.js";
import { bareKey, keyOfEntry, View } from "./view.js";

const SILENCE_MS = 35_000; // two bookmarks missed: the stream is dead
const REPEAT_MS = 60_000; // how long an unanswered message is repeated
const ACKNOWLEDGE_EVERY = 64; // messages; attaching again says it, too

function messageIdOf({ statement: bytes }) {
  const { header } = fromBinary(message.MessageStatementSchema, bytes);
  return fromBinary(message.MessageHeaderSchema, header).messageId;
}

class StartOver extends Error {}

// ---- The client ----

// Options: server (HOST:PORT), serverId, ca (PEM), name, privateKey; invite, displayName, status, device (a Device, where the
// next run is to go on where this one was), receipts ("delivered" or "read": such are given to those who ask, and asked for)
// if wanted.
export class Client extends EventEmitter {
  view = new View();
  counts = { resumed: 0, startedOver: 0, mismatched: 0 };
  #options;
  #stopping = false;
  #link; // the connection in use: { api, signal, broken }
  #up = deferred(); // resolves with it
  #registered = false;
  #token = ""; // secret
  #tokenIsNew = false; // of the present attempt
  #failures = 0; // attempts in a row
  #staged; // the state being loaded; the old view stays in sight until its end mark
  #seen = 0n; // the last revision
  #resume = { token: "", revision: 0n };
  #wrong = 0; // wrong digests in a row
  #synced = deferred();
  #pins = new Pins(this);
  #seenMessages = new Set();
  #labels = new Map(); // `name@server-name` of whoever was online -> the pair that it means, for good
  #queued = new Map(); // message id -> hash of what was sent and is queued at the own home
  #unacknowledged = 0;
  #channelKeys = new Map();
  #channel = new Channel();
  #receipts;

  constructor(options) {
    super();
    this.#options = { invite: "", displayName: "", status: "", ...options };
    this.device = options.device ?? new Device();
    const give = (name, homeId, receipt) => this.#tell(name, homeId, "", { receipt });
    this.#receipts = new Receipts(options.receipts, give);
    this.me = makeUser(options.name, options.serverId, options.privateKey);
  }

  // Stays connected until stop(), or until something that another attempt cannot mend.
  async start() {
    try {
      while (!this.#stopping) {
        await sleep(jitter(this.#failures++));
        await this.#connected().catch((error) => {
          if (this.#stopping) return;
          if (!mayRepeat(error)) throw error;
          if (errorInfo(error).reason === "TOKEN_INVALID") {
            if (!this.#tokenIsNew) this.#failures = 0; // the server is there: log in without a longer pause
            this.#token = "";
          }
          this.emit("lost", error);
        });
      }
      this.emit("ended");
    } catch (error) {
      this.#stopping = true;
      this.emit("ended", error);
    }
  }

  // Goes offline at once, ends the session. Without a server the session's user is gone after the grace anyway.
  async stop() {
    this.#stopping = true;
    const link = this.#link;
    if (!link) return;
    for (const method of ["detach", "logOut"]) await unary(link.api, method, {}, this.#token).catch(() => {});
    this.#drop(link, new Error("stopped"));
  }

  // One connection, from the identity check to its end. Each attempt makes a channel of its own, so that the library
  // does not dial again behind its back, with pauses of its own and without the check.
  async #connected() {
    const { server, ca, name, invite, displayName } = this.#options;
    const api = new Api(server, grpc.credentials.createSsl(ca), {
      "grpc.keepalive_time_ms": 2000, // a dead path is noticed 5 s after 2 s of silence
      "grpc.keepalive_timeout_ms": 5000,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_http_proxy": 0,
    });
    const done = new AbortController();
    const link = { api, signal: done.signal, broken: deferred() };
    try {
      await this.#checkServer(api);
      if (!this.#registered) {
        // The same key again is answered like the first time, so nothing has to be remembered.
        await unary(api, "register", { keyStatement: this.#firstStatement(), invite, displayName });
        this.#registered = true;
      }
      this.#tokenIsNew = !this.#token;
      if (!this.#token) {
        const { answer } = await unary(api, "createChallenge", { user: name });
        this.#token = (await unary(api, "logIn", this.signLogin(answer.nonce))).answer.token;
      }
      this.#link = link;
      this.#up.resolve(link);
      await Promise.race([this.#watch(link), this.#attach(link), link.broken.promise]);
    } finally {
      this.#drop(link);
      done.abort();
      api.close();
    }
  }

  #drop(link, error) {
    if (!link || this.#link !== link) return;
    this.#link = undefined;
    this.#up = deferred();
    link.broken.reject(error);
  }

  // The server's own CA file, trusted alone, says as much; this holds where the certificate is of another CA, too. The
  // library never resumes a TLS session, so each connection shows its certificate.
  async #checkServer(api) {
    const { answer: info, certificate } = await unary(api, "getServerInfo", {}, "", 5000);
    ensure(certificate, "a connection without a certificate");
    const { publicKey } = new crypto.X509Certificate(certificate.raw); // of this very connection
    checkServer(info, this.#options.serverId, publicKey.export({ format: "der", type: "spki" }));
  }

  #firstStatement() {
    const { name, homeId, publicKey, privateKey } = this.me;
    const bytes = encode(statement.KeyStatementSchema, { user: name, homeId, publicKey, number: 1n });
    return { statement: bytes, signature: sign(privateKey, "socp.v1.KeyStatement", bytes) };
  }

  // The server's id is the pinned one, "never from an answer": the signature is worth nothing elsewhere.
  signLogin(nonce) {
    const { name, homeId, privateKey } = this.me;
    const bytes = encode(statement.LoginStatementSchema, { serverId: homeId, user: name, nonce });
    const signature = sign(privateKey, "socp.v1.LoginStatement", bytes);
    return { statement: bytes, signature, device: "sample in Node" };
  }

  // Any call that is no stream, over the connection in use or the next one. After TOKEN_INVALID the client logs in
  // anew, and the call is repeated, once.
  async call(method, fields, { token = true } = {}) {
    for (let again = false; ; again = true) {
      const link = this.#link ?? (await this.#connection());
      try {
        return (await unary(link.api, method, fields, token && this.#token)).answer;
      } catch (error) {
        if (again || !token || errorInfo(error).reason !== "TOKEN_INVALID") throw error;
        this.#drop(link, error);
      }
    }
  }

  // The same for a call that streams, which is not repeated here: `open` is given what is called, and the metadata.
  async stream(open) {
    const link = this.#link ?? (await this.#connection());
    try {
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${this.#token}`);
      return await open(link.api, metadata);
    } catch (error) {
      if (errorInfo(error).reason === "TOKEN_INVALID") this.#drop(link, error);
      throw error;
    }
  }

  mayRepeat(error) {
    return !this.#stopping && (mayRepeat(error) || errorInfo(error).reason === "REPLACED");
  }

  async #connection() {
    const late = sleep(CALL_MS, undefined, { ref: false }).then(() => Promise.reject(lost("not connected")));
    return Promise.race([this.#up.promise, late]);
  }

  #stream(link, method, fields) {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${this.#token}`);
    const call = link.api[method](fields, metadata);
    call.on("error", () => {}); // the loop that reads it throws
    link.signal.addEventListener("abort", () => call.cancel(), { once: true });
    return call;
  }

  // ---- The watch ----

  async #watch(link) {
    for (;;) {
      const resuming = this.#resume.token !== "";
      this.#staged = resuming ? undefined : new View();
      this.#seen = this.#resume.revision;
      const call = this.#stream(link, "watchDirectory", { resumeToken: this.#resume.token });
      const silence = setTimeout(() => call.cancel(), SILENCE_MS);
      if (resuming) call.once("metadata", () => this.counts.resumed++);
      try {
        for await (const part of call) {
          silence.refresh();
          if (resuming) this.#failures = 0;
          this.#apply(part);
        }
        throw lost("the watch ended");
      } catch (error) {
        const { reason, metadata } = errorInfo(error);
        if (metadata.resume_token && !this.#staged)
          this.#resume = { token: metadata.resume_token, revision: this.#seen };
        if (reason === "WATCHER_TOO_SLOW") continue; // resumes over the same connection
        const tooOld = reason === "REVISION_COMPACTED" || reason === "RESUME_TOKEN_INVALID";
        if (!tooOld && !(error instanceof StartOver)) throw error;
        if (tooOld) this.counts.startedOver++;
        else await sleep(jitter(this.#wrong++), undefined, { signal: link.signal });
        this.#resume = { token: "", revision: 0n };
      } finally {
        clearTimeout(silence);
        call.cancel();
      }
    }
  }

  #apply({ changes, endMark, bookmark, resumeToken }) {
    for (const { revision, change } of changes) {
      if (revision < this.#seen) throw new StartOver("a revision went back");
      this.#seen = revision;
      const target = this.#staged ?? this.view;
      const { case: kind, value } = change;
      if (!kind) continue; // of no kind known here
      const old = target.get(keyOfEntry(value));
      if (kind === "removed") target.delete(keyOfEntry(value));
      else target.set(value); // whichever of `added` and `updated` it is
      if (kind !== "removed") this.#labels.set(value.user, { name: value.name, homeId: value.serverId });
      if (!this.#staged && (old || kind !== "removed"))
        this.emit(kind === "removed" ? kind : old ? "updated" : "added", value);
    }
    if (endMark) {
      if (endMark.entries !== BigInt(this.#staged?.size ?? -1)) throw new StartOver("the state is not complete");
      const found = this.view.differences(this.#staged);
      [this.view, this.#staged] = [this.#staged, undefined];
      for (const [kind, entry] of found) this.emit(kind, entry); // whoever is not in the new state is gone
    }
    const mark = endMark ?? bookmark;
    if (mark) {
      this.#seen = mark.revision;
      if (!same(mark.digest, this.view.digest())) {
        this.counts.mismatched++;
        throw new StartOver("the digest differs");
      }
      this.#wrong = this.#failures = 0;
      if (endMark) this.#synced.resolve();
      if (endMark) this.emit("synced");
    }
    if (resumeToken) this.#resume = { token: resumeToken, revision: this.#seen };
  }

  // ---- Receiving ----

  async #attach(link) {
    const { cursor, channelCursor, deviceId } = this.device;
    const fields = { status: this.#options.status, cursor, channelCursor, deviceId };
    try {
      for await (const { event, cursor } of this.#stream(link, "attach", fields)) {
        await this.#arrived(event);
        if (event.case === "attached" && !channelCursor)
          this.device.keep({ channelCursor: event.value.newestChannelCursor });
        else if (event.case === "post") this.device.keep({ channelCursor: cursor });
        else if (cursor) this.#dealtWith(cursor);
      }
    } catch (error) {
      const { reason, metadata } = errorInfo(error);
      if (reason !== "CURSOR_UNKNOWN") throw error;
      // The home lost its disk: all of the inbox, without what was seen.
      this.device.keep(metadata.field === "channel_cursor" ? { channelCursor: "" } : { cursor: "" });
      throw lost("the cursor is of another inbox");
    }
    // Ended with OK: detached here, and stop() goes on; or elsewhere, and the client stays offline.
    ensure(this.#stopping, "the session was ended elsewhere");
    await new Promise(() => {});
  }

  async #arrived({ case: kind, value }) {
    const { me } = this;
    const keyOf = (name, homeId) => this.#pins.keyOf(name, homeId);
    if (kind === "attached") this.emit("online", value.user);
    if (kind === "gap") this.emit("missed", Number(value.missed));
    if (kind === "channelGap") this.emit("postsMissed", Number(value.missed));
    if (!["message", "post", "outcome"].includes(kind)) return; // an event of no kind known here is ignored
    try {
      if (kind === "outcome") return this.#settle(value);
      const read =
        kind === "message"
          ? await openMessage(value.message, me, keyOf, this.#seenMessages)
          : await this.#openPost(value, keyOf);
      if (this.#seenMessages.size > 200_000) this.#seenMessages.delete(this.#seenMessages.values().next().value);
      if (!read) return;
      const from = bareKey(read.sender, read.senderHomeId);
      if (read.receipt) return this.emit("receipt", { ...read, from, answered: this.#receipts.answered(read) });
      this.emit(kind, { ...read, from });
      if (read.wantsReceipts) this.#receipts.give(read);
    } catch (error) {
      this.emit("unreadable", error); // and the sender is not told why
    }
  }

  async #openPost({ post, wrappedChannelKey }, keyOf) {
    const open = (wrapped) =>
      openPost({ post, wrappedChannelKey: wrapped }, this.me, keyOf, this.#seenMessages, this.#channelKeys);
    try {
      return await open(wrappedChannelKey);
    } catch (error) {
      if (!(error instanceof NoChannelKey)) throw error;
      return open((await this.call("getChannelKey", error.wanted)).wrappedChannelKey); // it came to an earlier run
    }
  }

  // Of an earlier run's message the hash is not known here: the signature and the id are all then.
  #settle(received) {
    const { messageId: id, recipient, recipientHomeId } = received;
    const { kind, reason } = readSettled(received, this.me.homeId, this.#queued.get(id));
    this.#queued.delete(id);
    const name = message.OutcomeKindSchema.value[kind].name;
    this.emit("settled", { id, to: bareKey(recipient, recipientHomeId), kind: name, reason });
  }

  #dealtWith(cursor) {
    this.device.keep({ cursor });
    if (++this.#unacknowledged < ACKNOWLEDGE_EVERY) return;
    this.#unacknowledged = 0;
    this.call("acknowledgeMessages", { cursor }).catch(() => {}); // it is said again with the next ones
  }

  // ---- Sending ----

  // The very same bytes again while nobody knows what became of them: they are delivered once.
  async #repeat(send) {
    const until = Date.now() + REPEAT_MS;
    for (let n = 0; ; n++) {
      try {
        return await send();
      } catch (error) {
        if (this.#stopping || !mayRepeat(error) || Date.now() > until) throw error;
        await sleep(jitter(n));
      }
    }
  }

  // The pair that a user is known by: server names are labels.
  async find(user) {
    const [name, server] = user.split("@");
    if (ID.test(server)) return { name, homeId: server };
    const known = this.#labels.get(user);
    return known ?? { name, homeId: (await this.#repeat(() => this.#pins.getUser(user))).serverId };
  }

  // To `name@server-name` or `name@server-id`; `manifest` is of a file that it brings. Resolves with what was signed: HANDED_OVER
  // or STORED, by the recipient's home; or QUEUED by the own one, and what becomes of it is told as `settled`.
  async tell(user, text, manifest) {
    const { name, homeId } = await this.find(user);
    return this.#tell(name, homeId, text, { manifest, wantsReceipts: this.#receipts.wanted && !manifest });
  }

  async #tell(name, homeId, text, more) {
    for (let fresh = false; ; fresh = true) {
      const to = await this.#repeat(() => this.#pins.keyOf(name, homeId, fresh));
      const sealed = sealMessage(this.me, to, text, more);
      if (more.wantsReceipts) this.#receipts.ask(messageIdOf(sealed), name, homeId);
      try {
        const { outcome } = await this.#repeat(() => this.call("sendMessage", { message: sealed }));
        const hash = sha256(sealed.statement);
        const { kind } = readOutcome(outcome, homeId, this.me.homeId, hash);
        const { HANDED_OVER, STORED, QUEUED } = message.OutcomeKind;
        ensure([HANDED_OVER, STORED, QUEUED].includes(kind), "not in the inbox");
        if (kind === QUEUED) this.#queued.set(messageIdOf(sealed), hash);
        return message.OutcomeKindSchema.value[kind].name;
      } catch (error) {
        if (fresh || errorInfo(error).reason !== "RECIPIENT_KEY_CHANGED") throw error; // else seals anew
      }
    }
  }

  // To everybody who is online. Answers how many users it was handed to, and the homes that did not say.
  async all(text) {
    await this.#synced.promise;
    const keyOf = (name, homeId) => this.#pins.keyOf(name, homeId).catch(() => undefined);
    const send = (fields) => this.#repeat(() => this.call("postToChannel", fields));
    const doubt = (error) => this.emit("unreadable", error); // what became of the post there is not known
    return this.#channel.post(text, { me: this.me, view: () => this.view, keyOf, send, doubt });
  }
}
