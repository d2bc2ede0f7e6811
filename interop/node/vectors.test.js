// Reads all golden vectors, by the functions of documents.js: `./check`.

import assert from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { checkServer, ensure, hex, makeUser, openMessage, openPost, readChain, readKeyStatement } from "./documents.js";
import { readOutcome, sealMessage, serverIdOf, verifyServer, verifyUser } from "./documents.js";
import { CHUNK, Chunks, Receiver, safeName, SEALED_CHUNK, settle, Source } from "./files.js";
import { BatchStatementSchema, SignedBatchSchema } from "./gen/socp/federation/v1/federation_pb.js";
import { GetServerInfoResponseSchema } from "./gen/socp/v1/account_pb.js";
import { DirectoryEntrySchema } from "./gen/socp/v1/directory_pb.js";
import * as message from "./gen/socp/v1/message_pb.js";
import { LoginStatementSchema, MoveStatementSchema } from "./gen/socp/v1/statement_pb.js";
import { SignedKeyStatementSchema, SignedMoveSchema } from "./gen/socp/v1/statement_pb.js";
import { View } from "./view.js";

const bytes = (text) => Buffer.from(text, "hex");
const folder = new URL("../../proto/tests/vectors/", import.meta.url);
const files = new Set(); // that were read
function read(file) {
  files.add(file);
  return JSON.parse(fs.readFileSync(new URL(file, folder)));
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
  const { kind, reason, recipients } = readOutcome(
    ...[signed, vector.home_id, vector.own_home_id, bytes(vector.statement_sha256)],
  );
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

// What a home gives: as it stands there, or a part of a file whose byte p is p modulo 251, encrypted.
function stored(piece) {
  if (piece.hex !== undefined) return bytes(piece.hex);
  const chunks = new Chunks(bytes(piece.key), Number(piece.bytes));
  const plain = Buffer.from(Array.from({ length: chunks.bytes }, (_, p) => p % 251));
  const sealed = Array.from({ length: chunks.count }, (_, i) =>
    chunks.seal(i, plain.subarray(i * CHUNK, i * CHUNK + chunks.size(i))),
  );
  return Buffer.concat(sealed).subarray(Number(piece.from), Number(piece.to));
}

const FILE = ["file_id", "home_id", "name", "bytes", "key", "ciphertext_sha256", "saved_as", "content_sha256"];
vectors("file.json", ["text", ...FILE], async (vector) => {
  const sealed = fromBinary(message.SealedMessageSchema, bytes(vector.sealed_message));
  const { text, file } = await openMessage(sealed, people[vector.recipient], keyOf, new Set());
  const content = createHash("sha256");
  const receiver = new Receiver(file, (plain) => content.update(plain));
  const all = Buffer.concat(vector.stored.map(stored));
  for (let at = 0; at < all.length; at += 10_007) receiver.take(all.subarray(at, at + 10_007));
  receiver.finish();
  return {
    ...{ text, file_id: file.fileId, home_id: file.homeId, name: file.name, bytes: String(file.bytes) },
    ...{ key: hex(file.key), ciphertext_sha256: hex(file.ciphertextSha256) },
    ...{ saved_as: safeName(file.name), content_sha256: content.digest("hex") },
  };
});

vectors("receipt.json", ["kind", "message_ids"], async (vector) => {
  const sealed = fromBinary(message.SealedMessageSchema, bytes(vector.sealed_message));
  const { receipt } = await openMessage(sealed, people[vector.recipient], keyOf, new Set());
  return { kind: message.ReceiptKindSchema.value[receipt.kind].name, message_ids: receipt.messageIds };
});

test("an own file is received as it was sent, and never sent with two contents", async () => {
  const folder = fs.mkdtempSync(path.join(tmpdir(), "socp-"));
  const name = path.join(folder, "a.bin");
  const plain = Buffer.alloc(300_000, 3);
  fs.writeFileSync(name, plain);
  const descriptor = fs.openSync(name, "r");
  const source = new Source(descriptor, "a.bin");
  const upload = (offset) => Buffer.concat([...source.parts(offset)]);
  const whole = upload(0);
  assert.equal(whole.length, source.chunks.sealedBytes);
  for (const offset of [0, 1, SEALED_CHUNK, SEALED_CHUNK + 1, whole.length - 1, whole.length])
    assert.deepEqual(upload(offset), whole.subarray(offset));
  const { alice, bob } = people;
  const to = { ...bob, key: createPublicKey(bob.privateKey) };
  const sealed = sealMessage(alice, to, "a file", { manifest: source.manifest(alice.homeId) });
  const { file } = await openMessage(sealed, bob, keyOf, new Set());
  const got = [];
  const receiver = new Receiver(file, (part) => got.push(part));
  receiver.take(whole.subarray(0, 100_000));
  receiver.take(whole.subarray(receiver.begin()));
  receiver.finish();
  assert.deepEqual(Buffer.concat(got), plain);
  plain[200_000]++;
  fs.writeFileSync(name, plain);
  assert.throws(() => upload(0), /changes/);
  fs.closeSync(descriptor);
  fs.rmSync(folder, { recursive: true });
});

test("an own receipt opens", async () => {
  const { alice, bob } = people;
  const to = { ...bob, key: createPublicKey(bob.privateKey) };
  const asked = await openMessage(sealMessage(alice, to, "hello", { wantsReceipts: true }), bob, keyOf, new Set());
  assert.equal(asked.wantsReceipts, true);
  const receipt = { kind: message.ReceiptKind.READ, messageIds: [asked.id] };
  const { receipt: got } = await openMessage(sealMessage(alice, to, "", { receipt }), bob, keyOf, new Set());
  assert.deepEqual([got.kind, got.messageIds], [receipt.kind, receipt.messageIds]);
});

test("a long name is cut, and nothing is overwritten", () => {
  assert.equal(Buffer.byteLength(safeName("ü".repeat(300) + ".pdf")), 200);
  const folder = fs.mkdtempSync(path.join(tmpdir(), "socp-"));
  for (const name of ["x.txt", "x (1).txt"]) {
    fs.writeFileSync(path.join(folder, "part"), name);
    assert.equal(settle(path.join(folder, "part"), folder, "x.txt"), path.join(folder, name));
    assert.equal(fs.readFileSync(path.join(folder, name), "utf8"), name);
  }
  fs.rmSync(folder, { recursive: true });
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
  const there = fs.readdirSync(folder).filter((name) => name.endsWith(".json"));
  assert.deepEqual([...files].sort(), there.sort());
});
