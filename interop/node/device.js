// What a device keeps beside its key: an id of its own, and how far it has read the inbox and the
// public channel.

import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

export class Device {
  deviceId = randomBytes(16).toString("hex");
  cursor = "";
  channelCursor = "";
  #file;

  // Without a file all is forgotten with the program.
  constructor(file) {
    this.#file = file;
    if (!file) return;
    if (!existsSync(file)) return this.keep({});
    const kept = JSON.parse(readFileSync(file));
    ({ device_id: this.deviceId, cursor: this.cursor, channel_cursor: this.channelCursor = "" } = kept);
  }

  // `cursor` or `channelCursor`. Notes the last thing that was dealt with. A crash right before shows that once more; nothing is missed.
  keep(cursors) {
    Object.assign(this, cursors);
    if (!this.#file) return;
    const { deviceId: device_id, cursor, channelCursor: channel_cursor } = this;
    writeFileSync(`${this.#file}.new`, JSON.stringify({ device_id, cursor, channel_cursor }), { mode: 0o600 });
    renameSync(`${this.#file}.new`, this.#file);
  }
}
