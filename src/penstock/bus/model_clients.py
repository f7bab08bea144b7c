"""Model clients: implement the model protocols by requests to the ML topics, for the pipelines.

A request of many texts is split into parts, each one run of the model. A few parts of a request are out at once
(``PARTS_MAX``), so that a large request neither fills its client's share of the topic nor stands in front of others.
One of many parts is bulk work, unless it is a search's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from penstock.bus.contract import Bus
from penstock.kernel.context import Clock, Context, Criticality, run_all
from penstock.kernel.errors import Expired, Rejected
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind, Topic
from penstock.kernel.settings import MlSettings, TimeoutSettings
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.batching import SLICE_TOKENS_MAX, plan_batches
from penstock.policies.estimate import CompletionForecast

#: Characters a token stands for at least in ordinary text; only used to balance batches.
CHARACTERS_PER_TOKEN: Final = 3
#: Tokens of a text that a model reads at most, for the same purpose.
TOKENS_MAX: Final = 256

#: Parts of one request that wait or run at once. A client's share of a topic (250 by default) holds fifteen such
#: requests; the pools run four parts at once.
PARTS_MAX: Final = 16

#: How often in a row the last part of a request that has begun is offered again while others fill the topic, and how
#: long it waits in between.
PART_REFUSALS_MAX: Final = 100
REFUSED_RETRY_S: Final = 0.1

#: How often it is, if it has waited too long: now that fewer parts wait, once more should do.
PART_EXPIRIES_MAX: Final = 1

#: Tokens of one part for a reranker that runs here. Each part encodes the query again, so it is larger than one of the
#: dense model. Four whole windows take some 100 ms: so long an urgent one may wait for a permit.
RERANK_TOKENS_MAX: Final = 1024

#: More parts than this are bulk work for a reranker: sixteen whole windows, as for the dense model.
RERANK_BULK_PARTS: Final = 4

#: Characters of one part for BM25, which reads the whole of a text: some 3 ms, with the interpreter lock held.
BM25_CHARACTERS_MAX: Final = 65_536

Part = list[int]
#: Makes a topic's message of a part's texts.
MakeMessage = Callable[[list[str]], Any]


class _TopicClient:
    """Client of a model's topic. A request is split into parts, a few of which are out at once.

    A part that is refused, or waits too long, goes back, and the number of parts that are out falls by one: the
    request goes on as wide as it is let. The refusal of the last one is an error, unless something is done already:
    then it is offered again for some seconds.

    Args:
        bus: Carries the parts.
        clock: The loop's clock.
        topic: The topic that is asked.
        operation: Names the request and the limit of a part in an error.
        limit_s: The limit of a part.
        bulk_parts: More parts than this are bulk work, unless a search waits for them.

    Bounds: ``PARTS_MAX`` parts of a request at once.
    """

    def __init__(
        self, bus: Bus, clock: Clock, topic: Topic, operation: str, limit_s: float, bulk_parts: int = PARTS_MAX
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._topic = topic
        self._operation = operation
        self._limit_s = limit_s
        self._bulk_parts = bulk_parts

    async def ask(
        self, texts: Sequence[str], sizes: Sequence[int], part_max: int, ctx: Context, message: MakeMessage
    ) -> list[tuple[Part, Any]]:
        """Return the places of each part's texts with the topic's reply; the first error cancels the rest.

        A part holds ``part_max`` of the texts' ``sizes`` at most.

        Raises:
            Expired: At the pace so far, the context's deadline will pass too early; or the last part did not end in
                time.
            Rejected: No part is let in.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        left, replies = deque(plan_batches(sizes, part_max)), list[tuple[Part, Any]]()
        forecast = CompletionForecast(sum(sizes), self._clock.now())
        askers = min(PARTS_MAX, len(left))
        large = len(left) > self._bulk_parts and ctx.criticality is not Criticality.INTERACTIVE
        whole = ctx.as_bulk() if large else ctx
        refusals = 0

        async def ask_on() -> None:
            nonlocal askers, refusals
            while left:
                part = left.popleft()
                try:
                    limited = whole.within(self._limit_s, self._operation, self._clock.now())
                    reply = await self._bus.request(self._topic, message([texts[place] for place in part]), limited)
                except (Rejected, Expired) as error:
                    left.appendleft(part)
                    if askers > 1:
                        break
                    refusals += 1
                    late = ctx.deadline.passed(self._clock.now())
                    most = PART_REFUSALS_MAX if isinstance(error, Rejected) else PART_EXPIRIES_MAX
                    if late or not replies or refusals > most:
                        raise
                    # Other requests fill the topic; what is done already is worth a moment.
                    await asyncio.sleep(REFUSED_RETRY_S)
                    continue
                refusals = 0
                replies.append((part, reply))
                forecast.observe(sum(sizes[place] for place in part))
                self._check_forecast(forecast, len(sizes), ctx)
            askers -= 1

        await run_all([ask_on() for _ in range(askers)])
        return replies

    def _check_forecast(self, forecast: CompletionForecast, count: int, ctx: Context) -> None:
        """End a request that will miss its deadline while little is lost: its caller learns now what to do."""
        now_s = self._clock.now()
        if forecast.misses_deadline(ctx.deadline.at_s, now_s):
            needed_s, remaining_s = forecast.remaining_s(now_s), ctx.deadline.remaining_s(now_s)
            raise Expired(
                self._operation,
                f"the {count} texts need about {needed_s:.0f} s more and {remaining_s:.1f} s are left; send fewer texts"
                " in one request, or allow more time (timeout_ms)",
            )


