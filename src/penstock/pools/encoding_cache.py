"""Caches of encoded texts (L1, L2): a text is encoded once, also when it is asked for concurrently."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final, Generic, TypeVar

import numpy as np

from penstock.kernel.context import Context
from penstock.kernel.errors import PenstockError
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.bm25 import INLINE_CHARACTERS_MAX, Bm25Runner
from penstock.models.contract import Embedder, SparseEncoder
from penstock.pools.single_flight import SingleFlight
from penstock.stores.key_value_cache import KeyValueCache

V = TypeVar("V")

#: Long enough that two texts never meet.
KEY_BYTES: Final = 16

#: Characters of texts whose keys are made before others have the event loop: some 3 ms.
SLICE_CHARACTERS: Final = 1_000_000

_NO_TOKENS: Final = np.empty((0, 0), np.int8)


class EncodingCache(Generic[V]):
    """Cache of a model's vectors, keyed by model, kind and text.

    A cache that fails counts as empty.

    Args:
        cache: The store of the entries; it may be shared with other models.
        fingerprint: Names the model, its weights and its settings.
        pack: A vector as bytes; ``None`` for one that must not be remembered.
        unpack: The vector again; ``None`` for bytes that are none.

    Bounds: the cache's, and :class:`SingleFlight`'s.
    """

    def __init__(
        self,
        cache: KeyValueCache,
        fingerprint: str,
        pack: Callable[[V], bytes | None],
        unpack: Callable[[bytes], V | None],
    ) -> None:
        self._cache = cache
        self._pack = pack
        self._unpack = unpack
        self._flights: SingleFlight[V] = SingleFlight()
        self._key_prefixes = {
            kind: hashlib.blake2b(f"{fingerprint}\0{kind}\0".encode(), digest_size=KEY_BYTES) for kind in TextKind
        }

    async def get_or_encode(
        self,
        texts: Sequence[str],
        kind: TextKind,
        ctx: Context,
        encode: Callable[[list[str]], Awaitable[Sequence[V]]],
    ) -> list[V]:
        """Return a vector for each text, in their order; only the unknown ones are encoded.

        Cancellation: As :meth:`SingleFlight.run`; a text that others wait for is encoded by one of them.
        """
        keys = await self._keys(texts, kind)
        unknown = dict(zip(keys, texts, strict=True))
        known = zip(list(unknown), await self._get(list(unknown)), strict=True)
        values = {key: value for key, value in known if value is not None}
        for key in values:
            del unknown[key]

        async def fly(led: list[bytes], land: Callable[[bytes, V], None]) -> None:
            encoded = await encode([unknown[key] for key in led])
            for key, value in zip(led, encoded, strict=True):
                land(key, value)
            await self._put(led, encoded)

        if unknown:
            values |= await self._flights.run(list(unknown), ctx, fly)
        return [values[key] for key in keys]

    async def _keys(self, texts: Sequence[str], kind: TextKind) -> list[bytes]:
        """Return the texts' keys; others have the event loop after each ``SLICE_CHARACTERS``."""
        keys, characters = [], 0
        for text in texts:
            key = self._key_prefixes[kind].copy()
            for first in range(0, len(text), SLICE_CHARACTERS):
                part = text[first : first + SLICE_CHARACTERS]
                key.update(part.encode("utf-8", "surrogatepass"))
                characters += len(part)
                if characters >= SLICE_CHARACTERS:
                    characters = 0
                    await asyncio.sleep(0)
            keys.append(key.digest())
        return keys

    async def _get(self, keys: Sequence[bytes]) -> list[V | None]:
        try:
            found = await self._cache.get(keys)
        except PenstockError:
            return [None] * len(keys)
        return [None if data is None else self._unpack(data) for data in found]

    async def _put(self, keys: Sequence[bytes], values: Sequence[V]) -> None:
        packed = ((key, self._pack(value)) for key, value in zip(keys, values, strict=True))
        try:
            await self._cache.put({key: data for key, data in packed if data is not None})
        except PenstockError:
            return


@dataclass(frozen=True, slots=True, eq=False)
class _EncodedText:
    """Vectors of one text from a dense model; ``tokens`` has no rows where they were not asked for."""

    dense: DenseVectors
    tokens: TokenVectors


