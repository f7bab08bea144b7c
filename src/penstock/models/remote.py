"""Models that other servers run, behind the Protocols of :mod:`penstock.models.contract`.

One message of a topic is one call or, where the endpoint takes less at once, a few in a row. Nothing here limits or
retries: that is :class:`penstock.pools.remote.Remote`'s, which stands around it.
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
from penstock.models.remote_endpoint import BatchTooLarge, Endpoint
from penstock.models.remote_shapes import (
    DIM_MAX,
    ENVELOPE_BYTES,
    NUMBER_BYTES,
    SCORE_BYTES,
    TERM_BYTES,
    TERMS_READ_MAX,
    DenseShape,
    RerankShape,
    TeiSparse,
)
from penstock.models.tokenizer import well_formed

T = TypeVar("T")

#: So many batches taken in a row, and twice as many texts are tried again.
TAKEN_MIN: Final = 100


class BatchSize:
    """How many texts an endpoint takes at once: halved when it refuses, doubled again after a while.

    Args:
        most: Texts in a batch at most.

    Attributes:
        texts: Texts in a batch now.
    """

    def __init__(self, most: int) -> None:
        self.texts = most
        self._most = most
        self._taken = 0

    def __repr__(self) -> str:
        return f"<BatchSize {self.texts} of {self._most}>"

    def taken(self) -> None:
        """Note that a batch was taken."""
        self._taken += 1
        if self._taken >= TAKEN_MIN and self.texts < self._most:
            self.texts = min(self._most, 2 * self.texts)
            self._taken = 0

    def refused(self, texts: int) -> None:
        """Note that so many texts were too many."""
        self.texts = min(self.texts, max(1, texts // 2))
        self._taken = 0


async def in_batches(
    texts: Sequence[str], size: BatchSize, ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]
) -> list[T]:
    """Ask for all texts, a batch after the other; return one entry for each text, in their order.

    Args:
        texts: The texts.
        size: How many at once; it learns.
        ask: Asks for one batch.

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
            size.refused(len(batch))
        else:
            size.taken()
    return entries


def sendable(text: str) -> str:
    """Return a text that every endpoint takes: no lone surrogates, and not nothing."""
    return well_formed(text) or " "


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What a model wants in front of its texts (``query: `` and ``passage: `` for instance), by kind."""

    query: str = ""
    document: str = ""

    def put(self, text: str, kind: TextKind) -> str:
        """Return the text as the model wants it."""
        return (self.query if kind is TextKind.QUERY else self.document) + text


class RemoteEmbedder:
    """An ``Embedder`` that asks an endpoint. It gives no token vectors: no late interaction with it.

    Args:
        endpoint: Where.
        shape: In what words.
        dim: Dimension that every vector must have; 0 as long as it is not known.
        batch: Texts in one request at most.
        prefixes: What is put in front of texts.

    Bounds: an answer is read up to what ``batch`` vectors can take.
    """

    def __init__(
        self, endpoint: Endpoint, shape: DenseShape, dim: int, batch: int, prefixes: Prefixes = Prefixes()
    ) -> None:
        self.dim = dim
        self.late = 0
        self.batch = batch
        self._endpoint = endpoint
        self._shape = shape
        self._size = BatchSize(batch)
        self._prefixes = prefixes

    async def embed(self, texts: Sequence[str], kind: TextKind, ctx: Context, *, late: bool = False) -> Embeddings:  # noqa: ARG002 - there are none
        """Return ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            PenstockError: As :meth:`penstock.models.remote_endpoint.Endpoint.post`; ``Broken`` (``endpoint_answer``)
                for an answer that makes no sense.

        Cancellation: The request is closed.
        """

        async def ask(batch: Sequence[str]) -> list[DenseVectors]:
            message = self._shape.message([sendable(self._prefixes.put(text, kind)) for text in batch])
            bytes_max = ENVELOPE_BYTES + len(batch) * NUMBER_BYTES * (self.dim or DIM_MAX)
            body = await self._endpoint.post(message, bytes_max, ctx)
            try:
                return list(_normalised(self._shape.read(body, len(batch)), self.dim))
            except ValueError as error:
                raise self._endpoint.broken(str(error)) from None

        with _blamed(kind):
            rows = await in_batches(texts, self._size, ask)
        return Embeddings(np.array(rows, np.float32).reshape(len(rows), -1 if rows else self.dim))


class RemoteSparseEncoder:
    """A ``SparseEncoder`` that asks an endpoint; queries and documents are encoded alike.

    Args:
        endpoint: Where.
        shape: In what words.
        batch: Texts in one request at most.

    Bounds: as :class:`RemoteEmbedder`.
    """

    def __init__(self, endpoint: Endpoint, shape: TeiSparse, batch: int) -> None:
        self._endpoint = endpoint
        self._shape = shape
        self._size = BatchSize(batch)

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one vector for each text; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""

        async def ask(batch: Sequence[str]) -> list[SparseVector]:
            bytes_max = ENVELOPE_BYTES + len(batch) * TERM_BYTES * TERMS_READ_MAX
            body = await self._endpoint.post(self._shape.message([sendable(text) for text in batch]), bytes_max, ctx)
            try:
                return self._shape.read(body, len(batch))
            except ValueError as error:
                raise self._endpoint.broken(str(error)) from None

        with _blamed(kind):
            return await in_batches(texts, self._size, ask)


class RemoteReranker:
    """A ``Reranker`` that asks an endpoint.

    Args:
        endpoint: Where.
        shape: In what words.
        batch: Texts in one request at most; a score is a pair's own, so that those of two requests compare.

    Bounds: as :class:`RemoteEmbedder`.
    """

    def __init__(self, endpoint: Endpoint, shape: RerankShape, batch: int) -> None:
        self._endpoint = endpoint
        self._shape = shape
        self._size = BatchSize(batch)

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""

        async def ask(batch: Sequence[str]) -> list[float]:
            message = self._shape.message(sendable(query), [sendable(text) for text in batch])
            # Some send the texts back although nobody asked for them; a character takes 6 bytes at most.
            bytes_max = ENVELOPE_BYTES + sum(SCORE_BYTES + 6 * len(text) for text in batch)
            body = await self._endpoint.post(message, bytes_max, ctx)
            try:
                return list(self._shape.read(body, len(batch)))
            except ValueError as error:
                raise self._endpoint.broken(str(error)) from None

        return np.array(await in_batches(texts, self._size, ask), np.float32)


class CosineReranker:
    """Cosine between query and text by a model behind an endpoint, as :class:`penstock.models.rerank.DenseReranker`.

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
    """Blame the endpoint for a query that it does not take: for the search that is an arm that failed, no bad request.

    Raises:
        Broken: In the place of ``Invalid``, for a query.
    """
    try:
        yield
    except Invalid as error:
        if kind is TextKind.QUERY:
            raise Broken(error.detail, code=error.code) from None
        raise
