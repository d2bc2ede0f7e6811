"""Files, as "Files" of docs/PROTOCOL.md writes them: encrypted in chunks, sent and received in pieces.

    await files.send(client, "bob@server-b", "report.pdf")
    path = await files.receive(client, received.file, "downloads")

However large a file is, a few chunks of it are in memory. test_vectors.py holds it against the golden vectors.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import struct
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from socp.v1 import file_pb2 as file

from calls import Pause, Refused, refusals
from documents import Untrusted, require

CHUNK, TAG = 65_536, 16
SEALED_CHUNK = CHUNK + TAG
LABEL = b"socp.v1.FileChunk\0"
PART_CHUNKS = 4  # In one message of an upload: 1 MiB is its limit.
PATIENCE_SECONDS = 60  # A transfer that got nowhere for so long is given up.
NAME_BYTES = 200  # What most file systems take, with room for a number.
HOSTILE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")  # Controls, and marks of direction.


class Cipher:
    """The chunks of one file: which one it is, and whether it is the last, stands in the nonce."""

    def __init__(self, key, size):
        self.size, self.count = size, max(1, -(-size // CHUNK))  # An empty file is one empty chunk.
        require(self.count < 2**32, "more chunks than can be counted")
        self._gcm = AESGCM(key)

    @property
    def sealed_size(self):
        return self.size + self.count * TAG

    def chunk_size(self, index):
        """Before encryption."""
        return min(CHUNK, self.size - index * CHUNK)

    def _nonce(self, index):
        return bytes(7) + struct.pack(">IB", index, index + 1 == self.count)

    def seal(self, index, plain):
        return self._gcm.encrypt(self._nonce(index), plain, LABEL)

    def open(self, index, sealed):
        try:
            return self._gcm.decrypt(self._nonce(index), sealed, LABEL)
        except InvalidTag:
            raise Untrusted("a chunk of the file") from None


class Receiver:
    """Opens what comes of a file, in parts of any size. `write` takes its bytes."""

    def __init__(self, manifest, write):
        self.manifest, self.index = manifest, 0
        self._cipher, self._write = Cipher(manifest.key, manifest.bytes), write
        self._chunk, self._hash = bytearray(), hashlib.sha256()

    @property
    def is_whole(self):
        return self.index == self._cipher.count

    def begin(self):
        """Where to go on after a break: with the first chunk that was not opened."""
        self._chunk.clear()
        return min(self.index * SEALED_CHUNK, self._cipher.sealed_size)

    def take(self, part):
        while part:
            require(not self.is_whole, "the file is longer than it should be")
            size = self._cipher.chunk_size(self.index) + TAG
            missing = size - len(self._chunk)
            self._chunk += part[:missing]
            part = part[missing:]
            if len(self._chunk) == size:
                sealed = bytes(self._chunk)
                self._hash.update(sealed)
                self._write(self._cipher.open(self.index, sealed))
                self._chunk.clear()
                self.index += 1

    def finish(self):
        require(self.is_whole and not self._chunk, "the file is shorter than it should be")
        require(self._hash.digest() == self.manifest.ciphertext_sha256, "the file has another hash")


class Source:
    """A file that is sent, under a key of its own. Encrypted as it is read, and again where a part is sent again."""

    def __init__(self, opened, name):
        self._opened, self.name = opened, name
        self._key, self.file_id = secrets.token_bytes(32), secrets.token_hex(16)
        self.cipher = Cipher(self._key, os.fstat(opened.fileno()).st_size)
        self._tags, self._hash = [], hashlib.sha256()

    def _seal(self, index):
        self._opened.seek(index * CHUNK)
        plain = self._opened.read(self.cipher.chunk_size(index))
        # "Never encrypt a chunk twice with other content under one key."
        require(len(plain) == self.cipher.chunk_size(index), "the file changed while it was sent")
        sealed = self.cipher.seal(index, plain)
        if index < len(self._tags):
            require(self._tags[index] == sealed[-TAG:], "the file changed while it was sent")
        else:
            self._tags.append(sealed[-TAG:])
            self._hash.update(sealed)
        return sealed

    def parts(self, offset):
        """From an offset in what is uploaded to the end."""
        first, skip = divmod(offset, SEALED_CHUNK)
        require(first <= len(self._tags), "the server has more than was sent")
        for start in range(first, self.cipher.count, PART_CHUNKS):
            indices = range(start, min(start + PART_CHUNKS, self.cipher.count))
            yield b"".join(self._seal(index) for index in indices)[skip:]
            skip = 0

    def manifest(self, home_id):
        require(len(self._tags) == self.cipher.count, "not all was sent")
        about = {"file_id": self.file_id, "home_id": home_id, "name": self.name, "bytes": self.cipher.size}
        return file.FileManifest(**about, chunk_bytes=CHUNK, key=self._key, ciphertext_sha256=self._hash.digest())


# Names.


def safe_name(name):
    """A plain file name out of what somebody else calls a file: it leads nowhere, hides nothing, steers no terminal."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = HOSTILE.sub("", name).strip().rstrip(". ")
    if name.startswith((".", "-", "~")):
        name = "_" + name
    stem, dot, extension = name.rpartition(".")
    if len(name.encode()) > NAME_BYTES:
        extension = dot + extension if stem and len(extension.encode()) < 16 else ""
        name = name.encode()[: NAME_BYTES - len(extension.encode())].decode(errors="ignore") + extension
    return name or "file"


