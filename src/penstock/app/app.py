"""A running Penstock: its parts made, the core built on them, both started and stopped in order.

What hangs together how is told by :mod:`penstock.core.core`; here is what is special about a real process: a directory,
models, threads, processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.app.backends import broker, bus, caches, points, shared
from penstock.app.encoding import encoders, marks
from penstock.app.role import ALL, Role
from penstock.core.core import Core
from penstock.core.parts import Parts, Workers
from penstock.http.gate import Gate
from penstock.indexing import worker
from penstock.indexing.chunk import Chunk
from penstock.kernel.clock import Clock, MonotonicClock
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText
from penstock.kernel.settings import Settings, cores
from penstock.kernel.work import Work
from penstock.models.choice import Choice, Models
from penstock.pools.asking import handlers
from penstock.pools.ml import BULK_NICENESS
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads
from penstock.stores.cache import Cache
from penstock.stores.contract import CollectionInfo
from penstock.stores.lock import DirectoryLock
from penstock.telemetry.memory import MemoryWatch, find_limit

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


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
                core.foreign |= await self._foreign(models)
            self._points.when_ready(core.guards["store"].renew)
            core.start()
            if not await core.bus.joined():
                log.warning("some work does not come here yet: it will once the broker has shared it out")
        except BaseException:
            await self.close()
            raise

    async def _foreign(self, models: Models) -> dict[str, CollectionInfo]:
        """Return the collections that another model made."""
        there, known = await self._points.store.collections(Work.background()), encoders(models)
        ours = (known.model, known.dim, known.learned)
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

        def shared_cache(name: str) -> Cache | None:
            return self._shared.cache(name) if self._shared is not None and settings.redis.cache else None

        return Parts(
            settings=settings,
            data_dir=self.data_dir,
            clock=clock,
            bus=lambda observer: bus(self._broker, settings, clock, observer, marks(models)),
            store=self._points.store,
            encoders=encoders(models),
            workers=self._workers(models),
            remote=models.remote | ({"store"} if self._points.remote else set()),
            cache=caches(clock),
            shared_cache=shared_cache,
            shared_rates=self._shared.rates() if self._shared is not None and settings.redis.rates else None,
            memory=lambda made: MemoryWatch(limit, made),
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


def build(settings: Settings, data_dir: Path, model_cache: Path | None = None, role: Role = ALL) -> App:
    """Build a Penstock that is not started yet.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """
    return App(settings, data_dir, model_cache or data_dir / "models", role)
