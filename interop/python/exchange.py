"""The exchange of ../README.md: pings, files, a view, refusals, outcomes, bye. Run it by ./start."""

import argparse
import asyncio
import json
import os
import secrets
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from socp.v1 import directory_pb2 as directory
from socp.v1 import message_pb2 as message

import documents
import files
import sealing
from calls import Pause, Refused
from client import Client
from device import Device


def arguments():
    parser = argparse.ArgumentParser(prog="start", description=__doc__)
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the user's home")
    parser.add_argument("--server-id", required=True, metavar="HEX", help="its id")
    parser.add_argument("--ca", required=True, metavar="FILE", help="the CA of its certificate")
    parser.add_argument("--name", required=True, help="the user")
    parser.add_argument("--key", metavar="FILE", help="where the private key is kept (PEM, PKCS#8); made if absent")
    parser.add_argument("--files", metavar="FOLDER", help="where files of the partner's are saved; none is fetched without")
    kinds = {"choices": ("delivered", "read"), "help": "which receipts are given, and asked for; none without"}
    parser.add_argument("--receipts", **kinds)
    parser.add_argument("--partner", required=True, metavar="USER@SERVER", help="whom to talk to")
    parser.add_argument("--seconds", type=float, default=120, metavar="N", help="give up after so long")
    return parser.parse_args()


def load_or_make_key(path):
    if path and os.path.exists(path):
        with open(path, "rb") as file:
            return serialization.load_pem_private_key(file.read(), None)
    private = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    if path:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private.private_bytes(*form))
    return private


