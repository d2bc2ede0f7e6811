"""What a device keeps beside its key: an id of its own, and how far it has read the inbox."""

import json
import os
import secrets


class Device:
    """`path` is a file; without one all is forgotten with the program."""

    def __init__(self, path=None):
        self._path, self.device_id, self.cursor = path, secrets.token_hex(16), ""
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as kept:
                kept = json.load(kept)
            self.device_id, self.cursor = kept["device_id"], kept["cursor"]
        elif path:
            self.keep("")

    def keep(self, cursor):
        """Of the last thing that was dealt with. A crash right before shows that once more; nothing is missed."""
        self.cursor = cursor
        if self._path:
            temporary = self._path + ".new"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as kept:
                json.dump({"device_id": self.device_id, "cursor": cursor}, kept)
            os.replace(temporary, self._path)
