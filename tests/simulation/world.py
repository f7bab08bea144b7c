"""A whole server on virtual time: the real core between the gate and fakes of everything it depends on.

Callers speak bare ASGI; models and the store have good and bad days; memory rises and falls; between any two
steps of the event loop the books are checked.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from penstock.bus.counters import BusObserver
from penstock.bus.local import LocalBus
from penstock.bus.management import ManagedBus
from penstock.core.core import Core
from penstock.core.dependencies import Dependencies, ModelTraits
from penstock.http.gate import build_gate
from penstock.indexing.chunk.outline import Chunk
from penstock.indexing.model_inputs import SparseInputs, sparse_text
from penstock.kernel.context import Context
from penstock.kernel.messages import AlertTriggered, ChunkText, EmbedBatch, RerankTexts, SparseBatch, Topic
from penstock.kernel.settings import (
    BusSettings,
    CacheSettings,
    GuardSettings,
    HttpSettings,
    IndexSettings,
    MlSettings,
    SearchSettings,
    Settings,
    TimeoutSettings,
)
from penstock.pools.permits import Permits
from penstock.stores.commands import CreateCollection, UpsertPoints
from penstock.stores.data_model import ChunkPayload, CollectionInfo, Point
from penstock.stores.memory_cache import MemoryCache
from penstock.telemetry.memory_watch import MemoryLimit, MemoryWatch
from tests.clock import VirtualLoop, quiet
from tests.fakes.api import Caller
from tests.fakes.faults import Dependency
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, embedding, embeddings, terms, token_vectors
from tests.simulation.books import Books
from tests.simulation.replies import Reply, reply_of

#: What the whole machine has; the memory watch is told how much of it is in use.
#: A search is traced by its own files.
SPARSE_INPUTS = SparseInputs(lambda text, _: text, sparse_text, lambda text, _: text)
MEMORY_BYTES = 1_000_000_000
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")

#: Twenty clients.
CROWD = tuple(f"client-{number}" for number in range(20))

#: Searches a second that the small server answers in full: two runs of the dense model at once, 40 ms each.
CAPACITY = 50

#: A small server: two cores, room for a few dozen requests.
SMALL = Settings(
    ml=MlSettings(embed_workers=2, sparse_workers=2, rerank_workers=1, max_inflight=4),
    search=SearchSettings(workers=4, queue_size=40, candidates=20, candidates_reduced=5),
    index=IndexSettings(workers=2, queue_size=20, chunk_workers=2, segment_chunks=4),
    http=HttpSettings(max_concurrent=80, read_timeout=2.0, write_timeout=2.0, rate_limit=0, large_request=256_000),
    bus=BusSettings(buffer_size=40, publish_timeout=0.5, request_timeout=6.0, handler_timeout=8.0),
    timeouts=TimeoutSettings(search=2.0, index_file=4.0, embed=2.0, rerank=2.0, store=1.0),
    # As many as search at once: when all of them have hung, it is known.
    breaker=GuardSettings(failures=4, timeout=2.0, successes=2),
    cache=CacheSettings(embed_size=200, sparse_size=200, answer_size=200),
)


class World:
    """One server and everybody who asks it. Enter it to start the server, leave it to close it.

    Args:
        seed: Everything random follows from it.
        settings: The server's.
        steady: Whether service times are constant.

    Attributes:
        core: The server behind its gate, once entered.
        gate: Its gate.
        books: What must hold.
        store: The vectors.
        dense, sparse, rerank, disk, chunker: What the server depends on, each with its mood.
        memory_share: How much of the memory is in use, as the watch will read it.
        told: Every alert that was published.
        ends: How the requests so far came to their end.
        asking: Requests on their way.
        reasons: Why the parts cannot work, for ``/readyz``.
    """

    def __init__(self, seed: int = 0, settings: Settings = SMALL, *, steady: bool = True) -> None:
        self.random = random.Random(seed)
        self.settings = settings
        self.steady = steady
        self.memory_share = 0.3
        self.reasons: list[str] = []
        self.told: list[AlertTriggered] = []
        self.ends: Counter[str] = Counter()
        self.sent = 0
        self.asking = 0

    async def __aenter__(self) -> Self:
        self.dense = self._dependency("dense", 0.04, stubborn=True)
        self.sparse = self._dependency("sparse", 0.004, stubborn=True)
        self.rerank = self._dependency("rerank", 0.05, stubborn=True)
        self.chunker = self._dependency("chunker", 0.01, stubborn=True)
        self.disk = self._dependency("store", 0.005)
        self.store = MemoryStore(self.disk.work, self.settings.timeouts.store)
        self.points = MemoryCache("points", 100, 100_000, LoopClock())
        self.core = Core(self._parts())
        self.gate = build_gate(self.core)
        self.books = Books(self)
        self.core.bus.subscribe(Topic.ALERT_TRIGGERED, self._hear, Permits("alerts", 1))
        await self._fill()
        self.core.start()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        loop.watch(self._look)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        if kind is not None:
            self.loop.watch(lambda: None)
        for one in self.dependencies():
            one.turn(one.mood.WELL)
        await self.core.close()
        if kind is None:
            # Deaf and mute callers may be there as long as the gate's own timeouts let them.
            async with asyncio.timeout(self.settings.http.read_timeout + self.settings.http.write_timeout + 1.0):
                while self.asking:  # noqa: ASYNC110 - looked at from outside
                    await asyncio.sleep(0.1)
            await quiet()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left
        self.loop.watch(lambda: None)

    def dependencies(self) -> tuple[Dependency, ...]:
        """Return everything the server depends on."""
        return self.dense, self.sparse, self.rerank, self.chunker, self.disk

    # --- Asking

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        caller: Caller | None = None,
    ) -> Reply:
        """Send a request and enter in the books how it ended: by exactly one answer, or by none to one who has gone."""
        caller = caller or Caller(None)
        caller.app = self.gate
        began_s = self.loop.time()
        self.sent += 1
        self.asking += 1
        reply = Reply(0)
        try:
            await caller.call(method, path, body, headers)
            if caller.reads and (caller.sent or not caller.gone.is_set()):
                reply = reply_of(caller.answer(), self.loop.time() - began_s)
            else:
                assert len(caller.sent) <= 1, "more than nothing was sent to one who does not listen"
        finally:
            self.asking -= 1
            self.ends[reply.end] += 1
        return reply

    async def search(
        self,
        query: str | None = None,
        *,
        client: str = "somebody",
        criticality: str | None = None,
        caller: Caller | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Reply:
        """Search; without a query with one that nobody has asked before."""
        said = {"x-api-key": client, **(headers or {})}
        if criticality is not None:
            said["x-criticality"] = criticality
        query = query if query is not None else f"{self.random.choice(WORDS)} n{self.sent}"
        return await self.ask("POST", "/v1/search", {"query": query, **body}, said, caller=caller)

    async def flood(self, rate: float, seconds: float, clients: Iterable[str] = CROWD, **how: Any) -> list[Reply]:
        """Send searches at an even rate, each client in its turn, whatever becomes of them, and wait for all."""
        names, tasks = list(clients), []
        for number in range(int(rate * seconds)):
            tasks.append(asyncio.create_task(self.search(client=names[number % len(names)], **how)))
            await asyncio.sleep(1 / rate)
        return await asyncio.gather(*tasks)

    # --- Looking

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric as a scrape would see it now."""
        value = self.core.metrics.registry.get_sample_value(name, labels)
        return -1.0 if value is None else value

    def rungs(self) -> list[int]:
        """Return where the ladder stands, the most urgent class first."""
        return [int(rung) for rung in self.core.ladder.state().values()]

    def working(self) -> int:
        """Return how many calls to dependencies are at work."""
        return sum(one.running for one in self.dependencies())

    def workers(self) -> dict[str, Dependency]:
        """Return what works in each pool; searches and writes only wait for others."""
        return {"embed": self.dense, "sparse": self.sparse, "rerank": self.rerank, "chunk": self.chunker}

    def _look(self) -> None:
        """Check the books; after a failure the loop must be able to come to its end."""
        try:
            self.books.check()
        except BaseException:
            self.loop.watch(lambda: None)
            raise

    # --- What it is built of

    def _dependency(self, name: str, mean_s: float, *, stubborn: bool = False) -> Dependency:
        return Dependency(name, self.random, mean_s, steady=self.steady, stubborn=stubborn)

    def _parts(self) -> Dependencies:
        clock, settings = LoopClock(), self.settings

        def bus(observer: BusObserver) -> ManagedBus:
            capacities = {
                Topic.SEARCH_REQUEST: settings.search.queue_size,
                Topic.INDEX_REQUEST: settings.index.queue_size,
                Topic.INDEX_CHUNK: settings.index.queue_size,
            }
            return LocalBus(settings.bus, capacities, clock, observer)

        limit = MemoryLimit(MEMORY_BYTES, "setting")
        return Dependencies(
            settings=settings,
            data_dir=Path("nowhere"),
            clock=clock,
            make_bus=bus,
            store=self.store,
            models=ModelTraits("model", DIM, "sparse", lambda _: True, SPARSE_INPUTS, late=DIM),
            handlers={"embed": self._embed, "sparse": self._encode, "rerank": self._rerank, "chunk": self._chunk},
            make_memory_watch=lambda caches: MemoryWatch(
                limit, caches, used=lambda _: int(self.memory_share * MEMORY_BYTES)
            ),
            unready_reasons=lambda: self.reasons,
            store_caches=(self.points,),
            rng=self.random.random,
        )

    async def _embed(self, batch: EmbedBatch, _ctx: Context) -> Any:
        await self.dense.work()
        return embeddings(batch.texts, late=batch.late)

    async def _encode(self, batch: SparseBatch, _ctx: Context) -> Any:
        await self.sparse.work()
        return [terms(text) for text in batch.texts]

    async def _rerank(self, message: RerankTexts, _ctx: Context) -> Any:
        await self.rerank.work()
        return _rows(message.texts) @ embedding(message.query)

    async def _chunk(self, message: ChunkText, _ctx: Context) -> list[Chunk]:
        await self.chunker.work()
        lines = [line for line in message.text.splitlines() if line] or [""]
        return [Chunk(line, number, number, "") for number, line in enumerate(lines, 1)]

    async def _hear(self, alert: AlertTriggered, _ctx: Context) -> None:
        self.told.append(alert)

    async def _fill(self) -> None:
        """Put a document for each word into the default collection."""
        ctx = Context.background()
        await self.store.run(CreateCollection(CollectionInfo("default", DIM, "model", token_dim=DIM)), ctx)
        points = []
        for word in WORDS:
            text = f"{word} and more of {word}"
            payload = ChunkPayload(word, 0, text, hash="h", chunks=1)
            points.append(Point(payload, embedding(text), terms(text), token_vectors(text)))
        await self.store.run(UpsertPoints("default", points), ctx)


def changed(settings: Settings = SMALL, **sections: Mapping[str, Any]) -> Settings:
    """Return settings with some of them changed: ``changed(http={"max_concurrent": 5})``."""
    return replace(settings, **{name: replace(getattr(settings, name), **values) for name, values in sections.items()})


def _rows(texts: Iterable[str]) -> Any:
    return np.array([embedding(text) for text in texts], np.float32).reshape(-1, DIM)
