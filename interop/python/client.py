"""A client of SOCP: what docs/PROTOCOL.md asks of a program that takes part. What it signs: documents.py; what
it seals and opens: sealing.py; why a call was refused: calls.py; its posts: channel.py; whose
key is whose: pins.py.

    client = Client("127.0.0.1:7443", server_id, ca_pem, "alice", private_key, on_event)
    await client.start()
    await client.tell("bob@server-b", "hello")
    await client.close()

`device` is a Device (device.py) with a file of its own where the next run is to go on where this one was. `receipts` is
"delivered" or "read" where such receipts are given to those who ask, and asked for (receipts.py).
It prints nothing; `on_event(kind, about)` is called with

    added, updated, removed   a DirectoryEntry (or RemovedEntry): who came, changed, went
    message, post             a Received: what arrived and opened; one with a `file` is to be fetched by files.py
    receipt                   (a Received with a `receipt`, ids): the word of its sender on these messages to them
    settled                   a Settled: what became of a message that was queued
    missed                    how many messages are gone from the inbox that this device has not had
    posts_missed              how many posts are gone from the channel's log, at most
    unreadable                "message" or "post": one that did not open; the sender is not told why
    key_changed               an Untrusted: a known user's key is another one, and nothing leads to it
    lost, stopped             the exception for which a stream is opened again, or is not

Run it: ./build, then ./start --help (exchange.py). It wants grpcio, `cryptography` and the stubs of the contracts.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import grpc
from socp.v1 import account_pb2 as account
from socp.v1 import account_pb2_grpc
from socp.v1 import directory_pb2 as directory
from socp.v1 import directory_pb2_grpc
from socp.v1 import file_pb2_grpc
from socp.v1 import message_pb2 as message
from socp.v1 import message_pb2_grpc

import documents
import sealing
from calls import CALL_SECONDS, PATIENCE_SECONDS, Pause, Refused, bearer, refusals
from channel import Channel
from device import Device
from documents import Untrusted, require
from pins import Pins
from receipts import Receipts

SILENCE_SECONDS = 35  # "No message for 35 s (two bookmarks missed) means that the stream is dead."
PASSING = ("NONCE_EXPIRED", "TOO_MANY", "SERVER_FAILED")  # A stream comes back after these.
TOO_OLD = ("REVISION_COMPACTED", "RESUME_TOKEN_INVALID")
ACKNOWLEDGE_EVERY = 64  # Messages; attaching again says it, too.


@dataclass(frozen=True)
class Settled:
    """What became of a message that was queued: an outcome, signed by the recipient's home or, if it expired, by one's own."""

    message_id: str
    recipient: str
    recipient_home_id: str
    outcome: object


class Client:
    """One user at one server. `view` is who is online; `resumed`, `started_over` and `mismatched` are counts."""

    def __init__(self, server, server_id, ca_pem, name, private, on_event, device=None, status="", receipts=None):
        self.me = documents.Me(name, server_id, private)
        self.view = documents.View()
        self.resumed = self.started_over = self.mismatched = 0
        self.last_login = None
        self._on_event, self.device, self._status = on_event, device or Device(), status
        # Trusts the server's own CA alone, "that signs for nothing else": the second way of "Connecting".
        trust = grpc.ssl_channel_credentials(ca_pem)
        options = [
            ("grpc.keepalive_time_ms", 2_000),  # A dead path is noticed in 7 s, by pings.
            ("grpc.http2.ping_timeout_ms", 5_000),  # It rules; `grpc.keepalive_timeout_ms` alone leaves 60 s.
            ("grpc.http2.max_pings_without_data", 0),  # No limit.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),  # How long one attempt to connect may take.
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._grpc = grpc.aio.secure_channel(server, trust, options)
        self.account = account_pb2_grpc.AccountServiceStub(self._grpc)
        self.directory = directory_pb2_grpc.DirectoryServiceStub(self._grpc)
        self.messages = message_pb2_grpc.MessageServiceStub(self._grpc)
        self.files = file_pb2_grpc.FileServiceStub(self._grpc)
        self._token, self._logging_in, self._streams = None, asyncio.Lock(), []
        self._resume, self._revision = "", 0
        self._pins = Pins(self, on_event)
        self.key_of = self._pins.key_of
        self._seen, self._channel_keys = {}, {}
        self._queued = {}  # Message id -> hash of what was sent and is queued at the own home.
        self._since_acknowledged, self._acknowledging = 0, None
        self._channel = Channel(self)
        self._receipts = Receipts(receipts, self._give)

    # Calls and sessions.

    async def start(self, invite=""):
        """Registers ("with the same key is answered like the first time"), logs in, watches and attaches."""
        claim = account.RegisterRequest(key_statement=documents.first_statement(self.me), invite=invite)
        await self.patiently(self._check_server)
        await self.patiently(lambda: self.bare(self.account.Register, claim))
        await self.patiently(self._session)
        self._streams = [asyncio.create_task(self._hold(stream)) for stream in (self._watch, self._attach)]

    async def close(self):
        """Goes offline at once and ends the session, if the server can be reached."""
        for task in self._streams[:1]:
            task.cancel()  # The watch would log in again.
        if self._token:
            steps = ((self.messages.Detach, message.DetachRequest()), (self.account.LogOut, account.LogOutRequest()))
            with contextlib.suppress(Refused, TimeoutError):
                async with asyncio.timeout(5):
                    for method, request in steps:
                        await self.patiently(lambda: self.bare(method, request, bearer(self._token)))
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        await self._grpc.close()

    async def call(self, method, request):
        """A call with the token. After TOKEN_INVALID "log in again and repeat it, once"."""

        return await self.patiently(lambda: self.authorized(lambda metadata: self.bare(method, request, metadata)))

    async def authorized(self, attempt):
        token = await self._session()
        try:
            return await attempt(bearer(token))
        except Refused as refused:
            if refused.reason != "TOKEN_INVALID":
                raise
            self._forget(token)
        return await attempt(bearer(await self._session()))

    async def bare(self, method, request, metadata=None):
        with refusals():
            return await method(request, timeout=CALL_SECONDS, metadata=metadata)

    async def patiently(self, attempt):
        """Tries again after a pause, with the same bytes, while it is not known what became of them."""
        pause, until = Pause(), time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await attempt()
            except Refused as refused:
                if not refused.lost or time.monotonic() > until:
                    raise
            await pause.wait()

    async def _session(self):
        """The token. Streams and calls that lost it together log in once."""
        async with self._logging_in:
            if not self._token:
                await self._check_server()
                try:
                    self._token = await self._log_in()
                except Refused as refused:
                    if refused.reason != "NONCE_EXPIRED":
                        raise
                    self._token = await self._log_in()  # "A new challenge, once."
            return self._token

    def _forget(self, token):
        if self._token == token:
            self._token = None

    async def _check_server(self):
        info = await self.bare(self.account.GetServerInfo, account.GetServerInfoRequest())
        documents.check_server(info, self.me.home_id, None)  # grpcio does not show the certificate.

    async def _log_in(self):
        asked = account.CreateChallengeRequest(user=self.me.name)
        nonce = (await self.bare(self.account.CreateChallenge, asked)).nonce
        self.last_login = account.LogInRequest(**documents.login(self.me, nonce), device="python")
        return (await self.bare(self.account.LogIn, self.last_login)).token

    # Streams.

    async def _hold(self, stream):
        """Keeps a stream open: after a break a pause, and again."""
        pause = Pause()
        while True:
            token, mended = None, ""
            try:
                token = await self._session()
                with refusals():
                    await stream(token, pause)
                if stream == self._attach:  # OK: detached or logged out, perhaps elsewhere. Stays offline.
                    return
            except Refused as refused:
                self._resume = refused.metadata.get("resume_token") or self._resume
                if refused.reason == "TOKEN_INVALID":
                    mended = refused.reason
                    self._forget(token)
                elif refused.reason in TOO_OLD:
                    mended = refused.reason
                    self.started_over += 1
                    self._start_over()
                elif refused.reason == "CURSOR_UNKNOWN":  # The home lost its disk: all of the inbox, without what was seen.
                    mended = "channel_cursor" if refused.metadata.get("field") == "channel_cursor" else "cursor"
                    self.device.keep(**{mended: ""})
                elif not refused.lost and refused.reason not in PASSING:
                    return self._on_event("stopped", refused)  # REPLACED, USER_DISABLED, TOO_LARGE and the like.
                self._on_event("lost", refused)
            except Exception as fault:  # The server is another one, or there is a fault in this program.
                return self._on_event("stopped", fault)
            await pause.wait(mended)

    async def _read(self, call, silence=None):
        try:
            while (part := await asyncio.wait_for(call.read(), silence)) is not grpc.aio.EOF:
                yield part
        finally:
            call.cancel()

    async def _watch(self, token, pause):
        """The pseudocode of "The watch". Returns where the stream is to be opened anew."""
        request = directory.WatchDirectoryRequest(resume_token=self._resume)
        call = self.directory.WatchDirectory(request, metadata=bearer(token))
        seen, staged = self._revision, None if self._resume else documents.View()
        if self._resume:
            await asyncio.wait_for(call.initial_metadata(), SILENCE_SECONDS)
            if not call.done():  # A refused token ends the call with its first headers.
                self.resumed += 1
        async with contextlib.aclosing(self._read(call, SILENCE_SECONDS)) as parts:
            async for part in parts:
                for change in part.changes:
                    kind = change.WhichOneof("change")
                    if change.revision < seen:
                        return self._start_over()  # "Revisions never go back."
                    seen = change.revision
                    if kind:
                        self._apply(staged if staged is not None else self.view, kind, getattr(change, kind))
                if part.HasField("end_mark"):
                    if staged is None or part.end_mark.entries != len(staged.entries):
                        return self._start_over()
                    self._replace(staged)
                    staged, seen = None, part.end_mark.revision
                if part.HasField("bookmark"):
                    seen = part.bookmark.revision
                for digest in (part.end_mark.digest, part.bookmark.digest):
                    if digest and digest != self.view.digest():
                        self.mismatched += 1
                        return self._start_over()
                if staged is None:
                    pause.reset()  # "Once the view is complete." A digest that differs again waits longer.
                if part.resume_token:
                    self._resume, self._revision = part.resume_token, seen

    def _start_over(self):
        self._resume, self._revision = "", 0

    def _apply(self, view, kind, about):
        key = (about.name, about.server_id)
        if kind == "removed":
            old = view.drop(key)
        else:
            old = view.put(key, about)
            self._pins.server_names[about.server_id] = about.server_name
            kind = "updated" if old else "added"
        if view is self.view and (old or kind == "added"):
            self._on_event(kind, about)

    def _replace(self, staged):
        """The old view stayed in sight until here; only the differences are told."""
        old, self.view = self.view, staged
        for key in old.entries.keys() - staged.entries.keys():
            self._on_event("removed", old.entries[key])
        for key, entry in staged.entries.items():
            if old.entries.get(key) != entry:
                self._on_event("updated" if key in old.entries else "added", entry)

    async def _attach(self, token, pause):
        device = self.device
        places = {"cursor": device.cursor, "channel_cursor": device.channel_cursor}
        wanted = message.AttachRequest(status=self._status, device_id=device.device_id, **places)
        call = self.messages.Attach(wanted, metadata=bearer(token))
        async for event in self._read(call):
            pause.reset()
            kind, told = event.WhichOneof("event"), None
            try:
                if kind == "attached" and not device.channel_cursor:
                    device.keep(channel_cursor=event.attached.newest_channel_cursor)
                elif kind == "message":
                    told = await sealing.open_message(event.message.message, self.me, self.key_of, self._seen)
                    if told and told.receipt:
                        kind, told = "receipt", (told, self._receipts.answered(told))
                elif kind == "post":
                    told = await self._open_post(event.post)
                elif kind == "outcome":
                    kind, told = "settled", self._settle(event.outcome)
                elif kind == "gap":
                    kind, told = "missed", event.gap.missed
                elif kind == "channel_gap":
                    kind, told = "posts_missed", event.channel_gap.missed
            except (Untrusted, Refused):
                self._on_event("unreadable", kind)
            if told:
                self._on_event(kind, told)
                if kind == "message":
                    self._receipts.give(told)
            if event.HasField("post"):
                device.keep(channel_cursor=event.cursor)  # It was dealt with, whatever it was.
            elif event.cursor:
                device.keep(cursor=event.cursor)
                self._since_acknowledged += 1
                if self._since_acknowledged >= ACKNOWLEDGE_EVERY:
                    self._since_acknowledged = 0
                    self._acknowledging = asyncio.create_task(self._acknowledge(event.cursor))

    async def _open_post(self, received):
        about = (self.me, self.key_of, self._seen, self._channel_keys)
        try:
            return await sealing.open_post(received, *about)
        except sealing.NoChannelKey as lacking:  # This program did not run when the key came.
            answer = await self.call(self.messages.GetChannelKey, lacking.wanted)
        found = message.ReceivedPost(post=received.post, wrapped_channel_key=answer.wrapped_channel_key)
        return await sealing.open_post(found, *about)

    async def _acknowledge(self, cursor):
        with contextlib.suppress(Refused):  # It is said again with the next ones, and by attaching.
            await self.call(self.messages.AcknowledgeMessages, message.AcknowledgeMessagesRequest(cursor=cursor))

    def _settle(self, received):
        known = self._queued.get(received.message_id)  # Not of an earlier run: the signature and the id are all then.
        outcome = documents.read_settled(received, self.me.home_id, known)
        self._queued.pop(received.message_id, None)
        return Settled(received.message_id, received.recipient, received.recipient_home_id, outcome)

    # Users.

    async def find(self, user):
        """(name, home id) of `name@server`."""
        for key, entry in self.view.entries.items():
            if entry.user == user:
                return key
        for name, home_id in self._pins:  # Seen before, though not online now.
            if user == f"{name}@{self._pins.server_names.get(home_id)}":
                return name, home_id
        return (await self._pins.ask(user))[:2]

    def sender_of(self, received):
        """`name@server-name`."""
        header = received.header
        return f"{header.sender}@{self._pins.server_names.get(header.sender_home_id, header.sender_home_id)}"

    # Sending.

    async def tell(self, user, text, manifest=None):
        """One message to `name@server`. Returns the outcome: it is in the inbox there, by the word of the recipient's home;
        or queued, by that of one's own, and what becomes of it is told as `settled`."""
        wants = self._receipts.wanted and not manifest
        return await self._tell(await self.find(user), text, manifest=manifest, wants_receipts=wants)

    async def _give(self, user, receipt):
        await self._tell(user, "", receipt=receipt)

    async def _tell(self, user, text, **more):
        try:
            return await self.send(sealing.seal_message(self.me, await self.key_of(*user), text, **more), user[1])
        except Refused as refused:
            if refused.reason != "RECIPIENT_KEY_CHANGED":
                raise
        key = await self.key_of(*user, ask=True)
        return await self.send(sealing.seal_message(self.me, key, text, **more), user[1])

    async def send(self, sealed, home_id):
        _, header, _ = sealing.read_statement(sealed, message.MessageStatement, message.MessageHeader)
        if header.wants_receipts:
            self._receipts.ask(header.message_id, (header.recipient, header.recipient_home_id))
        answer = await self.call(self.messages.SendMessage, message.SendMessageRequest(message=sealed))
        hashed = documents.sha256(sealed.statement)
        outcome = documents.read_outcome(answer.outcome, home_id, self.me.home_id, hashed)
        kept = (message.OUTCOME_KIND_HANDED_OVER, message.OUTCOME_KIND_STORED, message.OUTCOME_KIND_QUEUED)
        require(outcome.kind in kept, "outcome of another kind")
        if outcome.kind == message.OUTCOME_KIND_QUEUED:
            sealing.remember(self._queued, header.message_id, hashed, limit=1000)
        return outcome

    async def all(self, text):
        """One post to everybody who is online. Returns to how many users it was handed."""
        return await self._channel.all(text)
