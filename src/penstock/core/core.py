"""The wiring: gate → routes → topic → pool → guard → dependency, and what watches over it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from penstock import __version__
from penstock.bus.clients import BusEmbedder, BusReranker, BusSparseEncoder
from penstock.bus.contract import Bus, Handler
from penstock.bus.link import Link
from penstock.core import readings, state
from penstock.core.parts import Parts
from penstock.http import answers, openapi
from penstock.http.gate import Gate, Receive, Scope, Send, Senses
from penstock.http.operations import Operations, Services
from penstock.http.routes import Routes, pressure
from penstock.indexing.chunk import Chunk
from penstock.indexing.pipeline import IndexPipeline, SegmentWriter
from penstock.indexing.records import Segment
from penstock.kernel.messages import AlertTriggered, ChunkText, Topic
from penstock.kernel.settings import TimeoutSettings
from penstock.kernel.work import Work
from penstock.models.batching import SLICE_TOKENS_MAX
from penstock.models.contract import Embedder, SparseEncoder
from penstock.policies.alerts import Measure
from penstock.policies.breaker import State
from penstock.policies.bucket import RateSettings
from penstock.policies.levels import LevelSettings
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.cached import CachedEmbedder, CachedSparseEncoder
from penstock.pools.guard import Guard
from penstock.pools.guarded import GuardedStore, Layout
from penstock.pools.house import Pools
from penstock.pools.layered import LayeredCache
from penstock.pools.permits import Permits
from penstock.pools.remote import Remote
from penstock.pools.shared_rates import SharedRates
from penstock.search.answers import AnswerCache
from penstock.search.pipeline import Cross, SearchPipeline
from penstock.search.rungs import Rungs
from penstock.stores.cache import Cache
from penstock.stores.contract import CollectionInfo, VectorStore
from penstock.telemetry.alarms import Alarms, AlertRecord, Source
from penstock.telemetry.bus_metrics import BusMetrics
from penstock.telemetry.heartbeat import Heartbeat
from penstock.telemetry.metrics import Metrics, runtime_readings

#: How often the ladder and the topics' fills are looked at, and everything slower.
QUICK_S = 0.1
SLOW_S = 1.0

#: From this share of its buffer on, searches may be answered from memory only, or refused by the ladder (D1).
PRESSED = LevelSettings().high

#: Calls to a store that is another server that may always be out, however slow it is: enough for a few searches.
STORE_CALLS_MIN = 8

#: The dependency that holds what several servers share, and after how long it counts as hanging.
SHARED = "redis-shared"
SHARED_S = 0.05

#: Announcements of alerts on their way to the bus; those beyond are only logged and listed.
ANNOUNCEMENTS_MAX = 100


class Core:
    """A whole Penstock but for its parts. ``start`` it, serve ``gate``, ``close`` it.

    Args:
        parts: What it stands on.

    Attributes:
        metrics: Everything that is counted.
        bus: Where work waits.
        pools: The permits.
        guards: A circuit breaker for each dependency, by its name.
        breakers: Theirs, and that of the broker where there is one.
        rates: Clients' rates, where they are shared with other servers.
        remotes: The limits and retries toward those that are other servers, by the same names.
        rungs: The degradation ladder.
        memory: The watch over memory.
        alarms: What is wrong.
        heartbeat: What looks at all of it again and again.
        gate: The ASGI application.
        foreign: Collections of another model than the server's, by name: neither searched nor written.
    """

    def __init__(self, parts: Parts) -> None:
        settings, clock = parts.settings, parts.clock
        self._parts = parts
        self.metrics = Metrics()
        self._observer = BusMetrics(clock)
        self.bus: Bus = parts.bus(self._observer)
        self.pools = Pools(settings)
        self.guards = {
            name: Guard(name, settings.breaker, clock, patience_s=patience_s, random=parts.luck)
            for name, patience_s in patience(settings.timeouts).items()
        }
        if settings.redis.shared:
            self.guards[SHARED] = Guard(SHARED, settings.breaker, clock, patience_s=SHARED_S, random=parts.luck)
        self.breakers: list[Guard | Link] = [*self.guards.values(), *self.bus.links]
        self.remotes = {name: self._remote(name) for name in sorted(parts.remote)}
        self.caches = _caches(parts, self.guards)
        self.rungs = Rungs(
            settings.degradation,
            partial(self.bus.congested, Topic.SEARCH_REQUEST),
            lambda: self.bus.used(Topic.SEARCH_REQUEST) >= PRESSED,
            clock,
        )
        self.memory = parts.memory(tuple(self.caches.values()))
        self.heartbeat = Heartbeat(clock, QUICK_S)
        self.alarms = Alarms(self._sources(), clock)
        senses = Senses(pressure(self.bus.refuses), lambda: self.memory.level, parts.luck)
        self.rates = self._shared_rates()
        limiter = self.rates.limiter if self.rates is not None else None
        self.gate = Gate(self._dispatch, settings.http, self.metrics, senses, limiter)
        self.foreign: dict[str, CollectionInfo] = {}
        self._announcements: set[asyncio.Task[None]] = set()
        self._began_s = clock.now()
        self._routes = self._wire()
        self._watch()
        self._expose()

    def __repr__(self) -> str:
        return f"<Core {self.gate!r} {self.rungs!r}>"

    def start(self) -> None:
        """Begin to watch; call it inside the running loop."""
        self.heartbeat.start()
        if self.rates is not None:
            self.rates.start()
            self.heartbeat.every(SLOW_S, self.rates.look)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more work from other instances; return whether what was taken has ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.bus.drain()
                return True
        return False

    async def close(self) -> None:
        """Stop watching, answer everything that waits with a refusal, stop what runs."""
        await self.heartbeat.close()
        if self.rates is not None:
            await self.rates.close()
        await self.bus.close()
        for task in self._announcements:
            task.cancel()
        await asyncio.gather(*self._announcements, return_exceptions=True)

    def reasons(self) -> list[str]:
        """Return why the server cannot work now; empty when it can."""
        reasons = ["the server is shutting down"] if self.gate.draining else []
        if "store" in self.remotes and self.guards["store"].state is State.OPEN:
            reasons.append("the vector store does not answer")
        return reasons + self.bus.missing() + self._parts.readiness()

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes(scope, receive, send)

    # --- From the gate to the dependencies

    def _wire(self) -> Routes:
        """Subscribe the pools to the topics, and hand the pipelines their Protocols."""
        parts, bus, clock, settings = self._parts, self.bus, self._parts.clock, self._parts.settings
        remembered = AnswerCache(self.caches["answers"])
        encoders = parts.encoders
        layout = Layout(encoders.model, encoders.dim, encoders.learned)
        store = GuardedStore(parts.store, self.guards["store"], remembered.forget, layout, self.remotes.get("store"))
        embedder, encoder = self._encoders()
        reranker = BusReranker(bus, clock, settings.timeouts)
        search = SearchPipeline(
            embedder=embedder,
            sparse=encoder,
            store=store,
            settings=settings.search,
            clock=clock,
            prepare=parts.encoders.sparse_query,
            reads_whole=parts.encoders.reads_whole,
            rung=self.rungs.rung,
            answers=remembered,
            cross=Cross(reranker, settings.rerank_model.texts) if encoders.crossed else None,
        )
        self._subscribe(search, SegmentWriter(embedder, encoder, store, parts.encoders.sparse_text))
        services = Services(
            settings=settings,
            clock=clock,
            bus=bus,
            store=store,
            index=self._index(store),
            embedder=embedder,
            sparse=encoder,
            reranker=reranker,
            snapshots=parts.snapshots,
            forget=remembered.forget,
            foreign=self.foreign,
            model=parts.encoders.model,
            learned=parts.encoders.learned,
            status=self._status,
            readiness=self.reasons,
            alerts=self._alerts,
        )
        return Routes(Operations(services), self.metrics, openapi.document())

    def _encoders(self) -> tuple[Embedder, SparseEncoder]:
        """Return what the pipelines encode with: what is remembered, else by way of a topic."""
        parts, settings = self._parts, self._parts.settings
        encoders = parts.encoders
        embedder = BusEmbedder(
            self.bus, parts.clock, settings.timeouts, settings.ml, dim=encoders.dim, late=encoders.late
        )
        # A learned model takes as long as the dense one: a query must not wait behind all of a document's chunks.
        heavy = bool(encoders.learned) and "sparse" not in parts.remote
        batch_tokens = (settings.ml.batch_tokens or SLICE_TOKENS_MAX) if heavy else 0
        encoder = BusSparseEncoder(self.bus, parts.clock, settings.timeouts, batch_tokens)
        return (
            CachedEmbedder(embedder, self.caches["embed"], parts.encoders.model),
            CachedSparseEncoder(encoder, self.caches["sparse"], parts.encoders.sparse),
        )

    def _subscribe(self, search: SearchPipeline, writer: SegmentWriter) -> None:
        """Let the pools serve the topics; guards stand behind the topics, so that waiting is no failure."""
        bus, pools, workers = self.bus, self.pools, self._parts.workers
        by_kind: Callable[[Any], str] = lambda batch: str(batch.kind)  # noqa: E731 - needed here alone
        embed = self._shielded("embed", Topic.ML_EMBED, workers.embed, by_kind)
        sparse = self._shielded("sparse", Topic.ML_SPARSE, workers.sparse, by_kind)
        rerank = self._shielded("rerank", Topic.ML_RERANK, workers.rerank, lambda _: "rerank")
        served: dict[str, tuple[Topic, Handler, Permits, Callable[[Any], str] | None]] = {
            "embed": (Topic.ML_EMBED, embed, pools.embed, by_kind),
            "sparse": (Topic.ML_SPARSE, sparse, pools.sparse, by_kind),
            "rerank": (Topic.ML_RERANK, rerank, pools.rerank, None),
            "search": (Topic.SEARCH_REQUEST, search.run, pools.search, None),
            "index": (Topic.INDEX_REQUEST, writer.write, pools.index, None),
            "chunk": (Topic.INDEX_CHUNK, workers.chunk, pools.chunk, None),
        }
        for name, (topic, handler, permits, kind_of) in served.items():
            if name in self._parts.pools:
                bus.subscribe(topic, handler, permits, kind_of)
            else:
                bus.describe(topic, kind_of)

    def _shielded(self, name: str, topic: Topic, handler: Handler, operation: Callable[[Any], str]) -> Handler:
        """Return a model's handler behind its guard and, if it is another server, behind its limit and retries."""
        remote = self.remotes.get(name)
        if remote is not None:
            return remote.handler(operation, handler, partial(self.bus.congested, topic))
        return self.guards[name].handler(name, handler)

    def _shared_rates(self) -> SharedRates | None:
        """Return what holds clients to one rate over all servers, where that is wanted and there is a rate."""
        http, source = self._parts.settings.http, self._parts.shared_rates
        if source is None or not http.rate_limit:
            return None
        settings = RateSettings(http.rate_limit, http.rate_burst)
        return SharedRates(settings, source, self.guards[SHARED], self._parts.clock)

    def _remote(self, name: str) -> Remote:
        """Return the limit toward a model that is another server: its pool has as many permits.

        So what the server cannot take now waits in its topic, in the topic's order, where it can be seen and refused.
        """
        if name == "store":
            return self._remote_store()
        permits: Permits = getattr(self.pools, name)
        most = permits.limit
        limits = LimitSettings(initial=min(LimitSettings().initial, most), ceiling=most)
        clock, luck = self._parts.clock, self._parts.luck
        remote = Remote(self.guards[name], clock, limits=limits, retries=RetrySettings(), random=luck)
        remote.on_limit = permits.resize
        permits.resize(remote.limit)
        return remote

    def _remote_store(self) -> Remote:
        """Return the limit toward a store that is another server: searches and writes get permits as it moves.

        Half of the places are for searches, a quarter for writes; second arms, listings and all else share the rest.
        """
        settings, most = self._parts.settings, self._parts.settings.qdrant.pool_size
        limits = LimitSettings(initial=max(1, most // 2), floor=min(STORE_CALLS_MIN, max(1, most // 2)), ceiling=most)

        def share(limit: int) -> None:
            self.pools.search.resize(max(1, min(settings.search.workers, limit // 2)))
            self.pools.index.resize(max(1, min(settings.index.workers, limit // 4)))

        clock, luck = self._parts.clock, self._parts.luck
        remote = Remote(self.guards["store"], clock, limits=limits, retries=RetrySettings(), random=luck)
        remote.on_limit = share
        share(remote.limit)
        return remote

    def _index(self, store: VectorStore) -> IndexPipeline:
        bus, settings = self.bus, self._parts.settings

        async def chunk(message: ChunkText, work: Work) -> list[Chunk]:
            chunks: list[Chunk] = await bus.request(Topic.INDEX_CHUNK, message, work)
            return chunks

        async def write(segment: Segment, work: Work) -> None:
            await bus.request(Topic.INDEX_REQUEST, segment, work)

        return IndexPipeline(
            store=store,
            chunk=chunk,
            write=write,
            settings=settings.index,
            timeouts=settings.timeouts,
            clock=self._parts.clock,
        )

    # --- What watches

    def _watch(self) -> None:
        """Let the heartbeat look at everything that changes without being asked."""
        self._observer.watch(lambda: [(topic.name, topic.used) for topic in self.bus.state()])
        self.heartbeat.every(QUICK_S, self.rungs.observe)
        self.heartbeat.every(QUICK_S, self._observer.look)
        self.heartbeat.every(SLOW_S, self.memory.look)
        self.heartbeat.every(SLOW_S, self.alarms.look)
        self.alarms.on_change = self._announce
        for breaker in self.breakers:
            breaker.on_turn = lambda _: self.alarms.look()

    def _sources(self) -> Mapping[Measure, Source]:
        """Return what the alarms look at."""
        return {
            Measure.QUEUE: lambda: [(topic.name, topic.used) for topic in self.bus.state()],
            Measure.TASKS: lambda: [("", float(len(asyncio.all_tasks())))],
            Measure.BREAKER: lambda: [(one.dependency, float(one.state)) for one in self.breakers],
            Measure.MEMORY: lambda: [("", self.memory.used / self.memory.limit.bytes)],
            Measure.LOOP_LAG: lambda: [("", self.heartbeat.lag_s())],
            Measure.LADDER: lambda: [(one.name.lower(), float(rung)) for one, rung in self.rungs.state().items()],
        }

    def _announce(self, record: AlertRecord) -> None:
        """Publish an alert; nobody waits for it."""
        if len(self._announcements) >= ANNOUNCEMENTS_MAX:
            return
        told = AlertTriggered(record.name, record.severity, record.subject, record.detail, record.active)
        task = asyncio.get_running_loop().create_task(
            self.bus.publish(Topic.ALERT_TRIGGERED, told, Work.background()), name="alert"
        )
        self._announcements.add(task)
        task.add_done_callback(self._announced)

    def _announced(self, task: asyncio.Task[None]) -> None:
        self._announcements.discard(task)
        if not task.cancelled():
            task.exception()  # a full or closed bus has told of it itself

    def _expose(self) -> None:
        """Show everything to scrapes (SPEC §10)."""
        metrics = self.metrics
        metrics.read(runtime_readings())
        metrics.read(readings.pool_readings(self.pools, self.bus))
        metrics.read(readings.topic_readings(self.bus))
        metrics.read(readings.guard_readings(self.breakers))
        metrics.read(readings.remote_readings(self.remotes))
        metrics.read(readings.ladder_readings(self.rungs))
        metrics.read(readings.cache_readings(tuple(self.caches.values())))
        metrics.read(readings.memory_readings(self.memory))
        metrics.read(readings.upkeep_readings(self._parts.upkeep))
        metrics.read(self.gate.readings())
        metrics.read(self.alarms.readings())
        for one in (self._observer, self.heartbeat):
            metrics.read(one.readings())
            metrics.expose(one.histograms())

    # --- What it tells

    def _status(self, collections: list[CollectionInfo]) -> answers.ServerStatus:
        reasons, parts = self.reasons(), self._parts
        return answers.ServerStatus(
            version=__version__,
            uptime_s=round(parts.clock.now() - self._began_s, 1),
            ready=not reasons,
            reasons=reasons,
            data_dir=str(parts.data_dir),
            model=parts.encoders.model,
            dim=parts.encoders.dim,
            in_flight=self.gate.in_flight,
            collections=collections,
            topics=[state.topic_status(topic) for topic in self.bus.state()],
            pools=[answers.PoolStatus(pool.name, pool.active, pool.limit) for pool in self.pools.all()],
            breakers=[state.breaker_status(one) for one in self.breakers],
            ladder=state.ladder_status(self.rungs.state()),
            caches=state.cache_status(self.caches.values()),
            memory=state.memory_status(self.memory),
            traffic=state.traffic_status(self.gate, self.metrics),
            process=state.process_status(self.heartbeat.lag_s_max()),
            alerts=[alert for alert in self._alerts() if alert.active],
            models=state.model_status(parts.encoders.used),
        )

    def _alerts(self) -> list[answers.AlertStatus]:
        return [state.alert_status(record) for record in self.alarms.records()]


def patience(timeouts: TimeoutSettings) -> dict[str, float]:
    """Return each dependency's name and after how long it counts as hanging: half of the least time a caller has.

    A search is cut off at its own limit; were the patience with a model longer, a model that hangs would never be found
    out by searches.
    """
    return {
        "store": min(timeouts.store, timeouts.search) / 2,
        "embed": min(timeouts.embed, timeouts.search) / 2,
        "sparse": min(timeouts.embed, timeouts.search) / 2,
        "rerank": timeouts.rerank / 2,
    }


def _caches(parts: Parts, guards: Mapping[str, Guard]) -> dict[str, Cache]:
    """Return what is remembered (L1, L2, and the ladder's answers), and what of it is shared with other servers.

    BM25 vectors are not: they are made in less time than it takes to ask for them.
    """
    cache = parts.settings.cache
    caches = {
        "embed": parts.cache("embed", cache.embed_size, cache.embed_bytes, math.inf),
        "sparse": parts.cache("sparse", cache.sparse_size, cache.sparse_bytes, math.inf),
        "answers": parts.cache("answers", cache.answer_size, cache.answer_bytes, cache.answer_ttl),
    }
    for name in ("embed", *(["sparse"] if parts.encoders.learned else [])):
        far = parts.shared_cache(f"{name}-shared")
        if far is not None:
            caches |= {name: LayeredCache(caches[name], far, guards[SHARED]), f"{name}-shared": far}
    return caches
