"""Model clients: implement the model protocols by requests to the ML topics, for the pipelines.

A request of many texts is split into parts, each one run of the model. A few parts of a request are out at once
(``PARTS_MAX``), so that a large request neither fills its client's share of the topic nor stands in front of others.
One of many parts is bulk work, unless it is a search's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np

from penstock.bus.contract import Bus
from penstock.kernel.context import Clock, Context, Criticality, run_all
from penstock.kernel.errors import Expired, Rejected
from penstock.kernel.late_interaction import TokenVectors
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


class BusEmbedder:
    """An ``Embedder`` that splits a batch, asks ``ml.embed`` for the parts and keeps the order.

    Args:
        bus: Carries the requests.
        clock: The loop's clock.
        timeouts: T5 limits each part.
        ml: The token budget of a part.
        dim: Dimension of the dense vectors.
        token_dim: That of the token vectors; 0 for a model without.

    Bounds: ``PARTS_MAX`` parts of a request at once.
    """

    def __init__(
        self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, ml: MlSettings, *, dim: int, token_dim: int = 0
    ) -> None:
        self.dim = dim
        self.token_dim = token_dim
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts
        self._batch_tokens = ml.batch_tokens or SLICE_TOKENS_MAX

    async def embed(
        self, texts: Sequence[str], kind: TextKind, ctx: Context, *, late_interaction: bool = False
    ) -> Embeddings:
        """Return the vectors in the order of ``texts``; the first error cancels the rest.

        Raises:
            Expired: A part was not done within T5, or the whole will not be done by the context's deadline.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        vectors = np.empty((len(texts), self.dim), np.float32)
        wanted = late_interaction and self.token_dim > 0
        tokens: dict[int, TokenVectors] = {}

        async def ask(places: Part, ctx: Context) -> None:
            label = ctx.within(self._timeouts.embed, "embed", self._clock.now())
            batch = EmbedBatch([texts[place] for place in places], kind, wanted)
            embedded: Embeddings = await self._bus.request(Topic.ML_EMBED, batch, label)
            vectors[places] = embedded.dense
            if embedded.late is not None:
                tokens.update(zip(places, embedded.late, strict=True))

        sizes = [estimate_tokens(text) for text in texts]
        await _BatchSplit("embed", self._clock).run(sizes, self._batch_tokens, ctx, ask)
        return Embeddings(vectors, [tokens[place] for place in range(len(texts))] if wanted else None)


class BusSparseEncoder:
    """A ``SparseEncoder`` that asks ``ml.sparse``.

    Args:
        bus: Carries the requests.
        clock: The loop's clock.
        timeouts: T5 limits each part.
        batch_tokens: The token budget of a part; 0 for BM25, whose parts are bounded by their characters.

    Bounds: As :class:`BusEmbedder`.
    """

    def __init__(self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, batch_tokens: int = 0) -> None:
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts
        self._batch_tokens = batch_tokens

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one sparse vector for each text; the first error cancels the rest.

        Raises:
            Expired: As :meth:`BusEmbedder.embed`.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        vectors: dict[int, SparseVector] = {}

        async def ask(places: Part, ctx: Context) -> None:
            label = ctx.within(self._timeouts.embed, "sparse", self._clock.now())
            batch = SparseBatch([texts[place] for place in places], kind)
            vectors.update(zip(places, await self._bus.request(Topic.ML_SPARSE, batch, label), strict=True))

        if self._batch_tokens:
            sizes, most = [estimate_tokens(text) for text in texts], self._batch_tokens
        else:
            sizes, most = [len(text) + 1 for text in texts], BM25_CHARACTERS_MAX
        await _BatchSplit("sparse", self._clock).run(sizes, most, ctx, ask)
        return [vectors[place] for place in range(len(texts))]


class BusReranker:
    """A ``Reranker`` that splits the texts and asks ``ml.rerank``: a text's score does not depend on the others.

    Args:
        bus: Carries the requests.
        clock: The loop's clock.
        timeouts: T6 limits each part.
        batch_tokens: The token budget of a part.

    Bounds: As :class:`BusEmbedder`.
    """

    def __init__(
        self, bus: Bus, clock: Clock, timeouts: TimeoutSettings, batch_tokens: int = RERANK_TOKENS_MAX
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._timeouts = timeouts
        self._batch_tokens = batch_tokens

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``, one score a text, higher is better.

        Raises:
            Expired: A part was not done within T6, or the whole will not be done by the context's deadline.

        Cancellation: Parts that wait are taken back, parts that run are stopped.
        """
        scores = np.empty(len(texts), np.float32)

        async def ask(places: Part, ctx: Context) -> None:
            label = ctx.within(self._timeouts.rerank, "rerank", self._clock.now())
            message = RerankTexts(query, [texts[place] for place in places])
            scores[places] = await self._bus.request(Topic.ML_RERANK, message, label)

        sizes = [estimate_tokens(text) for text in texts]
        await _BatchSplit("rerank", self._clock, RERANK_BULK_PARTS).run(sizes, self._batch_tokens, ctx, ask)
        return scores


class _BatchSplit:
    """Request split into parts, a few of which are out at once.

    Args:
        operation: Names the request in an error.
        clock: The loop's clock.
        bulk_parts: More parts than this are bulk work, unless a search waits for them.
    """

    def __init__(self, operation: str, clock: Clock, bulk_parts: int = PARTS_MAX) -> None:
        self._bulk_parts = bulk_parts
        self._operation = operation
        self._clock = clock

    async def run(
        self, sizes: Sequence[int], part_max: int, ctx: Context, ask: Callable[[Part, Context], Awaitable[None]]
    ) -> None:
        """Ask for all parts, at most ``part_max`` of the texts' ``sizes`` in each; the first error cancels the rest.

        A part that is refused, or waits too long, goes back, and the number of parts that are out falls by one: the
        request goes on as wide as it is let. The refusal of the last one is an error, unless something is done already:
        then it is offered again for some seconds.

        Raises:
            Expired: At the pace so far, the context's deadline will pass too early; or the last part did not end in
                time.
            Rejected: No part is let in.
        """
        left = deque(plan_batches(sizes, part_max))
        forecast = CompletionForecast(sum(sizes), self._clock.now())
        askers = min(PARTS_MAX, len(left))
        large = len(left) > self._bulk_parts and ctx.criticality is not Criticality.INTERACTIVE
        label = ctx.as_bulk() if large else ctx
        refusals = 0

        async def ask_on() -> None:
            nonlocal askers, refusals
            while left:
                part = left.popleft()
                try:
                    await ask(part, label)
                except (Rejected, Expired) as error:
                    left.appendleft(part)
                    if askers > 1:
                        break
                    refusals += 1
                    late = ctx.deadline.passed(self._clock.now())
                    most = PART_REFUSALS_MAX if isinstance(error, Rejected) else PART_EXPIRIES_MAX
                    if late or not forecast.parts or refusals > most:
                        raise
                    # Other requests fill the topic; what is done already is worth a moment.
                    await asyncio.sleep(REFUSED_RETRY_S)
                    continue
                refusals = 0
                forecast.observe(sum(sizes[place] for place in part))
                self._check_forecast(forecast, len(sizes), ctx)
            askers -= 1

        await run_all([ask_on() for _ in range(askers)])

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


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a model reads of a text; only used to balance batches."""
    return min(TOKENS_MAX, len(text) // CHARACTERS_PER_TOKEN + 2)
