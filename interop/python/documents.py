"""What is signed, sealed and counted, as docs/PROTOCOL.md writes it: no network, no state.

Whatever does not check out raises Untrusted. test_vectors.py holds it against the golden vectors.
"""

import functools
import hashlib
import re
import secrets
import struct
import time
import uuid
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError
from socp.v1 import file_pb2 as file
from socp.v1 import message_pb2 as message
from socp.v1 import statement_pb2 as statement

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
RSA_PREFIX = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
NAME, HEX_ID, HEX_FILE_ID = r"[a-z0-9._-]{1,64}", r"[0-9a-f]{64}", r"[0-9a-f]{32}"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


class Untrusted(Exception):
    """What came is not what it should be: malformed, or a signature, hash or pin does not agree."""


@dataclass(frozen=True)
class Me:
    """A user with the private key. `home_id` is the pinned id of the server, never one from an answer."""

    name: str
    home_id: str
    private: rsa.RSAPrivateKey

    @functools.cached_property
    def fingerprint(self):
        return sha256(public_der(self.private.public_key()))


# Signing: what is signed is a label, a zero byte and the statement as it travels. It is never encoded a second time.


def labelled(label, data):
    return label.encode() + b"\0" + data


def sha256(data):
    return hashlib.sha256(data).digest()


def sign(private, label, data):
    return private.sign(labelled(label, data), PSS, hashes.SHA256())


def require(condition, what):
    if not condition:
        raise Untrusted(what)


def check_signature(public, label, data, signature):
    """By a user's RSA key (PSS), or by a server's Ed25519 key."""
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, labelled(label, data))
        else:
            public.verify(signature, labelled(label, data), PSS, hashes.SHA256())
    except InvalidSignature:
        raise Untrusted(f"signature: {label}") from None


def decode(kind, data):
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Untrusted(f"{kind.DESCRIPTOR.name} does not decode") from None


def public_der(public):
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def server_id(raw):
    """A server's id is the hash of its key's SubjectPublicKeyInfo."""
    return sha256(ED25519_PREFIX + raw).hex()


def server_key(raw, wanted_id):
    """The Ed25519 key of a server, if it has the wanted id."""
    require(len(raw) == 32 and server_id(raw) == wanted_id, "the key is not that of the server")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


# The server, and who one is to it.


def check_server(info, wanted_id, certificate_key):
    """What `GetServerInfo` says is the pinned server's word.

    `certificate_key` is the DER SubjectPublicKeyInfo of the connection's certificate; None where the library does not
    show it, and the server's own CA is trusted alone.
    """
    require(info.identity_key[:12] == ED25519_PREFIX, "identity key")
    key = server_key(info.identity_key[12:], wanted_id)
    check_signature(key, "socp.v1.CertificateStatement", info.certificate_statement, info.certificate_signature)
    said = decode(statement.CertificateStatement, info.certificate_statement)
    require(said.server_id == wanted_id, "certificate of another server")
    require(certificate_key is None or said.certificate_key_sha256 == sha256(certificate_key), "another certificate")
    require(info.server_id == wanted_id and info.protocol_version.split(".")[0] == "1", "server or version")


def first_statement(me):
    """The claim to a name and a key, for `Register`."""
    public = public_der(me.private.public_key())
    data = statement.KeyStatement(user=me.name, home_id=me.home_id, public_key=public, number=1).SerializeToString()
    return statement.SignedKeyStatement(statement=data, signature=sign(me.private, "socp.v1.KeyStatement", data))


def login(me, nonce):
    """The answer to a challenge. The pinned id in it keeps a server from using the signature elsewhere."""
    data = statement.LoginStatement(server_id=me.home_id, user=me.name, nonce=nonce).SerializeToString()
    return {"statement": data, "signature": sign(me.private, "socp.v1.LoginStatement", data)}


# Key statements.


@dataclass(frozen=True)
class Key:
    """A user's key, from a good key statement."""

    name: str
    home_id: str
    number: int
    fingerprint: bytes
    public: rsa.RSAPublicKey
    statement_hash: bytes

    @property
    def pin(self):
        return self.number, self.fingerprint


def statement_hash(signed):
    parts = (signed.statement, signed.signature, signed.previous_signature)
    joined = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return sha256(labelled("socp.v1.SignedKeyStatement", joined))


