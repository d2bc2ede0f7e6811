// Reads all golden vectors, by the functions of documents.js: `./check`.

import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { checkServer, ensure, hex, makeUser, openMessage, openPost, readChain, readKeyStatement } from "./documents.js";
import { readOutcome, serverIdOf, verifyServer, verifyUser, View } from "./documents.js";
import { BatchStatementSchema, SignedBatchSchema } from "./gen/socp/federation/v1/federation_pb.js";
import { GetServerInfoResponseSchema } from "./gen/socp/v1/account_pb.js";
import { DirectoryEntrySchema } from "./gen/socp/v1/directory_pb.js";
import * as message from "./gen/socp/v1/message_pb.js";
import { LoginStatementSchema, MoveStatementSchema } from "./gen/socp/v1/statement_pb.js";
import { SignedKeyStatementSchema, SignedMoveSchema } from "./gen/socp/v1/statement_pb.js";

const bytes = (text) => Buffer.from(text, "hex");
const folder = new URL("../../proto/tests/vectors/", import.meta.url);
const files = new Set(); // that were read
function read(file) {
  files.add(file);
  return JSON.parse(readFileSync(new URL(file, folder)));
}
const { users, homes } = read("keys.json");
const people = Object.fromEntries(
  Object.entries(users).map(([name, { home, private_key_pkcs8: key }]) => {
    const privateKey = createPrivateKey({ key: bytes(key), format: "der", type: "pkcs8" });
    return [name, makeUser(name, homes[home].server_id, privateKey)];
  }),
);

function keyOf(name, homeId) {
  const found = people[name];
  if (found?.homeId !== homeId) throw new Error("refused: no such user");
  return { key: createPublicKey(found.privateKey), fingerprint: found.fingerprint };
}

// Not a fault of the program, nor an assertion of this page's.
const refusal = (error) =>
  !(error instanceof assert.AssertionError) &&
  ![TypeError, ReferenceError, SyntaxError].some((kind) => error instanceof kind && !error.code);

// One test for each case: `yields` throws for an invalid one, and gives what the vector names for a valid one.
function vectors(file, fields, yields) {
  const { cases } = read(file);
  for (const valid of [true, false])
    test(`${file}: has a case that is ${valid ? "valid" : "invalid"}`, () =>
      assert.ok(cases.some((vector) => vector.valid === valid)));
  for (const vector of cases)
    test(`${file}: ${vector.case}`, async () => {
      if (!vector.valid) return assert.rejects(async () => yields(vector), refusal);
      const found = await yields(vector);
      for (const field of fields) assert.deepEqual(found[field], vector[field], field);
    });
}

test("keys.json", () => {
  assert.ok(Object.keys(users).length > 0 && Object.keys(homes).length > 0);
  for (const [name, { public_key, key_sha256 }] of Object.entries(users)) {
    assert.equal(hex(people[name].publicKey), public_key);
    assert.equal(hex(people[name].fingerprint), key_sha256);
  }
  for (const { identity_key, server_id } of Object.values(homes))
    assert.equal(serverIdOf(bytes(identity_key).subarray(12)), server_id);
});

vectors("key_statement.json", ["number", "key_sha256"], (vector) => {
  const signed = fromBinary(SignedKeyStatementSchema, bytes(vector.signed_key_statement));
  const hash = bytes(vector.key_statement_sha256);
  let found = readKeyStatement(signed, vector.user, vector.home_id, hash);
  if (vector.previous) {
    const previous = fromBinary(SignedKeyStatementSchema, bytes(vector.previous));
    found = readChain([previous, signed], vector.user, vector.home_id)[1];
  }
  return { number: String(found.number), key_sha256: hex(found.fingerprint) };
});

// Servers check logins; a client only signs them.
vectors("login.json", [], (vector) => {
  const statement = bytes(vector.statement);
  const key = createPublicKey({ key: bytes(vector.public_key), format: "der", type: "spki" });
  ensure(verifyUser(key, "socp.v1.LoginStatement", statement, bytes(vector.signature)), "signature");
  const { serverId, user, nonce } = fromBinary(LoginStatementSchema, statement);
  ensure(serverId === vector.server_id && user === vector.user && hex(nonce) === vector.nonce, "another login");
  return {};
});

vectors("move.json", ["new_user", "new_home_id", "time_unix_ms"], (vector) => {
  const read = (field, ...who) => readKeyStatement(fromBinary(SignedKeyStatementSchema, bytes(vector[field])), ...who);
  const { statement, signature } = fromBinary(SignedMoveSchema, bytes(vector.signed_move));
  const old = read("key_statement", vector.user, vector.home_id);
  ensure(verifyUser(old.key, "socp.v1.MoveStatement", statement, signature), "signature");
  const move = fromBinary(MoveStatementSchema, statement);
  ensure(move.user === vector.user && move.homeId === vector.home_id, "another user's");
  ensure(hex(move.keyStatementSha256) === hex(old.hash), "another key statement");
  ensure(move.newHomeId !== move.homeId, "to the same home");
  const found = read("new_key_statement", move.newUser, move.newHomeId);
  ensure(hex(found.fingerprint) === hex(old.fingerprint), "another key at the new address");
  return { new_user: move.newUser, new_home_id: move.newHomeId, time_unix_ms: String(move.timeUnixMs) };
});

