"""The core on real parts: models, threads, processes, caches.

What hangs together how is told by :mod:`penstock.core.core`; what stands outside of the process by
:mod:`penstock.app.backing`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from penstock.app.backing import Backing
from penstock.app.encoding import encoders, marks
from penstock.app.role import Role
from penstock.app.within import bus, caches
from penstock.core.core import Core
from penstock.core.parts import Parts, Workers
from penstock.indexing import worker
from penstock.indexing.chunk import Chunk
from penstock.kernel import allocator
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText
from penstock.kernel.settings import Settings, cores
from penstock.models.choice import Choice, Models
from penstock.models.unread import unread
from penstock.pools.asking import handlers
from penstock.pools.ml import BULK_NICENESS
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads
from penstock.stores.cache import Cache
from penstock.stores.directory import DirectoryWatch
from penstock.stores.records import DAMAGED, CollectionInfo
from penstock.telemetry.memory import MemoryWatch, find_limit

log = logging.getLogger(__name__)

#: Called with a stage's name, what is done of it and its total.
Progress = Callable[[str, int, int], None]


class Assembly:
    """The core and all that it computes with. ``start`` it once, ``close`` it in the end.

    Args:
        settings: Everything that can be set.
        data_dir: Where everything is kept.
        role: What of Penstock runs here.
        backing: What stands outside, started.
        clock: The loop's clock.
        watch: Looks at the data directory.
    """

    def __init__(
        self, settings: Settings, data_dir: Path, role: Role, backing: Backing, clock: Clock, watch: DirectoryWatch
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._role = role
        self._backing = backing
        self._clock = clock
        self._watch = watch
        allocator.settle()
        count = settings.ml.threads or cores()
        self._threads = Threads(count, "penstock-ml")
        self._bulk = Threads(count, "penstock-bulk", BULK_NICENESS)
        self._processes: Processes | None = None
        self._models: Models | None = None
        self._core: Core | None = None

    @property
    def core(self) -> Core:
        """The core, once this has started."""
        if self._core is None:
            raise Broken("the server has not been started")
        return self._core

    async def start(self, model_cache: Path, progress: Progress) -> None:
        """Prepare and check the models, start the store where it is ours, wire the topics.

        Args:
            model_cache: Where prepared models are kept.
            progress: Called from another thread.

        Raises:
            PenstockError: Saying what is missing; :meth:`close` then.
        """
        points, stores = self._backing.points, self._role.stores
        choice = Choice(self._settings, model_cache, self._clock, here=self._role.pools)
        self._models = models = await asyncio.to_thread(choice.load, progress)
        await models.check(self._clock)
        if stores:
            await points.start()
        self._core = core = Core(self._parts(models))
        if stores:
            core.foreign |= await self._foreign(models)
        points.when_ready(core.guards["store"].renew)
        core.start()
        if not await core.bus.joined():
            log.warning("some work does not come here yet: it will once the broker has shared it out")

    async def _foreign(self, models: Models) -> dict[str, CollectionInfo]:
        """Return the collections that another model made."""
        there, known = await self._backing.points.store.collections(Context.background()), encoders(models)
        ours = (known.model, known.dim, known.learned)
        sound = [info for info in there if info.state != DAMAGED]
        found = {info.name: info for info in sound if (info.model, info.dim, info.sparse) != ours}
        for name, info in found.items():
            log.warning("collection %s is of another model, %s: neither searched nor written", name, info.model)
        return found

    async def close(self) -> None:
        """End everything, the last started first."""
        if self._core is not None:
            await self._core.close()
        if self._processes is not None:
            await self._processes.close()
        await self._threads.close()
        await self._bulk.close()
        if self._models is not None:
            await self._models.close()

    def _parts(self, models: Models) -> Parts:
        """Return what the core stands on."""
        ml, clock = self._settings.ml, self._clock
        batch_tokens = ml.batch_tokens or models.batch_tokens
        settings = replace(self._settings, ml=replace(ml, batch_tokens=batch_tokens))
        limit = find_limit(settings.memory.limit)
        backing, points = self._backing, self._backing.points

        def shared_cache(name: str) -> Cache | None:
            return backing.shared.cache(name) if backing.shared is not None and settings.redis.cache else None

        return Parts(
            settings=settings,
            data_dir=self._data_dir,
            clock=clock,
            bus=lambda observer: bus(backing.broker, settings, clock, observer, marks(models)),
            store=points.store,
            encoders=replace(encoders(models), unread=unread(models, self._bulk.run)),
            workers=self._workers(models),
            remote=models.remote | ({"store"} if points.remote else set()),
            cache=caches(clock),
            shared_cache=shared_cache,
            shared_rates=backing.shared.rates() if backing.shared is not None and settings.redis.rates else None,
            memory=lambda made: MemoryWatch(limit, made),
            snapshots=points.snapshots,
            upkeep=points.upkeep,
            remembering=points.remembering,
            connections=backing.connections,
            look=points.look,
            give_back=lambda: self._bulk.run(partial(_give_back, models)),
            readiness=lambda: self._watch.reasons() + (points.missing if self._role.stores else []),
            warnings=lambda: self._watch.warnings() + points.warnings,
            watch=points.watch,
            pools=self._role.pools,
            answers=self._role.http,
        )

    def _workers(self, models: Models) -> Workers:
        """Return what the pools do: models in threads or asked over HTTP, chunkers in processes."""
        embed, encode, rerank = handlers(models, self._threads, self._bulk)
        count = min(self._settings.index.chunk_workers, cores())
        self._processes = Processes(count, worker.prepare, (models.tokenizer,))
        cutter = worker.Cutter(self._processes.run)

        async def chunk(message: ChunkText, _ctx: Context) -> list[Chunk]:
            return await cutter(message)

        return Workers(embed, encode, rerank, chunk)


def _give_back(models: Models) -> None:
    """Give memory back that models and allocator keep; in a thread."""
    gc.collect()  # a request that failed may have left its body in a circle: 2 to 5 ms
    models.shrink()
    allocator.trim()