def read_key(signed, name, home_id, named=None):
    """One statement by itself: "refuse it unless ...". `named` is the hash in its entry; None if it came in none."""
    hashed = statement_hash(signed)
    require(named in (None, hashed), "hash of a key statement")
    require(len(signed.statement + signed.signature + signed.previous_signature) <= 8192, "size of a key statement")
    said = decode(statement.KeyStatement, signed.statement)
    require((said.user, said.home_id) == (name, home_id), "key statement of another user")
    der = said.public_key
    modulus, exponent = der[33:545], der[545:]
    form = len(der) == 550 and der[:33] == RSA_PREFIX and exponent == bytes.fromhex("0203010001")
    require(form and modulus[0] & 0x80 and modulus[-1] & 1, "form of a public key")
    before = (0, 0) if said.number == 1 else (32, 512)
    require(said.number >= 1, "number of a key statement")
    require((len(said.previous_sha256), len(signed.previous_signature)) == before, "previous key statement")
    try:
        public = serialization.load_der_public_key(der)
    except ValueError:
        raise Untrusted("public key") from None
    check_signature(public, "socp.v1.KeyStatement", signed.statement, signed.signature)
    return Key(name, home_id, said.number, sha256(der), public, hashed)


def read_chain(chain, name, home_id):
    """All statements from number 1 on: each is signed by its own key and by the key before it."""
    keys = []
    for signed in chain:
        key = read_key(signed, name, home_id)
        require(key.number == len(keys) + 1, "number in a chain")
        if keys:
            previous = decode(statement.KeyStatement, signed.statement).previous_sha256
            require(previous == keys[-1].statement_hash, "hash in a chain")
            check_signature(keys[-1].public, "socp.v1.KeyStatement", signed.statement, signed.previous_signature)
        keys.append(key)
    require(keys, "no key statement")
    return keys


# Messages and posts.


@dataclass(frozen=True)
class Received:
    """What arrived and opened. The header is signed, and says from whom, when, and under which id."""

    header: object
    text: str
    statement_sha256: bytes
    file: object = None  # A FileManifest; the text then is for programs that know no files.
    receipt: object = None  # A Receipt; there is no text then.


@dataclass
class ChannelKey:
    """With what a device seals its posts. In memory only; made anew at each start."""

    key: bytes
    key_id: bytes
    counter: int = 0

    @staticmethod
    def new():
        return ChannelKey(secrets.token_bytes(32), secrets.token_bytes(16))


def now_ms():
    return time.time_ns() // 1_000_000


def remember(where, key, value=True, limit=200_000):
    """Keeps the newest."""
    where.pop(key, None)
    where[key] = value
    if len(where) > limit:
        del where[next(iter(where))]


def uuid7():
    """RFC 9562: 48 bits of Unix milliseconds, the version, and random bits."""
    value = now_ms() << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def encrypt(kind, header, key, text, **more):
    """A MessageStatement or PostStatement, encoded. The header's very bytes are the additional data."""
    nonce, data = secrets.token_bytes(12), header.SerializeToString()
    sealed = AESGCM(key).encrypt(nonce, text.encode(), data)
    commitment = sha256(labelled("socp.v1.KeyCommitment", key))
    return kind(header=data, nonce=nonce, ciphertext=sealed, key_commitment=commitment, **more).SerializeToString()


def open_gcm(key, nonce, ciphertext, additional_data):
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, additional_data)
    except InvalidTag:
        raise Untrusted("ciphertext") from None


def decrypt(body, key):
    """GCM alone does not commit to its key: the commitment is checked first."""
    require(sha256(labelled("socp.v1.KeyCommitment", key)) == body.key_commitment, "key commitment")
    try:
        return open_gcm(key, body.nonce, body.ciphertext, body.header).decode()
    except UnicodeDecodeError:
        raise Untrusted("text") from None


def read_manifest(body, key):
    """What a message says of the file that it brings; None if it brings none."""
    if not body.file_nonce and not body.file_ciphertext:
        return None
    require(len(body.file_nonce) == 12, "size of a manifest's nonce")
    additional_data = labelled("socp.v1.FileManifest", body.header)
    said = decode(file.FileManifest, open_gcm(key, body.file_nonce, body.file_ciphertext, additional_data))
    forms = re.fullmatch(HEX_FILE_ID, said.file_id) and re.fullmatch(HEX_ID, said.home_id)
    require(forms and len(said.name.encode()) <= 1024, "form of a manifest")
    sizes = (said.chunk_bytes, len(said.key), len(said.ciphertext_sha256))
    require(sizes == (65_536, 32, 32) and said.bytes <= 65_536 * (2**32 - 1), "sizes in a manifest")
    return said


