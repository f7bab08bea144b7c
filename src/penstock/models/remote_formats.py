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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np

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


@dataclass(frozen=True, slots=True)
class WireFormat(Generic[T]):
    """Wire format of one operation of an endpoint.

    Attributes:
        path: Path of the operation.
        request_body: Returns the request body for a model's name, a query (of a reranker) and texts.
        parse_response: Returns one entry for each of so many texts, in their order, as the endpoint scaled it; raises
            ``ValueError`` for an invalid answer.
    """

    path: str
    request_body: Callable[[str, str, Sequence[str]], Any]
    parse_response: Callable[[bytes, int], Iterable[T]]


#: Formats by the kind that the settings name: ``float32 [dim]``, a sparse vector, a score for each text.
DENSE_FORMATS: Final[dict[str, WireFormat[DenseVectors]]] = {
    "openai": WireFormat(
        "/v1/embeddings",
        lambda model, _query, texts: {"model": model, "input": texts, "encoding_format": "float"},
        lambda body, count: _matrix(
            _by_index([(one.index, one.embedding) for one in _decoded(body, _Vectors).data], count), count
        ),
    ),
    "tei": WireFormat(
        "/embed",
        lambda _model, _query, texts: {"inputs": texts, "truncate": True, "normalize": True},
        lambda body, count: _matrix(_decoded(body, list[list[float]]), count),
    ),
}
SPARSE_FORMATS: Final[dict[str, WireFormat[SparseVector]]] = {
    "tei": WireFormat(
        "/embed_sparse",
        lambda _model, _query, texts: {"inputs": texts, "truncate": True},
        lambda body, count: [_sparse(row) for row in _checked(_decoded(body, list[list[_Term]]), count)],
    ),
}
RERANK_FORMATS: Final[dict[str, WireFormat[np.float32]]] = {
    "tei": WireFormat(
        "/rerank",
        lambda _model, query, texts: {"query": query, "texts": texts, "truncate": True},
        lambda body, count: _scores([(one.index, one.score) for one in _decoded(body, list[_Scored])], count),
    ),
    "cohere": WireFormat(
        "/v2/rerank",
        lambda model, query, texts: {"model": model, "query": query, "documents": texts, "top_n": len(texts)},
        lambda body, count: _scores(
            [(one.index, one.relevance_score) for one in _decoded(body, _Results).results], count
        ),
    ),
}


def _decoded(body: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise ValueError(f"it has another shape: {error}") from None
    except DECODE_ERRORS as error:
        raise ValueError(f"it is no JSON: {error}") from None


def _checked(entries: Sequence[T], count: int) -> Sequence[T]:
    if len(entries) != count:
        raise ValueError(f"{len(entries)} entries for {count} texts")
    return entries


def _by_index(entries: Sequence[tuple[int, T]], count: int) -> list[T]:
    """Return the entries by their indices, which must be each of 0 to ``count - 1`` once."""
    by_index = dict(_checked(entries, count))
    if by_index.keys() != set(range(count)):
        raise ValueError("the indices are not those of the texts")
    return [by_index[index] for index in range(count)]


def _matrix(rows: Sequence[Sequence[float]], count: int) -> DenseVectors:
    dim = len(_checked(rows, count)[0])
    if not 1 <= dim <= DIM_MAX or any(len(row) != dim for row in rows):
        raise ValueError("the vectors are not of one length, or that length is none")
    return finite_array(rows, "a component")


def _sparse(row: Sequence[_Term]) -> SparseVector:
    return checked_sparse_vector([term.index for term in row], [term.value for term in row])


def _scores(entries: Sequence[tuple[int, float]], count: int) -> DenseVectors:
    return finite_array(_by_index(entries, count), "a score")
