"""The wire formats of model endpoints: what is sent, and what an answer says. Pure.

========== ============================================ =========================================================
shape      asks                                         public documentation
========== ============================================ =========================================================
``openai`` ``POST /v1/embeddings``                      OpenAI's API reference; vLLM, Ollama, llama.cpp, LiteLLM
``tei``    ``POST /embed``, ``/embed_sparse``,          Hugging Face text-embeddings-inference
           ``/rerank``
``cohere`` ``POST /v2/rerank``                          Cohere's API reference; Jina, vLLM under other versions
========== ============================================ =========================================================

Readers are strict: one entry for each text, in any order where entries carry an index, every number finite. What they
refuse, they refuse with ``ValueError``; the endpoint's own words for it are :mod:`penstock.models.remote`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from penstock.kernel.errors import UNREADABLE
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.models.numbers import finite, sparse_vector

T = TypeVar("T")

#: Components of a vector at most; more is no embedding.
DIM_MAX: Final = 16_384

#: Bytes of an answer beside its entries, and of one component, one term, one score, written out in JSON.
ENVELOPE_BYTES: Final = 65_536
NUMBER_BYTES: Final = 32
TERM_BYTES: Final = 80
SCORE_BYTES: Final = 512
#: Terms that an answer may give for one text, before the lightest are dropped.
TERMS_READ_MAX: Final = 8192


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Vector]


class _Term(msgspec.Struct):
    index: int
    value: float


class _Scored(msgspec.Struct):
    index: int
    score: float


class _Relevant(msgspec.Struct):
    index: int
    relevance_score: float


class _Results(msgspec.Struct):
    results: list[_Relevant]


class DenseShape(Protocol):
    """How dense vectors are asked for."""

    @property
    def path(self) -> str:
        """Path of the operation."""
        ...

    def message(self, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        ...

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return ``float32 [count, dim]`` in the order of the texts, as the endpoint scaled them.

        Raises:
            ValueError: The answer makes no sense.
        """
        ...


class RerankShape(Protocol):
    """How scores against a query are asked for."""

    @property
    def path(self) -> str:
        """Path of the operation."""
        ...

    def message(self, query: str, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        ...

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return ``float32 [count]`` in the order of the texts; raises as :meth:`DenseShape.read`."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAiDense:
    """``POST /v1/embeddings``.

    Attributes:
        model: The model's name there.
    """

    model: str
    path: str = "/v1/embeddings"

    def message(self, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        return {"model": self.model, "input": list(texts), "encoding_format": "float"}

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return the vectors by the texts' order."""
        entries = _decoded(body, _Vectors).data
        return _matrix(_by_index([(one.index, one.embedding) for one in entries], count), count)


@dataclass(frozen=True, slots=True)
class TeiDense:
    """``POST /embed``."""

    path: str = "/embed"

    def message(self, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        return {"inputs": list(texts), "truncate": True, "normalize": True}

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return the vectors."""
        return _matrix(_decoded(body, list[list[float]]), count)


@dataclass(frozen=True, slots=True)
class TeiSparse:
    """``POST /embed_sparse``."""

    path: str = "/embed_sparse"

    def message(self, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        return {"inputs": list(texts), "truncate": True}

    def read(self, body: bytes, count: int) -> list[SparseVector]:
        """Return one sparse vector for each text.

        Raises:
            ValueError: The answer makes no sense.
        """
        rows = _decoded(body, list[list[_Term]])
        _check_count(len(rows), count)
        return [_sparse(row) for row in rows]


@dataclass(frozen=True, slots=True)
class TeiRerank:
    """``POST /rerank``."""

    path: str = "/rerank"

    def message(self, query: str, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        return {"query": query, "texts": list(texts), "truncate": True}

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return the scores by the texts' order."""
        found = _decoded(body, list[_Scored])
        return _scores([(one.index, one.score) for one in found], count)


@dataclass(frozen=True, slots=True)
class CohereRerank:
    """``POST /v2/rerank``.

    Attributes:
        model: The model's name there.
    """

    model: str
    path: str = "/v2/rerank"

    def message(self, query: str, texts: Sequence[str]) -> Any:
        """Return what is sent."""
        return {"model": self.model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def read(self, body: bytes, count: int) -> DenseVectors:
        """Return the scores by the texts' order."""
        found = _decoded(body, _Results).results
        return _scores([(one.index, one.relevance_score) for one in found], count)


def _sparse(row: Sequence[_Term]) -> SparseVector:
    return sparse_vector([term.index for term in row], [term.value for term in row])


def _decoded(body: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise ValueError(f"it has another shape: {error}") from None
    except UNREADABLE as error:
        raise ValueError(f"it is no JSON: {error}") from None


def _check_count(found: int, count: int) -> None:
    if found != count:
        raise ValueError(f"{found} entries for {count} texts")


def _by_index(entries: Sequence[tuple[int, T]], count: int) -> list[T]:
    """Return the entries by their indices, which must be each of 0 to ``count - 1`` once."""
    _check_count(len(entries), count)
    by_index = dict(entries)
    if by_index.keys() != set(range(count)):
        raise ValueError("the indices are not those of the texts")
    return [by_index[index] for index in range(count)]


def _matrix(rows: Sequence[Sequence[float]], count: int) -> DenseVectors:
    _check_count(len(rows), count)
    dim = len(rows[0])
    if not 1 <= dim <= DIM_MAX or any(len(row) != dim for row in rows):
        raise ValueError("the vectors are not of one length, or that length is none")
    return finite(rows, "a component")


def _scores(entries: Sequence[tuple[int, float]], count: int) -> DenseVectors:
    return finite(_by_index(entries, count), "a score")
