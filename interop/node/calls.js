// The services as one client, and why a call was refused.

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { ErrorInfoSchema, StatusSchema } from "./gen/google/rpc/status_pb.js";
import * as account from "./gen/socp/v1/account_pb.js";
import * as directory from "./gen/socp/v1/directory_pb.js";
import * as file from "./gen/socp/v1/file_pb.js";
import * as message from "./gen/socp/v1/message_pb.js";
import { encode } from "./documents.js";

// One client for all services, from the descriptors that were generated.
const services = [account.AccountService, directory.DirectoryService, file.FileService, message.MessageService];
export const Api = grpc.makeGenericClientConstructor(
  Object.fromEntries(
    services.flatMap((service) =>
      service.methods.map((method) => [
        method.localName,
        {
          path: `/${service.typeName}/${method.name}`,
          requestStream: method.methodKind === "client_streaming",
          responseStream: method.methodKind === "server_streaming",
          requestSerialize: (fields) => Buffer.from(encode(method.input, fields)),
          requestDeserialize: (bytes) => fromBinary(method.input, bytes),
          responseSerialize: (answer) => Buffer.from(toBinary(method.output, answer)),
          responseDeserialize: (bytes) => fromBinary(method.output, bytes),
        },
      ]),
    ),
  ),
  "socp.v1",
);

// Why a call was refused: "decide by the reason, never by the text".
export function errorInfo(error) {
  const [bytes] = error?.metadata?.get?.("grpc-status-details-bin") ?? [];
  if (!bytes) return { reason: "", metadata: {} };
  const details = fromBinary(StatusSchema, bytes).details;
  const found = details.find((any) => any.typeUrl === "type.googleapis.com/google.rpc.ErrorInfo");
  const info = found && fromBinary(ErrorInfoSchema, found.value);
  return info?.domain === "socp" ? info : { reason: "", metadata: {} };
}

const { UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED, UNKNOWN, INTERNAL } = grpc.status;
const LOST = [UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED, UNKNOWN, INTERNAL]; // with TIMEOUT, DRAINING, HOME_UNREACHABLE
export const mayRepeat = (error) =>
  LOST.includes(error.code) || ["TOO_MANY", "TOKEN_INVALID", "NONCE_EXPIRED"].includes(errorInfo(error).reason);
export const lost = (text) => Object.assign(new Error(text), { code: UNAVAILABLE });

// "Before the n-th attempt in a row (from 0) wait a random time between 0 and min(5 s, 100 ms · 2^n)."
export const jitter = (n) => Math.random() * Math.min(5000, 100 * 2 ** n);
export const CALL_MS = 15_000; // a server waits up to 5 s for another

export const deferred = () => {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  parts.promise.catch(() => {});
  return parts;
};

// Resolves with the answer and the peer's certificate.
export function unary(api, method, fields, token, ms = CALL_MS) {
  const metadata = new grpc.Metadata();
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return new Promise((resolve, reject) => {
    const call = api[method](fields, metadata, { deadline: Date.now() + ms }, (error, answer) =>
      error ? reject(error) : resolve({ answer, certificate: call.getAuthContext()?.sslPeerCertificate }),
    );
  });
}
