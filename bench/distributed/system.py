"""What is compared: something that asks, something that answers, a message, and callers that wait for each reply."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from bench.report import percentile

#: What is asked, some two hundred bytes as MessagePack; the reply says the same.
MESSAGE: Final[dict[str, Any]] = {
    "query": "where is the retry budget of a dependency spent, and who may refuse to spend it",
    "collection": "default",
    "limit": 10,
    "filter": {"language": ["python", "rust"], "path": "src/penstock/policies"},
    "arms": ["dense", "sparse"],
    "weights": [1.0, 0.75],
}
#: Nobody waits longer for a reply.
LIMIT_S: Final = 10.0

Handler = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where both ends meet.

    Attributes:
        carrier: ``memory``, ``redis`` or ``kafka``.
        address: The broker's.
        name: Begins all names there; no other pair has it.
        slots: Handlers that one answerer runs at once; of a bare client, records that it reads at once.
    """

    carrier: str
    address: str
    name: str
    slots: int = 64


class Asker(Protocol):
    """Asks and waits for replies."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def ready(self, answerers: int) -> bool:
        """Return whether so many answer."""
        ...

    async def ask(self, message: Any, caller: int) -> Any:
        """Return the reply.

        Raises:
            Exception: There is none after ``LIMIT_S``.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Answerer(Protocol):
    """Has requests handled."""

    async def start(self, handler: Handler) -> None:
        """Connect, and have from now on handled what is asked."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Burst(msgspec.Struct, frozen=True):
    """What callers saw.

    Attributes:
        requests: How many were answered.
        took_s: In how long.
        p50_ms: How long one took.
        p99_ms: How long one of a hundred took at least.
        cpu_s: Processor time of the process that asked.
    """

    requests: int
    took_s: float
    p50_ms: float
    p99_ms: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.took_s


async def burst(asker: Asker, callers: int, seconds: float) -> Burst:
    """Let so many callers ask, wait for the reply and ask again, for so long.

    Raises:
        Exception: A request was not answered.
    """
    latencies_s: list[float] = []
    cpu_s, began_s = time.process_time(), time.perf_counter()
    until_s = began_s + seconds

    async def caller(number: int) -> None:
        asked_s = time.perf_counter()
        while asked_s < until_s:
            reply = await asker.ask(MESSAGE, number)
            now_s = time.perf_counter()
            assert reply["limit"] == MESSAGE["limit"]
            latencies_s.append(now_s - asked_s)
            asked_s = now_s

    await asyncio.gather(*(caller(number) for number in range(callers)))
    took_s = time.perf_counter() - began_s
    half_ms, most_ms = (percentile(latencies_s, share) * 1000 for share in (0.5, 0.99))
    return Burst(len(latencies_s), took_s, half_ms, most_ms, time.process_time() - cpu_s)


class Waiters:
    """Who waits for which reply: what every bare client needs beside the client.

    Bounds: as many as ask.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def wait(self, send: Callable[[int], Awaitable[object]]) -> Any:
        """Send a request under a new number and return its reply.

        Raises:
            TimeoutError: There is none after ``LIMIT_S``.
        """
        number = next(self._numbers)
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(LIMIT_S):
                await send(number)
                return await reply
        finally:
            del self._waiting[number]

    def settle(self, number: int, reply: Any) -> None:
        """Hand a reply to who waits for it."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(reply)
