"""What is signed and counted, as docs/PROTOCOL.md writes it: no network, no state. Messages and posts are in sealing.py.

Whatever does not check out raises Untrusted. test_vectors.py holds it against the golden vectors.
"""

import functools
import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from google.protobuf.message import DecodeError
from socp.v1 import message_pb2 as message
from socp.v1 import statement_pb2 as statement

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
RSA_PREFIX = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
HEX_ID = r"[0-9a-f]{64}"


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


# What became of what was sent.


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
