"""What embeds: one Protocol for ours and theirs, and ours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from penstock.bus.backends.memory import MemoryBus
from penstock.bus.clients import BusEmbedder
from penstock.kernel.clock import MonotonicClock
from penstock.kernel.context import Context, Criticality
from penstock.kernel.cores import cores
from penstock.kernel.deadline import Deadline
from penstock.kernel.messages import TextKind, Topic
from penstock.kernel.settings import Settings
from penstock.kernel.vectors import DenseVectors
from penstock.models.dense import OnnxDense
from penstock.models.prepare import Prepared
from penstock.models.rerank import LateReranker
from penstock.models.sparse import Bm25Runner, Bm25Settings
from penstock.pools.house import Pools
from penstock.pools.ml import BULK_NICENESS, MlWorkers
from penstock.pools.threads import Threads

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

    def __init__(self, prepared: Prepared, name: str = "penstock") -> None:
        self.name = name
        settings, clock = Settings(), MonotonicClock()
        runner = OnnxDense(prepared)
        self._threads = Threads(cores(), "bench-ml")
        self._bulk = Threads(cores(), "bench-bulk", BULK_NICENESS)
        self._bus = MemoryBus(settings.bus, {}, clock)
        sparse, rerank = Bm25Runner(Bm25Settings()), LateReranker(runner)
        workers = MlWorkers(runner, sparse, rerank, self._threads, self._bulk)
        permits = Pools(settings).embed
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
