"""What is asked of every store that is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.corpus import Corpus

#: Hits wanted, and candidates from each arm where two are fused: what Penstock does by default.
HITS: int = 10
CANDIDATES: int = 64


class Query(NamedTuple):
    """A query, ready to be asked."""

    text: str
    dense: NDArray[np.float32]
    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]


class Peer(Protocol):
    """A store. It answers with the texts of the hits, as a server would have to.

    Attributes:
        text: One line about how it is used.
        hybrid: Whether it has dense and sparse retrieval, fused.
        batches: Whether several queries can be asked at once.
    """

    text: str
    hybrid: bool
    batches: bool

    def fill(self, corpus: Corpus, directory: str) -> None:
        """Take in the corpus's rows; a row's id is its number."""
        ...

    def search(self, queries: Sequence[Query], *, hybrid: bool) -> list[list[int]]:
        """Return the rows found for each query, best first."""
        ...


def queries_of(corpus: Corpus) -> list[Query]:
    """Return a corpus's queries."""
    return [
        Query(text, corpus.query_dense[number], *corpus.query_sparse.row(number))
        for number, text in enumerate(corpus.queries)
    ]
