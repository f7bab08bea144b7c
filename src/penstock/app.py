"""The composition root: builds everything once, starts it in order, stops it in reverse.

The only module that imports backends, and the only one that knows all rooms. Read it to see how
the house hangs together: gate → routes → bus topic → pool → model or store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penstock import __version__
from penstock.bus.backends.memory import MemoryBus
from penstock.bus.clients import BusEmbedder, BusReranker, BusSparseEncoder
from penstock.http import answers, openapi
from penstock.http.gate import Gate, Receive, Scope, Send, Senses
from penstock.http.operations import Operations, Services
from penstock.http.routes import Routes, pressure
from penstock.indexing import worker
from penstock.indexing.chunk import Chunk
from penstock.indexing.composition import sparse_query
from penstock.indexing.pipeline import IndexPipeline, SegmentWriter
from penstock.indexing.records import Segment
from penstock.kernel.clock import Clock, MonotonicClock
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText, Topic
from penstock.kernel.settings import Settings, cores
from penstock.kernel.work import Work
from penstock.models.dense import OnnxDense
from penstock.models.prepare import Prepared, prepare
from penstock.models.rerank import DenseReranker
from penstock.models.source import SourceSettings, find_source
from penstock.models.sparse import Bm25Runner, Bm25Settings
from penstock.models.tokenizer import TextTokenizer
from penstock.pools.house import Pools
from penstock.pools.ml import MlWorkers
from penstock.pools.processes import Processes
from penstock.pools.threads import Threads
from penstock.search.pipeline import SearchPipeline
from penstock.stores.backends.edge.store import EdgeStore
from penstock.stores.contract import CollectionInfo
from penstock.stores.lock import DirectoryLock
from penstock.telemetry.metrics import Metrics, runtime_readings

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Models:
    """The models, loaded."""

    prepared: Prepared
    dense: OnnxDense
    sparse: Bm25Runner
    rerank: DenseReranker
    tokenizer: TextTokenizer


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
        self.metrics = Metrics()
        self.gate = Gate(self._dispatch, settings.http, self.metrics, Senses(fill=pressure(self._used)))
        self._clock: Clock = MonotonicClock()
        self._model_cache = model_cache
        self._lock = DirectoryLock(data_dir)
        self._store = EdgeStore(data_dir, settings.timeouts, self._clock)
        self._pools = Pools(settings)
        self._threads = Threads(settings.ml.threads or cores(), "penstock-ml")
        self._bus = MemoryBus(
            settings.bus,
            {
                Topic.SEARCH_REQUEST: settings.search.queue_size,
                Topic.INDEX_REQUEST: settings.index.queue_size,
                Topic.INDEX_CHUNK: settings.index.queue_size,
            },
            self._clock,
        )
        self._processes: Processes | None = None
        self._models: _Models | None = None
        self._routes: Routes | None = None
        self._began_s = time.monotonic()

    @property
    def asgi(self) -> Gate:
        """The ASGI application."""
        return self.gate

    async def start(self, progress: Progress | None = None) -> None:
        """Take the directory, prepare the model, start the store, wire the topics.

        Args:
            progress: Called, from another thread, with a stage's name, what is done of it and its total.

        Raises:
            PenstockError: Saying what is missing or held by another; nothing is left behind.
        """
        self._lock.acquire()
        try:
            self._models = await asyncio.to_thread(self._load, progress or (lambda *_: None))
            await self._store.start()
            self._wire(self._models)
        except BaseException:
            await self.close()
            raise

    def announce(self, url: str) -> None:
        """Let other commands on this data directory find the server."""
        self._lock.announce(url)

    def begin_drain(self) -> None:
        """Refuse new requests from now on; running ones go on."""
        self.gate.draining = True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; return whether that came true in time."""
        return await self.gate.drained(timeout_s)

    async def close(self) -> None:
        """Stop everything, the last started first; the store is flushed."""
        await self._bus.close()
        if self._processes is not None:
            self._processes.close()
        self._threads.close()
        await self._store.close()
        self._lock.release()

    def _load(self, progress: Progress) -> _Models:
        directory = self.settings.model.dir
        source = find_source(SourceSettings(Path(directory) if directory else None))
        prepared = prepare(source, self._model_cache, progress)
        dense = OnnxDense(prepared)
        tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
        sparse = Bm25Runner(Bm25Settings())
        return _Models(prepared, dense, sparse, DenseReranker(dense), tokenizer)

    def _wire(self, models: _Models) -> None:
        """Subscribe the pools to the topics, and hand the pipelines their Protocols."""
        settings, bus, clock, store = self.settings, self._bus, self._clock, self._store
        embedder = BusEmbedder(bus, clock, settings.timeouts, settings.ml, models.dense.dim)
        encoder = BusSparseEncoder(bus, clock, settings.timeouts)
        workers = MlWorkers(models.dense, models.sparse, models.rerank, self._threads)
        search = SearchPipeline(
            embedder=embedder,
            sparse=encoder,
            store=store,
            settings=settings.search,
            clock=clock,
            prepare=sparse_query,
            reads_whole=lambda text: not models.tokenizer.truncated(text),
        )
        chunkers = Processes(
            min(settings.index.chunk_workers, cores()),
            worker.prepare,
            (models.tokenizer,),
        )
        self._processes = chunkers

        async def cut(message: ChunkText, _work: Work) -> list[Chunk]:
            return await chunkers.run(partial(worker.cut, message))

        writer = SegmentWriter(embedder, encoder, store)
        bus.subscribe(Topic.ML_EMBED, workers.embed, self._pools.embed)
        bus.subscribe(Topic.ML_SPARSE, workers.sparse, self._pools.sparse)
        bus.subscribe(Topic.ML_RERANK, workers.rerank, self._pools.rerank)
        bus.subscribe(Topic.SEARCH_REQUEST, search.run, self._pools.search)
        bus.subscribe(Topic.INDEX_REQUEST, writer.write, self._pools.index)
        bus.subscribe(Topic.INDEX_CHUNK, cut, self._pools.chunk)

        async def ask_chunks(message: ChunkText, work: Work) -> list[Chunk]:
            chunks: list[Chunk] = await bus.request(Topic.INDEX_CHUNK, message, work)
            return chunks

        async def ask_write(segment: Segment, work: Work) -> None:
            await bus.request(Topic.INDEX_REQUEST, segment, work)

        index = IndexPipeline(
            store=store,
            chunk=ask_chunks,
            write=ask_write,
            settings=settings.index,
            timeouts=settings.timeouts,
            clock=clock,
        )
        services = Services(
            settings=settings,
            clock=clock,
            bus=bus,
            store=store,
            index=index,
            embedder=embedder,
            sparse=encoder,
            reranker=BusReranker(bus, clock, settings.timeouts),
            model=models.dense.model,
            status=self._status,
            readiness=self._reasons,
        )
        self._observe()
        self._routes = Routes(Operations(services), self.metrics, openapi.document())

    def _observe(self) -> None:
        """Register the gauges that are read at each scrape (SPEC §10)."""
        bus, pools = self._bus, self._pools
        topics = {
            "embed": Topic.ML_EMBED,
            "sparse": Topic.ML_SPARSE,
            "rerank": Topic.ML_RERANK,
            "search": Topic.SEARCH_REQUEST,
            "index": Topic.INDEX_REQUEST,
            "chunk": Topic.INDEX_CHUNK,
        }

        def queued() -> list[tuple[str, float]]:
            waiting = {state.name: state.waiting for state in bus.state()}
            return [(pool, float(waiting.get(topic, 0))) for pool, topic in topics.items()]

        self.metrics.read(
            [
                *runtime_readings(),
                (
                    "worker_pool_active",
                    "Permits held by running work",
                    "pool",
                    lambda: [(p.name, float(p.active)) for p in pools.all()],
                ),
                ("worker_pool_queued", "Messages waiting for the pool", "pool", queued),
                (
                    "event_bus_buffer_used",
                    "Share of a topic's buffer in use",
                    "topic",
                    lambda: [(s.name, s.used) for s in bus.state()],
                ),
                *self.gate.readings(),
            ]
        )

    def _used(self, topic: Topic) -> float:
        """Return how full a topic is, 0 to 1."""
        return self._bus.used(topic)

    def _reasons(self) -> list[str]:
        """Return why the server cannot work now; empty when it can."""
        reasons = []
        if self.gate.draining:
            reasons.append("the server is shutting down")
        if not self._store.link.alive:
            reasons.append("the store process is not running")
        return reasons

    def _status(self, collections: list[CollectionInfo]) -> answers.ServerStatus:
        models, reasons = self._models, self._reasons()
        return answers.ServerStatus(
            version=__version__,
            uptime_s=round(time.monotonic() - self._began_s, 1),
            ready=not reasons,
            reasons=reasons,
            data_dir=str(self.data_dir),
            model=models.dense.model if models else "",
            dim=models.dense.dim if models else 0,
            in_flight=self.gate.in_flight,
            collections=collections,
            topics=[answers.TopicStatus(s.name, s.waiting, s.capacity, s.running) for s in self._bus.state()],
            pools=[answers.PoolStatus(p.name, p.active, p.limit) for p in self._pools.all()],
        )

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._routes is None:
            raise Broken("the server has not been started")
        await self._routes(scope, receive, send)


def build(settings: Settings, data_dir: Path, model_cache: Path | None = None) -> App:
    """Build a Penstock that is not started yet."""
    return App(settings, data_dir, model_cache or data_dir / "models")
