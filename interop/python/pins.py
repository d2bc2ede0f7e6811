"""Which key is believed to be whose: "Pins". A client that is to be trusted tomorrow keeps them on disk."""

from socp.v1 import directory_pb2 as directory

import documents
from calls import Refused
from documents import Untrusted, require


class Pins:
    """`server_names` gives for a home's id the label that one's own server gives it."""

    def __init__(self, client, on_event):
        self._client, self._on_event = client, on_event
        self._pins, self.server_names = {}, {}  # (name, home id) -> Key

    def __iter__(self):
        return iter(self._pins)

    async def key_of(self, name, home_id, ask=False):
        """A user's key in force, from the view or (`ask`) by `GetUser`, and checked against the pin: "Pins"."""
        entry, pinned = self._client.view.entries.get((name, home_id)), self._pins.get((name, home_id))
        if entry and not ask:
            if pinned and pinned.statement_hash == entry.key_statement_sha256:
                return pinned
            key = documents.read_key(entry.key_statement, name, home_id, entry.key_statement_sha256)
            if pinned is None or pinned.pin == key.pin:
                return self._pin(key)
            if key.number <= pinned.number:
                self._key_changed(name, home_id)
        try:
            _, _, chain = await self.ask(f"{name}@{home_id}", patient=not pinned)
        except Refused as refused:
            # While their home cannot be reached, and nothing says that the key is another one.
            if pinned and not ask and refused.lost and not (entry and entry.key_statement_sha256 != pinned.statement_hash):
                return pinned
            raise
        pinned = self._pins.get((name, home_id))
        if pinned and pinned.pin not in [key.pin for key in chain]:
            self._key_changed(name, home_id)
        return self._pin(chain[-1])

    async def ask(self, user, patient=True):
        """(name, home id, all keys) of `name@server`, by `GetUser`."""
        client, request = self._client, directory.GetUserRequest(user=user)

        async def once():
            return await client.authorized(lambda metadata: client.bare(client.directory.GetUser, request, metadata))

        answer = await (client.patiently(once) if patient else once())
        name, _, server = user.partition("@")
        found, _, label = answer.user.partition("@")
        require(found == name and server in ("", label, answer.server_id), "answer on another user")
        self.server_names[answer.server_id] = label
        return name, answer.server_id, documents.read_chain(answer.key_statements, name, answer.server_id)

    def _pin(self, key):
        self._pins[key.name, key.home_id] = key
        return key

    def _key_changed(self, name, home_id):
        """The loud case: "Send nothing to it, open nothing from it, tell the person"."""
        untrusted = Untrusted(f"the key of {name}@{home_id} is another one, and no chain leads to it")
        self._on_event("key_changed", untrusted)
        raise untrusted
