// Makes the calls that `/ask` lists, one after the other, and tells what came of them to `/told`: `message` with each
// encoded message, `refused` with the code and details of a refusal, `failed` when `fetch` itself failed, `end`.

import { call, Refused } from "./grpc-web.js";

const tell = (what, body = "") => fetch(`told?${what}`, { method: "POST", body });
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

const { server, calls } = await (await fetch("ask")).json();
for (const { method, message, token, messages } of calls) {
  const stop = new AbortController();
  let left = messages;
  try {
    for await (const bytes of call(server, method, bytesOf(message), { token, signal: stop.signal })) {
      await tell("message", bytes);
      if (--left === 0) break;
    }
    await tell("end");
  } catch (error) {
    if (error instanceof Refused) await tell("refused", `${error.code} ${error.details}`);
    else await tell("failed", String(error));
  }
  stop.abort();
}
await tell("done");
