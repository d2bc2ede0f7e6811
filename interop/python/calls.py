"""Calls and their ends: why one was refused, how long to wait before the next."""

import asyncio
import contextlib
import random

import grpc
from google.rpc import error_details_pb2, status_pb2

CALL_SECONDS = 15  # "Give each call that is no stream a deadline": a server waits up to 5 s for another.
PATIENCE_SECONDS = 30  # How long a call is tried again while its connection or the other home is lost.
LOST = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL")  # Without a reason: the connection.


class Refused(Exception):
    """A status other than OK. Decide by `reason`, and where it is empty by `code`; never by the text."""

    def __init__(self, code, reason="", metadata=()):
        super().__init__(reason or code.name)
        self.code, self.reason, self.metadata = code, reason, dict(metadata)
        # What became of the call is not known, or nothing yet: the same bytes may be sent again.
        self.lost = code == grpc.StatusCode.UNAVAILABLE or (not reason and code.name in LOST)

    @staticmethod
    def of(error):
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                info = error_details_pb2.ErrorInfo()
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Unpack(info) and info.domain == "socp":
                        return Refused(error.code(), info.reason, info.metadata)
        return Refused(error.code())


@contextlib.contextmanager
def refusals():
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise Refused.of(error) from None
    except TimeoutError:
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED) from None


class Pause:
    """Before the n-th attempt in a row a random time between 0 and min(5 s, 100 ms * 2^n)."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.attempt, self.mended = 0, set()

    async def wait(self, mended=""):
        """What was mended at once, as a lost session is by a log-in, needs no pause the first time."""
        if mended and mended not in self.mended:
            return self.mended.add(mended)
        await asyncio.sleep(random.uniform(0, min(5, 0.1 * 2**self.attempt)))
        self.attempt = min(self.attempt + 1, 10)


def bearer(token):
    return (("authorization", f"Bearer {token}"),)
