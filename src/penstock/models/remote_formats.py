"""Wire formats of model endpoints: request bodies and parsers of answers. Pure.

========== ============================================ =========================================================
shape      asks                                         public documentation
========== ============================================ =========================================================
``openai`` ``POST /v1/embeddings``                      OpenAI's API reference; vLLM, Ollama, llama.cpp, LiteLLM
``tei``    ``POST /embed``, ``/embed_sparse``,          Hugging Face text-embeddings-inference
           ``/rerank``
``cohere`` ``POST /v2/rerank``                          Cohere's API reference; Jina, vLLM under other versions
========== ============================================ =========================================================

Parsers are strict: one entry for each text, in any order where entries carry an index, every number finite. They raise
``ValueError``, which :mod:`penstock.models.remote_models` turns into an error that names the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from penstock.kernel.errors import DECODE_ERRORS
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.models.vector_checks import checked_sparse_vector, finite_array

T = TypeVar("T")

#: Components of a vector at most; more is no embedding.
DIM_MAX: Final = 16_384

#: Bytes of an answer beside its entries, and of one component, one term, one score, written out in JSON.
BODY_OVERHEAD_BYTES: Final = 65_536
NUMBER_BYTES_MAX: Final = 32
TERM_BYTES_MAX: Final = 80
SCORE_BYTES_MAX: Final = 512
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


class DenseFormat(Protocol):
    """Wire format of requests for dense vectors."""

    @property
    def path(self) -> str:
        """Path of the operation."""
        ...

    def request_body(self, texts: Sequence[str]) -> Any:
        """Return the request body."""
        ...

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return ``float32 [count, dim]`` in the order of the texts, as the endpoint scaled them.

        Raises:
            ValueError: The answer is invalid.
        """
        ...


class RerankFormat(Protocol):
    """Wire format of requests for relevance scores."""

    @property
    def path(self) -> str:
        """Path of the operation."""
        ...

    def request_body(self, query: str, texts: Sequence[str]) -> Any:
        """Return the request body."""
        ...

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return ``float32 [count]`` in the order of the texts; raises as :meth:`DenseFormat.parse_response`."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAiDenseFormat:
    """``POST /v1/embeddings``.

    Attributes:
        model: The model's name there.
    """

    model: str
    path: str = "/v1/embeddings"

    def request_body(self, texts: Sequence[str]) -> Any:
        """Return the request body."""
        return {"model": self.model, "input": list(texts), "encoding_format": "float"}

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return the vectors by the texts' order."""
        entries = _decoded(body, _Vectors).data
        return _matrix(_by_index([(one.index, one.embedding) for one in entries], count), count)


@dataclass(frozen=True, slots=True)
class TeiDenseFormat:
    """``POST /embed``."""

    path: str = "/embed"

    def request_body(self, texts: Sequence[str]) -> Any:
        """Return the request body."""
        return {"inputs": list(texts), "truncate": True, "normalize": True}

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return the vectors."""
        return _matrix(_decoded(body, list[list[float]]), count)


@dataclass(frozen=True, slots=True)
class TeiSparseFormat:
    """``POST /embed_sparse``."""

    path: str = "/embed_sparse"

    def request_body(self, texts: Sequence[str]) -> Any:
        """Return the request body."""
        return {"inputs": list(texts), "truncate": True}

    def parse_response(self, body: bytes, count: int) -> list[SparseVector]:
        """Return one sparse vector for each text.

        Raises:
            ValueError: The answer is invalid.
        """
        rows = _decoded(body, list[list[_Term]])
        _check_count(len(rows), count)
        return [_sparse(row) for row in rows]


@dataclass(frozen=True, slots=True)
class TeiRerankFormat:
    """``POST /rerank``."""

    path: str = "/rerank"

    def request_body(self, query: str, texts: Sequence[str]) -> Any:
        """Return the request body."""
        return {"query": query, "texts": list(texts), "truncate": True}

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return the scores by the texts' order."""
        found = _decoded(body, list[_Scored])
        return _scores([(one.index, one.score) for one in found], count)


@dataclass(frozen=True, slots=True)
class CohereRerankFormat:
    """``POST /v2/rerank``.

    Attributes:
        model: The model's name there.
    """

    model: str
    path: str = "/v2/rerank"

    def request_body(self, query: str, texts: Sequence[str]) -> Any:
        """Return the request body."""
        return {"model": self.model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def parse_response(self, body: bytes, count: int) -> DenseVectors:
        """Return the scores by the texts' order."""
        found = _decoded(body, _Results).results
        return _scores([(one.index, one.relevance_score) for one in found], count)


def _sparse(row: Sequence[_Term]) -> SparseVector:
    return checked_sparse_vector([term.index for term in row], [term.value for term in row])


def _decoded(body: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise ValueError(f"it has another shape: {error}") from None
    except DECODE_ERRORS as error:
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
    return finite_array(rows, "a component")


def _scores(entries: Sequence[tuple[int, float]], count: int) -> DenseVectors:
    return finite_array(_by_index(entries, count), "a score")
