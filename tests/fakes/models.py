"""Models without weights: words are hashed, so equal words are near each other and nothing else is."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.late_interaction import quantize
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import Embeddings, SparseVector

DIM = 8

#: Called before every run with the texts; may raise or wait.
Hook = Callable[[Sequence[str]], Awaitable[None]]


async def nothing(_texts: Sequence[str]) -> None:
    """Let every run pass."""


def fails_with(error: Exception) -> Callable[..., Awaitable[None]]:
    """Return a hook that raises."""

    async def hook(*_: Any) -> None:
        raise error

    return hook


def takes(seconds: float) -> Callable[..., Awaitable[None]]:
    """Return a hook that lets (virtual) time pass."""

    async def hook(*_: Any) -> None:
        await asyncio.sleep(seconds)

    return hook


def embedding(text: str) -> np.ndarray:
    """Return ``float32 [8]`` of length 1; texts of the same words have the same."""
    vector = np.full(DIM, 1e-3, np.float32)
    for word in text.lower().split():
        vector[zlib.crc32(word.encode()) % DIM] += 1
    return vector / np.linalg.norm(vector)


def token_vectors(text: str) -> np.ndarray:
    """Return a token vector for each word, ``int8 [words, 8]``; equal words have equal ones."""
    words = text.lower().split() or [""]
    rows = np.full((len(words), DIM), -1 / DIM, np.float32)
    rows[range(len(words)), [zlib.crc32(word.encode()) % DIM for word in words]] += 1
    return quantize(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def embeddings(texts: Sequence[str], *, late: bool) -> Embeddings:
    """Return what the fake models make of texts."""
    dense = np.array([embedding(text) for text in texts], np.float32).reshape(-1, DIM)
    return Embeddings(dense, [token_vectors(text) for text in texts] if late else None)


def terms(text: str) -> SparseVector:
    """Return the distinct words, each with weight 1."""
    numbers = sorted({zlib.crc32(word.encode()) for word in text.lower().split()})
    return SparseVector(np.array(numbers, np.uint32), np.ones(len(numbers), np.float32))


class FakeEmbedder:
    """See :class:`penstock.models.contract.Embedder`."""

    def __init__(self, hook: Hook = nothing, token_dim: int = DIM) -> None:
        self.dim = DIM
        self.token_dim = token_dim
        self.hook = hook
        self.asked: list[list[str]] = []

    async def embed(
        self, texts: Sequence[str], _kind: TextKind, _ctx: Context, *, late_interaction: bool = False
    ) -> Embeddings:
        self.asked.append(list(texts))
        await self.hook(texts)
        return embeddings(texts, late=late_interaction and self.token_dim > 0)


class FakeSparseEncoder:
    """See :class:`penstock.models.contract.SparseEncoder`."""

    def __init__(self, hook: Hook = nothing) -> None:
        self.hook = hook
        self.asked: list[list[str]] = []

    async def encode(self, texts: Sequence[str], _kind: TextKind, _ctx: Context) -> list[SparseVector]:
        self.asked.append(list(texts))
        await self.hook(texts)
        return [terms(text) for text in texts]


class FakeReranker:
    """See :class:`penstock.models.contract.Reranker`."""

    async def rerank(self, query: str, texts: Sequence[str], _ctx: Context) -> np.ndarray:
        return np.array([float(embedding(query) @ embedding(text)) for text in texts], np.float32)
