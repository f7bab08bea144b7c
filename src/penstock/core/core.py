"""Core of a server: gate → routes → topic → pool → guard → dependency, and the monitoring of all of it.

:mod:`penstock.core.core` wires everything between topics and dependencies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from penstock import __version__
from penstock.bus.contract import Handler
from penstock.bus.management import BreakerView, ManagedBus
from penstock.bus.model_clients import RERANK_TOKENS_MAX, TOKENS_MAX, BusEmbedder, BusReranker, BusSparseEncoder
from penstock.core import callback_metrics, status_report
from penstock.core.alert_publisher import AlertPublisher
from penstock.core.dependencies import Dependencies
from penstock.core.guards import StoreHealthCheck, build_caches, build_guards, build_remote, build_shared_rates
from penstock.http import openapi, responses
from penstock.http.api_dependencies import ApiDependencies
from penstock.http.gate import Gate, GateInputs, backpressure_check
from penstock.http.operations import Operations
from penstock.http.routes import ApiRouter
from penstock.indexing.chunk import Chunk
from penstock.indexing.document_records import ChunkBatch
from penstock.indexing.index_pipeline import ChunkBatchWriter, IndexPipeline
from penstock.kernel.context import Context
from penstock.kernel.messages import ChunkText, Topic
from penstock.models.batching import SLICE_TOKENS_MAX
from penstock.models.contract import Embedder, SparseEncoder
from penstock.policies.alerts import Measure
from penstock.policies.breaker import BreakerState
from penstock.policies.levels import LevelSettings
from penstock.pools.encoding_cache import CachedEmbedder, CachedSparseEncoder
from penstock.pools.guarded_store import GuardedStore, VectorLayout
from penstock.pools.permits import Permits, PoolRegistry
from penstock.search.degradation import LadderController
from penstock.search.pipeline import CrossEncoder, ResultCache, SearchPipeline
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import CollectionInfo
from penstock.stores.key_value_cache import ShrinkableCache
from penstock.telemetry.alert_monitor import AlertMonitor, MeasureSource
from penstock.telemetry.bus_metrics import BusMetrics
from penstock.telemetry.heartbeat import Heartbeat
from penstock.telemetry.memory_watch import MemoryReleaser
from penstock.telemetry.metrics import Metrics, runtime_metrics

#: Returns a message's kind of work. The latency of each is learnt for itself.
KindOf = Callable[[Any], str]


class Pipelines:
    """Search and index pipelines over the topics. Creating them subscribes the pools.

    Args:
        core: The core that they belong to, its stages up to the ladder made.

    Attributes:
        store: The vector store, behind its guard.
        embedder: Dense vectors, from the cache or else over a topic.
        sparse: Sparse vectors, the same way.
        reranker: Relevance, over a topic.
        index: Pipeline that turns documents into points.
        invalidate_results: Drops a collection's cached results.
    """

    def __init__(self, core: Core) -> None:
        self._core, self._deps = core, core.deps
        parts, settings = core.deps, core.deps.settings
        encoders = parts.models
        remembered = ResultCache(core.caches["answers"])
        layout = VectorLayout(encoders.model, encoders.dim, encoders.learned_sparse_model)
        self.invalidate_results = remembered.invalidate
        self.store: VectorStore = GuardedStore(
            parts.store, core.guards["store"], self.invalidate_results, layout, core.remotes.get("store")
        )
        self.embedder: Embedder = self._dense()
        self.sparse: SparseEncoder = self._sparse()
        self.reranker = self._reranker()
        self.index = self._index()
        search = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=settings.search,
            clock=parts.clock,
            prepare_sparse=encoders.sparse_query,
            fits_dense_model=encoders.fits_dense_model,
            rung_of=core.ladder.rung,
            result_cache=remembered,
            cross_encoder=CrossEncoder(self.reranker, settings.rerank_model.texts)
            if encoders.has_cross_encoder
            else None,
        )
        self._subscribe(search, ChunkBatchWriter(self.embedder, self.sparse, self.store, encoders.sparse_text))

    def _dense(self) -> CachedEmbedder:
        bus, parts, caches = self._core.bus, self._deps, self._core.caches
        encoders, settings = parts.models, parts.settings
        embedder = BusEmbedder(
            bus, parts.clock, settings.timeouts, settings.ml, dim=encoders.dim, token_dim=encoders.late
        )
        return CachedEmbedder(embedder, caches["embed"], encoders.model)

    def _sparse(self) -> CachedSparseEncoder:
        bus, parts, caches = self._core.bus, self._deps, self._core.caches
        encoders, settings = parts.models, parts.settings
        # A learned model takes as long as the dense one: a query must not wait behind all of a document's chunks.
        heavy = bool(encoders.learned_sparse_model) and "sparse" not in parts.remote_dependencies
        batch_tokens = (settings.ml.batch_tokens or SLICE_TOKENS_MAX) if heavy else 0
        encoder = BusSparseEncoder(bus, parts.clock, settings.timeouts, batch_tokens)
        return CachedSparseEncoder(encoder, caches["sparse"], encoders.sparse)

    def _reranker(self) -> BusReranker:
        bus, parts, settings = self._core.bus, self._deps, self._deps.settings
        batch_tokens = max(RERANK_TOKENS_MAX, settings.ml.batch_tokens)
        if "rerank" in parts.remote_dependencies:
            batch_tokens = max(batch_tokens, settings.rerank_model.batch * TOKENS_MAX)
        return BusReranker(bus, parts.clock, settings.timeouts, batch_tokens)

    def _index(self) -> IndexPipeline:
        bus, parts = self._core.bus, self._deps

        async def chunk(message: ChunkText, ctx: Context) -> list[Chunk]:
            chunks: list[Chunk] = await bus.request(Topic.INDEX_CHUNK, message, ctx)
            return chunks

        async def write(segment: ChunkBatch, ctx: Context) -> None:
            await bus.request(Topic.INDEX_REQUEST, segment, ctx)

        return IndexPipeline(
            store=self.store,
            chunk=chunk,
            write=write,
            settings=parts.settings.index,
            timeouts=parts.settings.timeouts,
            clock=parts.clock,
        )

    def _subscribe(self, search: SearchPipeline, writer: ChunkBatchWriter) -> None:
        """Subscribe the pools to the topics. Guards stand behind the topics, so that waiting is no failure."""
        bus, pools, parts = self._core.bus, self._core.pools, self._deps
        workers = parts.handlers
        by_kind: KindOf = lambda batch: str(batch.kind)  # noqa: E731 - needed here alone
        embed = self._guarded_handler("embed", Topic.ML_EMBED, workers.embed, by_kind)
        sparse = self._guarded_handler("sparse", Topic.ML_SPARSE, workers.sparse, by_kind)
        rerank = self._guarded_handler("rerank", Topic.ML_RERANK, workers.rerank, lambda _: "rerank")
        served: dict[str, tuple[Topic, Handler, Permits]] = {
            "embed": (Topic.ML_EMBED, embed, pools.embed),
            "sparse": (Topic.ML_SPARSE, sparse, pools.sparse),
            "rerank": (Topic.ML_RERANK, rerank, pools.rerank),
            "search": (Topic.SEARCH_REQUEST, search.run, pools.search),
            "index": (Topic.INDEX_REQUEST, writer.write, pools.index),
            "chunk": (Topic.INDEX_CHUNK, workers.chunk, pools.chunk),
        }
        for name, (topic, handler, permits) in served.items():
            if name in parts.pools:
                bus.subscribe(topic, handler, permits)

    def _guarded_handler(self, name: str, topic: Topic, handler: Handler, operation: KindOf) -> Handler:
        """Return a model's handler behind its guard and, if it is another server, behind its limit and retries."""
        remote = self._core.remotes.get(name)
        if remote is not None:
            return remote.handler(operation, handler, partial(self._core.bus.congested, topic))
        return self._core.guards[name].handler(name, handler)


