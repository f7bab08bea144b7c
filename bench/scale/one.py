"""One size in a process of its own: fill the store, load it again, ask it. A :mod:`bench.worker`.

What is measured is the store with its process, as the search pipeline asks it: both arms of a query at once, 100
candidates each, then the token vectors of all of them. The model, whose time does not depend on the collection, is
left out.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.processes import by_role, disk_mb, memory_mb
from bench.report import percentile, tell
from bench.scale.synthetic import DIM, LATE, Block, World
from bench.worker import Order, work
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.ranking.retrieval import Arm, RetrievalQuery
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    FetchPayloads,
    Retrieve,
    SearchBatch,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, Point

NAME: Final = "scale"
#: What is asked for: its name, the arms, and whether the candidates are measured by their token vectors too.
_WAYS: Final = (
    ("dense", (Arm.DENSE,), False),
    ("sparse", (Arm.SPARSE,), False),
    ("both arms", tuple(Arm), False),
    ("rescored", tuple(Arm), True),
)
UPSERT_POINTS: Final = 500
UPSERTS_AT_ONCE: Final = 2
CANDIDATES: Final = 64
HITS: Final = 10
CALLERS: Final = 16
#: A chunk's text: as long as real ones are.
TEXT: Final = "x" * 600
#: A million chunks take about an hour on one core.
REST_S_MAX: Final = 7200.0


def _work() -> Context:
    return Context(Deadline(math.inf, "bench"), Criticality.BULK, "bench", "bench")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        queries: Different queries.
        seconds: How long many callers ask.
    """

    queries: int = 300
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Loud:
    """Time of a search alone and with many callers; times in milliseconds."""

    p50_ms: float
    p99_ms: float
    rate: float


