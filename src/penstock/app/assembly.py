"""Assembly of the core on real dependencies: models, threads, processes, caches.

:mod:`penstock.core.core` wires them. The services outside of the process are in
:mod:`penstock.app.backing_services`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.app.backing_services import BackingServices
from penstock.app.external_backends import topic_capacities
from penstock.app.role import Role
from penstock.bus.broker import Broker
from penstock.bus.broker_breaker import BrokerBreaker
from penstock.bus.contract import Handler
from penstock.bus.counters import BusObserver
from penstock.bus.distributed import BrokerBus
from penstock.bus.local import LocalBus
from penstock.bus.management import ManagedBus
from penstock.bus.record_codec import MessageTypes, RecordCodec
from penstock.bus.rpc_client import BrokerTransport
from penstock.core.core import Core
from penstock.core.dependencies import Dependencies, ModelTraits
from penstock.http.gate import Gate, build_gate
from penstock.indexing import chunk_worker
from penstock.indexing.chunk import Chunk
from penstock.indexing.document_records import ChunkBatch
from penstock.indexing.model_inputs import BM25_INPUTS, LEARNED_INPUTS
from penstock.indexing.sources.index_roots import IndexRoots
from penstock.indexing.sources.source_watches import SourceWatches
from penstock.kernel import allocator, messages
from penstock.kernel.context import Clock, Context
from penstock.kernel.cores import available_cores
from penstock.kernel.messages import ChunkText, Topic
from penstock.kernel.settings import Settings
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.models.bm25 import Bm25Runner
from penstock.models.factory import ModelFactory, Models
from penstock.models.truncation import token_usage, truncation_checks
from penstock.pools.guarded_store import VectorLayout
from penstock.pools.model_handlers import BULK_NICENESS, model_handlers
from penstock.pools.process_pool import ProcessPool
from penstock.pools.thread_pool import ThreadPool
from penstock.search.request import SearchRequest, SearchResult
from penstock.stores.commands import ListCollections
from penstock.stores.data_model import STATE_DAMAGED, CollectionInfo
from penstock.stores.directory_watch import DataDirectoryWatch
from penstock.stores.key_value_cache import KeyValueCache
from penstock.telemetry.audit_log import AuditLog
from penstock.telemetry.memory_watch import MemoryWatch, find_memory_limit


def model_traits(models: Models) -> ModelTraits:
    """Return the traits of the models that the core depends on."""
    dense, sparse, _ = models.infos
    learned = models.has_learned_sparse
    return ModelTraits(
        model=dense.name,
        dim=models.dim,
        late=models.token_dim,
        sparse=sparse.name,
        fits_dense_model=lambda text: not models.tokenizer.truncated(text),
        knows_letters=(lambda _: True) if learned else models.tokenizer.knows,
        sparse_inputs=LEARNED_INPUTS if learned else BM25_INPUTS,
        learned_sparse_model=sparse.name if learned else "",
        has_cross_encoder=models.has_cross_encoder,
        infos=tuple(models.infos),
        bm25=models.sparse if isinstance(models.sparse, Bm25Runner) else None,
    )


def compatibility_keys(models: Models) -> dict[str, str]:
    """Return the model names that instances must share to do each other's work, by topic."""
    dense, sparse, rerank = (one.name for one in models.infos)
    return {Topic.ML_EMBED: dense, Topic.ML_SPARSE: sparse, Topic.ML_RERANK: f"{dense} {rerank}"}


log = logging.getLogger(__name__)

#: Message and reply types of each topic, for (de)serialisation between processes (SPEC B7).
MESSAGE_TYPES: Final[dict[str, MessageTypes]] = {
    Topic.ML_EMBED: MessageTypes(messages.EmbedBatch, Embeddings),
    Topic.ML_SPARSE: MessageTypes(messages.SparseBatch, list[SparseVector]),
    Topic.ML_RERANK: MessageTypes(messages.RerankTexts, NDArray[np.float32]),
    Topic.SEARCH_REQUEST: MessageTypes(SearchRequest, SearchResult),
    Topic.INDEX_REQUEST: MessageTypes(ChunkBatch, None),
    Topic.INDEX_CHUNK: MessageTypes(messages.ChunkText, list[Chunk]),
    Topic.INDEX_PROGRESS: MessageTypes(messages.IndexProgress, None),
    Topic.INDEX_COMPLETE: MessageTypes(messages.IndexComplete, None),
    Topic.COLLECTION_CREATED: MessageTypes(messages.CollectionCreated, None),
    Topic.COLLECTION_DELETED: MessageTypes(messages.CollectionDeleted, None),
    Topic.ALERT_TRIGGERED: MessageTypes(messages.AlertTriggered, None),
    Topic.SEARCH_COMPLETE: MessageTypes(messages.SearchComplete, None),
}

#: Called with a stage's name, what is done of it and its total.
Progress = Callable[[str, int, int], None]


