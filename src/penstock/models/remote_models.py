"""Models that other servers run, behind the Protocols of :mod:`penstock.models.contract`.

One message of a topic is one call or, where the endpoint takes less at once, a few in a row. Nothing here limits or
retries: :class:`penstock.pools.remote_dependency.RemoteDependency` wraps these models and does both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Invalid
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.prompts import NO_PROMPTS, Prompts
from penstock.models.remote_endpoint import BatchTooLarge, ModelEndpoint
from penstock.models.remote_formats import (
    BODY_OVERHEAD_BYTES,
    DIM_MAX,
    NUMBER_BYTES_MAX,
    SCORE_BYTES_MAX,
    TERM_BYTES_MAX,
    TERMS_READ_MAX,
    WireFormat,
)
from penstock.models.tokenizer import well_formed

T = TypeVar("T")

#: Accepted batches in a row after which the batch size is doubled.
GROW_AFTER_BATCHES: Final = 100


class AdaptiveBatchSize:
    """Adaptive number of texts in a request: halved when the endpoint refuses it, doubled again after a while."""

    def __init__(self, texts_max: int) -> None:
        self.texts = texts_max
        self._most = texts_max
        self._accepted = 0

    def __repr__(self) -> str:
        return f"<AdaptiveBatchSize {self.texts} of {self._most}>"

    def on_accepted(self) -> None:
        """Record that a batch was accepted."""
        self._accepted += 1
        if self._accepted >= GROW_AFTER_BATCHES and self.texts < self._most:
            self.texts = min(self._most, 2 * self.texts)
            self._accepted = 0

    def on_too_large(self, texts: int) -> None:
        """Record that a batch of so many texts was too large."""
        self.texts = min(self.texts, max(1, texts // 2))
        self._accepted = 0


def non_empty_text(text: str) -> str:
    """Return a text that every endpoint takes: no lone surrogates, and not nothing."""
    return well_formed(text) or " "


class _RemoteModel(Generic[T]):
    """A model behind an endpoint.

    Bounds: an answer is read up to what the entries for ``batch`` texts can take.
    """

    def __init__(self, endpoint: ModelEndpoint, wire_format: WireFormat[T], batch: int, model: str = "") -> None:
        self.batch = batch
        self._endpoint = endpoint
        self._format = wire_format
        self._model = model
        self._size = AdaptiveBatchSize(batch)

    async def _call(
        self, texts: Sequence[str], bytes_max: Callable[[str], int], ctx: Context, query: str = ""
    ) -> list[T]:
        """Return the entry of each text, asked for batch by batch; ``bytes_max`` bounds what one may take in an answer.

        Raises:
            BatchTooLarge: A text alone is too much.
        """
        texts = [non_empty_text(text) for text in texts]
        entries: list[T] = []
        while len(entries) < len(texts):
            batch = texts[len(entries) : len(entries) + self._size.texts]
            message = self._format.request_body(self._model, query, batch)
            try:
                body = await self._endpoint.post(message, BODY_OVERHEAD_BYTES + sum(map(bytes_max, batch)), ctx)
            except BatchTooLarge:
                if len(batch) == 1:
                    raise
                self._size.on_too_large(len(batch))
                continue
            try:
                entries.extend(self._parsed(body, len(batch)))
            except ValueError as error:
                raise self._endpoint.malformed_answer(str(error)) from None
            self._size.on_accepted()
        return entries

    def _parsed(self, body: bytes, count: int) -> Iterable[T]:
        return self._format.parse_response(body, count)


class RemoteEmbedder(_RemoteModel[DenseVectors]):
    """An ``Embedder`` that calls an endpoint. It gives no token vectors, so there is no late interaction with it.

    Args:
        endpoint: The endpoint.
        wire_format: The endpoint's wire format.
        batch: Texts in one request at most.
        model: The model's name there.
        dim: Dimension that every vector must have; 0 as long as it is not known.
        prompts: What the model expects in front of its texts.
    """

    token_dim = 0

    def __init__(
        self,
        endpoint: ModelEndpoint,
        wire_format: WireFormat[DenseVectors],
        batch: int,
        model: str = "",
        *,
        dim: int = 0,
        prompts: Prompts = NO_PROMPTS,
    ) -> None:
        super().__init__(endpoint, wire_format, batch, model)
        self.dim = dim
        self._prompts = prompts

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
        with _blamed(kind):
            rows = await self._call(
                self._prompts.applied(texts, kind), lambda _: NUMBER_BYTES_MAX * (self.dim or DIM_MAX), ctx
            )
        return Embeddings(np.array(rows, np.float32).reshape(len(rows), -1 if rows else self.dim))

    def _parsed(self, body: bytes, count: int) -> Iterable[DenseVectors]:
        return _normalised(np.asarray(super()._parsed(body, count)), self.dim)


class RemoteSparseEncoder(_RemoteModel[SparseVector]):
    """A ``SparseEncoder`` that calls an endpoint; queries and documents are encoded alike."""

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one vector for each text; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""
        with _blamed(kind):
            return await self._call(texts, lambda _: TERM_BYTES_MAX * TERMS_READ_MAX, ctx)


class RemoteReranker(_RemoteModel[np.float32]):
    """A ``Reranker`` that calls an endpoint; a score is a pair's own, so that those of two requests compare."""

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""
        # Some endpoints send the texts back unasked; a character takes 6 bytes at most.
        scores = await self._call(texts, lambda text: SCORE_BYTES_MAX + 6 * len(text), ctx, non_empty_text(query))
        return np.array(scores, np.float32)


@dataclass(frozen=True, slots=True)
class RemoteCosineReranker:
    """Cosine by a model behind an endpoint; see :class:`penstock.models.factory.CosineRerankRunner`."""

    embedder: RemoteEmbedder

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> DenseVectors:
        """Return ``float32 [n]``; raises and is cancelled as :meth:`RemoteEmbedder.embed`."""
        asked = await self.embedder.embed([query], TextKind.QUERY, ctx)
        told = await self.embedder.embed(texts, TextKind.DOCUMENT, ctx)
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