class Size:
    """Fills and asks a store of one size."""

    def __init__(self, chunks: int, data_dir: Path, effort: Effort) -> None:
        self._chunks = chunks
        self._effort = effort
        self._data_dir = data_dir
        self._world = World(chunks)
        self._queries = self._world.queries(effort.queries)
        self._exact = Exact(self._queries)

    async def run(self) -> dict[str, Any]:
        """Return everything that was measured."""
        found = await self._fill()
        store, began_s = self._store(), time.perf_counter()
        await store.start()
        found["load_s"] = time.perf_counter() - began_s
        try:
            found["disk_mb"] = disk_mb(self._data_dir)
            for name, arms, rescores in _WAYS:
                loud = await self._ask(store, arms, rescores=rescores)
                found |= {f"{name}, p50 ms": loud.p50_ms, f"{name}, p99 ms": loud.p99_ms, f"{name}, 1/s": loud.rate}
                tell(
                    f"  {name}: p50 {loud.p50_ms:.1f} ms, p99 {loud.p99_ms:.1f} ms, {CALLERS} callers {loud.rate:.0f}/s"
                )
            found["recall@10"] = await self._recall(store)
            found["memory_mb"] = by_role(os.getpid(), memory_mb).get("store", 0.0)
        finally:
            await store.close()
        return found

    def _store(self) -> EdgeStore:
        timeouts, kept = TimeoutSettings(store=600.0), StoreSettings(optimize_quiet=1.0)
        return EdgeStore(self._data_dir, timeouts, MonotonicClock(), kept)

    async def _fill(self) -> dict[str, Any]:
        """Write every chunk, and wait until the store has nothing left to do for itself."""
        store = self._store()
        await store.start()
        try:
            await store.run(CreateCollection(CollectionInfo(NAME, DIM, "synthetic", token_dim=LATE)), _work())
            began_s, first, writing = time.perf_counter(), 0, set[asyncio.Task[None]]()
            for block in self._world.blocks(self._chunks, UPSERT_POINTS):
                self._exact.look(block.dense)
                if len(writing) == UPSERTS_AT_ONCE:
                    done, writing = await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                writing.add(asyncio.create_task(store.run(UpsertPoints(NAME, _points(block, first)), _work())))
                first += len(block.dense)
                if first % (self._chunks // 10 or 1) < UPSERT_POINTS:
                    tell(f"  {first} of {self._chunks} written")
            await asyncio.gather(*writing)
            written_s = time.perf_counter() - began_s
            return {"written, 1/s": self._chunks / written_s, "rest_s": await _indexed(store)}
        finally:
            await store.close()

    async def _ask(self, store: EdgeStore, arms: Sequence[Arm], *, rescores: bool) -> Loud:
        asked = [self._asked(number, arms, rescores=rescores) for number in range(self._effort.queries)]

        async def once(wanted: RetrievalQuery) -> float:
            began_s = time.perf_counter()
            await store.run(Retrieve(NAME, wanted, ()), _work())
            return (time.perf_counter() - began_s) * 1000

        for wanted in asked[:50]:
            await once(wanted)
        alone_ms = [await once(wanted) for wanted in asked]
        count, until_s = 0, time.perf_counter() + self._effort.seconds

        async def caller(place: int) -> None:
            nonlocal count
            while time.perf_counter() < until_s:
                place = (place + CALLERS) % len(asked)
                await once(asked[place])
                count += 1

        began_s = time.perf_counter()
        await asyncio.gather(*(caller(place % len(asked)) for place in range(CALLERS)))
        rate = count / (time.perf_counter() - began_s)
        return Loud(percentile(alone_ms, 0.5), percentile(alone_ms, 0.99), rate)

    def _asked(self, number: int, arms: Sequence[Arm], *, rescores: bool) -> RetrievalQuery:
        queries = self._queries
        return RetrievalQuery(
            HITS,
            CANDIDATES,
            queries.dense[number] if Arm.DENSE in arms else None,
            queries.sparse[number] if Arm.SPARSE in arms else None,
            queries.late[number] if rescores else None,
            rerank=rescores,
        )

    async def _recall(self, store: EdgeStore) -> float:
        """Return the share of the exact ten that is among the first ten of the dense arm."""
        shares = []
        for number, best in enumerate(self._exact.best()):
            query = ArmQuery(self._queries.dense[number], CANDIDATES)
            (found,) = await store.run(SearchBatch(NAME, [query]), _work())
            rows = await store.run(FetchPayloads(NAME, [one.point for one in found[:HITS]]), _work())
            shares.append(len({int(payload.id) for payload in rows.values()} & set(best)) / HITS)
        return sum(shares) / len(shares)


class Exact:
    """The rows of highest inner product, found while blocks of rows go by."""

    def __init__(self, queries: Block) -> None:
        self._queries = queries.dense
        self._scores: NDArray[np.float32] = np.full((len(queries.dense), HITS), -np.inf, np.float32)
        self._rows = np.zeros((len(queries.dense), HITS), np.int64)
        self._seen = 0

    def look(self, rows: NDArray[np.float32]) -> None:
        """Look at a block."""
        numbers = np.broadcast_to(np.arange(self._seen, self._seen + len(rows)), (len(self._queries), len(rows)))
        scores = np.concatenate([self._scores, self._queries @ rows.T], axis=1)
        every = np.concatenate([self._rows, numbers], axis=1)
        best = np.argpartition(-scores, HITS - 1, axis=1)[:, :HITS]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self._rows = np.take_along_axis(every, best, axis=1)
        self._seen += len(rows)

    def best(self) -> list[list[int]]:
        """Return the best rows of each query, in no order."""
        found: list[list[int]] = self._rows.tolist()
        return found


def _points(block: Block, first: int) -> list[Point]:
    return [
        Point(ChunkPayload(str(first + number), 0, TEXT, hash="synthetic", chunks=1), *vectors)
        for number, vectors in enumerate(zip(block.dense, block.sparse, block.late, strict=True))
    ]


async def _indexed(store: EdgeStore) -> float:
    """Wait until the store has made its last generation; return how long that took, in seconds.

    Raises:
        TimeoutError: It did not come to an end.
    """
    began_s, loose_max = time.perf_counter(), StoreSettings().optimize_points
    async with asyncio.timeout(REST_S_MAX):
        info = await store.run(DescribeCollection(NAME), _work())
        while info.upkeep or info.chunks - info.indexed >= loose_max:
            await asyncio.sleep(0.5)
            info = await store.run(DescribeCollection(NAME), _work())
    return time.perf_counter() - began_s


def _do(order: Order) -> dict[str, Any]:
    """Measure one size."""
    data_dir = Path(order["directory"])
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    try:
        return asyncio.run(Size(order["chunks"], data_dir, Effort()).run())
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


if __name__ == "__main__":
    work(_do)