def read_receipt(body, key):
    """What a message says that is a receipt; None if it is none."""
    if not body.receipt_nonce and not body.receipt_ciphertext:
        return None
    require(len(body.receipt_nonce) == 12 and not body.file_nonce and not body.file_ciphertext, "form of a receipt")
    additional_data = labelled("socp.v1.Receipt", body.header)
    said = decode(message.Receipt, open_gcm(key, body.receipt_nonce, body.receipt_ciphertext, additional_data))
    require(said.kind in (message.RECEIPT_KIND_DELIVERED, message.RECEIPT_KIND_READ), "kind of a receipt")
    ids = said.message_ids
    require(1 <= len(ids) <= 100 and all(re.fullmatch(UUID7, one) for one in ids), "ids in a receipt")
    return said


def unwrap(private, wrapped):
    try:
        key = private.decrypt(wrapped, OAEP)
    except ValueError:
        raise Untrusted("wrapped key") from None
    require(len(key) == 32, "wrapped key")
    return key


def post_key(channel_key, header):
    info = labelled("socp.v1.PostKey", header.message_id.encode())
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=header.salt, info=info).derive(channel_key)


def wrap_channel_key(channel, to):
    """For one member who lacks it."""
    member = {"recipient": to.name, "recipient_home_id": to.home_id, "recipient_key_sha256": to.fingerprint}
    return message.ChannelKeyWrap(**member, wrapped_key=to.public.encrypt(channel.key, OAEP))


def sender_fields(me):
    own = {"sender": me.name, "sender_home_id": me.home_id, "sender_key_sha256": me.fingerprint}
    return {"suite": 1, "message_id": uuid7(), "time_unix_ms": now_ms(), **own}


def seal_message(me, to, text, manifest=None):
    """A new content key for each message, wrapped to the recipient's key. `manifest` is of a file that it brings."""
    recipient = {"recipient": to.name, "recipient_home_id": to.home_id, "recipient_key_sha256": to.fingerprint}
    header = message.MessageHeader(**sender_fields(me), **recipient)
    content_key, brings = secrets.token_bytes(32), {}
    if manifest:
        nonce, additional_data = secrets.token_bytes(12), labelled("socp.v1.FileManifest", header.SerializeToString())
        sealed = AESGCM(content_key).encrypt(nonce, manifest.SerializeToString(), additional_data)
        brings = {"file_nonce": nonce, "file_ciphertext": sealed}
    data = encrypt(message.MessageStatement, header, content_key, text, **brings)
    signature = sign(me.private, "socp.v1.MessageStatement", data)
    return message.SealedMessage(statement=data, signature=signature, wrapped_key=to.public.encrypt(content_key, OAEP))


def seal_post(me, channel, text):
    """Encrypted once, under a key that derives from the device's channel key."""
    fields = {"channel": "public", "key_id": channel.key_id, "counter": channel.counter}
    header = message.PostHeader(**sender_fields(me), **fields, salt=secrets.token_bytes(32))
    channel.counter += 1
    data = encrypt(message.PostStatement, header, post_key(channel.key, header), text)
    return message.SealedPost(statement=data, signature=sign(me.private, "socp.v1.PostStatement", data))


def read_statement(sealed, body_kind, header_kind):
    """Step 1 of opening: sizes and forms."""
    require(len(sealed.statement) <= 67_584 and len(sealed.signature) == 512, "size")
    body = decode(body_kind, sealed.statement)
    header = decode(header_kind, body.header)
    forms = ((UUID7, header.message_id), (NAME, header.sender), (HEX_ID, header.sender_home_id))
    require(header.suite == 1 and all(re.fullmatch(form, text) for form, text in forms), "header")
    sizes = (len(body.nonce), len(body.key_commitment), len(header.sender_key_sha256))
    require(sizes == (12, 32, 32), "sizes in a statement")
    return body, header, (header.sender, header.sender_home_id, header.message_id)


async def check_sender(sealed, label, header, find_key):
    """The sender's key comes from the directory, never from the message."""
    key = await find_key(header.sender, header.sender_home_id)
    require(key is not None and key.fingerprint == header.sender_key_sha256, "key of the sender")
    check_signature(key.public, label, sealed.statement, sealed.signature)


