// Which key is believed to be whose.

import { mayRepeat } from "./calls.js";
import { ensure, readChain, readKeyStatement, same } from "./documents.js";
import { bareKey } from "./view.js";

export class Pins {
  #client;
  #pins = new Map(); // (name, home) -> the key; in memory: a program to be trusted tomorrow keeps them on disk

  constructor(client) {
    this.#client = client;
  }

  // The verified key of a user. `fresh` asks the user's home, whatever the view says.
  async keyOf(name, homeId, fresh = false) {
    const id = bareKey(name, homeId);
    let pin = this.#pins.get(id);
    const agrees = (known) => known.number === pin.number && same(known.fingerprint, pin.fingerprint);
    const entry = this.#client.view.get(id);
    if (!fresh && entry?.keyStatement) {
      if (pin && same(pin.hash, entry.keyStatementSha256)) return pin;
      const known = readKeyStatement(entry.keyStatement, name, homeId, entry.keyStatementSha256);
      if (!pin || agrees(known)) return this.#pin(id, { ...known, name, homeId }); // trust on first use
      if (known.number <= pin.number) this.#refuseKey(id);
    }
    let answer;
    try {
      answer = await this.getUser(`${name}@${homeId}`);
    } catch (error) {
      // While their home cannot be reached, and nothing says that the key is another one.
      if (pin && !fresh && !entry && mayRepeat(error)) return pin;
      throw error;
    }
    const chain = readChain(answer.keyStatements, name, homeId);
    pin = this.#pins.get(id); // by now
    if (pin && !chain.some(agrees)) this.#refuseKey(id);
    return this.#pin(id, { ...chain.at(-1), name, homeId });
  }
  #pin(id, known) {
    this.#pins.set(id, known);
    return known;
  }
  #refuseKey(id) {
    const error = new Error(`the key of ${id} changed, and nothing leads from the pinned one to it`);
    this.#client.emit("keyChanged", error);
    throw error;
  }

  async getUser(user) {
    const [name, home] = user.split("@");
    const answer = await this.#client.call("getUser", { user });
    const [foundName, foundHome] = answer.user.split("@");
    ensure(foundName === name && [foundHome, answer.serverId].includes(home), "an answer about another user");
    return answer;
  }
}