class BusEmbedder:
    """An ``Embedder`` that splits a batch, asks ``ml.embed`` for the parts and keeps the order. T5 limits each part.

    Attributes:
        dim: Dimension of the dense vectors.
        token_dim: That of the token vectors; 0 for a model without.
    """

    def __init__(
        self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, ml: MlSettings, *, dim: int, token_dim: int = 0
    ) -> None:
        self.dim = dim
        self.token_dim = token_dim
        self._client = _TopicClient(bus, clock, Topic.ML_EMBED, "embed", timeouts.embed)
        self._batch_tokens = ml.batch_tokens or SLICE_TOKENS_MAX

    async def embed(
        self, texts: Sequence[str], kind: TextKind, ctx: Context, *, late_interaction: bool = False
    ) -> Embeddings:
        """Return the vectors in the order of ``texts``; errors and cancellation as in :meth:`_TopicClient.ask`."""
        wanted = late_interaction and self.token_dim > 0
        parts = await self._client.ask(
            texts, estimate_tokens(texts), self._batch_tokens, ctx, lambda part: EmbedBatch(part, kind, wanted)
        )
        vectors = np.empty((len(texts), self.dim), np.float32)
        for places, embedded in parts:
            vectors[places] = embedded.dense
        if not wanted:
            return Embeddings(vectors, None)
        return Embeddings(vectors, _in_order([(places, embedded.late) for places, embedded in parts]))


class BusSparseEncoder:
    """A ``SparseEncoder`` that asks ``ml.sparse``. T5 limits each part.

    Without ``batch_tokens`` it is BM25's, whose parts are bounded by their characters.
    """

    def __init__(self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, batch_tokens: int = 0) -> None:
        self._client = _TopicClient(bus, clock, Topic.ML_SPARSE, "sparse", timeouts.embed)
        self._batch_tokens = batch_tokens

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one sparse vector for each text; errors and cancellation as in :meth:`_TopicClient.ask`."""
        if self._batch_tokens:
            sizes, most = estimate_tokens(texts), self._batch_tokens
        else:
            sizes, most = [len(text) + 1 for text in texts], BM25_CHARACTERS_MAX
        return _in_order(await self._client.ask(texts, sizes, most, ctx, lambda part: SparseBatch(part, kind)))


class BusReranker:
    """A ``Reranker`` that splits the texts and asks ``ml.rerank``: a text's score does not depend on the others.

    T6 limits each part.
    """

    def __init__(
        self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, batch_tokens: int = RERANK_TOKENS_MAX
    ) -> None:
        self._client = _TopicClient(bus, clock, Topic.ML_RERANK, "rerank", timeouts.rerank, RERANK_BULK_PARTS)
        self._batch_tokens = batch_tokens

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``, one score a text, higher is better; errors and cancellation as its client's."""
        parts = await self._client.ask(
            texts, estimate_tokens(texts), self._batch_tokens, ctx, lambda part: RerankTexts(query, part)
        )
        return np.array(_in_order(parts), np.float32)


def _in_order(parts: list[tuple[Part, Any]]) -> list[Any]:
    """Return what the parts hold for each text, in the order of the texts."""
    found = {place: one for places, each in parts for place, one in zip(places, each, strict=True)}
    return [found[place] for place in range(len(found))]


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """Return about how many tokens a model reads of each text; only used to balance batches."""
    return [min(TOKENS_MAX, len(text) // CHARACTERS_PER_TOKEN + 2) for text in texts]
