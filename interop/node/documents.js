// What is signed, hashed and encrypted, after docs/PROTOCOL.md, which comments quote, and the directory's digest:
// functions of bytes alone, without network. What is refused throws.

import * as crypto from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileManifestSchema } from "./gen/socp/v1/file_pb.js";
import * as message from "./gen/socp/v1/message_pb.js";
import * as statement from "./gen/socp/v1/statement_pb.js";

// ---- Bytes and keys ----

const ED25519 = Buffer.from("302a300506032b6570032100", "hex"); // SubjectPublicKeyInfo before the raw key
const RSA_HEAD = Buffer.from("30820222300d06092a864886f70d01010105000382020f003082020a0282020100", "hex");
const RSA_TAIL = Buffer.from("0203010001", "hex");
const NAME = /^[a-z0-9._-]{1,64}$/;
export const ID = /^[0-9a-f]{64}$/;
const FILE_ID = /^[0-9a-f]{32}$/;
const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const same = (a, b) => Buffer.compare(a, b) === 0;
export const encode = (schema, fields) => toBinary(schema, create(schema, fields));
export const labelled = (label, ...parts) => Buffer.concat([Buffer.from(`${label}\0`), ...parts]);
export const sha256 = (...parts) => crypto.createHash("sha256").update(Buffer.concat(parts)).digest();
export function be(value, bytes) {
  const whole = Buffer.alloc(8);
  whole.writeBigUInt64BE(BigInt(value));
  return whole.subarray(8 - bytes);
}
export const withLength = (part, bytes) => Buffer.concat([be(part.length, bytes), part]);
export function ensure(condition, what) {
  if (!condition) throw new Error(`refused: ${what}`);
}

