"""Reads the golden vectors with the functions of documents.py: what is valid is accepted, what is not is refused."""

import functools
import hashlib
import json
import pathlib
import tempfile
import unittest

from cryptography.hazmat.primitives import serialization
from socp.federation.v1 import federation_pb2 as federation
from socp.v1 import account_pb2 as account
from socp.v1 import directory_pb2 as directory
from socp.v1 import message_pb2 as message
from socp.v1 import statement_pb2 as statement

import documents
import files
import sealing

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "proto/tests/vectors"
KEYS = json.loads((VECTORS / "keys.json").read_text())
HOMES = {name: home["server_id"] for name, home in KEYS["homes"].items()}


def bytes_of(case, *names):
    return [bytes.fromhex(case[name]) for name in names]


@functools.cache
def me(name):
    user = KEYS["users"][name]
    private = serialization.load_der_private_key(bytes.fromhex(user["private_key_pkcs8"]), None)
    return documents.Me(name, HOMES[user["home"]], private)


USERS = {(user.name, user.home_id): user for user in map(me, KEYS["users"])}


async def find_key(name, home_id):
    user = USERS.get((name, home_id))
    return user and documents.Key(name, home_id, 1, user.fingerprint, user.private.public_key(), b"")


def entries(listed):
    for entry in listed:
        numbers = {name: int(entry[name]) for name in ("epoch", "online_since", "sessions")}
        texts = {name: entry[name] for name in ("name", "server_id", "display_name", "status")}
        hashed = bytes.fromhex(entry["key_statement_sha256"])
        yield directory.DirectoryEntry(**texts, **numbers, key_statement_sha256=hashed)


def digest_of(listed):
    view = documents.View()
    for entry in entries(listed):
        # By its place, so that an entry which is there twice counts twice.
        view.put(len(view.entries), entry)
    return view.digest().hex()


def stored_bytes(pieces):
    """What a home gives: as it stands there, or a part of a file whose byte p is p modulo 251, encrypted."""
    whole = b""
    for piece in pieces:
        if "hex" in piece:
            whole += bytes.fromhex(piece["hex"])
            continue
        size, start, end = (int(piece[name]) for name in ("bytes", "from", "to"))
        cipher, plain = files.Cipher(bytes.fromhex(piece["key"]), size), bytes(p % 251 for p in range(size))
        chunks = (plain[index * files.CHUNK :][: files.CHUNK] for index in range(cipher.count))
        whole += b"".join(cipher.seal(index, chunk) for index, chunk in enumerate(chunks))[start:end]
    return whole


def user_key(der):
    return serialization.load_der_public_key(der)