vectors("server_info.json", ["name"], (vector) => {
  const info = fromBinary(GetServerInfoResponseSchema, bytes(vector.server_info));
  checkServer(info, vector.pinned_server_id, bytes(vector.certificate_key));
  return info;
});

vectors("outcome.json", ["kind", "reason", "recipients"], (vector) => {
  const signed = fromBinary(message.SignedOutcomeSchema, bytes(vector.signed_outcome));
  const { kind, reason, recipients } = readOutcome(signed, vector.home_id, bytes(vector.statement_sha256));
  return { kind: message.OutcomeKindSchema.value[kind].name, reason, recipients };
});

const named = (read) => ({
  ...{ sender: read.sender, text: read.text, message_id: read.id, time_unix_ms: String(read.timeUnixMs) },
  statement_sha256: hex(read.statementSha256),
});
const MESSAGE = ["sender", "text", "message_id", "time_unix_ms", "statement_sha256"];

vectors("envelope.json", MESSAGE, async (vector) => {
  const sealed = fromBinary(message.SealedMessageSchema, bytes(vector.sealed_message));
  const seen = new Set();
  const found = await openMessage(sealed, people[vector.recipient], keyOf, seen);
  assert.equal(await openMessage(sealed, people[vector.recipient], keyOf, seen), undefined, "a repeat is dropped");
  return named(found);
});

vectors("channel_post.json", [...MESSAGE, "channel_key", "key_id", "counter"], async (vector) => {
  const post = fromBinary(message.SealedPostSchema, bytes(vector.sealed_post));
  const statement = fromBinary(message.PostStatementSchema, post.statement);
  const header = fromBinary(message.PostHeaderSchema, statement.header);
  const channelKeys = new Map();
  if (vector.known_channel_key) {
    const name = hex(header.senderKeySha256) + vector.known_key_id;
    channelKeys.set(`${header.sender}@${header.senderHomeId}`, new Map([[name, bytes(vector.known_channel_key)]]));
  }
  const received = { post, wrappedChannelKey: bytes(vector.wrapped_channel_key) };
  const found = await openPost(received, people[vector.member], keyOf, new Set(), channelKeys);
  const [kept] = channelKeys.get(`${header.sender}@${header.senderHomeId}`).values();
  return { ...named(found), channel_key: hex(kept), key_id: hex(header.keyId), counter: String(header.counter) };
});

function digestOf(entries) {
  const view = new View();
  for (const e of entries)
    view.set(
      create(DirectoryEntrySchema, {
        ...{ name: e.name, serverId: e.server_id, displayName: e.display_name, status: e.status },
        ...{ keyStatementSha256: bytes(e.key_statement_sha256), epoch: BigInt(e.epoch) },
        ...{ onlineSince: BigInt(e.online_since), sessions: e.sessions },
      }),
    );
  ensure(view.size === entries.length, "an entry came twice");
  const digest = hex(view.digest());
  for (const e of view.values()) view.delete(`${e.name}@${e.serverId}`);
  assert.equal(hex(view.digest()), hex(new View().digest()), "taken out again");
  return digest;
}

vectors("digest.json", [], (vector) => ensure(digestOf(vector.entries) === vector.digest, "another digest"));

// Servers check batches; no client meets one.
vectors("batch.json", ["epoch", "start_id", "number", "adverts", "removals", "digest"], (vector) => {
  const signed = fromBinary(SignedBatchSchema, bytes(vector.signed_batch));
  const batch = fromBinary(BatchStatementSchema, signed.statement);
  const { originKey, number, startId } = batch;
  ensure(originKey.length === 32 && serverIdOf(originKey) === vector.origin, "of another origin");
  const label = "socp.federation.v1.BatchStatement";
  ensure(verifyServer(originKey, label, signed.statement, signed.signature), "signature");
  ensure(number >= 1n && startId.length === 16 && batch.adverts.length > 0 !== batch.removals.length > 0, "form");
  ensure(batch.adverts.length + batch.removals.length <= 256, "size");
  ensure(
    batch.adverts.every((one) => one.onlineSince >= 1n && one.onlineSince <= number && one.sessions >= 1),
    "an advert from another time",
  );
  const listed = vector.entries_after;
  ensure(!listed || digestOf(listed) === hex(batch.digest), "not the digest of its entries");
  return {
    ...{ epoch: String(batch.epoch), start_id: hex(batch.startId), number: String(batch.number) },
    adverts: batch.adverts.map(({ user }) => user),
    removals: batch.removals.map(({ user }) => user),
    digest: hex(batch.digest),
  };
});

test("all files were read", () => {
  const there = readdirSync(folder).filter((name) => name.endsWith(".json"));
  assert.deepEqual([...files].sort(), there.sort());
});