class Assembly:
    """The core and all that it computes with. ``start`` it once, ``close`` it in the end."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        role: Role,
        backing_services: BackingServices,
        clock: Clock,
        watch: DataDirectoryWatch,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._role = role
        self._backing_services = backing_services
        self._clock = clock
        self._watch = watch
        self._audit = AuditLog(data_dir)
        self._source_watches = SourceWatches(IndexRoots(settings.index.roots, data_dir))
        allocator.configure_malloc()
        count = settings.ml.threads or available_cores()
        self._threads = ThreadPool(count, "penstock-ml")
        self._bulk_threads = ThreadPool(count, "penstock-bulk", BULK_NICENESS)
        self._processes: ProcessPool | None = None
        self._models: Models | None = None
        self.core: Core | None = None
        self.gate: Gate | None = None

    async def start(self, model_cache: Path, progress: Progress) -> None:
        """Prepare and check the models, start the store where it is ours, wire the topics.

        Args:
            model_cache: Where prepared models are kept.
            progress: Called from another thread.

        Raises:
            PenstockError: Saying what is missing; :meth:`close` then.
        """
        points, stores = self._backing_services.store_service, self._role.needs_store
        choice = ModelFactory(self._settings, model_cache, self._clock, local_pools=self._role.pools)
        self._models = models = await asyncio.to_thread(choice.load, progress)
        await models.check_endpoints(self._clock)
        if stores:
            await points.start()
        self.core = core = Core(self._dependencies(models))
        self.gate = build_gate(core)
        if stores:
            core.incompatible |= await self._find_incompatible(core.layout)
        points.when_ready(core.guards["store"].reset)
        core.start()
        if self._role.serves_api:
            await core.tasks.load()
        if not await core.bus.wait_joined():
            log.warning("this process does not receive all its work yet; it will once the broker has assigned it")

    async def _find_incompatible(self, layout: VectorLayout) -> dict[str, CollectionInfo]:
        """Return the collections that another model made."""
        there = await self._backing_services.store_service.store.run(ListCollections(), Context.background())
        ours = (layout.model, layout.dim, layout.sparse_model)
        sound = [info for info in there if info.state != STATE_DAMAGED]
        found = {info.name: info for info in sound if (info.model, info.dim, info.sparse) != ours}
        for name, info in found.items():
            log.warning("collection %s is of another model, %s; it is neither searched nor written", name, info.model)
        return found

    async def close(self) -> None:
        """End everything, the last started first."""
        if self.core is not None:
            await self.core.close()
        if self._processes is not None:
            await self._processes.close()
        await self._threads.close()
        await self._bulk_threads.close()
        if self._models is not None:
            await self._models.close()
        await asyncio.to_thread(self._audit.close)

    def _dependencies(self, models: Models) -> Dependencies:
        ml, clock = self._settings.ml, self._clock
        batch_tokens = ml.batch_tokens or models.batch_tokens
        settings = replace(self._settings, ml=replace(ml, batch_tokens=batch_tokens))
        limit = find_memory_limit(settings.memory.limit)
        backing, points = self._backing_services, self._backing_services.store_service

        def shared_cache(name: str) -> KeyValueCache | None:
            return backing.shared.cache(name) if backing.shared is not None and settings.redis.cache else None

        return Dependencies(
            settings=settings,
            data_dir=self._data_dir,
            clock=clock,
            make_bus=lambda observer: build_bus(backing.broker, settings, clock, observer, compatibility_keys(models)),
            store=points.store,
            models=replace(
                model_traits(models),
                truncation=truncation_checks(models, self._bulk_threads.run),
                token_usage=token_usage(models, self._bulk_threads.run),
            ),
            handlers=self._pool_handlers(models),
            remote_dependencies=models.remote_pools | ({"store"} if points.remote else set()),
            make_shared_cache=shared_cache,
            token_buckets=backing.shared.token_buckets()
            if backing.shared is not None and settings.redis.rates
            else None,
            make_memory_watch=lambda made: MemoryWatch(limit, made),
            snapshots=points.snapshots,
            upkeep=points.index_builds,
            store_caches=points.caches,
            breakers=points.breakers,
            connections=backing.connections,
            probe_store=points.probe,
            release_memory=lambda: self._bulk_threads.run(partial(_release_memory, models)),
            unready_reasons=lambda: self._watch.reasons() + (points.down_reasons if self._role.needs_store else []),
            warnings=lambda: self._watch.warnings() + points.warnings,
            watch_store=points.check_processes,
            pools=self._role.pools,
            serves_api=self._role.serves_api,
            keys=backing.keys.keys,
            audit=self._audit,
            source_watches=self._source_watches,
        )

    def _pool_handlers(self, models: Models) -> dict[str, Handler]:
        """Return the pools' handlers: models in threads or over HTTP, chunkers in processes."""
        embed, encode, rerank = model_handlers(models, self._threads, self._bulk_threads)
        count = min(self._settings.index.chunk_workers, available_cores())
        self._processes = ProcessPool(count, chunk_worker.init_process, (models.tokenizer,))
        cutter = chunk_worker.FallbackChunker(self._processes.run)

        async def chunk(message: ChunkText, _ctx: Context) -> list[Chunk]:
            return await cutter(message)

        return {"embed": embed, "sparse": encode, "rerank": rerank, "chunk": chunk}


def _release_memory(models: Models) -> None:
    """Return memory that models and allocator keep to the system. Runs in a thread."""
    gc.collect()  # a request that failed may have left its body in a reference cycle: 2 to 5 ms
    models.shrink()
    allocator.trim_heap()


def build_bus(
    broker: Broker | None, settings: Settings, clock: Clock, observer: BusObserver, compatibility_keys: dict[str, str]
) -> ManagedBus:
    """Return the bus: within this process alone, or over a broker to others.

    Args:
        broker: From :func:`penstock.app.external_backends.build_broker`.
        settings: Its buffers, limits and breaker.
        clock: The loop's clock.
        observer: Observer of waits, fills and losses.
        compatibility_keys: What instances must have in common to do each other's work, by topic.
    """
    if broker is None:
        return LocalBus(settings.bus, topic_capacities(settings), clock, observer)
    codec, breaker = RecordCodec(MESSAGE_TYPES, settings.bus.record_max), BrokerBreaker(broker.name, settings.breaker)
    return BrokerBus(
        BrokerTransport(broker, codec, breaker),
        settings.bus,
        topic_capacities(settings),
        clock,
        observer,
        compatibility_keys,
    )