class Vectors(unittest.IsolatedAsyncioTestCase):
    async def each(self, file, read):
        """`read` gives what the case yields, or raises Untrusted."""
        cases = json.loads((VECTORS / file).read_text())["cases"]
        self.assertEqual({case["valid"] for case in cases}, {True, False}, f"{file} has not cases of both kinds")
        for case in cases:
            with self.subTest(file=file, case=case["case"]):
                if case["valid"]:
                    yields = await read(case)
                    self.assertEqual(yields, {name: case[name] for name in yields})
                else:
                    with self.assertRaises(documents.Untrusted):
                        await read(case)

    async def test_every_file_has_a_test(self):
        for path in VECTORS.glob("*.json"):
            self.assertTrue(hasattr(self, f"test_{path.stem}"), path.name)

    async def test_keys(self):
        self.assertTrue(KEYS["homes"] and KEYS["users"])
        for name, home in KEYS["homes"].items():
            der = bytes.fromhex(home["identity_key"])
            documents.server_key(der[12:], home["server_id"])
        for name, user in KEYS["users"].items():
            self.assertEqual(me(name).fingerprint.hex(), user["key_sha256"])
            self.assertEqual(documents.public_der(me(name).private.public_key()).hex(), user["public_key"])

    async def test_key_statement(self):
        async def read(case):
            signed, before, named = bytes_of(case, "signed_key_statement", "previous", "key_statement_sha256")
            chain = [statement.SignedKeyStatement.FromString(one) for one in (before, signed) if one]
            key = documents.read_key(chain[-1], case["user"], case["home_id"], named)
            documents.require(documents.read_chain(chain, case["user"], case["home_id"])[-1] == key, "chain")
            return {"number": str(key.number), "key_sha256": key.fingerprint.hex()}

        await self.each("key_statement.json", read)

    async def test_login(self):
        async def read(case):
            said, signature, public, nonce = bytes_of(case, "statement", "signature", "public_key", "nonce")
            documents.check_signature(user_key(public), "socp.v1.LoginStatement", said, signature)
            login = documents.decode(statement.LoginStatement, said)
            wanted = (case["server_id"], case["user"], nonce)
            documents.require((login.server_id, login.user, login.nonce) == wanted, "login")
            return {}

        await self.each("login.json", read)

    async def test_move(self):
        async def read(case):
            shown, signed, found = bytes_of(case, "key_statement", "signed_move", "new_key_statement")
            old = documents.read_key(statement.SignedKeyStatement.FromString(shown), case["user"], case["home_id"])
            signed = statement.SignedMove.FromString(signed)
            documents.check_signature(old.public, "socp.v1.MoveStatement", signed.statement, signed.signature)
            move = documents.decode(statement.MoveStatement, signed.statement)
            documents.require((move.user, move.home_id) == (old.name, old.home_id), "move of another user")
            documents.require(move.key_statement_sha256 == old.statement_hash, "move of another key statement")
            documents.require(move.new_home_id != move.home_id, "move to the same home")
            found = statement.SignedKeyStatement.FromString(found)
            new = documents.read_key(found, move.new_user, move.new_home_id)
            documents.require(new.fingerprint == old.fingerprint, "another key at the new address")
            return {"new_user": new.name, "new_home_id": new.home_id, "time_unix_ms": str(move.time_unix_ms)}

        await self.each("move.json", read)

    async def test_server_info(self):
        async def read(case):
            said, certificate_key = bytes_of(case, "server_info", "certificate_key")
            info = account.GetServerInfoResponse.FromString(said)
            documents.check_server(info, case["pinned_server_id"], certificate_key)
            documents.check_server(info, case["pinned_server_id"], None)
            yields = {"name": info.name}
            info.identity_key = bytes(12) + info.identity_key[12:]
            with self.assertRaises(documents.Untrusted, msg="a key of another kind"):
                documents.check_server(info, case["pinned_server_id"], certificate_key)
            return yields

        await self.each("server_info.json", read)

    async def test_outcome(self):
        async def read(case):
            signed = message.SignedOutcome.FromString(bytes.fromhex(case["signed_outcome"]))
            homes, hashed = (case["home_id"], case["own_home_id"]), bytes.fromhex(case["statement_sha256"])
            outcome = documents.read_outcome(signed, *homes, hashed)
            kind = message.OutcomeKind.Name(outcome.kind)
            return {"kind": kind, "reason": outcome.reason, "recipients": outcome.recipients}

        await self.each("outcome.json", read)

    def received(self, got, **more):
        header = got.header
        named = {"sender": header.sender, "text": got.text, "message_id": header.message_id}
        more["statement_sha256"] = got.statement_sha256.hex()
        return {**named, "time_unix_ms": str(header.time_unix_ms), **more}

    async def test_envelope(self):
        async def read(case):
            sealed = message.SealedMessage.FromString(bytes.fromhex(case["sealed_message"]))
            seen = {}
            got = await sealing.open_message(sealed, me(case["recipient"]), find_key, seen)
            self.assertIsNone(await sealing.open_message(sealed, me(case["recipient"]), find_key, seen))
            return self.received(got)

        await self.each("envelope.json", read)

    async def test_file(self):
        async def read(case):
            sealed = message.SealedMessage.FromString(bytes.fromhex(case["sealed_message"]))
            got = await sealing.open_message(sealed, me(case["recipient"]), find_key, {})
            content = hashlib.sha256()
            receiver = files.Receiver(got.file, content.update)
            stored = stored_bytes(case["stored"])
            for place in range(0, len(stored), 10_007):
                receiver.take(stored[place : place + 10_007])
            receiver.finish()
            said = {name: getattr(got.file, name) for name in ("file_id", "home_id", "name")}
            said |= {"key": got.file.key.hex(), "ciphertext_sha256": got.file.ciphertext_sha256.hex()}
            saved_as = files.safe_name(got.file.name)
            said |= {"text": got.text, "bytes": str(got.file.bytes), "saved_as": saved_as}
            return {**said, "content_sha256": content.hexdigest()}

        await self.each("file.json", read)

    async def test_receipt(self):
        async def read(case):
            sealed = message.SealedMessage.FromString(bytes.fromhex(case["sealed_message"]))
            receipt = (await sealing.open_message(sealed, me(case["recipient"]), find_key, {})).receipt
            ids = list(receipt.message_ids)
            return {"kind": message.ReceiptKind.Name(receipt.kind), "message_ids": ids}

        await self.each("receipt.json", read)

    async def test_own_files(self):
        with tempfile.TemporaryFile() as opened:
            opened.write(bytes(300_000))
            opened.flush()
            source = files.Source(opened, "a.bin")
            whole = b"".join(source.parts(0))
            self.assertEqual(len(whole), source.cipher.sealed_size)
            for offset in (0, 1, 65_552, 65_553, len(whole) - 1, len(whole)):
                self.assertEqual(b"".join(source.parts(offset)), whole[offset:])
            got = bytearray()
            receiver = files.Receiver(source.manifest(HOMES["server-a"]), got.extend)
            receiver.take(whole[:100_000])
            receiver.take(whole[receiver.begin() :])
            receiver.finish()
            self.assertEqual(got, bytes(300_000))
            opened.seek(200_000)
            opened.write(b"another")
            opened.flush()
            with self.assertRaises(documents.Untrusted, msg="never two contents under one key"):
                list(source.parts(0))

    def test_names(self):
        self.assertEqual(len(files.safe_name("ü" * 300 + ".pdf").encode()), 200)
        with tempfile.TemporaryDirectory() as folder:
            saved = []
            for content in ("a", "b"):
                part = pathlib.Path(folder, "part")
                part.write_text(content)
                saved.append(pathlib.Path(files.settle(str(part), folder, "x.txt")))
            self.assertEqual([path.name for path in saved], ["x.txt", "x (1).txt"])
            self.assertEqual([path.read_text() for path in saved], ["a", "b"])

    async def test_channel_post(self):
        async def read(case):
            sealed, wrap, known = bytes_of(case, "sealed_post", "wrapped_channel_key", "known_channel_key")
            post = message.SealedPost.FromString(sealed)
            received = message.ReceivedPost(post=post, wrapped_channel_key=wrap)
            _, header, repeat = sealing.read_statement(post, message.PostStatement, message.PostHeader)
            name = (header.sender_key_sha256, bytes.fromhex(case["known_key_id"]))
            kept = {repeat[:2]: {name: known} if known else {}}
            got = await sealing.open_post(received, me(case["member"]), find_key, {}, kept)
            return self.received(got, key_id=got.header.key_id.hex(), counter=str(got.header.counter))

        await self.each("channel_post.json", read)

    async def test_digest(self):
        async def read(case):
            documents.require(digest_of(case["entries"]) == case["digest"], "digest")
            return {"digest": digest_of(case["entries"])}

        await self.each("digest.json", read)

    async def test_batch(self):
        async def read(case):
            signed = federation.SignedBatch.FromString(bytes.fromhex(case["signed_batch"]))
            batch = documents.decode(federation.BatchStatement, signed.statement)
            origin = documents.server_key(batch.origin_key, case["origin"])
            documents.check_signature(origin, "socp.federation.v1.BatchStatement", signed.statement, signed.signature)
            number, adverts = batch.number, batch.adverts
            documents.require(len(signed.statement) <= 1 << 18 and len(batch.start_id) == 16 and number >= 1, "batch")
            documents.require(bool(adverts) != bool(batch.removals), "adverts or removals")
            documents.require(len(adverts) <= 256 and len(batch.removals) <= 256, "size of a batch")
            documents.require(all(1 <= one.online_since <= number and one.sessions for one in adverts), "advert")
            if "entries_after" in case:
                documents.require(digest_of(case["entries_after"]) == batch.digest.hex(), "digest")
            users = {name: [one.user for one in getattr(batch, name)] for name in ("adverts", "removals")}
            numbers = {"epoch": str(batch.epoch), "number": str(number)}
            return {**users, **numbers, "start_id": batch.start_id.hex(), "digest": batch.digest.hex()}

        await self.each("batch.json", read)

    async def test_own_seals(self):
        alice, bob = USERS["alice", HOMES["server-a"]], USERS["bob", HOMES["server-b"]]
        to = await find_key(bob.name, bob.home_id)
        sealed = sealing.seal_message(alice, to, "hello")
        self.assertEqual((await sealing.open_message(sealed, bob, find_key, {})).text, "hello")
        self.assertFalse((await sealing.open_message(sealed, bob, find_key, {})).header.wants_receipts)
        ids = [sealing.uuid7()]
        receipt = message.Receipt(kind=message.RECEIPT_KIND_READ, message_ids=ids)
        sealed = sealing.seal_message(alice, to, "", receipt=receipt)
        self.assertEqual((await sealing.open_message(sealed, bob, find_key, {})).receipt, receipt)
        channel, seen, kept = sealing.ChannelKey.new(), {}, {}
        for counter, wrap in enumerate((to.public.encrypt(channel.key, sealing.OAEP), b"")):
            post = sealing.seal_post(alice, channel, "hello, all")
            received = message.ReceivedPost(post=post, wrapped_channel_key=wrap)
            got = await sealing.open_post(received, bob, find_key, seen, kept)
            self.assertEqual((got.text, got.header.counter), ("hello, all", counter))


if __name__ == "__main__":
    unittest.main()
