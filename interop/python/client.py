"""A client of SOCP on one page: what docs/PROTOCOL.md asks of a program that takes part.

    client = Client("127.0.0.1:7443", server_id, ca_pem, "alice", private_key, on_event)
    await client.start()
    await client.tell("bob@server-b", "hello")
    await client.close()

It prints nothing; `on_event(kind, about)` is called with

    added, updated, removed   a DirectoryEntry, or the RemovedEntry or entry of a user who went
    message, post             what arrived and opened: a Received
    unreadable                "message" or "post": one that did not open; nobody is told why
    key_changed               an Untrusted: a known user's key is another and nothing leads to it
    lost, stopped             why a stream is opened again, or is not any more

Run it: ./build, then ./start --help (exchange.py). Only the contracts' stubs, grpcio and `cryptography` are needed.
"""

import asyncio
import hashlib
import random
import re
import secrets
import struct
import time
import uuid
from dataclasses import dataclass

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from socp.v1 import account_pb2 as account, account_pb2_grpc
from socp.v1 import directory_pb2 as directory, directory_pb2_grpc
from socp.v1 import message_pb2 as message, message_pb2_grpc
from socp.v1 import statement_pb2 as statement

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
RSA_PREFIX = bytes.fromhex("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
NAME, HEX_ID = r"[a-z0-9._-]{1,64}", r"[0-9a-f]{64}"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
CALL_SECONDS = 15  # "Give each call that is no stream a deadline", since a server waits 5 s for another.
SILENCE_SECONDS = 35  # "No message for 35 s (two bookmarks missed) means that the stream is dead."


class Untrusted(Exception):
    """What came is not what it should be: malformed, or a signature, hash or pin does not agree."""


class Refused(Exception):
    """A status other than OK. Programs decide by `reason`, and where it is empty by `code`; never by the text."""

    LOST = {grpc.StatusCode[c] for c in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL")}
    AGAIN = {"TOKEN_INVALID", "NONCE_EXPIRED", "TOO_MANY", "WATCHER_TOO_SLOW", "SERVER_FAILED"}

    def __init__(self, code, reason="", metadata=()):
        super().__init__(reason or code.name)
        self.code, self.reason, self.metadata = code, reason, dict(metadata)
        # What became of the call is not known: the same bytes may be sent again.
        self.lost = code == grpc.StatusCode.UNAVAILABLE or (not reason and code in self.LOST)

    @staticmethod
    def of(error):
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                info = error_details_pb2.ErrorInfo()
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Unpack(info) and info.domain == "socp":
                        return Refused(error.code(), info.reason, info.metadata)
        return Refused(error.code())


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


def server_key(raw, server_id):
    """The Ed25519 key of a server, whose SubjectPublicKeyInfo hashes to the server's id."""
    require(len(raw) == 32 and sha256(ED25519_PREFIX + raw).hex() == server_id, "key of a server")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def check_server(info, server_id):
    """`GetServerInfo` is the pinned server's."""
    require(info.identity_key[:12] == ED25519_PREFIX, "identity key")
    key = server_key(info.identity_key[12:], server_id)
    check_signature(key, "socp.v1.CertificateStatement", info.certificate_statement, info.certificate_signature)
    require(decode(statement.CertificateStatement, info.certificate_statement).server_id == server_id, "certificate")
    require(info.server_id == server_id and info.protocol_version.split(".")[0] == "1", "server or version")
    # grpcio does not show the peer's certificate, so `certificate_key_sha256` cannot be compared. In place of that
    # the channel trusts the server's own CA alone, "which signs for nothing else": the second way of the protocol.


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


def read_key(signed, name, home_id):
    """One statement by itself: "refuse it unless ..."."""
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
    public = serialization.load_der_public_key(der)
    check_signature(public, "socp.v1.KeyStatement", signed.statement, signed.signature)
    return Key(name, home_id, said.number, sha256(der), public, statement_hash(signed))


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
class Me:
    name: str
    home_id: str
    private: rsa.RSAPrivateKey

    @property
    def fingerprint(self):
        return sha256(public_der(self.private.public_key()))


@dataclass(frozen=True)
class Received:
    """What arrived and opened. The header is signed, and says from whom, when, and under which id."""

    header: object
    text: str
    statement_sha256: bytes


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


def uuid7():
    """RFC 9562: 48 bits of Unix milliseconds, the version, and random bits."""
    value = now_ms() << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def encrypt(kind, header, key, text):
    """A MessageStatement or PostStatement, encoded. The header's very bytes are the additional data."""
    nonce, data = secrets.token_bytes(12), header.SerializeToString()
    sealed = AESGCM(key).encrypt(nonce, text.encode(), data)
    commitment = sha256(labelled("socp.v1.KeyCommitment", key))
    return kind(header=data, nonce=nonce, ciphertext=sealed, key_commitment=commitment).SerializeToString()


def decrypt(body, key):
    """GCM alone does not commit to its key: the commitment is checked first."""
    require(sha256(labelled("socp.v1.KeyCommitment", key)) == body.key_commitment, "key commitment")
    try:
        return AESGCM(key).decrypt(body.nonce, body.ciphertext, body.header).decode()
    except Exception:
        raise Untrusted("ciphertext") from None


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


def sender_fields(me):
    own = {"sender": me.name, "sender_home_id": me.home_id, "sender_key_sha256": me.fingerprint}
    return {"suite": 1, "message_id": uuid7(), "time_unix_ms": now_ms(), **own}


def seal_message(me, to, text):
    """A new content key for each message, wrapped to the recipient's key."""
    recipient = {"recipient": to.name, "recipient_home_id": to.home_id, "recipient_key_sha256": to.fingerprint}
    header = message.MessageHeader(**sender_fields(me), **recipient)
    content_key = secrets.token_bytes(32)
    data = encrypt(message.MessageStatement, header, content_key, text)
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
    text = decrypt(body, unwrap(me.private, sealed.wrapped_key))
    remember(seen, repeat)  # Only now: a forged message must not make the true one look like a repeat.
    return Received(header, text, sha256(sealed.statement))


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


def remember(where, key, value=True, limit=200_000):
    """Keeps the newest."""
    where.pop(key, None)
    where[key] = value
    if len(where) > limit:
        del where[next(iter(where))]


def read_outcome(signed, home_id, sealed):
    """The signed word of the recipient's home on these very bytes."""
    key = server_key(signed.home_key, home_id)
    check_signature(key, "socp.v1.OutcomeStatement", signed.statement, signed.signature)
    said = decode(message.OutcomeStatement, signed.statement)
    require(said.home_id == home_id, "home of an outcome")
    for outcome in said.outcomes:
        if outcome.statement_sha256 == sha256(sealed.statement):
            return outcome
    raise Untrusted("outcome of something else")


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


class Pause:
    """Before the n-th attempt in a row a random time between 0 and min(5 s, 100 ms * 2^n)."""

    def __init__(self):
        self.attempt = 0

    async def wait(self):
        await asyncio.sleep(random.uniform(0, min(5, 0.1 * 2**self.attempt)))
        self.attempt = min(self.attempt + 1, 10)

    def reset(self):
        self.attempt = 0


class Client:
    """One user at one server. `view` holds who is online; `resumed`, `started_over`, `mismatched` count."""

    def __init__(self, server, server_id, ca_pem, name, private, on_event, device="python", status=""):
        self.me = Me(name, server_id, private)
        self.view = View()
        self.resumed = self.started_over = self.mismatched = 0
        self.last_login = None  # Of no use to anybody but a test: its nonce is spent.
        self._on_event, self._device, self._status = on_event, device, status
        options = [
            ("grpc.keepalive_time_ms", 2_000),  # Pings, so that a dead path is noticed in seconds.
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),  # How long one attempt to connect may take.
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]
        self._channel = grpc.aio.secure_channel(server, grpc.ssl_channel_credentials(ca_pem), options)
        self.account = account_pb2_grpc.AccountServiceStub(self._channel)
        self.directory = directory_pb2_grpc.DirectoryServiceStub(self._channel)
        self.messages = message_pb2_grpc.MessageServiceStub(self._channel)
        self._session, self._logging_in, self._tasks = None, asyncio.Lock(), []
        self._resume, self._revision = "", 0
        self._pins = {}  # (name, home id) -> Key. A client that is to be trusted tomorrow keeps them on disk.
        self._servers = {}  # Home id -> the server's name, as one's own server calls it.
        self._seen, self._channel_keys = {}, {}
        self._posting, self._channel_key, self._given = asyncio.Lock(), ChannelKey.new(), {}

    # Identity, registration, login.

    async def start(self, invite=""):
        """Registers (again is answered alike), logs in, watches and attaches."""
        public = public_der(self.me.private.public_key())
        said = statement.KeyStatement(user=self.me.name, home_id=self.me.home_id, public_key=public, number=1)
        data = said.SerializeToString()
        signature = sign(self.me.private, "socp.v1.KeyStatement", data)
        signed = statement.SignedKeyStatement(statement=data, signature=signature)
        await self._patiently(self._check_server)
        await self._patiently(
            lambda: self.bare(self.account.Register, account.RegisterRequest(key_statement=signed, invite=invite))
        )
        await self._patiently(self._token)
        self._tasks = [asyncio.create_task(self._hold(stream)) for stream in (self._watch, self._attach)]

    async def bare(self, method, request, token=None):
        """One call, with or without a token."""
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        try:
            return await method(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise Refused.of(error) from None

    async def _patiently(self, attempt, seconds=30):
        """Tries again, after a pause, while it is not known what became of it. The same bytes each time."""
        pause, until = Pause(), time.monotonic() + seconds
        while True:
            try:
                return await attempt()
            except Refused as refused:
                if not refused.lost or time.monotonic() > until:
                    raise
            await pause.wait()

    async def call(self, method, request, seconds=30):
        """A call that wants a token. TOKEN_INVALID: "log in again and repeat it, once"."""

        async def once():
            token = await self._token()
            try:
                return await self.bare(method, request, token)
            except Refused as refused:
                if refused.reason != "TOKEN_INVALID":
                    raise
                self._forget(token)
            return await self.bare(method, request, await self._token())

        return await self._patiently(once, seconds)

    async def _token(self):
        async with self._logging_in:  # Streams and calls that lost their token together log in once.
            if not self._session:
                self._session = await self._log_in()
            return self._session

    def _forget(self, token):
        if self._session == token:
            self._session = None

    async def _check_server(self):
        check_server(await self.bare(self.account.GetServerInfo, account.GetServerInfoRequest()), self.me.home_id)

    async def _log_in(self):
        await self._check_server()
        for last in (False, True):
            asked = account.CreateChallengeRequest(user=self.me.name)
            nonce = (await self.bare(self.account.CreateChallenge, asked)).nonce
            # The id is the pin, never from an answer: it keeps a server from using the signature elsewhere.
            said = statement.LoginStatement(server_id=self.me.home_id, user=self.me.name, nonce=nonce)
            data = said.SerializeToString()
            signature = sign(self.me.private, "socp.v1.LoginStatement", data)
            self.last_login = account.LogInRequest(statement=data, signature=signature, device=self._device)
            try:
                return (await self.bare(self.account.LogIn, self.last_login)).token
            except Refused as refused:
                if last or refused.reason != "NONCE_EXPIRED":
                    raise

    async def close(self):
        """Goes offline at once, and ends the session."""
        try:
            await self.call(self.messages.Detach, message.DetachRequest(), seconds=5)
            for task in self._tasks:
                task.cancel()
            await self.call(self.account.LogOut, account.LogOutRequest(), seconds=5)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._channel.close()

    # Streams.

    async def _hold(self, stream):
        """Keeps a stream open: after a break a pause, and again."""
        pause = Pause()
        while True:
            token = None
            try:
                token = await self._token()
                await stream(token, pause)
                if stream == self._attach:  # OK: detached or logged out, perhaps elsewhere.
                    return self._on_event("stopped", "detached")
            except Untrusted as untrusted:
                self._on_event("stopped", untrusted)
                return
            except Refused as refused:
                self._resume = refused.metadata.get("resume_token") or self._resume
                if refused.reason == "TOKEN_INVALID":
                    self._forget(token)
                elif refused.reason in ("REVISION_COMPACTED", "RESUME_TOKEN_INVALID"):
                    self.started_over += 1
                    self._start_over()
                elif not refused.lost and refused.reason not in Refused.AGAIN:
                    return self._on_event("stopped", refused)  # REPLACED, USER_DISABLED, TOO_LARGE ...
                self._on_event("lost", refused)
            await pause.wait()

    async def _read(self, call, silence=None):
        try:
            while (one := await asyncio.wait_for(call.read(), silence)) is not grpc.aio.EOF:
                yield one
        except grpc.aio.AioRpcError as error:
            raise Refused.of(error) from None
        except asyncio.TimeoutError:
            raise Refused(grpc.StatusCode.UNAVAILABLE) from None
        finally:
            call.cancel()

    def _start_over(self):
        self._resume, self._revision = "", 0

    async def _watch(self, token, pause):
        """The pseudocode of "The watch"."""
        resume = self._resume
        staged = None if resume else View()  # The old view stays in sight until the end mark.
        seen = self._revision
        request = directory.WatchDirectoryRequest(resume_token=resume)
        call = self.directory.WatchDirectory(request, metadata=(("authorization", f"Bearer {token}"),))
        async for part in self._read(call, SILENCE_SECONDS):
            if resume:
                resume, self.resumed = "", self.resumed + 1
                pause.reset()
            target = self.view if staged is None else staged
            for change in part.changes:
                if change.revision < seen:
                    return self._start_over()  # Revisions never go back.
                seen = change.revision
                kind = change.WhichOneof("change")
                self._apply(target, kind, getattr(change, kind))
            if part.HasField("end_mark"):
                if part.end_mark.entries != len(staged.entries):
                    return self._start_over()
                self._replace(staged)
                staged, seen = None, part.end_mark.revision
            if part.HasField("bookmark"):
                seen = part.bookmark.revision
            for mark in [getattr(part, name) for name in ("end_mark", "bookmark") if part.HasField(name)]:
                if mark.digest and mark.digest != self.view.digest():
                    self.mismatched += 1
                    return self._start_over()
                pause.reset()
            if part.resume_token:
                self._resume, self._revision = part.resume_token, seen

    def _apply(self, view, kind, about):
        key = (about.name, about.server_id)
        if kind == "removed":
            known = view.drop(key)
        else:
            known = view.put(key, about)
            self._servers[about.server_id] = about.server_name
            kind = "updated" if known else "added"
        if view is self.view and (known or kind != "removed"):
            self._on_event(kind, about)

    def _replace(self, staged):
        """Of a state that was loaded anew only the differences are told."""
        old, self.view = self.view, staged
        for key, entry in old.entries.items():
            if key not in staged.entries:
                self._on_event("removed", entry)
        for key, entry in staged.entries.items():
            if old.entries.get(key) != entry:
                self._on_event("updated" if key in old.entries else "added", entry)

    async def _attach(self, token, pause):
        request = message.AttachRequest(status=self._status)
        call = self.messages.Attach(request, metadata=(("authorization", f"Bearer {token}"),))
        async for event in self._read(call):
            pause.reset()
            kind = event.WhichOneof("event")
            try:
                received = None
                if kind == "message":
                    received = await open_message(event.message.message, self.me, self.key_of, self._seen)
                elif kind == "post":
                    received = await open_post(event.post, self.me, self.key_of, self._seen, self._channel_keys)
                if received:
                    self._on_event(kind, received)
            except (Untrusted, Refused):
                self._on_event("unreadable", kind)

    # Keys.

    async def key_of(self, name, home_id, ask=False):
        """The key in force, from the view or by `GetUser`, checked against the pin."""
        entry = self.view.entries.get((name, home_id))
        if entry and not ask:
            pinned = self._pins.get((name, home_id))
            if pinned and pinned.statement_hash == entry.key_statement_sha256:
                return pinned
            key = read_key(entry.key_statement, name, home_id)
            require(key.statement_hash == entry.key_statement_sha256, "hash of a key statement")
            if pinned is None or pinned.pin == key.pin:
                return self._pin(key)
            if key.number <= pinned.number:
                self._key_changed(name, home_id)
        answer = await self.call(self.directory.GetUser, directory.GetUserRequest(user=f"{name}@{home_id}"))
        require((answer.user.split("@")[0], answer.server_id) == (name, home_id), "answer on another user")
        self._servers[home_id] = answer.user.split("@")[1]
        chain = read_chain(answer.key_statements, name, home_id)
        pinned = self._pins.get((name, home_id))
        if pinned and pinned.pin not in [key.pin for key in chain]:
            self._key_changed(name, home_id)
        return self._pin(chain[-1])

    def _pin(self, key):
        self._pins[key.name, key.home_id] = key
        return key

    def _key_changed(self, name, home_id):
        """The loud case: nothing is sent to this key and nothing from it is opened."""
        untrusted = Untrusted(f"the key of {name}@{home_id} changed, and no chain leads to it")
        self._on_event("key_changed", untrusted)
        raise untrusted

    def user_of(self, header):
        """`name@server-name` of a sender."""
        return f"{header.sender}@{self._servers.get(header.sender_home_id, header.sender_home_id)}"

    async def find(self, user):
        for key, entry in self.view.entries.items():
            if entry.user == user:
                return key
        answer = await self.call(self.directory.GetUser, directory.GetUserRequest(user=user))
        name, _, server = user.partition("@")
        found, _, found_server = answer.user.partition("@")
        require(found == name and server in ("", found_server, answer.server_id), "answer on another user")
        return name, answer.server_id

    # Sending.

    async def tell(self, user, text):
        """One message to `name@server`. Returns the outcome that the recipient's home signed."""
        name, home_id = await self.find(user)
        try:
            return await self.send(seal_message(self.me, await self.key_of(name, home_id), text), home_id)
        except Refused as refused:
            if refused.reason != "RECIPIENT_KEY_CHANGED":
                raise
        return await self.send(seal_message(self.me, await self.key_of(name, home_id, ask=True), text), home_id)

    async def send(self, sealed, home_id):
        """Sends these very bytes, again and again while it is not known what became of them."""
        answer = await self.call(self.messages.SendMessage, message.SendMessageRequest(message=sealed))
        outcome = read_outcome(answer.outcome, home_id, sealed)
        require(outcome.kind == message.OUTCOME_KIND_HANDED_OVER, "outcome")
        return outcome

    async def all(self, text):
        """One post to everybody who is online. Returns how many users it was handed to."""
        async with self._posting:
            members = {key: e for key, e in self.view.entries.items() if key != (self.me.name, self.me.home_id)}
            for key, entry in self._given.items():
                if key in members and members[key].key_statement_sha256 != entry.key_statement_sha256:
                    self._channel_key, self._given = ChannelKey.new(), {}  # A member's key changed.
                    break
            channel, wraps, wrapped = self._channel_key, [], {}
            for key, entry in members.items():
                # Who changed since may have a new session, which lacks the channel key: another entry, another wrap.
                if self._given.get(key) is not entry and len(wraps) < 4096:
                    try:
                        to = await self.key_of(*key)
                    except (Untrusted, Refused):
                        continue  # A member whose key does not agree with the pin gets none.
                    sealed_key = to.public.encrypt(channel.key, OAEP)
                    fields = {"recipient": to.name, "recipient_home_id": to.home_id}
                    fields["recipient_key_sha256"] = to.fingerprint
                    wraps.append(message.ChannelKeyWrap(**fields, wrapped_key=sealed_key))
                    wrapped[key] = entry
            sealed = seal_post(self.me, channel, text)
            request = message.PostToChannelRequest(post=sealed, wraps=wraps)
            handed, pause, until = {}, Pause(), time.monotonic() + 30
            while True:
                answer = await self.call(self.messages.PostToChannel, request)
                for signed in answer.outcomes:
                    home_id = sha256(ED25519_PREFIX + signed.home_key).hex()
                    outcome = read_outcome(signed, home_id, sealed)
                    if home_id in {home for _, home in members} and outcome.kind == message.OUTCOME_KIND_HANDED_OVER:
                        handed[home_id] = outcome.recipients
                if not answer.silent_home_ids or time.monotonic() > until:
                    break
                await pause.wait()  # "The same bytes may be sent again."
            for key, entry in wrapped.items():
                if key[1] in handed and self.view.entries.get(key) is entry:
                    self._given[key] = entry
            return sum(handed.values())