class Exchange:
    def __init__(self, args, private):
        self.partner, self.partner_key, self.answers = args.partner, None, set()
        with open(args.ca, "rb") as file:
            ca = file.read()
        device = Device(args.key and args.key + ".device")
        self.client = Client(args.server, args.server_id, ca, args.name, private, self.on_event, device, receipts=args.receipts)
        self.folder, self.waiting, self.queued, self.settled = args.files, [], 0, []
        self.ours = {"message": secrets.token_hex(16), "post": secrets.token_hex(16)}  # By which way each goes.
        self.back, self.theirs, self.numbered = set(), {}, []
        self.receipts = {"delivered": set(), "read": set()}  # The own messages that they speak of.
        self.said_bye, self.over = False, asyncio.Event()

    def say(self, *words):
        # `repr` keeps control characters of others away from the terminal.
        print(*(word if word.isprintable() else repr(word) for word in map(str, words)))

    def later(self, work):
        """The stream goes on while an answer is on its way."""

        def done(task):
            self.answers.discard(task)
            if not task.cancelled() and task.exception():
                self.say("failed:", repr(task.exception()))

        task = asyncio.create_task(work)
        self.answers.add(task)
        task.add_done_callback(done)

    def on_event(self, kind, about):
        if kind in ("message", "post"):
            sender = self.client.sender_of(about)
            if about.file is None:
                self.on_text(kind, sender, about.text)
            else:
                self.say(f"{sender} sends", files.safe_name(about.file.name), f"({about.file.bytes} bytes)")
                if self.folder and sender == self.partner:
                    self.later(self.echo(about.file))
        elif kind == "receipt":
            received, ids = about
            word = "read" if received.receipt.kind == message.RECEIPT_KIND_READ else "delivered"
            self.say(f"{self.client.sender_of(received)} says:", word, *ids)
            self.receipts[word].update(ids)
        elif kind == "settled":
            self.settled.append(message.OutcomeKind.Name(about.outcome.kind))
            self.say(f"{about.message_id} to {about.recipient}: {self.settled[-1]}", about.outcome.reason)
        elif kind in ("added", "updated", "removed"):
            self.say(kind, about.user)
            if kind == "added" and about.user == self.partner and not self.partner_key:
                self.partner_key = (about.name, about.server_id)
                self.later(self.ping())
            if kind == "removed" and about.user == self.partner:
                while self.waiting:
                    self.later(self.tell_later(self.waiting.pop(0)))
        else:
            self.say(kind, repr(about))
            if kind == "stopped":  # A stream that is not opened again: there is nothing to wait for.
                self.over.set()

    def on_text(self, kind, sender, text):
        self.say(f"{sender} ({kind}):", text[:200])
        word, _, argument = text.partition(" ")
        if (kind, word) == ("post", "number"):
            self.numbered.append(argument)
        if sender != self.partner:
            return
        if word == "ping":
            self.theirs[kind] = argument
            self.later(self.tell(f"pong {argument}"))
        elif word == "pong" and argument in self.ours.values():
            self.back.add(argument)
        elif word == "view":
            self.later(self.answer_view())
        elif word == "later":
            self.waiting.append(argument)
        elif word == "posts":
            self.later(self.tell(f"posts {json.dumps(self.numbered)}"))
        elif word == "receipts":
            self.later(self.tell(f"receipts {json.dumps({kind: len(ids) for kind, ids in self.receipts.items()})}"))
        elif word == "outcomes":
            self.later(self.tell(f"outcomes {json.dumps({'queued': self.queued, 'settled': self.settled})}"))
        elif word == "refusals":
            self.later(self.answer_refusals())
        elif word == "bye":
            self.said_bye = True
            self.over.set()

    async def persist(self, send):
        """The partner may be offline for a moment: nothing was kept then, so the text is sealed anew."""
        pause = Pause()
        while True:
            try:
                return await send()
            except Refused as refused:
                self.say("refused:", refused)
                gone = refused.reason in ("RECIPIENT_OFFLINE", "NOBODY_ONLINE", "HOME_UNREACHABLE", "TOO_MANY")
                if not gone and not refused.lost:
                    raise
            await pause.wait()

    async def tell(self, text):
        outcome = await self.persist(lambda: self.client.tell(self.partner, text))
        self.queued += outcome.kind == message.OUTCOME_KIND_QUEUED
        self.say("told:", text[:200], f"({message.OutcomeKind.Name(outcome.kind)})")

    async def tell_later(self, argument):
        await self.tell(f"later {argument}")
        await self.persist(lambda: self.client.all(f"accepted {argument}"))

    async def echo(self, manifest):
        path = await files.receive(self.client, manifest, self.folder)
        self.say("saved:", path)
        await self.persist(lambda: files.send(self.client, self.partner, path))
        self.say("sent:", path)

    async def ping(self):
        await self.tell(f"ping {self.ours['message']}")
        count = await self.persist(lambda: self.client.all(f"ping {self.ours['post']}"))
        self.say("posted:", f"ping {self.ours['post']}", f"({count})")

    async def answer_view(self):
        client = self.client
        counts = {name: getattr(client, name) for name in ("resumed", "started_over", "mismatched")}
        shown = {"digest": client.view.digest().hex(), "users": len(client.view.entries), **counts}
        await self.tell(f"view {json.dumps(shown)}")

    async def answer_refusals(self):
        client, me = self.client, self.client.me
        to = await client.key_of(*await client.find(self.partner))
        mislabelled = sealing.seal_message(me, to, "never shown")
        mislabelled.signature = documents.sign(me.private, "socp.v1.PostStatement", mislabelled.statement)
        nobody = documents.Key("nobody", me.home_id, 1, me.fingerprint, me.private.public_key(), b"")
        tries = {
            "login_replayed": client.bare(client.account.LogIn, client.last_login),
            "wrong_signature": client.send(mislabelled, to.home_id),
            "unknown_user": client.send(sealing.seal_message(me, nobody, "never sent"), me.home_id),
            "no_token": client.bare(client.directory.ListUsers, directory.ListUsersRequest()),
        }
        reasons = {}
        for name, attempt in tries.items():
            try:
                await attempt
                reasons[name] = ""
            except Refused as refused:
                reasons[name] = refused.reason
        await self.tell(f"refusals {json.dumps(reasons)}")

    async def run(self):
        try:
            await self.client.start()
            self.say("online as", self.client.me.name)
            await self.over.wait()
            if self.answers:
                await asyncio.wait(self.answers, timeout=5)
        finally:
            await self.client.close()
        good = self.said_bye and self.back == set(self.ours.values()) and len(self.theirs) == 2
        self.say("nonces back:", len(self.back), "of 2; the partner's opened:", len(self.theirs), "of 2")
        return 0 if good else 1


async def main():
    args = arguments()
    try:
        async with asyncio.timeout(args.seconds):
            private = await asyncio.to_thread(load_or_make_key, args.key)
            return await Exchange(args, private).run()
    except TimeoutError:
        print(f"gave up after {args.seconds:g} s", file=sys.stderr)
    except (Refused, documents.Untrusted) as error:
        print(f"failed: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