#: Seconds between polls of the ladder and the topics' fills, and of everything slower.
FAST_PERIOD_S = 0.1
SLOW_PERIOD_S = 1.0

#: From this share of its buffer on, searches may be answered from the cache only, or refused by the ladder (D1).
QUEUE_PRESSED_FILL = LevelSettings().high


class Core:
    """A whole Penstock server on given dependencies. ``start`` it, serve ``gate``, ``close`` it.

    Args:
        deps: Models, store, clock and everything else that it is built on.

    Attributes:
        deps: As given.
        metrics: Everything that is counted.
        bus: The message bus.
        pools: The permits of each pool.
        guards: A circuit breaker for each dependency, by its name.
        breakers: The guards, and the broker's breaker where there is one.
        shared_rates: Clients' rates, where they are shared with other servers.
        remotes: Limits and retries toward dependencies on other servers, by the same names.
        ladder: The degradation ladder.
        memory_watch: The watch over memory.
        memory_releaser: Returns freed memory to the system.
        alert_monitor: Evaluates the alert rules.
        alert_publisher: Publishes alerts on the bus.
        heartbeat: Runs the periodic calls.
        gate: The ASGI application.
        store_health: Health check of the store.
        incompatible: Collections of another model than the server's, by name: neither searched nor written.
    """

    def __init__(self, deps: Dependencies) -> None:
        # The stages of a query, from the inside out: each is made of those before it.
        settings, clock = deps.settings, deps.clock
        self.deps = deps
        self.metrics = Metrics()
        # Guards: a dependency that fails or hangs is not asked for a while.
        self.guards = build_guards(deps)
        # Permits: no pool has more work at a time than its dependency does well.
        self.pools = PoolRegistry(settings)
        # Remotes: a server that slows down is asked less at a time, and retried within a budget.
        self.remotes = {
            name: build_remote(name, deps, self.guards[name], self.pools) for name in sorted(deps.remote_dependencies)
        }
        # Caches: what was computed once is not computed again.
        self.caches = build_caches(deps, self.guards)
        # Bus: work waits in bounded queues, fair between clients, and is dropped once it comes too late.
        self._bus_metrics = BusMetrics(clock)
        self.bus: ManagedBus = deps.make_bus(self._bus_metrics)
        self.breakers: list[BreakerView] = [*self.guards.values(), *self.bus.breakers]
        # Ladder: under pressure a search does less before any is refused.
        self.ladder = LadderController(
            settings.degradation,
            partial(self.bus.congested, Topic.SEARCH_REQUEST),
            lambda: self.bus.fill_ratio(Topic.SEARCH_REQUEST) >= QUEUE_PRESSED_FILL,
            clock,
        )
        # Router: what a caller sends is checked whole before any of it becomes work.
        self.incompatible: dict[str, CollectionInfo] = {}
        router = self._build_router(Pipelines(self))
        # Gate: what cannot be done in time is refused before its body is read.
        self._all_caches: tuple[ShrinkableCache, ...] = (*self.caches.values(), *deps.store_caches)
        self.memory_watch = deps.make_memory_watch(self._all_caches)
        self.shared_rates = build_shared_rates(deps, self.guards)
        inputs = GateInputs(backpressure_check(self.bus.check_admission), lambda: self.memory_watch.level, deps.rng)
        limiter = self.shared_rates.limiter if self.shared_rates is not None else None
        listens = (settings.server.host, settings.worker.host)
        self.gate = Gate(router, settings.http, self.metrics, inputs, limiter, listens)
        # Monitoring, beside the way of a query.
        self.memory_releaser = MemoryReleaser(deps.release_memory, clock) if deps.release_memory is not None else None
        self.alert_publisher = AlertPublisher(self.bus)
        self.heartbeat = Heartbeat(clock, FAST_PERIOD_S)
        self.alert_monitor = AlertMonitor(self._alert_sources(), clock)
        self.store_health = None
        if deps.probe_store is not None:
            self.store_health = StoreHealthCheck(
                deps.probe_store, self.guards["store"], clock, always="store" in deps.remote_dependencies
            )
        self._started_at_s = clock.now()
        self._register_periodic_calls()
        self._register_metrics()

    def __repr__(self) -> str:
        return f"<Core {self.gate!r} {self.ladder!r}>"

    def start(self) -> None:
        """Begin to watch; call it inside the running loop."""
        self.heartbeat.start()
        if self.shared_rates is not None:
            self.shared_rates.start()
            self.heartbeat.every(SLOW_PERIOD_S, self.shared_rates.sweep)
        if self.store_health is not None:
            self.heartbeat.every(SLOW_PERIOD_S, self.store_health.poll)

    async def drain_bus(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.bus.drain()
                return True
        return False

    async def close(self) -> None:
        """Stop watching, answer everything that waits with a refusal, stop what runs."""
        await self.heartbeat.close()
        if self.memory_releaser is not None:
            await self.memory_releaser.close()
        if self.store_health is not None:
            await self.store_health.close()
        if self.shared_rates is not None:
            await self.shared_rates.close()
        await self.bus.close()
        await self.alert_publisher.close()

    def unready_reasons(self) -> list[str]:
        """Return why the server is not ready, empty when it is."""
        reasons = ["the server is shutting down"] if self.gate.draining else []
        if self.guards["store"].state is not BreakerState.CLOSED:
            reasons.append("the vector store does not answer")
        return reasons + self._missing_peers() + self.deps.unready_reasons()

    def warnings(self) -> list[str]:
        """Return warnings about parts that do not work while the server does."""
        return self.deps.warnings()

    def _missing_peers(self) -> list[str]:
        """Return which instances are missing. A worker needs no other instance, only the broker."""
        if self.deps.serves_api:
            return self.bus.unready_reasons()
        return [
            f"{one.dependency} does not answer" for one in self.bus.breakers if one.state is not BreakerState.CLOSED
        ]

    def _build_router(self, flow: Pipelines) -> ApiRouter:
        """Return the router over the pipelines."""
        parts = self.deps
        services = ApiDependencies(
            settings=parts.settings,
            clock=parts.clock,
            bus=self.bus,
            store=flow.store,
            index=flow.index,
            embedder=flow.embedder,
            sparse=flow.sparse,
            reranker=flow.reranker,
            snapshots=parts.snapshots,
            invalidate_results=flow.invalidate_results,
            incompatible=self.incompatible,
            truncation=parts.models.truncation,
            model=parts.models.model,
            learned_sparse_model=parts.models.learned_sparse_model,
            status=self._status,
            unready_reasons=self.unready_reasons,
            warnings=self.warnings,
            alerts=self._alerts,
        )
        return ApiRouter(Operations(services), self.metrics, openapi.openapi_document(), serves_api=parts.serves_api)

    # --- Monitoring

    def _register_periodic_calls(self) -> None:
        """Register everything with the heartbeat that must be polled."""
        self._bus_metrics.fills = lambda: [(topic.name, topic.fill_ratio) for topic in self.bus.state()]
        self.heartbeat.every(FAST_PERIOD_S, self.ladder.observe_all)
        self.heartbeat.every(FAST_PERIOD_S, self._bus_metrics.sample_fills)
        self.heartbeat.every(SLOW_PERIOD_S, self.memory_watch.poll)
        self.heartbeat.every(SLOW_PERIOD_S, self.deps.watch_store)
        if self.memory_releaser is not None:
            self.memory_watch.release_memory = partial(self.memory_releaser.release, short=True)
            self.heartbeat.every(SLOW_PERIOD_S, self.memory_releaser.release)
        self.heartbeat.every(SLOW_PERIOD_S, self.alert_monitor.evaluate)
        self.alert_monitor.on_change = self.alert_publisher.publish
        for breaker in self.breakers:
            breaker.on_state_change = lambda _: self.alert_monitor.evaluate()

    def _alert_sources(self) -> Mapping[Measure, MeasureSource]:
        """Return the sources that the alert monitor reads."""
        return {
            Measure.QUEUE: lambda: [(topic.name, topic.fill_ratio) for topic in self.bus.state()],
            Measure.TASKS: lambda: [("", float(len(asyncio.all_tasks())))],
            Measure.BREAKER: lambda: [(one.dependency, float(one.state)) for one in self.breakers],
            Measure.MEMORY: lambda: [("", self.memory_watch.used / self.memory_watch.limit.bytes)],
            Measure.LOOP_LAG: lambda: [("", self.heartbeat.lag_s())],
            Measure.LADDER: lambda: [(one.name.lower(), float(rung)) for one, rung in self.ladder.state().items()],
        }

    def _register_metrics(self) -> None:
        """Register every metric for scrapes (SPEC §10)."""
        metrics = self.metrics
        metrics.register_callbacks(runtime_metrics())
        metrics.register_callbacks(callback_metrics.pool_metrics(self.pools, self.bus))
        metrics.register_callbacks(callback_metrics.topic_metrics(self.bus))
        metrics.register_callbacks(callback_metrics.breaker_metrics(self.breakers))
        metrics.register_callbacks(callback_metrics.remote_metrics(self.remotes))
        metrics.register_callbacks(callback_metrics.connection_metrics(self.deps.connections))
        metrics.register_callbacks(callback_metrics.ladder_metrics(self.ladder))
        metrics.register_callbacks(callback_metrics.cache_metrics(self._all_caches))
        metrics.register_callbacks(callback_metrics.memory_metrics(self.memory_watch))
        metrics.register_callbacks(callback_metrics.index_build_metrics(self.deps.upkeep))
        metrics.register_callbacks(self.gate.callback_metrics())
        metrics.register_callbacks(self.alert_monitor.callback_metrics())
        for one in (self._bus_metrics, self.heartbeat):
            metrics.register_callbacks(one.callback_metrics())
            metrics.register_histograms(one.histograms())

    # --- Status

    def _status(self, collections: list[CollectionInfo]) -> responses.ServerStatus:
        reasons, parts = self.unready_reasons(), self.deps
        return responses.ServerStatus(
            version=__version__,
            uptime_s=round(parts.clock.now() - self._started_at_s, 1),
            ready=not reasons,
            reasons=reasons,
            data_dir=str(parts.data_dir),
            model=parts.models.model,
            dim=parts.models.dim,
            in_flight=self.gate.in_flight,
            collections=collections,
            topics=[status_report.topic_status(topic) for topic in self.bus.state()],
            pools=[responses.PoolStatus(pool.name, pool.active, pool.limit) for pool in self.pools.all()],
            breakers=[status_report.breaker_status(one) for one in self.breakers],
            ladder=status_report.ladder_status(self.ladder.state()),
            caches=status_report.cache_status(self._all_caches),
            memory=status_report.memory_status(self.memory_watch),
            traffic=status_report.traffic_status(self.gate, self.metrics),
            process=status_report.process_status(self.heartbeat.lag_s_max()),
            alerts=[alert for alert in self._alerts() if alert.active],
            models=status_report.model_status(parts.models.infos),
            warnings=self.warnings(),
        )

    def _alerts(self) -> list[responses.AlertStatus]:
        return [status_report.alert_status(alert) for alert in self.alert_monitor.alerts()]
