"""From topics to dependencies: pools subscribed, guards behind the topics, pipelines handed their Protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from penstock.bus.clients import RERANK_TOKENS_MAX, TOKENS_MAX, BusEmbedder, BusReranker, BusSparseEncoder
from penstock.bus.contract import Bus, Handler
from penstock.core.parts import Parts
from penstock.indexing.chunk import Chunk
from penstock.indexing.pipeline import IndexPipeline, SegmentWriter
from penstock.indexing.records import Segment
from penstock.kernel.context import Context, Criticality
from penstock.kernel.messages import ChunkText, Topic
from penstock.models.batching import SLICE_TOKENS_MAX
from penstock.models.contract import Embedder, SparseEncoder
from penstock.policies.ladder import Rung
from penstock.pools.cached import CachedEmbedder, CachedSparseEncoder
from penstock.pools.guard import Guard
from penstock.pools.guarded import GuardedStore, Layout
from penstock.pools.house import Pools
from penstock.pools.permits import Permits
from penstock.pools.remote import Remote
from penstock.search.answers import AnswerCache
from penstock.search.pipeline import Cross, SearchPipeline
from penstock.stores.cache import Cache
from penstock.stores.contract import VectorStore

#: What kind of work a message is, for the times that its topic keeps apart.
KindOf = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Means:
    """What the flow is made of.

    Attributes:
        parts: What the core stands on.
        bus: Where work waits.
        pools: The permits.
        guards: A circuit breaker for each dependency, by its name.
        remotes: The limits and retries toward those that are other servers, by the same names.
        caches: What is remembered, by name.
        rung: The degradation ladder's rung for a class now.
    """

    parts: Parts
    bus: Bus
    pools: Pools
    guards: Mapping[str, Guard]
    remotes: Mapping[str, Remote]
    caches: Mapping[str, Cache]
    rung: Callable[[Criticality], Rung]


class Flow:
    """The pipelines over the topics; making it subscribes the pools.

    Args:
        means: What it is made of.

    Attributes:
        store: The points, behind their guard.
        embedder: Dense vectors: what is remembered, else by way of a topic.
        sparse: Sparse vectors, the same way.
        reranker: Relevance, by way of a topic.
        index: A document becomes points.
        forget: Forgets the answers of a collection.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        parts, settings, guards = means.parts, means.parts.settings, means.guards
        encoders = parts.encoders
        remembered = AnswerCache(means.caches["answers"])
        layout = Layout(encoders.model, encoders.dim, encoders.learned)
        self.forget = remembered.forget
        self.store: VectorStore = GuardedStore(
            parts.store, guards["store"], self.forget, layout, means.remotes.get("store")
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
            prepare=encoders.sparse_query,
            reads_whole=encoders.reads_whole,
            rung=means.rung,
            answers=remembered,
            cross=Cross(self.reranker, settings.rerank_model.texts) if encoders.crossed else None,
        )
        self._subscribe(search, SegmentWriter(self.embedder, self.sparse, self.store, encoders.sparse_text))

    def _dense(self) -> CachedEmbedder:
        bus, parts, caches = self._means.bus, self._means.parts, self._means.caches
        encoders, settings = parts.encoders, parts.settings
        embedder = BusEmbedder(bus, parts.clock, settings.timeouts, settings.ml, dim=encoders.dim, late=encoders.late)
        return CachedEmbedder(embedder, caches["embed"], encoders.model)

    def _sparse(self) -> CachedSparseEncoder:
        bus, parts, caches = self._means.bus, self._means.parts, self._means.caches
        encoders, settings = parts.encoders, parts.settings
        # A learned model takes as long as the dense one: a query must not wait behind all of a document's chunks.
        heavy = bool(encoders.learned) and "sparse" not in parts.remote
        batch_tokens = (settings.ml.batch_tokens or SLICE_TOKENS_MAX) if heavy else 0
        encoder = BusSparseEncoder(bus, parts.clock, settings.timeouts, batch_tokens)
        return CachedSparseEncoder(encoder, caches["sparse"], encoders.sparse)

    def _reranker(self) -> BusReranker:
        bus, parts, settings = self._means.bus, self._means.parts, self._means.parts.settings
        batch_tokens = max(RERANK_TOKENS_MAX, settings.ml.batch_tokens)
        if "rerank" in parts.remote:
            batch_tokens = max(batch_tokens, settings.rerank_model.batch * TOKENS_MAX)
        return BusReranker(bus, parts.clock, settings.timeouts, batch_tokens)

    def _index(self) -> IndexPipeline:
        bus, parts = self._means.bus, self._means.parts

        async def chunk(message: ChunkText, ctx: Context) -> list[Chunk]:
            chunks: list[Chunk] = await bus.request(Topic.INDEX_CHUNK, message, ctx)
            return chunks

        async def write(segment: Segment, ctx: Context) -> None:
            await bus.request(Topic.INDEX_REQUEST, segment, ctx)

        return IndexPipeline(
            store=self.store,
            chunk=chunk,
            write=write,
            settings=parts.settings.index,
            timeouts=parts.settings.timeouts,
            clock=parts.clock,
        )

    def _subscribe(self, search: SearchPipeline, writer: SegmentWriter) -> None:
        """Let the pools serve the topics; guards stand behind the topics, so that waiting is no failure."""
        bus, pools, parts = self._means.bus, self._means.pools, self._means.parts
        workers = parts.workers
        by_kind: KindOf = lambda batch: str(batch.kind)  # noqa: E731 - needed here alone
        embed = self._shielded("embed", Topic.ML_EMBED, workers.embed, by_kind)
        sparse = self._shielded("sparse", Topic.ML_SPARSE, workers.sparse, by_kind)
        rerank = self._shielded("rerank", Topic.ML_RERANK, workers.rerank, lambda _: "rerank")
        served: dict[str, tuple[Topic, Handler, Permits, KindOf | None]] = {
            "embed": (Topic.ML_EMBED, embed, pools.embed, by_kind),
            "sparse": (Topic.ML_SPARSE, sparse, pools.sparse, by_kind),
            "rerank": (Topic.ML_RERANK, rerank, pools.rerank, None),
            "search": (Topic.SEARCH_REQUEST, search.run, pools.search, None),
            "index": (Topic.INDEX_REQUEST, writer.write, pools.index, None),
            "chunk": (Topic.INDEX_CHUNK, workers.chunk, pools.chunk, None),
        }
        for name, (topic, handler, permits, kind_of) in served.items():
            if name in parts.pools:
                bus.subscribe(topic, handler, permits, kind_of)
            else:
                bus.describe(topic, kind_of)

    def _shielded(self, name: str, topic: Topic, handler: Handler, operation: KindOf) -> Handler:
        """Return a model's handler behind its guard and, if it is another server, behind its limit and retries."""
        remote = self._means.remotes.get(name)
        if remote is not None:
            return remote.handler(operation, handler, partial(self._means.bus.congested, topic))
        return self._means.guards[name].handler(name, handler)
