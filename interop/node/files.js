// Files, as "Files" of docs/PROTOCOL.md writes them: encrypted in chunks, sent and received in pieces. However large a
// file is, a few chunks of it are in memory.
//
//   await sendFile(client, "bob@server-b", "report.pdf");
//   client.on("message", async ({ file }) => file && (await receiveFile(client, file, "downloads")));

import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ensure, hex, same } from "./documents.js";

export const CHUNK = 65_536;
const TAG = 16;
export const SEALED_CHUNK = CHUNK + TAG;
const LABEL = Buffer.from("socp.v1.FileChunk\0");
const CHUNKS_AT_ONCE = 4; // in one message of an upload: 1 MiB is its limit
const NAME_BYTES = 200;
const PATIENCE_MS = 60_000; // a transfer that got nowhere for so long is given up

// ---- The bytes ----

// The chunks of one file: which one it is, and whether it is the last, stands in the nonce.
export class Chunks {
  #key;
  constructor(key, bytes) {
    this.#key = key;
    this.bytes = bytes;
    this.count = Math.max(1, Math.ceil(bytes / CHUNK)); // an empty file is one empty chunk
  }
  get sealedBytes() {
    return this.bytes + this.count * TAG;
  }
  // Of a chunk before encryption.
  size(index) {
    return Math.min(CHUNK, this.bytes - index * CHUNK);
  }
  #nonce(index) {
    const nonce = Buffer.alloc(12);
    nonce.writeUInt32BE(index, 7);
    nonce[11] = index + 1 === this.count ? 1 : 0;
    return nonce;
  }
  seal(index, plain) {
    const cipher = crypto.createCipheriv("aes-256-gcm", this.#key, this.#nonce(index)).setAAD(LABEL);
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }
  open(index, sealed) {
    const decipher = crypto.createDecipheriv("aes-256-gcm", this.#key, this.#nonce(index), { authTagLength: TAG });
    decipher.setAAD(LABEL).setAuthTag(sealed.subarray(-TAG));
    return Buffer.concat([decipher.update(sealed.subarray(0, -TAG)), decipher.final()]);
  }
}

// Opens what comes of a file, in parts of any size; `write` is given its bytes.
export class Receiver {
  index = 0; // of the chunk that is next
  #manifest;
  #chunks;
  #write;
  #parts = []; // of that chunk
  #here = 0;
  #hash = crypto.createHash("sha256");

  constructor(manifest, write) {
    this.#manifest = manifest;
    this.#chunks = new Chunks(manifest.key, Number(manifest.bytes)); // below 2^48
    this.#write = write;
  }
  get whole() {
    return this.index === this.#chunks.count;
  }
  // Where to go on after a break: with the first chunk that was not opened.
  begin() {
    [this.#parts, this.#here] = [[], 0];
    return Math.min(this.index * SEALED_CHUNK, this.#chunks.sealedBytes);
  }
  take(part) {
    while (part.length > 0) {
      ensure(!this.whole, "a file that is longer than it should be");
      const size = this.#chunks.size(this.index) + TAG;
      const now = part.subarray(0, size - this.#here);
      this.#parts.push(now);
      this.#here += now.length;
      part = part.subarray(now.length);
      if (this.#here < size) continue;
      const sealed = Buffer.concat(this.#parts);
      [this.#parts, this.#here] = [[], 0];
      this.#hash.update(sealed);
      this.#write(this.#chunks.open(this.index, sealed));
      this.index++;
    }
  }
  finish() {
    ensure(this.whole && this.#here === 0, "a file that is shorter than it should be");
    ensure(same(this.#hash.digest(), this.#manifest.ciphertextSha256), "a file with another hash");
  }
}

// A file that is sent, under a key of its own. Encrypted as it is read, and again where a part of it is sent again:
// "never encrypt a chunk twice with other content under one key".
export class Source {
  fileId = hex(crypto.randomBytes(16));
  #key = crypto.randomBytes(32);
  #tags = []; // of all chunks so far
  #hash = crypto.createHash("sha256");

  constructor(descriptor, name) {
    this.descriptor = descriptor;
    this.name = name;
    this.chunks = new Chunks(this.#key, fs.fstatSync(descriptor).size);
  }
  #seal(index) {
    const plain = Buffer.alloc(this.chunks.size(index));
    for (let at = 0; at < plain.length; ) {
      const read = fs.readSync(this.descriptor, plain, at, plain.length - at, index * CHUNK + at);
      ensure(read > 0, "a file that changes while it is sent");
      at += read;
    }
    const sealed = this.chunks.seal(index, plain);
    const tag = sealed.subarray(-TAG);
    if (index < this.#tags.length) {
      ensure(same(tag, this.#tags[index]), "a file that changes while it is sent");
    } else {
      this.#tags.push(Buffer.from(tag));
      this.#hash.update(sealed);
    }
    return sealed;
  }
  // What is uploaded, from an offset to the end.
  *parts(offset) {
    let skip = offset % SEALED_CHUNK;
    for (let index = Math.floor(offset / SEALED_CHUNK); index < this.chunks.count; index += CHUNKS_AT_ONCE) {
      ensure(index <= this.#tags.length, "a server that has more than was sent");
      const part = [];
      for (let i = index; i < Math.min(index + CHUNKS_AT_ONCE, this.chunks.count); i++) part.push(this.#seal(i));
      yield Buffer.concat(part).subarray(skip);
      skip = 0;
    }
  }
  manifest(homeId) {
    ensure(this.#tags.length === this.chunks.count, "a file of which not all was sent");
    const ciphertextSha256 = this.#hash.copy().digest();
    const about = { fileId: this.fileId, homeId, name: this.name, bytes: BigInt(this.chunks.bytes), chunkBytes: CHUNK };
    return { ...about, key: this.#key, ciphertextSha256 };
  }
}

// ---- Names ----

// A plain file name out of what somebody else calls a file: it leads nowhere, hides nothing and steers no terminal.
export function safeName(name) {
  const last = name.slice(Math.max(name.lastIndexOf("/"), name.lastIndexOf("\\")) + 1);
  // eslint-disable-next-line no-control-regex
  const clean = last.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
  const trimmed = clean.trim().replace(/[. ]+$/, "");
  const plain = /^[.~-]/.test(trimmed) ? `_${trimmed}` : trimmed;
  if (Buffer.byteLength(plain) <= NAME_BYTES) return plain || "file";
  const extension = path.extname(plain).length <= 16 ? path.extname(plain) : "";
  let stem = plain;
  while (Buffer.byteLength(stem + extension) > NAME_BYTES) stem = [...stem].slice(0, -1).join("");
  return stem + extension;
}

// Gives a whole file its name, never in place of another: a link fails where a rename would replace.
export function settle(temporary, folder, name) {
  const { name: stem, ext } = path.parse(name);
  for (let n = 0; n < 10_000; n++) {
    const final = path.join(folder, n ? `${stem} (${n})${ext}` : name);
    try {
      fs.linkSync(temporary, final);
      fs.unlinkSync(temporary);
      return final;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
  }
  throw new Error(`every name like ${name} is taken`);
}

// ---- Over the network ----

// Tries until it succeeds; gives up when `progress` has not changed for a while.
async function persist(client, progress, attempt) {
  let reached = progress();
  let until = Date.now() + PATIENCE_MS;
  for (let n = 0; ; n++) {
    try {
      return await client.stream(attempt);
    } catch (error) {
      if (progress() !== reached) [n, reached, until] = [0, progress(), Date.now() + PATIENCE_MS];
      if (!client.mayRepeat(error) || Date.now() > until) throw error;
    }
    await sleep(Math.random() * Math.min(5000, 100 * 2 ** n));
  }
}

// One message after the other, as the connection takes them.
function upload(api, metadata, requests) {
  return new Promise((resolve, reject) => {
    let wake = () => {};
    let over = false;
    const call = api.uploadFile(metadata, (error, answer) => {
      over = true;
      wake();
      if (error) reject(error);
      else resolve(answer);
    });
    call.on("drain", () => wake());
    const write = async () => {
      for (const kind of requests) {
        if (over) return;
        if (!call.write({ kind }) && !over) await new Promise((drained) => (wake = drained));
      }
      call.end();
    };
    write().catch((error) => {
      reject(error);
      call.cancel();
    });
  });
}

// To `name@server-name` or `name@server-id`. The file is at the own home, whole and on its disk, before the message that
// tells of it is sent. Answers the kind of that one's outcome.
export async function sendFile(client, user, file) {
  const { name: recipient, homeId: recipientHomeId } = await client.find(user);
  const descriptor = fs.openSync(file, "r");
  try {
    const source = new Source(descriptor, path.basename(file));
    const { fileId, chunks } = source;
    const room = { fileId, recipient, recipientHomeId, bytes: BigInt(chunks.sealedBytes) };
    let stored = 0n; // of it at the home: all of it, perhaps, if only the answer was lost
    await persist(
      client,
      () => stored,
      async (api, metadata) => {
        stored = (await client.call("createFile", room)).storedBytes;
        function* requests() {
          yield { case: "begin", value: { fileId, offset: stored } };
          for (const value of source.parts(Number(stored))) yield { case: "part", value };
        }
        stored = (await upload(api, metadata, requests())).storedBytes;
        ensure(stored === BigInt(chunks.sealedBytes), "a server that has not got all of the file");
      },
    );
    const manifest = source.manifest(client.me.homeId);
    return await client.tell(user, `[file] ${safeName(source.name)}, ${chunks.bytes} bytes`, manifest);
  } finally {
    fs.closeSync(descriptor);
  }
}

// Fetches a file of `limit` bytes at most into a folder: under a temporary name, until all of it is there, checked and on
// disk. Answers its path.
export async function receiveFile(client, manifest, folder, limit = 2 ** 31) {
  ensure(manifest.bytes <= BigInt(limit), "a file that is larger than wanted");
  const { fileId, homeId } = manifest;
  const temporary = path.join(folder, `.${fileId}.part`);
  const descriptor = fs.openSync(temporary, "w", 0o600);
  try {
    const receiver = new Receiver(manifest, (plain) => {
      for (let at = 0; at < plain.length; ) at += fs.writeSync(descriptor, plain, at);
    });
    await persist(
      client,
      () => receiver.index,
      async (api, metadata) => {
        if (receiver.whole) return;
        const call = api.downloadFile({ fileId, homeId, offset: BigInt(receiver.begin()) }, metadata);
        for await (const { part } of call) receiver.take(part);
      },
    );
    receiver.finish();
    fs.fsyncSync(descriptor);
    return settle(temporary, folder, safeName(manifest.name));
  } finally {
    fs.closeSync(descriptor);
    fs.rmSync(temporary, { force: true });
  }
}
