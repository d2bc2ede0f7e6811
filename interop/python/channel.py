"""The own posts to the public channel: under which key, and who has it."""

import asyncio
import collections
import time

from socp.v1 import message_pb2 as message

import documents
import sealing
from calls import PATIENCE_SECONDS, Pause, Refused
from documents import Untrusted


class Channel:
    """Of one client, for as long as its program runs."""

    def __init__(self, client):
        self._client, self._posting = client, asyncio.Lock()
        self._new_channel()

    def _new_channel(self):
        """`_given`: the statement hash of all for whom it was wrapped. `_holders`: the entry of those who surely got it."""
        self._own, self._given, self._holders = sealing.ChannelKey.new(), {}, {}

    async def all(self, text):
        """One post to everybody who is online. Returns to how many users it was handed."""
        async with self._posting:
            client, own = self._client, (self._client.me.name, self._client.me.home_id)
            members = {key: entry for key, entry in client.view.entries.items() if key != own}
            wraps, wrapped = await self._wraps(members)
            sealed = sealing.seal_post(client.me, self._own, text)
            request = message.PostToChannelRequest(post=sealed, wraps=wraps)
            shown = collections.Counter(home_id for _, home_id in members)
            handed, pause, until = {}, Pause(), time.monotonic() + PATIENCE_SECONDS
            while True:
                answer = await client.call(client.messages.PostToChannel, request)
                for signed in answer.outcomes:
                    self._count_outcome(signed, sealed, shown, handed)
                if not answer.silent_home_ids or time.monotonic() > until:
                    break
                await pause.wait()  # What became of it at silent homes is not known: the same bytes again.
            # A member whose stream just broke is in the view, gets no post and keeps its entry. No home says who got
            # it, so the wraps of one count only if it reached all of its members.
            for key, entry in wrapped.items():
                if handed.get(key[1], 0) >= shown[key[1]] and client.view.entries.get(key) is entry:
                    self._holders[key] = entry
            return sum(handed.values())

    async def _wraps(self, members):
        """The channel key for those who lack it: all whose entry is not the one that got it."""
        hashes = {key: entry.key_statement_sha256 for key, entry in members.items()}
        if any(self._given.get(key, hashed) != hashed for key, hashed in hashes.items()):
            self._new_channel()  # A member's key is another now.
        wraps, wrapped = [], {}
        for key, entry in members.items():
            if self._holders.get(key) is not entry and len(wraps) < 4096:
                try:
                    wraps.append(sealing.wrap_channel_key(self._own, await self._client.key_of(*key)))
                    wrapped[key], self._given[key] = entry, hashes[key]
                except (Untrusted, Refused):
                    pass  # "A member whose key does not agree with the pin gets none."
        return wraps, wrapped

    def _count_outcome(self, signed, sealed, homes, handed):
        try:
            home_id = documents.server_id(signed.home_key)
            outcome = documents.read_outcome(signed, home_id, home_id, documents.sha256(sealed.statement))
            if home_id in homes and outcome.kind == message.OUTCOME_KIND_HANDED_OVER:
                handed[home_id] = outcome.recipients
        except Untrusted:
            pass  # "Whatever does not check out is unknown."
