"""Callers: a process that asks a server over kept connections, in a closed loop or in an open one.

``python -m bench.calling`` is a :mod:`bench.worker`. An order says ``port``, ``path``, ``bodies`` and either
``callers`` and ``seconds`` (closed: each sends its next request when it has its answer) or ``rate`` and ``seconds``
(open: requests are sent at Poisson times, whatever became of those before; latency counts from the scheduled send).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import uvloop

from bench.worker import Order, work

#: Connections in an open loop; a request beyond them waits for one, and that counts as its latency.
LINES_MAX: Final = 256
#: Longest that an answer is waited for.
PATIENCE_S: Final = 30.0
#: What an answer says that gave up nothing because of load or a failure.
UNDEGRADED: Final = (b'"degraded":[]', b'"degraded":["query_truncated"]')


@dataclass(slots=True)
class Seen:
    """What the callers saw; times in milliseconds."""

    latencies_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    degraded: int = 0
    failed: int = 0
    last_failure: str = ""

    def note(self, began_s: float, status: int, body: bytes) -> None:
        """Note an answer to what was sent, or was to be sent, at a moment."""
        if status != 200:
            self.failed += 1
            self.last_failure = f"{status} {body[:200].decode(errors='replace')}"
            return
        now_s = time.monotonic()
        self.latencies_ms.append((now_s - began_s) * 1000)
        self.ended_s.append(now_s)
        self.degraded += not any(words in body for words in UNDEGRADED)


class Line(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to send."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own class does not say so

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Fail what waits for an answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Take in bytes; hand on a whole answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(self._buffer) < end + 4 + length or self._answer is None or self._answer.done():
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        self._buffer.clear()
        self._answer.set_result((int(head[9:12]), body))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def requests(path: str, bodies: Sequence[str]) -> list[bytes]:
    """Return whole requests."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return [f"{head}content-length: {len(b := body.encode())}\r\n\r\n".encode() + b for body in bodies]


def search_bodies(queries: Sequence[str], wishes: dict[str, Any] | None = None) -> list[str]:
    """Return the bodies of searches."""
    return [json.dumps({"query": query, **(wishes or {})}) for query in queries]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return Poisson arrival times in seconds, ascending, below ``seconds``."""
    chance, at_s, found = random.Random(seed), 0.0, []
    while (at_s := at_s + chance.expovariate(rate)) < seconds:
        found.append(at_s)
    return found


async def _open(port: int) -> Line:
    _, line = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", port)
    return line


async def closed(port: int, waiting: Iterator[bytes], callers: int, seconds: float) -> Seen:
    """Ask with a number of callers for a time, or until there is nothing left to ask."""
    seen, until_s = Seen(), time.monotonic() + seconds

    async def caller() -> None:
        line = await _open(port)
        while (began_s := time.monotonic()) < until_s and (request := next(waiting, None)) is not None:
            seen.note(began_s, *await line.ask(request))
        line.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return seen


async def opened(port: int, waiting: Iterator[bytes], rate: float, seconds: float, seed: int) -> Seen:
    """Ask at Poisson times; latency counts from the scheduled send.

    Bounds: ``LINES_MAX`` connections.
    """
    seen, idle, tasks = Seen(), [await _open(port)], set()
    places = asyncio.Semaphore(LINES_MAX)
    began_s = time.monotonic()

    async def one(due_s: float, request: bytes) -> None:
        async with places:
            line = idle.pop() if idle else await _open(port)
            seen.late_ms.append((time.monotonic() - due_s) * 1000)
            seen.note(due_s, *await line.ask(request))
            idle.append(line)

    for at_s in arrivals(rate, seconds, seed):
        due_s = began_s + at_s
        if (wait_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        task = asyncio.create_task(one(due_s, next(waiting)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for line in idle:
        line.close()
    return seen


def _do(order: Order) -> dict[str, Any]:
    """Carry out one order."""
    given = requests(order["path"], order["bodies"])
    waiting = iter(given) if order.get("once") else itertools.cycle(given)
    began_s, cpu_s = time.monotonic(), time.process_time()
    if "rate" in order:
        seen = uvloop.run(opened(order["port"], waiting, order["rate"], order["seconds"], order.get("seed", 1)))
    else:
        seen = uvloop.run(closed(order["port"], waiting, order["callers"], order["seconds"]))
    return {
        "took_s": max(seen.ended_s, default=time.monotonic()) - began_s,
        "began_s": began_s,
        "cpu_s": time.process_time() - cpu_s,
        "latencies_ms": [round(value, 3) for value in seen.latencies_ms],
        "ended_s": [round(value - began_s, 4) for value in seen.ended_s],
        "late_ms": [round(value, 3) for value in seen.late_ms],
        "degraded": seen.degraded,
        "refused": seen.failed,
        "last_failure": seen.last_failure,
    }


if __name__ == "__main__":
    work(_do)
