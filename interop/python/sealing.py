"""How messages and posts are sealed and opened, as docs/PROTOCOL.md writes it: no network, no state."""

import re
import secrets
import time
import uuid
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from socp.v1 import file_pb2 as file
from socp.v1 import message_pb2 as message

from documents import HEX_ID, Untrusted, check_signature, decode, labelled, require, sha256, sign

OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
NAME, HEX_FILE_ID = r"[a-z0-9._-]{1,64}", r"[0-9a-f]{32}"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


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


def seal_message(me, to, text, manifest=None, receipt=None, wants_receipts=False):
    """A new content key for each message, wrapped to the recipient's key. `manifest` is of a file that it brings; one with a
    `receipt` has no text."""
    recipient = {"recipient": to.name, "recipient_home_id": to.home_id, "recipient_key_sha256": to.fingerprint}
    header = message.MessageHeader(**sender_fields(me), **recipient, wants_receipts=wants_receipts)
    content_key, brings = secrets.token_bytes(32), {}
    for name, label, part in (("file", "FileManifest", manifest), ("receipt", "Receipt", receipt)):
        if part:
            nonce, additional_data = secrets.token_bytes(12), labelled(f"socp.v1.{label}", header.SerializeToString())
            sealed = AESGCM(content_key).encrypt(nonce, part.SerializeToString(), additional_data)
            brings |= {f"{name}_nonce": nonce, f"{name}_ciphertext": sealed}
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


class NoChannelKey(Untrusted):
    """Nothing here opens a post, and no wrap came with it. One's home may have the key: `wanted` asks for it."""

    def __init__(self, header):
        super().__init__("no channel key")
        about = {"sender": header.sender, "sender_home_id": header.sender_home_id, "key_id": header.key_id}
        self.wanted = message.GetChannelKeyRequest(**about)


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
        if not received.wrapped_channel_key:
            raise NoChannelKey(header) from None
        channel_key = unwrap(me.private, received.wrapped_channel_key)
        text = decrypt(body, post_key(channel_key, header))
    remember(kept, name, channel_key, limit=64)
    remember(seen, repeat)
    return Received(header, text, sha256(received.post.statement))
