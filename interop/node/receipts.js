// Receipts: given to those who ask for them, and counted where one asked for them oneself.

import { ReceiptKind } from "./gen/socp/v1/message_pb.js";

const GATHER_MS = 500; // a burst is answered with few receipts
const IDS_MAX = 100; // in one
const ASKED_MAX = 10_000;

export const KINDS = { delivered: ReceiptKind.DELIVERED, read: ReceiptKind.READ };

// `kind` is a name in KINDS, or nothing to give none; `send(name, homeId, receipt)` sends one.
export class Receipts {
  #kind;
  #send;
  #gathered; // of each user the ids, while some are gathered
  #asked = new Map(); // id of an own message -> its recipient

  constructor(kind, send) {
    this.#kind = KINDS[kind];
    this.#send = send;
  }

  // Who gives receipts asks for them.
  get wanted() {
    return this.#kind !== undefined;
  }

  ask(id, name, homeId) {
    this.#asked.set(id, `${name}@${homeId}`);
    if (this.#asked.size > ASKED_MAX) this.#asked.delete(this.#asked.keys().next().value);
  }

  // Which of the own messages a receipt speaks of: it is the word of its sender on messages to them.
  answered({ sender, senderHomeId, receipt }) {
    return receipt.messageIds.filter((id) => this.#asked.get(id) === `${sender}@${senderHomeId}`);
  }

  // Of a message that was told of, and asks for one.
  give({ sender, senderHomeId, id }) {
    if (!this.wanted) return;
    if (!this.#gathered) {
      this.#gathered = new Map();
      setTimeout(() => this.#giveAll(), GATHER_MS).unref();
    }
    const user = `${sender}@${senderHomeId}`;
    this.#gathered.set(user, [...(this.#gathered.get(user) ?? []), id]);
  }

  #giveAll() {
    const gathered = this.#gathered;
    this.#gathered = undefined;
    for (const [user, ids] of gathered)
      for (let at = 0; at < ids.length; at += IDS_MAX) {
        const receipt = { kind: this.#kind, messageIds: ids.slice(at, at + IDS_MAX) };
        this.#send(...user.split("@"), receipt).catch(() => {}); // one that is not given says nothing
      }
  }
}