class CachedEmbedder:
    """An ``Embedder`` with a cache in front of it.

    A text's dense vector alone and the same with its token vectors are remembered apart: few texts are asked for both
    ways, and one that is costs a second run, not a wrong answer.
    """

    def __init__(self, inner: Embedder, cache: KeyValueCache, fingerprint: str) -> None:
        self.dim = inner.dim
        self.token_dim = inner.token_dim
        self._inner = inner
        self._dense_only: EncodingCache[_EncodedText] = EncodingCache(
            cache, fingerprint, _pack_text, partial(_unpack_text, inner.dim, 0)
        )
        self._with_tokens: EncodingCache[_EncodedText] = EncodingCache(
            cache, f"{fingerprint} late", _pack_text, partial(_unpack_text, inner.dim, inner.token_dim)
        )

    async def embed(
        self, texts: Sequence[str], kind: TextKind, ctx: Context, *, late_interaction: bool = False
    ) -> Embeddings:
        """Return the vectors in the order of ``texts``; the dense array is the caller's own, the others are shared."""
        wanted = late_interaction and self.token_dim > 0

        async def encode(missing: list[str]) -> Sequence[_EncodedText]:
            embedded = await self._inner.embed(missing, kind, ctx, late_interaction=wanted)
            return [
                _EncodedText(*both) for both in zip(embedded.dense, embedded.late or repeat(_NO_TOKENS), strict=False)
            ]

        known = await (self._with_tokens if wanted else self._dense_only).get_or_encode(texts, kind, ctx, encode)
        dense = np.array([one.dense for one in known], np.float32).reshape(-1, self.dim)
        return Embeddings(dense, [one.tokens for one in known] if wanted else None)


class CachedSparseEncoder:
    """A ``SparseEncoder`` with a cache in front of it.

    Args:
        inner: The encoder.
        cache: As of :class:`EncodingCache`, like ``fingerprint``.
        bm25: The same model in this process, if it is BM25: it encodes a query in 6 µs, as long as a look into the
            cache takes, and a message takes longer.
    """

    def __init__(
        self, inner: SparseEncoder, cache: KeyValueCache, fingerprint: str, bm25: Bm25Runner | None = None
    ) -> None:
        self._inner = inner
        self._bm25 = bm25
        self._memory: EncodingCache[SparseVector] = EncodingCache(cache, fingerprint, _pack_sparse, _unpack_sparse)

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> list[SparseVector]:
        """Return one vector per text, in order; the arrays may be shared and are not to be changed."""
        if self._bm25 is not None and kind is TextKind.QUERY and sum(map(len, texts)) <= INLINE_CHARACTERS_MAX:
            return self._bm25.encode_queries(texts)

        async def encode(missing: list[str]) -> Sequence[SparseVector]:
            return await self._inner.encode(missing, kind, ctx)

        return await self._memory.get_or_encode(texts, kind, ctx, encode)


def _pack_text(text: _EncodedText) -> bytes | None:
    """Return the components, then the token vectors; what is not finite is an error that must not be remembered."""
    return text.dense.tobytes() + text.tokens.tobytes() if np.isfinite(text.dense).all() else None


def _unpack_text(dim: int, late: int, data: bytes) -> _EncodedText | None:
    rest = len(data) - 4 * dim
    if rest < 0 or (rest % late or not rest if late else rest):
        return None
    tokens = np.frombuffer(data, np.int8, offset=4 * dim).reshape(-1, late) if late else _NO_TOKENS
    return _EncodedText(np.frombuffer(data, np.float32, count=dim), tokens)


def _pack_sparse(vector: SparseVector) -> bytes | None:
    """Return the indices, then the values, four bytes each."""
    if not np.isfinite(vector.values).all():
        return None
    return vector.indices.astype(np.uint32).tobytes() + vector.values.astype(np.float32).tobytes()


def _unpack_sparse(data: bytes) -> SparseVector | None:
    if len(data) % 8:
        return None
    half = len(data) // 2
    return SparseVector(np.frombuffer(data[:half], np.uint32), np.frombuffer(data[half:], np.float32))
