"""Receipts: given to those who ask for them, and counted where one asked for them oneself."""

import asyncio
import contextlib

from socp.v1 import message_pb2 as message

import sealing
from calls import Refused
from documents import Untrusted

GATHER_SECONDS = 0.5
IDS_MAX = 100  # In one receipt.
KINDS = {"delivered": message.RECEIPT_KIND_DELIVERED, "read": message.RECEIPT_KIND_READ}


class Receipts:
    """`kind` is a name in KINDS: given of each message that asks for one, once it was told of; None to give none.

    `send` is called with a user's (name, home id) and a Receipt.
    """

    def __init__(self, kind, send):
        self._kind, self._send = KINDS[kind] if kind else None, send
        self._gathered, self._sending = {}, None
        self._asked = {}  # Message id -> (name, home id) of its recipient.

    @property
    def wanted(self):
        """Who gives receipts asks for them."""
        return self._kind is not None

    def ask(self, message_id, recipient):
        sealing.remember(self._asked, message_id, recipient, limit=10_000)

    def answered(self, received):
        """Which of one's own messages a receipt speaks of: it is the word of its sender on messages to them."""
        sender = (received.header.sender, received.header.sender_home_id)
        return [one for one in received.receipt.message_ids if self._asked.get(one) == sender]

    def give(self, received):
        """Of a message that was told of. Gathered for a moment: a burst is answered with few."""
        header = received.header
        if not self.wanted or received.receipt or not header.wants_receipts:
            return
        self._gathered.setdefault((header.sender, header.sender_home_id), []).append(header.message_id)
        if not self._sending or self._sending.done():
            self._sending = asyncio.create_task(self._give_all())

    async def _give_all(self):
        while self._gathered:
            await asyncio.sleep(GATHER_SECONDS)
            gathered, self._gathered = self._gathered, {}
            for user, ids in gathered.items():
                for begin in range(0, len(ids), IDS_MAX):
                    receipt = message.Receipt(kind=self._kind, message_ids=ids[begin : begin + IDS_MAX])
                    with contextlib.suppress(Refused, Untrusted):  # One that is not given says nothing.
                        await self._send(user, receipt)
