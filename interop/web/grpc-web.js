// gRPC-Web by nothing but `fetch`: enough for a page to call any method of a server that lists the page's origin in
// `web_origins`. Messages go in and come out encoded; a page would bring a protobuf library of its own.
//
// The body of an answer is frames: a byte that is 0 for a message and 0x80 for the trailers, a length of four bytes, big
// endian, and so many bytes. A refusal may come in the trailers or, if there is no body, in the headers.

/** A call that the server refused. `details` is `grpc-status-details-bin`, base64 of a `google.rpc.Status`. */
export class Refused extends Error {
  constructor(fields) {
    super(decodeURIComponent(fields.get("grpc-message") ?? ""));
    this.code = Number(fields.get("grpc-status"));
    this.details = fields.get("grpc-status-details-bin") ?? "";
  }
}

/**
 * Calls `method` (`socp.v1.DirectoryService/WatchDirectory`) of `server` (`https://host:port`) with an encoded message, and
 * yields each encoded message of the answer. Throws `Refused`, or what `fetch` throws. `signal` ends a watch.
 */
export async function* call(server, method, message, { token, signal } = {}) {
  const headers = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(`${server}/${method}`, { method: "POST", headers, body: frame(message), signal });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  let trailers = response.headers;
  for await (const [flags, bytes] of frames(response.body)) {
    if (flags & 0x80) trailers = fields(bytes);
    else yield bytes;
  }
  if (trailers.get("grpc-status") !== "0") throw new Refused(trailers);
}

function frame(message) {
  const bytes = new Uint8Array(5 + message.length);
  new DataView(bytes.buffer).setUint32(1, message.length);
  bytes.set(message, 5);
  return bytes;
}

async function* frames(body) {
  const reader = body.getReader();
  let buffer = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(buffer.length + value.length);
    joined.set(buffer);
    joined.set(value, buffer.length);
    buffer = joined;
    while (buffer.length >= 5) {
      const length = new DataView(buffer.buffer, buffer.byteOffset).getUint32(1);
      if (buffer.length < 5 + length) break;
      yield [buffer[0], buffer.slice(5, 5 + length)];
      buffer = buffer.subarray(5 + length);
    }
  }
}

function fields(bytes) {
  const lines = new TextDecoder().decode(bytes).split("\r\n").filter(Boolean);
  return new Map(lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]));
}
