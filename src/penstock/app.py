"""The composition root: makes the real parts, builds the core on them, starts and stops both in order.

The only module that imports backends. What hangs together how is told by :mod:`penstock.core.core`; here is what is
special about a real process: a directory, models, threads, processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.books import BusObserver
from penstock.bus.broker import Broker
from penstock.bus.contract import Bus
from penstock.bus.desk import Transport
from penstock.bus.distributed import BrokerBus
from penstock.bus.link import Link
from penstock.bus.wire import Wire
from penstock.core.core import Core
from penstock.core.parts import POOLS, Encoders, Parts, Workers
from penstock.core.shapes import SHAPES
from penstock.http.gate import Gate
from penstock.indexing import worker
from penstock.indexing.chunk import Chunk
from penstock.indexing.composition import dense_text, sparse_query, sparse_text
from penstock.kernel.clock import Clock, MonotonicClock
from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.messages import ChunkText, Topic
from penstock.kernel.settings import Settings, cores
from penstock.kernel.work import Work
from penstock.models.choice import Choice, Models
from penstock.pools.asking import handlers
from penstock.pools.ml import BULK_NICENESS
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads
from penstock.stores.backends.edge.fleet import EdgeFleet
from penstock.stores.backends.memory import MemoryCache
from penstock.stores.cache import Cache
from penstock.stores.contract import CollectionInfo
from penstock.stores.lock import DirectoryLock
from penstock.stores.service import Shared, StoreService
from penstock.telemetry.memory import MemoryWatch, find_limit

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Role:
    """What of Penstock runs in this process.

    Attributes:
        http: Whether it answers HTTP, and has the data directory for itself.
        pools: Which pools work here.
    """

    http: bool = True
    pools: frozenset[str] = POOLS

    @property
    def stores(self) -> bool:
        """Whether it needs the points."""
        return self.http or bool(self.pools & {"search", "index"})

    @property
    def alone(self) -> bool:
        """Whether nobody else touches the points: all that does is in this process."""
        return self.http and {"search", "index"} <= self.pools

    def check(self, settings: Settings) -> None:
        """Refuse a part of Penstock that could not reach the rest.

        Raises:
            Invalid: Naming the setting.
        """
        if self == Role():
            return
        if settings.bus.backend == "memory":
            detail = "a part of Penstock needs a broker to reach the rest: set BUS_BACKEND to redis or kafka"
            raise Invalid(detail, field="concurrency.bus.backend")
        if self.stores and not self.alone and settings.store.backend == "edge":
            detail = (
                "here other processes need the points too: set STORE_BACKEND to qdrant, or serve search and index here"
            )
            raise Invalid(detail, field="store.backend")


#: Everything in one process.
ALL: Final = Role()


class App:
    """A whole Penstock, or a part of it. Build it with :func:`build`, ``start`` it, serve ``asgi``, ``close`` it.

    Args:
        settings: Everything that can be set.
        data_dir: Where everything is kept.
        model_cache: Where prepared models are kept; ``data_dir/models`` by default.
        role: What of it runs here.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """

    def __init__(self, settings: Settings, data_dir: Path, model_cache: Path, role: Role = ALL) -> None:
        role.check(settings)
        self._role = role
        self.settings = settings
        self.data_dir = data_dir
        self._clock: Clock = MonotonicClock()
        self._model_cache = model_cache
        self._lock = DirectoryLock(data_dir)
        self._broker = broker(settings, self._clock)
        self._points = points(settings, data_dir, self._clock)
        self._shared = shared(settings)
        count = settings.ml.threads or cores()
        self._threads = Threads(count, "penstock-ml")
        self._bulk = Threads(count, "penstock-bulk", BULK_NICENESS)
        self._processes: Processes | None = None
        self._models: Models | None = None
        self._core: Core | None = None

    @property
    def asgi(self) -> Gate:
        """The ASGI application, once it has been started."""
        return self._started.gate

    async def start(self, progress: Progress | None = None) -> None:
        """Take the directory, prepare and check the models, start the store, wire the topics.

        Args:
            progress: Called, from another thread, with a stage's name, what is done of it and its total.

        Raises:
            PenstockError: Saying what is missing or held by another; nothing is left behind.
        """
        if self._role.http:
            self._lock.acquire()
        try:
            if self._broker is not None:
                await self._broker.start()
            if self._role.stores and self._points.remote:
                # A server that is not there should not be told after a model has been prepared.
                await self._points.start()
            choice = Choice(self.settings, self._model_cache, self._clock)
            self._models = models = await asyncio.to_thread(choice.load, progress or (lambda *_: None))
            await models.check(self._clock)
            if self._role.stores and not self._points.remote:
                await self._points.start()
            self._core = core = Core(self._parts(models))
            if self._role.stores:
                core.foreign |= await self._foreign(_encoders(models))
            self._points.when_ready(core.guards["store"].renew)
            core.start()
            if not await core.bus.joined():
                log.warning("some work does not come here yet: it will once the broker has shared it out")
        except BaseException:
            await self.close()
            raise

    async def _foreign(self, encoders: Encoders) -> dict[str, CollectionInfo]:
        """Return the collections that another model made."""
        there = await self._points.store.collections(Work.background())
        ours = (encoders.model, encoders.dim, encoders.learned)
        found = {info.name: info for info in there if (info.model, info.dim, info.sparse) != ours}
        for name, info in found.items():
            log.warning("collection %s is of another model, %s: neither searched nor written", name, info.model)
        return found

    def announce(self, url: str) -> None:
        """Let other commands on this data directory find the server."""
        self._lock.announce(url)

    def begin_drain(self) -> None:
        """Refuse new requests from now on; running ones go on."""
        self._started.gate.draining = True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; return whether that came true in time."""
        return await self._started.gate.drained(timeout_s)

    async def worked_off(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        return await self._started.drain(timeout_s)

    async def close(self) -> None:
        """Stop everything, the last started first; the store is flushed."""
        if self._core is not None:
            await self._core.close()
        if self._broker is not None:
            await self._broker.close()
        if self._shared is not None:
            await self._shared.close()
        if self._processes is not None:
            await self._processes.close()
        await self._threads.close()
        await self._bulk.close()
        if self._models is not None:
            await self._models.close()
        await self._points.close()
        self._lock.release()

    @property
    def _started(self) -> Core:
        if self._core is None:
            raise Broken("the server has not been started")
        return self._core

    def _parts(self, models: Models) -> Parts:
        """Return what the core stands on."""
        ml, clock = self.settings.ml, self._clock
        batch_tokens = ml.batch_tokens or models.batch_tokens
        settings = replace(self.settings, ml=replace(ml, batch_tokens=batch_tokens))
        limit = find_limit(settings.memory.limit)

        def bus(observer: BusObserver) -> Bus:
            if self._broker is None:
                return MemoryBus(settings.bus, capacities(settings), clock, observer)
            wire, link = Wire(SHAPES, settings.bus.record_max), Link(self._broker.name, settings.breaker)
            transport = Transport(self._broker, wire, link)
            return BrokerBus(transport, settings.bus, capacities(settings), clock, observer, marks(models))

        def cache(name: str, entries_max: int, bytes_max: int, ttl_s: float) -> Cache:
            return MemoryCache(name, entries_max, bytes_max, clock, ttl_s)

        def shared_cache(name: str) -> Cache | None:
            return self._shared.cache(name) if self._shared is not None and settings.redis.cache else None

        return Parts(
            settings=settings,
            data_dir=self.data_dir,
            clock=clock,
            bus=bus,
            store=self._points.store,
            encoders=_encoders(models),
            workers=self._workers(models),
            remote=models.remote | ({"store"} if self._points.remote else set()),
            cache=cache,
            shared_cache=shared_cache,
            shared_rates=self._shared.rates() if self._shared is not None and settings.redis.rates else None,
            memory=lambda caches: MemoryWatch(limit, caches),
            snapshots=self._points.snapshots,
            upkeep=self._points.upkeep,
            readiness=lambda: self._points.missing if self._role.stores else [],
            pools=self._role.pools,
        )

    def _workers(self, models: Models) -> Workers:
        """Return what the pools do: models in threads or asked over HTTP, chunkers in processes."""
        embed, encode, rerank = handlers(models, self._threads, self._bulk)
        count = min(self.settings.index.chunk_workers, cores())
        self._processes = Processes(count, worker.prepare, (models.tokenizer,))
        cutter = worker.Cutter(self._processes.run)

        async def chunk(message: ChunkText, _work: Work) -> list[Chunk]:
            return await cutter(message)

        return Workers(embed, encode, rerank, chunk)


def _encoders(models: Models) -> Encoders:
    """Return what the core has to know of the models.

    Identifiers are split for BM25 alone: a learned model has its own notion of what a word means.
    """
    dense, sparse, _ = models.used
    learned = models.learned
    return Encoders(
        model=dense.name,
        dim=models.dim,
        late=models.late,
        sparse=sparse.name,
        reads_whole=lambda text: not models.tokenizer.truncated(text),
        sparse_query=(lambda text: text) if learned else sparse_query,
        sparse_text=dense_text if learned else sparse_text,
        learned=sparse.name if learned else "",
        crossed=models.crossed,
        used=tuple(models.used),
    )


def marks(models: Models) -> dict[str, str]:
    """Return what instances must have in common to do each other's work: vectors of one are compared with another's."""
    dense, sparse, rerank = (one.name for one in models.used)
    return {Topic.ML_EMBED: dense, Topic.ML_SPARSE: sparse, Topic.ML_RERANK: f"{dense} {rerank}"}


def capacities(settings: Settings) -> dict[str, int]:
    """Return the buffers that differ from ``bus.buffer_size``, by topic."""
    return {
        Topic.SEARCH_REQUEST: settings.search.queue_size,
        Topic.INDEX_REQUEST: settings.index.queue_size,
        Topic.INDEX_CHUNK: settings.index.queue_size,
    }


def broker(settings: Settings, clock: Clock) -> Broker | None:
    """Return what carries the bus between processes, not started yet; ``None`` where all is in one.

    Args:
        settings: Which it is, and where.
        clock: The loop's clock.

    Raises:
        Invalid: The settings cannot be used.
    """
    # The clients take a while to import, which who does not use them need not wait for.
    if settings.bus.backend == "redis":
        from penstock.bus.backends.redis.broker import RedisBroker  # noqa: PLC0415

        if settings.redis.shared:
            from penstock.stores.backends.redis.link import connections  # noqa: PLC0415

            left = max(1, settings.redis.pool_size - connections(settings.redis))
            settings = replace(settings, redis=replace(settings.redis, pool_size=left))
        return RedisBroker(settings.bus, settings.redis, capacities(settings), clock)
    if settings.bus.backend == "kafka":
        from penstock.bus.backends.kafka.broker import KafkaBroker  # noqa: PLC0415

        return KafkaBroker(settings.bus, settings.kafka, capacities(settings))
    return None


def points(settings: Settings, data_dir: Path, clock: Clock, backend: str = "") -> StoreService:
    """Return what keeps the points, not started yet.

    Args:
        settings: Which it is, and how it is run or where it is.
        data_dir: The data directory, for the embedded engine.
        clock: The loop's clock.
        backend: ``edge`` or ``qdrant``; empty for what the settings say.

    Raises:
        Invalid: The settings cannot be used.
    """
    if (backend or settings.store.backend) == "qdrant":
        # Its client takes a second and a half to import, which who does not use it need not wait for.
        from penstock.stores.backends.qdrant.server import QdrantServer  # noqa: PLC0415

        return QdrantServer(settings.qdrant, settings.timeouts, clock)
    return EdgeFleet(data_dir, settings.timeouts, clock, settings.store)


def shared(settings: Settings) -> Shared | None:
    """Return what is shared with other servers; ``None`` where nothing is.

    Raises:
        Invalid: The settings cannot be used.
    """
    if not settings.redis.shared:
        return None
    from penstock.stores.backends.redis.shared import RedisShared  # noqa: PLC0415

    return RedisShared(settings.redis, settings.bus.prefix)


def build(settings: Settings, data_dir: Path, model_cache: Path | None = None, role: Role = ALL) -> App:
    """Build a Penstock that is not started yet.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """
    return App(settings, data_dir, model_cache or data_dir / "models", role)
