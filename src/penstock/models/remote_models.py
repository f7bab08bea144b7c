"""Models that other servers run, behind the Protocols of :mod:`penstock.models.contract`.

One message of a topic is one call or, where the endpoint takes less at once, a few in a row. Nothing here limits or
retries: :class:`penstock.pools.remote_dependency.RemoteDependency` wraps these models and does both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.remote_endpoint import BatchTooLarge, ModelEndpoint
from penstock.models.remote_formats import (
    BODY_OVERHEAD_BYTES,
    DIM_MAX,
    NUMBER_BYTES_MAX,
    SCORE_BYTES_MAX,
    TERM_BYTES_MAX,
    TERMS_READ_MAX,
    DenseFormat,
    RerankFormat,
    TeiSparseFormat,
)
from penstock.models.tokenizer import well_formed

T = TypeVar("T")

#: Accepted batches in a row after which the batch size is doubled.
GROW_AFTER_BATCHES: Final = 100


class AdaptiveBatchSize:
    """Adaptive number of texts in a request: halved when the endpoint refuses it, doubled again after a while.

    Args:
        texts_max: Texts in a batch at most.

    Attributes:
        texts: Texts in a batch now.
    """

    def __init__(self, texts_max: int) -> None:
        self.texts = texts_max
        self._most = texts_max
        self._taken = 0

    def __repr__(self) -> str:
        return f"<AdaptiveBatchSize {self.texts} of {self._most}>"

    def on_accepted(self) -> None:
        """Record that a batch was accepted."""
        self._taken += 1
        if self._taken >= GROW_AFTER_BATCHES and self.texts < self._most:
            self.texts = min(self._most, 2 * self.texts)
            self._taken = 0

    def on_too_large(self, texts: int) -> None:
        """Record that a batch of so many texts was too large."""
        self.texts = min(self.texts, max(1, texts // 2))
        self._taken = 0


async def call_in_batches(
    texts: Sequence[str], size: AdaptiveBatchSize, ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]
) -> list[T]:
    """Call an endpoint for all texts, batch by batch; return one entry for each text, in their order.

    Args:
        texts: The texts.
        size: The batch size, which adapts.
        ask: Makes the call for one batch.

    Raises:
        BatchTooLarge: A text alone is too much.
    """
    entries: list[T] = []
    while len(entries) < len(texts):
        batch = texts[len(entries) : len(entries) + size.texts]
        try:
            entries += await ask(batch)
        except BatchTooLarge:
            if len(batch) == 1:
                raise
            size.on_too_large(len(batch))
        else:
            size.on_accepted()
    return entries


def non_empty_text(text: str) -> str:
    """Return a text that every endpoint takes: no lone surrogates, and not nothing."""
    return well_formed(text) or " "


@dataclass(frozen=True, slots=True)
class PromptPrefixes:
    """Prefixes that a model expects in front of its texts (``query: `` and ``passage: `` for instance), by kind."""

    query: str = ""
    document: str = ""

    def apply(self, text: str, kind: TextKind) -> str:
        """Return the text as the model wants it."""
        return (self.query if kind is TextKind.QUERY else self.document) + text


class RemoteEmbedder:
    """An ``Embedder`` that calls an endpoint. It gives no token vectors, so there is no late interaction with it.

    Args:
        endpoint: The endpoint.
        wire_format: The endpoint's wire format.
        dim: Dimension that every vector must have; 0 as long as it is not known.
        batch: Texts in one request at most.
        prefixes: Prefixes of texts, by kind.

    Bounds: an answer is read up to what ``batch`` vectors can take.
    """

    def __init__(
        self,
        endpoint: ModelEndpoint,
        wire_format: DenseFormat,
        dim: int,
        batch: int,
        prefixes: PromptPrefixes = PromptPrefixes(),
    ) -> None:
        self.dim = dim
        self.token_dim = 0
        self.batch = batch
        self._endpoint = endpoint
        self._shape = wire_format
        self._size = AdaptiveBatchSize(batch)
        self._prefixes = prefixes

    async def embed(
        self,
        texts: Sequence[str],
        kind: TextKind,
        ctx: Context,
        *,
        late_interaction: bool = False,  # noqa: ARG002 - there are none
    ) -> Embeddings:
        """Return ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            PenstockError: As :meth:`penstock.models.remote_endpoint.ModelEndpoint.post`; ``Broken``
                (``endpoint_bad_response``) for an invalid answer.

        Cancellation: The request is closed.
        """

        async def ask(batch: Sequence[str]) -> list[DenseVectors]:
            message = self._shape.request_body([non_empty_text(self._prefixes.apply(text, kind)) for text in batch])
            bytes_max = BODY_OVERHEAD_BYTES + len(batch) * NUMBER_BYTES_MAX * (self.dim or DIM_MAX)
            body = await self._endpoint.post(message, bytes_max, ctx)
            try:
                return list(_normalised(self._shape.parse_response(body, len(batch)), self.dim))
            except ValueError as error:
                raise self._endpoint.malformed_answer(str(error)) from None

        with _blamed(kind):
            rows = await call_in_batches(texts, self._size, ask)
        return Embeddings(np.array(rows, np.float32).reshape(len(rows), -1 if rows else self.dim))


class RemoteSparseEncoder:
    """A ``SparseEncoder`` that calls an endpoint; queries and documents are encoded alike.

    Args:
        endpoint: The endpoint.
        wire_format: The endpoint's wire format.
        batch: Texts in one request at most.

    Bounds: as :class:`RemoteEmbedder`.
    """

    def __init__(self, endpoint: ModelEndpoint, wire_format: TeiSparseFormat, batch: int) -> None:
        self._endpoint = endpoint
        self._shape = wire_format
        self._size = AdaptiveBatchSize(batch)

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one vector for each text; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""

        async def ask(batch: Sequence[str]) -> list[SparseVector]:
            bytes_max = BODY_OVERHEAD_BYTES + len(batch) * TERM_BYTES_MAX * TERMS_READ_MAX
            body = await self._endpoint.post(
                self._shape.request_body([non_empty_text(text) for text in batch]), bytes_max, ctx
            )
            try:
                return self._shape.parse_response(body, len(batch))
            except ValueError as error:
                raise self._endpoint.malformed_answer(str(error)) from None

        with _blamed(kind):
            return await call_in_batches(texts, self._size, ask)


class RemoteReranker:
    """A ``Reranker`` that calls an endpoint.

    Args:
        endpoint: The endpoint.
        wire_format: The endpoint's wire format.
        batch: Texts in one request at most; a score is a pair's own, so that those of two requests compare.

    Bounds: as :class:`RemoteEmbedder`.
    """

    def __init__(self, endpoint: ModelEndpoint, wire_format: RerankFormat, batch: int) -> None:
        self._endpoint = endpoint
        self._shape = wire_format
        self._size = AdaptiveBatchSize(batch)

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""

        async def ask(batch: Sequence[str]) -> list[float]:
            message = self._shape.request_body(non_empty_text(query), [non_empty_text(text) for text in batch])
            # Some endpoints send the texts back unasked; a character takes 6 bytes at most.
            bytes_max = BODY_OVERHEAD_BYTES + sum(SCORE_BYTES_MAX + 6 * len(text) for text in batch)
            body = await self._endpoint.post(message, bytes_max, ctx)
            try:
                return list(self._shape.parse_response(body, len(batch)))
            except ValueError as error:
                raise self._endpoint.malformed_answer(str(error)) from None

        return np.array(await call_in_batches(texts, self._size, ask), np.float32)


class RemoteCosineReranker:
    """Cosine of query and text by a model behind an endpoint; see :class:`penstock.models.factory.CosineRerankRunner`.

    Args:
        embedder: The model.
    """

    def __init__(self, embedder: RemoteEmbedder) -> None:
        self._embedder = embedder

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""
        asked = await self._embedder.embed([query], TextKind.QUERY, ctx)
        told = await self._embedder.embed(texts, TextKind.DOCUMENT, ctx)
        scores: DenseVectors = told.dense @ asked.dense[0]
        return scores


def _normalised(rows: DenseVectors, dim: int) -> DenseVectors:
    """Return the rows with length 1.

    Raises:
        ValueError: They have another dimension than ``dim`` (if that is known), or one has no length.
    """
    if dim and rows.shape[1] != dim:
        raise ValueError(f"its vectors have {rows.shape[1]} dimensions, not {dim}")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not (lengths > 0.0).all():
        raise ValueError("a vector is all zeros")
    normalised: DenseVectors = (rows / lengths).astype(np.float32)
    return normalised


@contextmanager
def _blamed(kind: TextKind) -> Iterator[None]:
    """Turn an endpoint's refusal of a query into its own error: the search then lacks an arm and is no bad request.

    Raises:
        Broken: In the place of ``Invalid``, for a query.
    """
    try:
        yield
    except Invalid as error:
        if kind is TextKind.QUERY:
            raise Broken(error.detail, code=error.code) from None
        raise
