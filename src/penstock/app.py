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

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.books import BusObserver
from penstock.bus.contract import Bus
from penstock.core.core import Core
from penstock.core.parts import Encoders, Parts, Workers
from penstock.http.gate import Gate
from penstock.indexing import worker
from penstock.indexing.chunk import Chunk
from penstock.indexing.composition import sparse_query
from penstock.kernel.clock import Clock, MonotonicClock
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText, Topic
from penstock.kernel.settings import Settings, cores
from penstock.kernel.work import Work
from penstock.models.dense import OnnxDense
from penstock.models.device import available, choose
from penstock.models.prepare import prepare
from penstock.models.rerank import LateReranker
from penstock.models.source import SourceSettings, find_source
from penstock.models.sparse import Bm25Runner, Bm25Settings
from penstock.models.tokenizer import TextTokenizer
from penstock.pools.ml import BULK_NICENESS, MlWorkers
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads
from penstock.stores.backends.edge.fleet import EdgeFleet
from penstock.stores.backends.memory import MemoryCache
from penstock.stores.cache import Cache
from penstock.stores.contract import CollectionInfo
from penstock.stores.lock import DirectoryLock
from penstock.telemetry.memory import MemoryWatch, find_limit

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Models:
    """The models, loaded."""

    dense: OnnxDense
    sparse: Bm25Runner
    rerank: LateReranker
    tokenizer: TextTokenizer
    encoders: Encoders


class App:
    """A whole Penstock. Build it with :func:`build`, ``start`` it, serve ``asgi``, ``close`` it.

    Args:
        settings: Everything that can be set.
        data_dir: Where everything is kept.
        model_cache: Where prepared models are kept; ``data_dir/models`` by default.
    """

    def __init__(self, settings: Settings, data_dir: Path, model_cache: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self._clock: Clock = MonotonicClock()
        self._model_cache = model_cache
        self._lock = DirectoryLock(data_dir)
        self._fleet = EdgeFleet(data_dir, settings.timeouts, self._clock, settings.store)
        count = settings.ml.threads or cores()
        self._threads = Threads(count, "penstock-ml")
        self._bulk = Threads(count, "penstock-bulk", BULK_NICENESS)
        self._processes: Processes | None = None
        self._core: Core | None = None

    @property
    def asgi(self) -> Gate:
        """The ASGI application, once it has been started."""
        return self._started.gate

    async def start(self, progress: Progress | None = None) -> None:
        """Take the directory, prepare the model, start the store, wire the topics.

        Args:
            progress: Called, from another thread, with a stage's name, what is done of it and its total.

        Raises:
            PenstockError: Saying what is missing or held by another; nothing is left behind.
        """
        self._lock.acquire()
        try:
            models = await asyncio.to_thread(self._load, progress or (lambda *_: None))
            await self._fleet.start()
            self._core = core = Core(self._parts(models))
            core.foreign |= await self._foreign(models.encoders)
            self._fleet.when_ready(core.guards["store"].renew)
            core.start()
        except BaseException:
            await self.close()
            raise

    async def _foreign(self, encoders: Encoders) -> dict[str, CollectionInfo]:
        """Return the collections that another model made."""
        there = await self._fleet.store.collections(Work.background())
        found = {info.name: info for info in there if (info.model, info.dim) != (encoders.model, encoders.dim)}
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

    async def close(self) -> None:
        """Stop everything, the last started first; the store is flushed."""
        if self._core is not None:
            await self._core.close()
        if self._processes is not None:
            await self._processes.close()
        await self._threads.close()
        await self._bulk.close()
        await self._fleet.close()
        self._lock.release()

    @property
    def _started(self) -> Core:
        if self._core is None:
            raise Broken("the server has not been started")
        return self._core

    def _load(self, progress: Progress) -> _Models:
        directory = self.settings.model.dir
        source = find_source(SourceSettings(Path(directory) if directory else None))
        device = choose(self.settings.model.device, available())
        prepared = prepare(source, self._model_cache, progress, device.precision)
        dense = OnnxDense(prepared, device=device)
        tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
        bm25 = Bm25Settings()
        encoders = Encoders(
            model=dense.model,
            dim=dense.dim,
            sparse=f"bm25-{bm25!r}",
            reads_whole=lambda text: not tokenizer.truncated(text),
            sparse_query=sparse_query,
            late=dense.late,
        )
        return _Models(dense, Bm25Runner(bm25), LateReranker(dense), tokenizer, encoders)

    def _parts(self, models: _Models) -> Parts:
        """Return what the core stands on."""
        ml, clock = self.settings.ml, self._clock
        batch_tokens = ml.batch_tokens or models.dense.device.batch_tokens
        settings = replace(self.settings, ml=replace(ml, batch_tokens=batch_tokens))
        limit = find_limit(settings.memory.limit)

        def bus(observer: BusObserver) -> Bus:
            capacities: dict[str, int] = {
                Topic.SEARCH_REQUEST: settings.search.queue_size,
                Topic.INDEX_REQUEST: settings.index.queue_size,
                Topic.INDEX_CHUNK: settings.index.queue_size,
            }
            return MemoryBus(settings.bus, capacities, clock, observer)

        def cache(name: str, entries_max: int, bytes_max: int, ttl_s: float) -> Cache:
            return MemoryCache(name, entries_max, bytes_max, clock, ttl_s)

        return Parts(
            settings=settings,
            data_dir=self.data_dir,
            clock=clock,
            bus=bus,
            store=self._fleet.store,
            encoders=models.encoders,
            workers=self._workers(models),
            cache=cache,
            memory=lambda caches: MemoryWatch(limit, caches),
            snapshots=self._fleet.snapshots,
            upkeep=self._fleet.upkeep,
            readiness=lambda: [] if self._fleet.alive else ["a store process is not running"],
        )

    def _workers(self, models: _Models) -> Workers:
        """Return what the pools do: models in threads, chunkers in processes."""
        ml = MlWorkers(models.dense, models.sparse, models.rerank, self._threads, self._bulk)
        count = min(self.settings.index.chunk_workers, cores())
        self._processes = Processes(count, worker.prepare, (models.tokenizer,))
        cutter = worker.Cutter(self._processes.run)

        async def chunk(message: ChunkText, _work: Work) -> list[Chunk]:
            return await cutter(message)

        return Workers(ml.embed, ml.sparse, ml.rerank, chunk)


def build(settings: Settings, data_dir: Path, model_cache: Path | None = None) -> App:
    """Build a Penstock that is not started yet."""
    return App(settings, data_dir, model_cache or data_dir / "models")
