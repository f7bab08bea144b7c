"""redis-py alone: a stream for requests, a stream for replies.

What it has of what the bus gives: a group of readers, an acknowledgement after the handler and in one exchange with the
reply, what is done is deleted, a limit for each reply. What it has not: bounds, classes and shares, deadlines at the
answering side, withdrawal, a dead worker's records for another, dead letters, errors as errors, a breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bench.distributed.system import Handler, Place, Waiters

GROUP: Final = "workers"
WAIT_MS: Final = 1000
#: Replies read at once.
REPLIES_MAX: Final = 1000
#: Replies kept, about; they have long been read.
KEPT: Final = 10_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Asker:
    """Appends each request with ``XADD`` as it comes, and reads all replies with one ``XREAD`` after the other.

    The client takes a connection of its pool for each command, as it does by itself.
    """

    def __init__(self, place: Place) -> None:
        self._client = Redis.from_url(place.address, protocol=2)
        self._requests, self._replies = f"{place.name}:requests", f"{place.name}:replies"
        self._waiters = Waiters()
        self._listening: asyncio.Task[None]

    async def start(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        await self._client.ping()
        self._listening = asyncio.create_task(self._listen())

    async def ready(self, answerers: int) -> bool:
        """See :class:`bench.distributed.system.Asker`."""
        await self.ask({"limit": 0}, answerers)
        return True

    async def ask(self, message: Any, caller: int) -> Any:  # noqa: ARG002 - it knows no clients
        """See :class:`bench.distributed.system.Asker`."""
        return await self._waiters.wait(
            lambda number: self._client.xadd(self._requests, {b"r": _encode((number, self._replies, message))})
        )

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._client.aclose()

    async def _listen(self) -> None:
        last: bytes | str = "$"
        while True:
            for _, entries in await self._client.xread({self._replies: last}, REPLIES_MAX, WAIT_MS):
                last = entries[-1][0]
                for _, fields in entries:
                    number, reply = _decode(fields[b"r"])
                    self._waiters.settle(number, reply)


class Answerer:
    """Reads as many requests as it has slots with one ``XREADGROUP``, and has them handled all at once.

    Then it answers, acknowledges and deletes all of them in one pipeline.
    """

    def __init__(self, place: Place) -> None:
        self._client = Redis.from_url(place.address, protocol=2)
        self._requests, self._slots = f"{place.name}:requests", place.slots
        self._serving: asyncio.Task[None]

    async def start(self, handler: Handler) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        with contextlib.suppress(ResponseError):  # another has made it
            await self._client.xgroup_create(self._requests, GROUP, "0", mkstream=True)
        self._serving = asyncio.create_task(self._serve(handler))

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Answerer`."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._client.aclose()

    async def _serve(self, handler: Handler) -> None:
        me, requests = f"{id(self):x}", self._requests
        while True:
            for _, entries in await self._client.xreadgroup(GROUP, me, {requests: ">"}, self._slots, WAIT_MS):
                asked = [_decode(fields[b"r"]) for _, fields in entries]
                replies = await asyncio.gather(*(handler(message) for _, _, message in asked))
                pipeline = self._client.pipeline(transaction=False)
                for (number, to, _), reply in zip(asked, replies, strict=True):
                    pipeline.xadd(to, {b"r": _encode((number, reply))}, maxlen=KEPT)
                ids = [id for id, _ in entries]
                pipeline.xack(requests, GROUP, *ids)
                pipeline.xdel(requests, *ids)
                await pipeline.execute()
