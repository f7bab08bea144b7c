"""Vectors like those of texts, made of chance: clustered dense ones, sparse ones with Zipf's terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.vectors import SparseVector

DIM: Final = 384
#: Chunks of one cluster on average, and directions in which those of one cluster differ.
CLUSTER_CHUNKS: Final = 200
DIRECTIONS: Final = 64
#: Length of what tells a chunk from its cluster's middle, which has length 1: neighbours then have cosines of .5 to .8.
SPREAD: Final = 0.8
#: Token vectors of one chunk, of one query, and their components, in bytes (what 80 tokens leave, pooled by two).
CHUNK_ROWS: Final = 40
QUERY_ROWS: Final = 12
LATE: Final = 64
#: Terms there are, of one chunk, of one query; the commonest are missing as stop words are (Zipf and Mandelbrot).
VOCABULARY: Final = 200_000
CHUNK_TERMS: Final = 60
QUERY_TERMS: Final = 6
STOP_WORDS: Final = 30
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows.

    Attributes:
        dense: ``float32 [rows, DIM]``, L2-normalised.
        sparse: One for each row.
        late: ``int8 [rows, CHUNK_ROWS or QUERY_ROWS, LATE]``.
    """

    dense: NDArray[np.float32]
    sparse: list[SparseVector]
    late: NDArray[np.int8]


class World:
    """Where chunks and queries of a collection come from.

    Args:
        chunks: Size of the collection: it has a cluster for every ``CLUSTER_CHUNKS`` of them.
    """

    def __init__(self, chunks: int) -> None:
        chance = np.random.default_rng(_SEED)
        clusters = max(16, chunks // CLUSTER_CHUNKS)
        self._middles = _normalised(chance.standard_normal((clusters, DIM), np.float32))
        falling = 1 / np.sqrt(np.arange(1, DIRECTIONS + 1, dtype=np.float32))
        spread = SPREAD / np.sqrt((falling**2).sum())
        self._directions = _normalised(chance.standard_normal((DIRECTIONS, DIM), np.float32))
        self._directions *= (spread * falling)[:, None]
        shares = 1 / (np.arange(1, VOCABULARY + 1) + STOP_WORDS)
        self._cumulated = np.cumsum(shares / shares.sum())

    def blocks(self, chunks: int, rows: int) -> Iterator[Block]:
        """Yield so many chunks, always the same, in blocks of so many rows."""
        chance = np.random.default_rng(_SEED + 1)
        for first in range(0, chunks, rows):
            yield self._block(chance, min(rows, chunks - first), CHUNK_TERMS)

    def queries(self, count: int) -> Block:
        """Return queries, always the same."""
        return self._block(np.random.default_rng(_SEED + 2), count, QUERY_TERMS)

    def _block(self, chance: np.random.Generator, rows: int, terms: int) -> Block:
        middles = self._middles[chance.integers(len(self._middles), size=rows)]
        apart = chance.standard_normal((rows, DIRECTIONS), np.float32) @ self._directions
        drawn = np.searchsorted(self._cumulated, chance.random((rows, terms))).astype(np.uint32)
        weights = chance.uniform(0.8, 2.0, (rows, terms)).astype(np.float32)
        sparse = [
            SparseVector(*_distinct(some, weight if terms == CHUNK_TERMS else np.ones_like(weight)))
            for some, weight in zip(drawn, weights, strict=True)
        ]
        shape = (rows, CHUNK_ROWS if terms == CHUNK_TERMS else QUERY_ROWS, LATE)
        return Block(_normalised(middles + apart), sparse, chance.integers(-32, 33, shape, np.int8))


def _distinct(
    terms: NDArray[np.uint32], weights: NDArray[np.float32]
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Return every term once, with its first weight."""
    found, places = np.unique(terms, return_index=True)
    return found, weights[places]


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
