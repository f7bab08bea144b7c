"""What embeds: one Protocol for ours and theirs, and ours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from penstock.bus.local import LocalBus
from penstock.bus.model_clients import BusEmbedder
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.cores import available_cores
from penstock.kernel.messages import TextKind, Topic
from penstock.kernel.settings import Settings
from penstock.kernel.vectors import DenseVectors
from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.factory import LateInteractionReranker
from penstock.models.prepare import PreparedModel
from penstock.pools.model_handlers import BULK_NICENESS, ThreadModelHandlers
from penstock.pools.permits import PoolRegistry
from penstock.pools.thread_pool import ThreadPool

PATIENCE_S = 60.0


class System(Protocol):
    """Something that embeds. Both calls may be under way at once.

    Attributes:
        name: In tables.
    """

    name: str

    async def bulk(self, texts: Sequence[str]) -> DenseVectors:
        """Embed many texts as fast as it can; ``float32 [n, dim]``."""
        ...

    async def query(self, text: str) -> DenseVectors:
        """Embed one text that somebody waits for; ``float32 [1, dim]``."""
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...


class Penstock:
    """Ours as the server does it: a topic, permits, threads, the prepared model. No cache.

    Args:
        prepared: The model.
        name: In tables.
    """

    def __init__(self, prepared: PreparedModel, name: str = "penstock") -> None:
        self.name = name
        settings, clock = Settings(), MonotonicClock()
        runner = BuiltinDenseEncoder(prepared)
        self._threads = ThreadPool(available_cores(), "bench-ml")
        self._bulk = ThreadPool(available_cores(), "bench-bulk", BULK_NICENESS)
        self._bus = LocalBus(settings.bus, {}, clock)
        sparse, rerank = Bm25Runner(Bm25Settings()), LateInteractionReranker(runner)
        workers = ThreadModelHandlers(runner, sparse, rerank, self._threads, self._bulk)
        permits = PoolRegistry(settings).embed
        self._bus.subscribe(Topic.ML_EMBED, workers.embed, permits, lambda batch: str(batch.kind))
        self._embedder = BusEmbedder(self._bus, clock, settings.timeouts, settings.ml, dim=runner.dim)

    async def bulk(self, texts: Sequence[str]) -> DenseVectors:
        """Embed them as a document's chunks are."""
        return (await self._embedder.embed(texts, TextKind.DOCUMENT, _label(Criticality.BULK))).dense

    async def query(self, text: str) -> DenseVectors:
        """Embed it as a search's query is."""
        return (await self._embedder.embed([text], TextKind.QUERY, _label(Criticality.INTERACTIVE))).dense

    async def close(self) -> None:
        """Stop the bus and the threads."""
        await self._bus.close()
        await self._threads.close()
        await self._bulk.close()


def _label(criticality: Criticality) -> Context:
    return Context(Deadline(time.monotonic() + PATIENCE_S, "bench"), criticality, criticality.name, "bench")
