// What a device keeps beside its key: an id of its own, and how far it has read the inbox.

import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

export class Device {
  deviceId = randomBytes(16).toString("hex");
  cursor = "";
  #file;

  // Without a file all is forgotten with the program.
  constructor(file) {
    this.#file = file;
    if (!file) return;
    if (!existsSync(file)) return this.keep("");
    ({ device_id: this.deviceId, cursor: this.cursor } = JSON.parse(readFileSync(file)));
  }

  // Notes the last thing that was dealt with. A crash right before shows that once more; nothing is missed.
  keep(cursor) {
    this.cursor = cursor;
    if (!this.#file) return;
    writeFileSync(`${this.#file}.new`, JSON.stringify({ device_id: this.deviceId, cursor }), { mode: 0o600 });
    renameSync(`${this.#file}.new`, this.#file);
  }
}
