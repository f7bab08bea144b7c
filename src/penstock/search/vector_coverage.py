"""Vector coverage: searches while some chunks of a collection have no dense vectors yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.kernel.context import Context
from penstock.stores.data_model import ChunkPayload


class VectorBackfill(Protocol):
    """Maker of the vectors that chunks lack, as searches see it.

    Attributes:
        whole: Collections of which every chunk is known to have its vectors.
    """

    whole: set[str]

    async def coverage(self, collection: str, ctx: Context) -> float:
        """Return the share of a collection's chunks that have dense vectors."""

    async def complete_best(self, collection: str, hits: Sequence[ChunkPayload], ctx: Context) -> bool:
        """Embed the best pending hits as far as the time allows; return whether any was."""
