"""Steady load from outside: searches and index requests, each counted by its number, whatever becomes of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
import msgspec

#: Requests a second: well below what two cores can do, model and all.
SEARCHES_S: Final = 5.0
BATCHES_S: Final = 1.5
DOCUMENTS: Final = 2
#: Documents in a request when those that were refused are sent again.
AGAIN: Final = 10
#: A request that has not been answered after so long never will be; longer than every limit of the server.
PATIENCE_S: Final = 45.0
#: The collection.
PATH: Final = "/v1/collections/faults"
WORDS: Final = tuple(
    f"{what} {where}"
    for what in ("anchor", "gauge", "lock", "mooring", "outfall", "penstock", "sluice", "turbine", "valve", "weir")
    for where in ("basin", "canal", "delta", "estuary", "harbour", "inlet", "river", "spillway")
)

#: What an attempt ends with where there is no status.
UNREACHED, CUT, SILENT = 0, -1, -2


class Attempt(msgspec.Struct):
    """One request.

    Attributes:
        number: Its own.
        kind: ``search`` or ``index``.
        sent_s: When, since the load began.
        ended_s: When it ended.
        status: The HTTP status; ``UNREACHED``: nobody took the connection, ``CUT``: the connection ended without an
            answer, ``SILENT``: no answer within ``PATIENCE_S``.
        code: The problem's, where there is one.
        lesser: Whether the answer says that something was left out.
        documents: Ids sent.
        acknowledged: Ids of which the answer says that they are there, with their chunks; 0 where they were before.
    """

    number: int
    kind: str
    sent_s: float
    ended_s: float = 0.0
    status: int = SILENT
    code: str = ""
    lesser: bool = False
    documents: list[str] = msgspec.field(default_factory=list)
    acknowledged: dict[str, int] = msgspec.field(default_factory=dict)


def text_of(id: str) -> str:
    """Return a document's text: always the same for one id; a chunk or two long."""
    chance = random.Random(id)
    lines = [f"{id} tells of {' and '.join(chance.choices(WORDS, k=12))}." for _ in range(6)]
    return "\n\n".join(lines)


class Load:
    """Sends requests at even times, in an open loop.

    Args:
        url: The server's address.

    Attributes:
        attempts: All so far.

    Bounds: what is sent within ``PATIENCE_S``.
    """

    def __init__(self, url: str) -> None:
        self.attempts: list[Attempt] = []
        # A connection for each: whether one was taken is then never in doubt.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx.Timeout(PATIENCE_S, connect=5.0)
        self._client = httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout)
        self._began_s = time.monotonic()
        self._under_way: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def now_s(self) -> float:
        """Return seconds since the load began."""
        return time.monotonic() - self._began_s

    async def begin(self) -> None:
        """Make the collection and begin to send."""
        (await self._client.put(PATH)).raise_for_status()
        self._began_s = time.monotonic()
        for kind, rate in (("search", SEARCHES_S), ("index", BATCHES_S)):
            self._tasks.append(asyncio.create_task(self._send(kind, rate)))

    async def end(self) -> None:
        """Send no more; wait for every end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in (*self._tasks, *self._under_way):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._under_way, return_exceptions=True)
        await self._client.aclose()

    def index(self, documents: int = DOCUMENTS) -> None:
        """Send one more index request now."""
        attempt = self._new("index")
        attempt.documents = [f"d{attempt.number:06}-{n}" for n in range(documents)]
        self._start(attempt)

    async def again(self, ids: Sequence[str]) -> list[str]:
        """Send documents once more, ``AGAIN`` in a request, one request after the other; return those there now."""
        there: list[str] = []
        for begin in range(0, len(ids), AGAIN):
            attempt = Attempt(-1, "index", self.now_s(), documents=list(ids[begin : begin + AGAIN]))
            await self._run(attempt)
            there += attempt.acknowledged
        return there

    async def contents(self) -> tuple[dict[str, int], int]:
        """Return the chunks of each complete document by id, and how many chunks the collection has in all."""
        found: dict[str, int] = {}
        after: str | None = None
        while True:
            params = {"limit": "1000"} | ({} if after is None else {"after": after})
            page = (await self._client.get(f"{PATH}/documents", params=params)).raise_for_status().json()
            found |= {one["id"]: one["chunks"] for one in page["documents"] if one.get("hash")}
            after = page.get("next")
            if after is None:
                break
        whole = (await self._client.get(PATH)).raise_for_status().json()
        return found, int(whole["chunks"])

    async def _send(self, kind: str, rate: float) -> None:
        number = 0
        while True:
            number += 1
            await asyncio.sleep(number / rate - self.now_s())
            if kind == "index":
                self.index()
            else:
                self._start(self._new(kind))

    def _new(self, kind: str) -> Attempt:
        attempt = Attempt(len(self.attempts), kind, self.now_s())
        self.attempts.append(attempt)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        task = asyncio.create_task(self._run(attempt))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _run(self, attempt: Attempt) -> None:
        try:
            if attempt.kind == "index":
                documents = [{"id": id, "text": text_of(id)} for id in attempt.documents]
                answer = await self._client.post(f"{PATH}/documents", json={"documents": documents})
            else:
                words = " ".join(random.Random(attempt.number).choices(WORDS, k=4))
                answer = await self._client.post(f"{PATH}/search", json={"query": f"{words} {attempt.number}"})
        except (httpx.ConnectError, httpx.ConnectTimeout):
            attempt.status = UNREACHED
        except httpx.TimeoutException:
            attempt.status = SILENT
        except httpx.TransportError:
            attempt.status = CUT
        else:
            _note(attempt, answer.status_code, answer.json())
        attempt.ended_s = self.now_s()


def _note(attempt: Attempt, status: int, said: dict[str, Any]) -> None:
    """Take down an answer."""
    attempt.status, attempt.code = status, str(said.get("code", ""))
    attempt.lesser = bool(said.get("degraded"))
    outcomes = said.get("documents", ())
    attempt.acknowledged = {
        one["id"]: one["chunks"] * (one["status"] == "indexed")
        for one in outcomes
        if one["status"] in ("indexed", "unchanged")
    }
    failed = [one["error"]["code"] for one in outcomes if one.get("error")]
    attempt.code = attempt.code or (failed[0] if failed else "")