const pss = (key) => ({ key, padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
const oaep = (key) => ({ key, padding: crypto.constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" }); // MGF1 too
export const sign = (privateKey, label, bytes) => crypto.sign("sha256", labelled(label, bytes), pss(privateKey));
export const verifyUser = (publicKey, label, bytes, signature) =>
  crypto.verify("sha256", labelled(label, bytes), pss(publicKey), signature);
export function verifyServer(rawKey, label, bytes, signature) {
  const key = crypto.createPublicKey({ key: Buffer.concat([ED25519, rawKey]), format: "der", type: "spki" });
  return crypto.verify(null, labelled(label, bytes), key, signature);
}
// A server is the hash of its key's SubjectPublicKeyInfo.
export const serverIdOf = (rawKey) => hex(sha256(ED25519, rawKey));

// Who the program is: a name at a home, and a key that both signs and decrypts.
export function makeUser(name, homeId, privateKey) {
  const publicKey = crypto.createPublicKey(privateKey).export({ format: "der", type: "spki" });
  return { name, homeId, privateKey, publicKey, fingerprint: sha256(publicKey) };
}

// What `GetServerInfo` says is the pinned server's word, over a connection whose certificate has this key (DER
// SubjectPublicKeyInfo).
export function checkServer(info, serverId, certificateKey) {
  const { identityKey, certificateStatement, certificateSignature } = info;
  ensure(identityKey.length === 44 && same(identityKey.subarray(0, 12), ED25519), "the form of the server's key");
  const rawKey = identityKey.subarray(12);
  ensure(info.serverId === serverId && serverIdOf(rawKey) === serverId, "another server than the pinned one");
  const label = "socp.v1.CertificateStatement";
  ensure(verifyServer(rawKey, label, certificateStatement, certificateSignature), "signature of the certificate");
  const said = fromBinary(statement.CertificateStatementSchema, certificateStatement);
  ensure(said.serverId === serverId, "the certificate of another server");
  ensure(same(said.certificateKeySha256, sha256(certificateKey)), "another certificate than the server's");
  ensure(info.protocolVersion.split(".")[0] === "1", "the protocol version");
}

// ---- Key statements ----

// "To read one for the user (name, home), refuse it unless ..."; `hash` is the entry's, absent in a chain.
export function readKeyStatement(signed, name, homeId, hash) {
  const parts = [signed.statement, signed.signature, signed.previousSignature];
  ensure(parts.reduce((sum, part) => sum + part.length, 0) <= 8192, "size of the key statement");
  const { user, homeId: home, publicKey, number, previousSha256 } = fromBinary(statement.KeyStatementSchema, parts[0]);
  ensure(user === name && home === homeId, "a key statement of another user");
  const spki = Buffer.from(publicKey);
  const form = spki.length === 550 && same(spki.subarray(0, 33), RSA_HEAD) && same(spki.subarray(545), RSA_TAIL);
  ensure(form && spki[33] & 0x80 && spki[544] & 1, "the form of the key");
  const [hashSize, signatureSize] = number === 1n ? [0, 0] : [32, 512];
  ensure(number >= 1n && previousSha256.length === hashSize, "the number of the key statement");
  ensure(signed.previousSignature.length === signatureSize, "the previous signature");
  const ownHash = sha256(labelled("socp.v1.SignedKeyStatement"), ...parts.map((part) => withLength(part, 4)));
  ensure(!hash || same(hash, ownHash), "not the key statement that the entry names");
  const key = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });
  ensure(verifyUser(key, "socp.v1.KeyStatement", signed.statement, signed.signature), "signature of the key statement");
  return { number, previousSha256, hash: ownHash, key, fingerprint: sha256(spki) };
}

// Statements from number 1 on; each is signed by the key before it too.
export function readChain(signed, name, homeId) {
  const chain = signed.map((one) => readKeyStatement(one, name, homeId));
  ensure(chain.length > 0, "no key statement");
  chain.forEach((one, i) => {
    ensure(one.number === BigInt(i + 1), "a number is skipped");
    if (i === 0) return;
    ensure(same(one.previousSha256, chain[i - 1].hash), "the chain of key statements");
    const { statement: bytes, previousSignature } = signed[i];
    ensure(
      verifyUser(chain[i - 1].key, "socp.v1.KeyStatement", bytes, previousSignature),
      "the key before did not sign",
    );
  });
  return chain;
}

// ---- Messages and posts ----

function newId() {
  const bytes = crypto.randomBytes(16); // UUIDv7: 48 bits of time, version, variant, the rest random
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// GCM alone does not commit to its key.
const commitment = (key) => sha256(labelled("socp.v1.KeyCommitment"), key);

function sealGcm(key, nonce, additionalData, plain) {
  const cipher = crypto.createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(additionalData);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

function openGcm(key, nonce, additionalData, ciphertext) {
  ensure(ciphertext.length >= 16, "the form of a ciphertext");
  const decipher = crypto.createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  decipher.setAAD(additionalData);
  decipher.setAuthTag(ciphertext.subarray(-16));
  return Buffer.concat([decipher.update(ciphertext.subarray(0, -16)), decipher.final()]);
}

function encrypt(key, header, text) {
  const nonce = crypto.randomBytes(12);
  const ciphertext = sealGcm(key, nonce, header, Buffer.from(text));
  return { header, nonce, ciphertext, keyCommitment: commitment(key) };
}

function decrypt(key, { header, nonce, ciphertext, keyCommitment }) {
  ensure(same(commitment(key), keyCommitment), "the commitment to the key");
  const text = openGcm(key, nonce, header, ciphertext); // the header as received
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text);
}

// What a message says of the file that it brings; nothing if it brings none.
function readManifest(key, { header, fileNonce, fileCiphertext }) {
  if (fileNonce.length === 0 && fileCiphertext.length === 0) return undefined;
  ensure(fileNonce.length === 12, "the nonce of a manifest");
  const plain = openGcm(key, fileNonce, labelled("socp.v1.FileManifest", header), fileCiphertext);
  const said = fromBinary(FileManifestSchema, plain);
  ensure(FILE_ID.test(said.fileId) && ID.test(said.homeId), "the ids in a manifest");
  ensure(Buffer.byteLength(said.name) <= 1024, "the name in a manifest");
  ensure(said.chunkBytes === 65536 && said.bytes <= 65536n * (2n ** 32n - 1n), "the sizes in a manifest");
  ensure(said.key.length === 32 && said.ciphertextSha256.length === 32, "the key or hash in a manifest");
  return said;
}

// What a message says that is a receipt; nothing if it is none.
function readReceipt(key, { header, receiptNonce, receiptCiphertext, fileNonce, fileCiphertext }) {
  if (receiptNonce.length === 0 && receiptCiphertext.length === 0) return undefined;
  ensure(receiptNonce.length === 12, "the nonce of a receipt");
  ensure(fileNonce.length === 0 && fileCiphertext.length === 0, "a receipt with a file");
  const plain = openGcm(key, receiptNonce, labelled("socp.v1.Receipt", header), receiptCiphertext);
  const said = fromBinary(message.ReceiptSchema, plain);
  const { DELIVERED, READ } = message.ReceiptKind;
  ensure([DELIVERED, READ].includes(said.kind), "the kind of a receipt");
  const ids = said.messageIds;
  ensure(ids.length >= 1 && ids.length <= 100 && ids.every((id) => UUID7.test(id)), "the ids in a receipt");
  return said;
}

function unwrap(privateKey, wrapped) {
  ensure(wrapped.length === 512, "size of the wrapped key");
  const key = crypto.privateDecrypt(oaep(privateKey), wrapped);
  ensure(key.length === 32, "size of the key");
  return key;
}

const common = (me) => ({
  suite: 1,
  messageId: newId(),
  sender: me.name,
  senderHomeId: me.homeId,
  senderKeySha256: me.fingerprint,
  timeUnixMs: BigInt(Date.now()),
});

// `to` is { name, homeId, key, fingerprint }, the key from a verified statement that agrees with the pin. `manifest` is
// of a file that the message brings; one with a `receipt` has no text.
export function sealMessage(me, to, text, { manifest, receipt, wantsReceipts = false } = {}) {
  const header = encode(message.MessageHeaderSchema, {
    ...common(me),
    recipient: to.name,
    recipientHomeId: to.homeId,
    recipientKeySha256: to.fingerprint,
    wantsReceipts,
  });
  const contentKey = crypto.randomBytes(32);
  const sealed = encrypt(contentKey, header, text);
  if (manifest) {
    sealed.fileNonce = crypto.randomBytes(12);
    const plain = encode(FileManifestSchema, manifest);
    sealed.fileCiphertext = sealGcm(contentKey, sealed.fileNonce, labelled("socp.v1.FileManifest", header), plain);
  }
  if (receipt) {
    sealed.receiptNonce = crypto.randomBytes(12);
    const plain = encode(message.ReceiptSchema, receipt);
    sealed.receiptCiphertext = sealGcm(contentKey, sealed.receiptNonce, labelled("socp.v1.Receipt", header), plain);
  }
  const bytes = encode(message.MessageStatementSchema, sealed);
  const signature = sign(me.privateKey, "socp.v1.MessageStatement", bytes);
  return { statement: bytes, signature, wrappedKey: crypto.publicEncrypt(oaep(to.key), contentKey) };
}

const postKey = (channelKey, salt, messageId) =>
  Buffer.from(crypto.hkdfSync("sha256", channelKey, salt, labelled("socp.v1.PostKey", Buffer.from(messageId)), 32));

// A device's own; kept in memory only.
export const newChannelKey = () => ({ key: crypto.randomBytes(32), keyId: crypto.randomBytes(16), counter: 0n });

export const wrapChannelKey = (channel, to) => ({
  recipient: to.name,
  recipientHomeId: to.homeId,
  recipientKeySha256: to.fingerprint,
  wrappedKey: crypto.publicEncrypt(oaep(to.key), channel.key),
});

export function sealPost(me, channel, text) {
  const fields = { ...common(me), channel: "public", keyId: channel.keyId, salt: crypto.randomBytes(32) };
  const header = encode(message.PostHeaderSchema, { ...fields, counter: channel.counter++ });
  const sealed = encrypt(postKey(channel.key, fields.salt, fields.messageId), header, text);
  const bytes = encode(message.PostStatementSchema, sealed);
  return { statement: bytes, signature: sign(me.privateKey, "socp.v1.PostStatement", bytes) };
}

// The first step of opening: decode, and check every form.
function readForm(sealed, statementSchema, headerSchema) {
  ensure(sealed.statement.length <= 67584 && sealed.signature.length === 512, "size of the message");
  const body = fromBinary(statementSchema, sealed.statement);
  const header = fromBinary(headerSchema, body.header);
  ensure(header.suite === 1, "the suite");
  ensure(NAME.test(header.sender) && ID.test(header.senderHomeId), "the form of the sender");
  ensure(UUID7.test(header.messageId) && header.senderKeySha256.length === 32, "the form of the header");
  ensure(body.nonce.length === 12 && body.keyCommitment.length === 32, "the form of the statement");
  ensure(body.ciphertext.length >= 16, "the form of the ciphertext");
  return [body, header];
}

// The sender's key comes from the directory or the pin, "never from the message".
async function checkSender(header, label, sealed, keyOf) {
  const known = await keyOf(header.sender, header.senderHomeId);
  ensure(same(known.fingerprint, header.senderKeySha256), "another key than the sender's");
  ensure(verifyUser(known.key, label, sealed.statement, sealed.signature), "signature of the message");
}

const opened = (sealed, header, text) => ({
  sender: header.sender,
  senderHomeId: header.senderHomeId,
  id: header.messageId,
  timeUnixMs: header.timeUnixMs,
  statementSha256: sha256(sealed.statement),
  text,
});
const seenKey = (header) => `${header.sender}@${header.senderHomeId} ${header.messageId}`;

// In the documented order; the first step that fails throws. Answers nothing for a repeat. `seen` is a Set,
// `keyOf(name, homeId)` gives the sender's verified key. A message is remembered only once it opened: "a forged message
// must not make the true one look like a repeat".
export async function openMessage(sealed, me, keyOf, seen) {
  const [body, header] = readForm(sealed, message.MessageStatementSchema, message.MessageHeaderSchema);
  ensure(sealed.wrappedKey.length === 512, "size of the wrapped key");
  if (seen.has(seenKey(header))) return undefined;
  ensure(header.recipient === me.name && header.recipientHomeId === me.homeId, "a message to another user");
  ensure(same(header.recipientKeySha256, me.fingerprint), "a message to another key");
  await checkSender(header, "socp.v1.MessageStatement", sealed, keyOf);
  const key = unwrap(me.privateKey, sealed.wrappedKey);
  const brings = { file: readManifest(key, body), receipt: readReceipt(key, body), wantsReceipts: header.wantsReceipts };
  const read = { ...opened(sealed, header, decrypt(key, body)), ...brings };
  seen.add(seenKey(header));
  return read;
}

// Nothing here opens a post, and no wrap came with it: one's home may have the key, and is asked for it by `wanted`.
export class NoChannelKey extends Error {
  constructor({ sender, senderHomeId, keyId }) {
    super("no channel key");
    this.wanted = { sender, senderHomeId, keyId };
  }
}

// `channelKeys` keeps, for each sender, the newest 64 channel keys that opened a post.
export async function openPost({ post, wrappedChannelKey }, me, keyOf, seen, channelKeys) {
  const [body, header] = readForm(post, message.PostStatementSchema, message.PostHeaderSchema);
  ensure(header.channel === "public", "the channel");
  ensure(header.keyId.length === 16 && header.salt.length === 32, "the form of the header");
  if (seen.has(seenKey(header))) return undefined;
  await checkSender(header, "socp.v1.PostStatement", post, keyOf);
  const sender = `${header.sender}@${header.senderHomeId}`;
  const kept = channelKeys.get(sender) ?? new Map();
  const keyName = hex(header.senderKeySha256) + hex(header.keyId);
  const open = (key) => [key, decrypt(postKey(key, header.salt, header.messageId), body)];
  const fromWrap = () => open(unwrap(me.privateKey, wrappedChannelKey));
  const fromKept = () => {
    try {
      return kept.has(keyName) && open(kept.get(keyName));
    } catch {
      return undefined; // the kept key "does not open the post"
    }
  };
  const found = fromKept();
  if (!found && wrappedChannelKey.length === 0) throw new NoChannelKey(header);
  const result = found || fromWrap();
  kept.delete(keyName);
  channelKeys.set(sender, kept.set(keyName, result[0]));
  if (kept.size > 64) kept.delete(kept.keys().next().value);
  seen.add(seenKey(header));
  return opened(post, header, result[1]);
}

// What became of a statement that was sent to a user of `homeId`, by that home's word. That it is queued, or was given up,
// is the word of the own home, which has no other; "whatever does not check out is unknown".
export function readOutcome(signed, homeId, ownHomeId, statementSha256) {
  ensure(signed?.homeKey.length === 32, "the form of the home's key");
  const signer = serverIdOf(signed.homeKey);
  ensure([homeId, ownHomeId].includes(signer), "an outcome of another home");
  const good = verifyServer(signed.homeKey, "socp.v1.OutcomeStatement", signed.statement, signed.signature);
  ensure(good, "signature of the outcome");
  const word = fromBinary(message.OutcomeStatementSchema, signed.statement);
  const outcome = word.outcomes.find((one) => same(one.statementSha256, statementSha256));
  ensure(word.homeId === signer && outcome, "an outcome of something else");
  const { HANDED_OVER, STORED, REJECTED, QUEUED, EXPIRED } = message.OutcomeKind;
  const known = signer === homeId && [HANDED_OVER, STORED, REJECTED].includes(outcome.kind);
  ensure(known || (signer === ownHomeId && [QUEUED, EXPIRED].includes(outcome.kind)), "the kind of the outcome");
  return outcome;
}

// What became of a message that was queued; `statementSha256` is the hash of what was sent, where it is known.
export function readSettled({ outcome: signed, recipientHomeId }, ownHomeId, statementSha256) {
  const { outcomes } = fromBinary(message.OutcomeStatementSchema, signed?.statement ?? new Uint8Array());
  ensure(outcomes.length === 1, "outcomes of several messages");
  const outcome = readOutcome(signed, recipientHomeId, ownHomeId, statementSha256 ?? outcomes[0].statementSha256);
  ensure(outcome.kind !== message.OutcomeKind.QUEUED, "a message that is queued still");
  return outcome;
}
