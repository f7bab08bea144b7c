"""Stubs that look like a model and ask a topic: what the pipelines see of the bus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.bus.contract import Bus
from penstock.kernel.clock import Clock
from penstock.kernel.late import TokenVectors
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind, Topic
from penstock.kernel.settings import MlSettings, TimeoutSettings
from penstock.kernel.together import together
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.kernel.work import Work
from penstock.models.batching import SLICE_TOKENS_MAX, plan

#: Characters a token stands for at least in ordinary text; only used to balance batches.
CHARACTERS_PER_TOKEN = 3
#: Tokens of a text that a model reads at most, for the same purpose.
TOKENS_MAX = 256


class BusEmbedder:
    """An ``Embedder`` that splits a batch, asks ``ml.embed`` for the parts and keeps the order.

    Args:
        bus: Where the parts are worked.
        clock: The loop's clock.
        timeouts: T5 limits each part.
        ml: The token budget of a part.
        dim: Dimension of the dense vectors.
        late: That of the token vectors; 0 for a model without.
    """

    def __init__(
        self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, ml: MlSettings, *, dim: int, late: int = 0
    ) -> None:
        self.dim = dim
        self.late = late
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts
        self._batch_tokens = ml.batch_tokens or SLICE_TOKENS_MAX

    async def embed(self, texts: Sequence[str], kind: TextKind, work: Work, *, late: bool = False) -> Embeddings:
        """Return the vectors in the order of ``texts``; the first error cancels the rest.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        lengths = [tokens_about(text) for text in texts]
        vectors = np.empty((len(texts), self.dim), np.float32)
        wanted = late and self.late > 0
        tokens: dict[int, TokenVectors] = {}

        async def part(places: list[int]) -> None:
            label = work.within(self._timeouts.embed, "embed", self._clock.now())
            batch = EmbedBatch([texts[place] for place in places], kind, wanted)
            embedded: Embeddings = await self._bus.request(Topic.ML_EMBED, batch, label)
            vectors[places] = embedded.dense
            if embedded.late is not None:
                tokens.update(zip(places, embedded.late, strict=True))

        await together([part(p) for p in plan(lengths, self._batch_tokens)])
        return Embeddings(vectors, [tokens[place] for place in range(len(texts))] if wanted else None)


class BusSparseEncoder:
    """A ``SparseEncoder`` that asks ``ml.sparse``.

    Args:
        bus: Where the texts are encoded.
        clock: The loop's clock.
        timeouts: T5 limits each part.
        batch_tokens: The token budget of a part; 0 for all texts at once, where they take hardly any time.
    """

    def __init__(self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, batch_tokens: int = 0) -> None:
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts
        self._batch_tokens = batch_tokens

    async def encode(self, texts: Sequence[str], kind: TextKind, work: Work) -> list[SparseVector]:
        """Return one sparse vector for each text; the first error cancels the rest.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        vectors: dict[int, SparseVector] = {}

        async def part(places: Sequence[int]) -> None:
            label = work.within(self._timeouts.embed, "sparse", self._clock.now())
            batch = SparseBatch([texts[place] for place in places], kind)
            vectors.update(zip(places, await self._bus.request(Topic.ML_SPARSE, batch, label), strict=True))

        whole = [range(len(texts))]
        parts = plan([tokens_about(text) for text in texts], self._batch_tokens) if self._batch_tokens else whole
        await together([part(places) for places in parts])
        return [vectors[place] for place in range(len(texts))]


def tokens_about(text: str) -> int:
    """Return about how many tokens a model reads of a text; only used to balance batches."""
    return min(TOKENS_MAX, len(text) // CHARACTERS_PER_TOKEN + 2)


class BusReranker:
    """A ``Reranker`` that asks ``ml.rerank``."""

    def __init__(self, bus: Bus, clock: Clock, timeouts: TimeoutSettings) -> None:
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts

    async def rerank(self, query: str, texts: Sequence[str], work: Work) -> DenseVectors:
        """Return ``float32 [n]``, one score a text, higher is better."""
        label = work.within(self._timeouts.rerank, "rerank", self._clock.now())
        message = RerankTexts(query, list(texts))
        scores: DenseVectors = await self._bus.request(Topic.ML_RERANK, message, label)
        return scores
