// Who is online, and the digest of it, by which a view is known to be that of the server.

import * as crypto from "node:crypto";
import { be, labelled, same, sha256, withLength } from "./documents.js";

export const bareKey = (name, homeId) => `${name}@${homeId}`;
export const keyOfEntry = (e) => bareKey(e.name, e.serverId);

// The 32 bytes that stand for an entry in the digest; equal for two entries that say the same.
function seedOf(e) {
  const text = (s) => withLength(Buffer.from(s), 8);
  return sha256(
    labelled("socp.v1.DigestEntry", Buffer.from(e.serverId, "hex"), be(e.epoch, 8)),
    Buffer.concat([text(e.name), text(e.displayName), text(e.status), e.keyStatementSha256]),
    Buffer.concat([be(e.onlineSince, 8), be(e.sessions, 8)]),
  );
}

// Entries by (name, home), and the sum of their expansions, so that the digest costs the same however many there are.
export class View {
  #entries = new Map();
  #sums = new Uint16Array(1024); // adds modulo 65536 by itself

  get size() {
    return this.#entries.size;
  }
  get(key) {
    return this.#entries.get(key)?.entry;
  }
  values() {
    return [...this.#entries.values()].map(({ entry }) => entry);
  }
  // Replaces; takes the old entry out of the sums as it was. Answers the old one.
  set(entry) {
    const old = this.delete(keyOfEntry(entry));
    const seed = seedOf(entry);
    this.#entries.set(keyOfEntry(entry), { entry, seed });
    this.#add(seed, 1);
    return old;
  }
  delete(key) {
    const old = this.#entries.get(key);
    if (!old) return undefined;
    this.#add(old.seed, -1);
    this.#entries.delete(key);
    return old.entry;
  }
  // What changes when `next` takes this view's place. An entry that says the same stays the same object in `next`.
  differences(next) {
    const gone = [...this.#entries].filter(([key]) => !next.#entries.has(key));
    const found = gone.map(([, { entry }]) => ["removed", entry]);
    for (const [key, slot] of next.#entries) {
      const old = this.#entries.get(key);
      if (old && same(old.seed, slot.seed)) slot.entry = old.entry;
      else found.push([old ? "updated" : "added", slot.entry]);
    }
    return found;
  }
  digest() {
    const bytes = Buffer.alloc(2048);
    this.#sums.forEach((sum, i) => bytes.writeUInt16LE(sum, 2 * i));
    return sha256(labelled("socp.v1.Digest"), bytes);
  }
  #add(seed, sign) {
    const input = Buffer.concat([seed, Buffer.alloc(4)]);
    for (let i = 0; i < 64; i++) {
      input.writeUInt32BE(i, 32);
      const block = crypto.createHash("sha256").update(input).digest();
      for (let j = 0; j < 16; j++) this.#sums[16 * i + j] += sign * block.readUInt16LE(2 * j);
    }
  }
}