def settle(temporary, folder, name):
    """Gives a whole file its name, never in place of another: a link fails where a rename would replace."""
    stem, extension = os.path.splitext(name)
    for number in range(10_000):
        path = os.path.join(folder, f"{stem} ({number}){extension}" if number else name)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            os.unlink(temporary)
            return path
    raise FileExistsError(name)


# Over the network.


async def persist(client, attempt, progress):
    """Attempts, each given a token, until one succeeds; given up when `progress` has not changed for a while."""
    pause, reached, until = Pause(), None, 0
    while True:
        if progress() != reached:
            pause.reset()
            reached, until = progress(), time.monotonic() + PATIENCE_SECONDS
        try:
            return await client.authorized(attempt)
        except Refused as refused:
            passing = refused.lost or refused.reason in ("TOO_MANY", "REPLACED", "TOKEN_INVALID")
            if not passing or time.monotonic() > until:
                raise
        await pause.wait()


async def send(client, user, path):
    """Sends a file to `name@server`. Returns the outcome of its message: the file itself is at the own home then."""
    name, home_id = await client.find(user)
    with open(path, "rb") as opened:
        source = Source(opened, os.path.basename(path))
        size, stored = source.cipher.sealed_size, [0]
        room = {"file_id": source.file_id, "recipient": name, "recipient_home_id": home_id, "bytes": size}

        async def attempt(metadata):
            # How much of it is there: all of it, perhaps, if only the answer was lost.
            request = file.CreateFileRequest(**room)
            stored[0] = (await client.bare(client.files.CreateFile, request, metadata)).stored_bytes

            async def requests():
                begin = file.UploadBegin(file_id=source.file_id, offset=stored[0])
                yield file.UploadFileRequest(begin=begin)
                for part in source.parts(stored[0]):
                    yield file.UploadFileRequest(part=part)

            with refusals():
                stored[0] = (await client.files.UploadFile(requests(), metadata=metadata)).stored_bytes
            require(stored[0] == size, "the server has not got all of the file")

        await persist(client, attempt, lambda: stored[0])
        manifest = source.manifest(client.me.home_id)
    return await client.tell(user, f"[file] {safe_name(manifest.name)}, {manifest.bytes} bytes", manifest)


async def receive(client, manifest, folder, limit=2 << 30):
    """Fetches a file into a folder: under a temporary name, until all of it is there and checked. Returns its path."""
    require(manifest.bytes <= limit, "the file is larger than wanted")
    temporary = os.path.join(folder, f".{manifest.file_id}.part")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            receiver = Receiver(manifest, opened.write)

            async def attempt(metadata):
                if receiver.is_whole:
                    return
                wanted = {"file_id": manifest.file_id, "home_id": manifest.home_id, "offset": receiver.begin()}
                call = client.files.DownloadFile(file.DownloadFileRequest(**wanted), metadata=metadata)
                with refusals():
                    async for answer in call:
                        receiver.take(answer.part)

            await persist(client, attempt, lambda: receiver.index)
            receiver.finish()
            opened.flush()
            await asyncio.to_thread(os.fsync, opened.fileno())
        return settle(temporary, folder, safe_name(manifest.name))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
