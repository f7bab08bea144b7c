"""Core of a server: topic → pool → guard → dependency, and the monitoring of all of it.

:mod:`penstock.core.core` wires everything between topics and dependencies. The API and its gate stand before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, Final

from penstock.bus.contract import Bus, Handler
from penstock.bus.management import BreakerView, ManagedBus
from penstock.bus.model_clients import RERANK_TOKENS_MAX, TOKENS_MAX, BusEmbedder, BusReranker, BusSparseEncoder
from penstock.core import callback_metrics
from penstock.core.callback_metrics import TOPIC_BY_POOL
from penstock.core.dependencies import Dependencies
from penstock.core.guards import StoreHealthCheck, build_caches, build_guards, build_remote, build_shared_rates
from penstock.core.traffic import Traffic, build_load_shedder
from penstock.indexing.embedding_backfill import EmbeddingBackfill
from penstock.indexing.index_pipeline import ChunkBatchWriter, IndexPipeline
from penstock.indexing.text_renewal import TextRenewal
from penstock.kernel.context import Context, Criticality
from penstock.kernel.messages import AlertTriggered, Topic
from penstock.models.batching import SLICE_TOKENS_MAX
from penstock.models.contract import Embedder, SparseEncoder
from penstock.policies.alerts import Measure, RaisedAlert
from penstock.policies.breaker import BreakerState
from penstock.policies.bucket import RateLimiter, RateSettings
from penstock.policies.ladder import Rung
from penstock.policies.levels import Level
from penstock.pools.encoding_cache import CachedEmbedder, CachedSparseEncoder
from penstock.pools.guarded_store import GuardedStore, VectorLayout
from penstock.pools.permits import PoolRegistry
from penstock.pools.text_versions import SHARED_LIFETIME_S, TextVersions
from penstock.search.cross_encoder import CrossEncoder
from penstock.search.degradation import JUST_NOW_S, LadderController
from penstock.search.highlights import folded_word
from penstock.search.pipeline import SearchPipeline
from penstock.search.result_cache import ResultCache
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import CollectionInfo
from penstock.stores.key_value_cache import ShrinkableCache
from penstock.tasks.runner import TaskRunner
from penstock.tasks.spool import SPOOL, TaskSpool
from penstock.telemetry.alert_monitor import AlertMonitor, MeasureSource
from penstock.telemetry.bus_metrics import BusMetrics
from penstock.telemetry.heartbeat import Heartbeat
from penstock.telemetry.memory_watch import MemoryReleaser
from penstock.telemetry.metrics import Metrics, runtime_metrics, unlabelled

#: Returns a message's kind of work. The latency of each is learnt for itself.
KindOf = Callable[[Any], str]

#: Seconds between polls of the ladder and the topics' fills, and of everything slower.
FAST_PERIOD_S = 0.1
SLOW_PERIOD_S = 1.0

#: Alerts that are published at once. Those beyond are only logged and listed.
ALERTS_IN_FLIGHT_MAX: Final = 100


class AlertPublisher:
    """Publishes alerts on the bus in background tasks.

    Bounds:
        :data:`ALERTS_IN_FLIGHT_MAX` at once.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def publish(self, alert: RaisedAlert) -> None:
        """Begin to publish an alert. Call it inside the running loop."""
        if len(self._tasks) >= ALERTS_IN_FLIGHT_MAX:
            return
        rule = alert.rule
        told = AlertTriggered(rule.name, rule.severity.value, alert.subject, alert.detail, alert.active)
        task = asyncio.get_running_loop().create_task(
            self._bus.publish(Topic.ALERT_TRIGGERED, told, Context.background()), name="alert"
        )
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def close(self) -> None:
        """Cancel the publications that have not ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a full or closed bus has reported it itself


class Core:
    """A whole Penstock behind its API, on given dependencies. ``start`` it, ``close`` it."""

    def __init__(self, deps: Dependencies) -> None:
        # The stages of a query, from the inside out: each is made of those before it.
        settings, clock, http = deps.settings, deps.clock, deps.settings.http
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
        self.all_caches: tuple[ShrinkableCache, ...] = (*self.caches.values(), *deps.store_caches)
        # Bus: work waits in bounded queues, fair between clients, and is dropped once it comes too late.
        self._bus_metrics = BusMetrics(clock)
        self.bus: ManagedBus = deps.make_bus(self._bus_metrics)
        self.breakers: list[BreakerView] = [*self.guards.values(), *self.bus.breakers, *deps.breakers]
        self.traffic = Traffic(shedder=build_load_shedder(http, self._searches_are_exhausted))
        # Ladder: under pressure a search does less before any is refused.
        self.ladder = LadderController(
            settings.degradation,
            partial(self.bus.pressure, Topic.SEARCH_REQUEST),
            partial(self.bus.fill_ratio, Topic.SEARCH_REQUEST),
            clock,
            self.traffic.overloaded_at_s,
        )
        # Pipelines: from a query to hits, from a document to points.
        self._build_pipelines()
        # Gate: what cannot be done in time is refused before its body is read, by these.
        self.memory_watch = deps.make_memory_watch(self.all_caches)
        self.shared_rates = build_shared_rates(deps, self.guards)
        own = RateLimiter(RateSettings(http.rate_limit, http.rate_burst))
        self.limiter: RateLimiter = self.shared_rates.limiter if self.shared_rates is not None else own
        # Tasks: what was accepted goes on without its caller, unless memory is short.
        self.tasks = TaskRunner(
            TaskSpool(deps.data_dir / SPOOL), settings.tasks, lambda: self.memory_watch.level is not Level.CRITICAL
        )
        # Monitoring, beside the way of a query.
        self.memory_releaser = MemoryReleaser(deps.release_memory, clock) if deps.release_memory is not None else None
        self.alert_publisher = AlertPublisher(self.bus)
        self.heartbeat = Heartbeat(clock, FAST_PERIOD_S)
        self.alert_monitor = AlertMonitor(self._alert_sources(), clock)
        self.store_health = None
        if deps.probe_store is not None:
            always = "store" in deps.remote_dependencies
            self.store_health = StoreHealthCheck(deps.probe_store, self.guards["store"], clock, always=always)
        self.started_at_s = clock.now()
        self._register_periodic_calls()
        self._register_metrics()

    def __repr__(self) -> str:
        return f"<Core {self.traffic.in_flight} in flight, {self.ladder!r}>"

    def _searches_are_exhausted(self) -> bool:
        """Return whether urgent searches give up all that they can, and some still end in vain."""
        degraded = self.ladder.state()[Criticality.INTERACTIVE] >= Rung.ONE_ARM
        return degraded and self.deps.clock.now() - self.traffic.in_vain_at_s < JUST_NOW_S

    def start(self) -> None:
        """Begin to watch; call it inside the running loop."""
        self.heartbeat.start()
        if self.shared_rates is not None:
            self.shared_rates.start()
            self.heartbeat.every(SLOW_PERIOD_S, self.shared_rates.sweep)
        if self.store_health is not None:
            self.heartbeat.every(SLOW_PERIOD_S, self.store_health.poll)
        # Workers only embed what they are asked to.
        if self.deps.serves_api:
            self.backfill.start()

    async def drain_bus(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.bus.drain()
                return True
        return False

    async def close(self) -> None:
        """Stop watching, put tasks back, answer everything that waits with a refusal, stop what runs."""
        await self.tasks.close()
        await self.heartbeat.close()
        await self.backfill.close()
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
        reasons = ["the server is shutting down"] if self.traffic.draining else []
        if self.guards["store"].state is not BreakerState.CLOSED:
            reasons.append("the vector store does not answer")
        return reasons + self._missing_peers() + self.deps.unready_reasons()

    def _missing_peers(self) -> list[str]:
        """Return which instances are missing. A worker needs no other instance, only the broker."""
        if self.deps.serves_api:
            return self.bus.unready_reasons()
        return [
            f"{one.dependency} does not answer" for one in self.bus.breakers if one.state is not BreakerState.CLOSED
        ]

    # --- Pipelines

    def _build_pipelines(self) -> None:
        """Build the search and index pipelines over the topics, and subscribe the pools."""
        deps, traits = self.deps, self.deps.models
        settings = deps.settings
        self.layout = VectorLayout(traits.model, traits.dim, traits.learned_sparse_model)
        self.incompatible: dict[str, CollectionInfo] = {}
        self.results = ResultCache(self.caches["answers"])
        self.store: VectorStore = GuardedStore(
            deps.store, self.guards["store"], self.forget, self.layout, self.remotes.get("store")
        )
        shared = "store" in deps.remote_dependencies
        self._text_versions = TextVersions(self.store, deps.clock, shared=shared)
        embedder = BusEmbedder(
            self.bus, deps.clock, settings.timeouts, settings.ml, dim=traits.dim, token_dim=traits.late
        )
        self.embedder: Embedder = CachedEmbedder(embedder, self.caches["embed"], traits.model)
        self.sparse: SparseEncoder = self._sparse()
        self.reranker = self._reranker()
        self.backfill = EmbeddingBackfill(
            self.store,
            self.embedder,
            settings,
            deps.clock,
            model=traits.model,
            shared=shared,
        )
        self.index = IndexPipeline(
            store=self.store,
            backfill=self.backfill,
            chunk=partial(self.bus.request, Topic.INDEX_CHUNK),
            write=partial(self.bus.request, Topic.INDEX_REQUEST),
            settings=settings.index,
            timeouts=settings.timeouts,
            clock=deps.clock,
        )
        search = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=settings.search,
            clock=deps.clock,
            prepare_sparse=traits.sparse_inputs.query,
            text_version=self._text_versions.version,
            fits_dense_model=traits.fits_dense_model,
            knows_letters=traits.knows_letters,
            word_terms=traits.bm25.word_terms if traits.bm25 is not None else folded_word,
            rung_of=self.ladder.rung,
            result_cache=self.results,
            backfill=self.backfill,
            cross_encoder=CrossEncoder(self.reranker, settings.rerank_model.texts)
            if traits.has_cross_encoder
            else None,
        )
        settle_s = SHARED_LIFETIME_S + settings.timeouts.store if shared else 0.0
        self.renewal = TextRenewal(self.store, self.sparse, traits.sparse_inputs.chunk, self.forget, settle_s)
        version, compose = self._text_versions.version, traits.sparse_inputs.chunk
        self._subscribe(search, ChunkBatchWriter(self.embedder, self.sparse, self.store, version, compose))

    def forget(self, collection: str) -> None:
        """Forget what is remembered of a collection from which something was removed, or that was replaced."""
        self.results.invalidate(collection)
        self._text_versions.forget(collection)
        self.backfill.forget(collection)

    def _sparse(self) -> CachedSparseEncoder:
        bus, parts, caches = self.bus, self.deps, self.caches
        encoders, settings = parts.models, parts.settings
        # A learned model takes as long as the dense one: a query must not wait behind all of a document's chunks.
        heavy = bool(encoders.learned_sparse_model) and "sparse" not in parts.remote_dependencies
        batch_tokens = (settings.ml.batch_tokens or SLICE_TOKENS_MAX) if heavy else 0
        encoder = BusSparseEncoder(bus, parts.clock, settings.timeouts, batch_tokens)
        return CachedSparseEncoder(encoder, caches["sparse"], encoders.sparse, encoders.bm25)

    def _reranker(self) -> BusReranker:
        bus, parts, settings = self.bus, self.deps, self.deps.settings
        batch_tokens = max(RERANK_TOKENS_MAX, settings.ml.batch_tokens)
        if "rerank" in parts.remote_dependencies:
            batch_tokens = max(batch_tokens, settings.rerank_model.batch * TOKENS_MAX)
        return BusReranker(bus, parts.clock, settings.timeouts, batch_tokens)

    def _subscribe(self, search: SearchPipeline, writer: ChunkBatchWriter) -> None:
        """Subscribe the pools to the topics. Guards stand behind the topics, so that waiting is no failure."""
        handlers: dict[str, Handler] = {**self.deps.handlers, "search": search.run, "index": writer.write}
        handlers["embed"] = self._guarded_handler("embed", handlers["embed"], attrgetter("kind"))
        handlers["sparse"] = self._guarded_handler("sparse", handlers["sparse"], attrgetter("kind"))
        handlers["rerank"] = self._guarded_handler("rerank", handlers["rerank"], lambda _: "rerank")
        for pool in self.pools.all():
            if pool.name in self.deps.pools:
                self.bus.subscribe(TOPIC_BY_POOL[pool.name], handlers[pool.name], pool)

    def _guarded_handler(self, name: str, handler: Handler, operation: KindOf) -> Handler:
        """Return a model's handler behind its guard and, if it is another server, behind its limit and retries."""
        remote = self.remotes.get(name)
        if remote is not None:
            return remote.handler(operation, handler, partial(self.bus.congested, TOPIC_BY_POOL[name]))
        return self.guards[name].handler(name, handler)

    # --- Monitoring

    def _register_periodic_calls(self) -> None:
        self._bus_metrics.fills = lambda: [(topic.name, topic.fill_ratio) for topic in self.bus.state()]
        self.heartbeat.every(FAST_PERIOD_S, self.ladder.observe_all)
        self.heartbeat.every(SLOW_PERIOD_S, self.tasks.fill)
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
        return {
            Measure.QUEUE: lambda: [(topic.name, topic.fill_ratio) for topic in self.bus.state()],
            Measure.TASKS: lambda: [("", float(len(asyncio.all_tasks())))],
            Measure.BREAKER: lambda: [(one.dependency, float(one.state)) for one in self.breakers],
            Measure.MEMORY: lambda: [("", self.memory_watch.used / self.memory_watch.limit.bytes)],
            Measure.LOOP_LAG: lambda: [("", self.heartbeat.lag_s())],
            Measure.LADDER: lambda: [(one.name.lower(), float(rung)) for one, rung in self.ladder.state().items()],
        }

    def _register_metrics(self) -> None:
        limiter = unlabelled("http_rate_limit_clients", lambda: len(self.limiter))
        backfill = unlabelled("chunks_pending", lambda: self.backfill.pending)
        self.metrics.register_callbacks(
            [
                *runtime_metrics(),
                *callback_metrics.pool_metrics(self.pools, self.bus),
                *callback_metrics.topic_metrics(self.bus),
                *callback_metrics.dependency_metrics(self.breakers, self.remotes, self.deps.connections),
                *callback_metrics.ladder_metrics(self.ladder),
                *callback_metrics.cache_metrics(self.all_caches),
                *callback_metrics.memory_metrics(self.memory_watch),
                *callback_metrics.index_build_metrics(self.deps.upkeep),
                *callback_metrics.task_metrics(self.tasks.queue),
                *self.traffic.callback_metrics(),
                *self.alert_monitor.callback_metrics(),
                *self._bus_metrics.callback_metrics(),
                *self.heartbeat.callback_metrics(),
                limiter,
                backfill,
            ]
        )
        self.metrics.register_histograms([*self._bus_metrics.histograms, *self.heartbeat.histograms])
