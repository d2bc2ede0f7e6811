"""What a device keeps beside its key: an id of its own, and how far it has read the inbox and the public channel."""

import json
import os
import secrets


class Device:
    """`path` is a file; without one all is forgotten with the program."""

    def __init__(self, path=None):
        self._path, self.device_id = path, secrets.token_hex(16)
        self.cursor = self.channel_cursor = ""
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as kept:
                kept = json.load(kept)
            self.device_id, self.cursor = kept["device_id"], kept["cursor"]
            self.channel_cursor = kept.get("channel_cursor", "")
        elif path:
            self.keep()

    def keep(self, **cursors):
        """`cursor` or `channel_cursor`: of the last thing that was dealt with. A crash right before shows that once more;
        nothing is missed."""
        vars(self).update(cursors)
        if self._path:
            temporary = self._path + ".new"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as kept:
                names = ("device_id", "cursor", "channel_cursor")
                json.dump({name: getattr(self, name) for name in names}, kept)
            os.replace(temporary, self._path)
