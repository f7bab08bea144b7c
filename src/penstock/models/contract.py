"""Contracts of models: asynchronous protocols for the pipelines, synchronous runners for worker threads.

``search``, ``indexing`` and ``http`` use the asynchronous protocols. ``bus.model_clients``
implements them over topics. ``pools`` executes the synchronous runners, which occupy a
processor core and know nothing of deadlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.kernel.vectors import Embeddings, SparseVector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from penstock.kernel.context import Context
    from penstock.kernel.messages import TextKind
    from penstock.models.cancellation import CancellationToken

Floats = NDArray[np.float32]
"""``float32`` array; each use states its shape."""


class Embedder(Protocol):
    """Turns texts into dense vectors, and where wanted into token vectors by the same run."""

    @property
    def dim(self) -> int:
        """Components of a dense vector."""

    @property
    def token_dim(self) -> int:
        """Components of a token vector; 0 for a model that gives none."""

    async def embed(
        self, texts: Sequence[str], kind: TextKind, ctx: Context, *, late_interaction: bool = False
    ) -> Embeddings:
        """Return the texts' vectors, in their order.

        Raises:
            Rejected: The pool is full.
            Expired: The deadline passed.
            Unavailable: The model cannot serve now.

        Cancellation: Nothing is left behind; a run that has begun in a thread is cancelled.
        """


class SparseEncoder(Protocol):
    """Turns texts into sparse vectors; documents and queries are weighted differently."""

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one vector per text, in order; raises as ``Embedder.embed``.

        Cancellation: As ``Embedder.embed``.
        """


class Reranker(Protocol):
    """Scores texts against a query."""

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> Floats:
        """Return ``float32 [n]``, the higher the more relevant; the scale is the model's own.

        Cancellation: As ``Embedder.embed``.
        """


class DenseRunner(Protocol):
    """Dense model on the calling thread."""

    @property
    def dim(self) -> int:
        """Components of a vector."""

    def run(self, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n, dim]``, L2-normalised; several threads may call it at once.

        When ``stop`` is cancelled, the run ends as soon as it can and raises ``RunCancelled``.
        """


class LateInteractionRunner(DenseRunner, Protocol):
    """Dense model that gives token vectors by the same run."""

    def run_with_token_vectors(
        self, texts: Sequence[str], kind: TextKind, stop: CancellationToken | None = None
    ) -> Embeddings:
        """Return both; otherwise as :meth:`DenseRunner.run`."""


class SparseRunner(Protocol):
    """Sparse model on the calling thread; ``stop`` as of :class:`DenseRunner`."""

    def encode_documents(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per document, in order."""

    def encode_queries(self, texts: Sequence[str], stop: CancellationToken | None = None) -> list[SparseVector]:
        """Return one vector per query, in order."""


class RerankRunner(Protocol):
    """Reranking model on the calling thread."""

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Return ``float32 [n]``, the higher the more relevant; ``stop`` as of :class:`DenseRunner`."""


async def _not_known(*_: object) -> None:
    """Return ``None``: truncation is not known."""


@dataclass(frozen=True, slots=True)
class TruncationChecks:
    """Checks that return the positions of texts that a model truncates; ``None`` where that is not known.

    It is not known of a model that another server runs behind an endpoint.

    Attributes:
        dense: For texts to embed.
        sparse: For texts to encode as sparse vectors.
        rerank: For a query and texts; whether the query is cut comes first.
    """

    dense: Callable[[Sequence[str]], Awaitable[list[int] | None]] = _not_known
    sparse: Callable[[Sequence[str]], Awaitable[list[int] | None]] = _not_known
    rerank: Callable[[str, Sequence[str]], Awaitable[tuple[bool, list[int]] | None]] = _not_known


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The dense model's tokens of texts; estimates for a model that another server runs behind an endpoint.

    Attributes:
        tokens_max: Tokens of a text that are read at most; 0 where that is not known.
        count_read: Returns how many tokens of texts are read in all, special tokens included.
        cut: Returns the beginnings of texts that have so many tokens each.
    """

    tokens_max: int
    count_read: Callable[[Sequence[str]], Awaitable[int]]
    cut: Callable[[Sequence[str], int], Awaitable[Sequence[str]]]


async def _no_tokens(_texts: Sequence[str]) -> int:
    return 0


async def _uncut(texts: Sequence[str], _tokens: int) -> Sequence[str]:
    return texts


#: Of a model whose tokens are not known at all.
NO_TOKEN_USAGE: Final = TokenUsage(0, _no_tokens, _uncut)


class ModelInfo(msgspec.Struct, frozen=True):
    """A model in use.

    Attributes:
        part: ``dense``, ``sparse`` or ``rerank``.
        kind: ``builtin``, ``bm25``, ``onnx``, ``openai``, ``tei`` or ``cohere``.
        name: Its name. Vectors of models with different names never mix.
        url: Its endpoint. Empty for a model that the server runs itself.
        note: What it lacks, or what was wrong with it at the start. Empty for nothing.
    """

    part: str
    kind: str
    name: str
    url: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class OffloadedModel:
    """A model of other instances, in place of a runner, which is never called here.

    Attributes:
        model: Its name and fingerprint, which must be the same on those instances.
        dim: Components of a dense vector; 0 for a model that makes none.
        token_dim: Components of a token vector; 0 for a model that gives none.
        batch_tokens: Padded tokens of one message that suit it; 0 where nothing is known.
    """

    model: str
    dim: int = 0
    token_dim: int = 0
    batch_tokens: int = 0
