"""Exact counts of a shard's documents and chunks, kept up to date by each update instead of counted again.

Counting a million points takes the engine a quarter of a second in which no request is answered, and monitoring asks
for the counts every second. So the points are counted once, and each update then adjusts the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.kernel.context import point_id
from penstock.stores.backends.edge.engine import Shard, Update
from penstock.stores.commands import DeleteDocuments, TrimDocument, UpsertPoints
from penstock.stores.data_model import Condition, Match, Range

#: Condition that selects the first chunk of each document.
IS_FIRST_CHUNK = Match("chunk", [0])


class ShardCounts(NamedTuple):
    """Numbers of documents, of chunks, and of chunks without a dense vector."""

    documents: int
    chunks: int
    pending: int


class ShardCounter:
    """The exact numbers of one shard's documents and chunks. Nothing is counted before :meth:`read`.

    Args:
        counts: The numbers, if they are known.

    Bounds: Three numbers.
    """

    def __init__(self, counts: ShardCounts | None = None) -> None:
        self._counts = counts

    def read(self, shard: Shard) -> ShardCounts:
        """Return the numbers; the first time, and after :meth:`invalidate`, they are counted."""
        if self._counts is None:
            self._counts = ShardCounts(*_count(shard, []), shard.count_pending())
        return self._counts

    def preview(self, shard: Shard, command: Update) -> ShardCounts | None:
        """Return what the numbers will be once a command has been applied, for :meth:`commit`.

        ``None`` where they are not known because they were never read.
        """
        if self._counts is None:
            return None
        documents, chunks, pending = self._counts
        if isinstance(command, UpsertPoints):
            written = {point_id(point.payload.id, point.payload.chunk): point for point in command.points}
            new = dict(written)
            for known in shard.existing(list(new)):
                del new[known]
            # As a rule there are none, and none need be counted.
            filled = shard.count_pending(points=list(written)) if pending and len(new) < len(written) else 0
            lacking = sum(point.dense is None for point in written.values())
            heads = sum(point.payload.chunk == 0 for point in new.values())
            return ShardCounts(documents + heads, chunks + len(new), pending - filled + lacking)
        if isinstance(command, TrimDocument):
            gone: list[Condition] = [Match("id", [command.document_id]), Range("chunk", gte=float(command.chunks))]
        elif isinstance(command, DeleteDocuments):
            gone = list(command.filter)
        else:
            return self._counts
        without = shard.count_pending(gone) if pending else 0
        fewer = _count(shard, gone)
        return ShardCounts(documents - fewer[0], chunks - fewer[1], pending - without)

    def commit(self, counts: ShardCounts | None) -> None:
        """Take over the counts of :meth:`preview`: the command has been applied."""
        self._counts = counts

    def invalidate(self) -> None:
        """Drop the counts: an update failed half-way, or the points were replaced."""
        self._counts = None


def _count(shard: Shard, conditions: Sequence[Condition]) -> tuple[int, int]:
    return shard.count([*conditions, IS_FIRST_CHUNK]), shard.count(conditions)