async def open_message(sealed, me, find_key, seen):
    """The steps of "Opening", in their order. None for a repeat."""
    body, header, repeat = read_statement(sealed, message.MessageStatement, message.MessageHeader)
    require(len(sealed.wrapped_key) == 512, "size of the wrapped key")
    if repeat in seen:
        return None
    to = (header.recipient, header.recipient_home_id, header.recipient_key_sha256)
    require(to == (me.name, me.home_id, me.fingerprint), "for another recipient or key")
    await check_sender(sealed, "socp.v1.MessageStatement", header, find_key)
    key = unwrap(me.private, sealed.wrapped_key)
    brings = {"file": read_manifest(body, key), "receipt": read_receipt(body, key)}
    received = Received(header, decrypt(body, key), sha256(sealed.statement), **brings)
    remember(seen, repeat)  # Only now: a forged message must not make the true one look like a repeat.
    return received


async def open_post(received, me, find_key, seen, channel_keys):
    """Likewise. `channel_keys` holds those that opened a post before: sender -> (fingerprint, key id) -> key."""
    body, header, repeat = read_statement(received.post, message.PostStatement, message.PostHeader)
    sizes = (header.channel, len(header.key_id), len(header.salt))
    require(sizes == ("public", 16, 32), "header of a post")
    if repeat in seen:
        return None
    await check_sender(received.post, "socp.v1.PostStatement", header, find_key)
    kept = channel_keys.setdefault(repeat[:2], {})
    name = (header.sender_key_sha256, header.key_id)
    try:
        require(name in kept, "no channel key")
        channel_key = kept[name]
        text = decrypt(body, post_key(channel_key, header))
    except Untrusted:  # "Where there is none, or it does not open the post": the wrap, if one came along.
        channel_key = unwrap(me.private, received.wrapped_channel_key)
        text = decrypt(body, post_key(channel_key, header))
    remember(kept, name, channel_key, limit=64)
    remember(seen, repeat)
    return Received(header, text, sha256(received.post.statement))


def read_outcome(signed, home_id, own_home_id, statement_sha256):
    """What became of a statement that was sent to a user of `home_id`, by that home's word. That it is queued, or was
    given up, is the word of the own home, which has no other: `own_home_id`."""
    signer = home_id if server_id(signed.home_key) == home_id else own_home_id
    key = server_key(signed.home_key, signer)
    check_signature(key, "socp.v1.OutcomeStatement", signed.statement, signed.signature)
    said = decode(message.OutcomeStatement, signed.statement)
    require(said.home_id == signer, "home of an outcome")
    for outcome in said.outcomes:
        if outcome.statement_sha256 == statement_sha256:
            of_recipient = (message.OUTCOME_KIND_HANDED_OVER, message.OUTCOME_KIND_STORED, message.OUTCOME_KIND_REJECTED)
            of_sender = (message.OUTCOME_KIND_QUEUED, message.OUTCOME_KIND_EXPIRED)
            may_say = signer == home_id and outcome.kind in of_recipient
            require(may_say or signer == own_home_id and outcome.kind in of_sender, "outcome's kind")
            return outcome
    raise Untrusted("outcome of something else")


def read_settled(received, own_home_id, statement_sha256=None):
    """What became of a message that was queued. `statement_sha256` is the hash of what was sent, where it is known."""
    said = decode(message.OutcomeStatement, received.outcome.statement)
    require(len(said.outcomes) == 1, "outcomes of several messages")
    hashed = statement_sha256 or said.outcomes[0].statement_sha256
    outcome = read_outcome(received.outcome, received.recipient_home_id, own_home_id, hashed)
    require(outcome.kind != message.OUTCOME_KIND_QUEUED, "still queued")
    return outcome


# The directory.


class View:
    """Who is online, by (name, home id), and the digest of them all (a sum, so that a change costs one entry)."""

    def __init__(self):
        self.entries, self.sums = {}, [0] * 1024

    def put(self, key, entry):
        old = self.drop(key)
        self.entries[key] = entry
        self._count(entry, 1)
        return old

    def drop(self, key):
        old = self.entries.pop(key, None)
        if old:
            self._count(old, -1)
        return old

    def _count(self, entry, sign_of):
        self.sums = [(a + sign_of * b) & 0xFFFF for a, b in zip(self.sums, entry_words(entry))]

    def digest(self):
        return sha256(labelled("socp.v1.Digest", struct.pack("<1024H", *self.sums)))


def entry_words(entry):
    data = bytes.fromhex(entry.server_id) + struct.pack(">Q", entry.epoch)
    for text in (entry.name.encode(), entry.display_name.encode(), entry.status.encode()):
        data += struct.pack(">Q", len(text)) + text
    data += entry.key_statement_sha256 + struct.pack(">QQ", entry.online_since, entry.sessions)
    seed = sha256(labelled("socp.v1.DigestEntry", data))
    return struct.unpack("<1024H", b"".join(sha256(seed + struct.pack(">I", i)) for i in range(64)))
