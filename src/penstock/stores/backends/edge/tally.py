"""How many documents and chunks a shard holds, known without counting them again.

To count a million points takes the engine a quarter of a second in which nobody is answered, and it is asked for
every second by whoever watches. So they are counted once, and then it is followed what each update does to them.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.kernel.ids import point_id
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.updates import Update
from penstock.stores.records import Condition, Match, Range

#: What the first chunk of a document is found by.
FIRST = Match("chunk", [0])


class Counts(NamedTuple):
    """Numbers of documents and of chunks."""

    documents: int
    chunks: int


class Tally:
    """The exact numbers of one shard's documents and chunks. Nothing is counted before somebody asks.

    Args:
        counts: The numbers, if they are known.

    Bounds: Two numbers.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts

    def read(self, shard: Shard) -> Counts:
        """Return the numbers; the first time, and after :meth:`forget`, they are counted."""
        if self._counts is None:
            self._counts = _count(shard, [])
        return self._counts

    def change(self, shard: Shard, command: Update) -> Counts | None:
        """Return what the numbers will be once a command has been applied, to be handed to :meth:`note` then.

        None where they are not known: nobody has asked for them yet.
        """
        if self._counts is None:
            return None
        documents, chunks = self._counts
        if isinstance(command, wire.Upsert):
            new = {point_id(point.payload.id, point.payload.chunk): point.payload.chunk for point in command.points}
            for known in shard.known(list(new)):
                del new[known]
            return Counts(documents + sum(chunk == 0 for chunk in new.values()), chunks + len(new))
        if isinstance(command, wire.Trim):
            gone = _count(shard, [Match("id", [command.document]), Range("chunk", gte=float(command.chunks))])
        elif isinstance(command, wire.Delete):
            gone = _count(shard, command.filter)
        else:
            gone = Counts(0, 0)
        return Counts(documents - gone.documents, chunks - gone.chunks)

    def note(self, counts: Counts | None) -> None:
        """Take over what :meth:`change` has said: the command has been applied."""
        self._counts = counts

    def forget(self) -> None:
        """Know nothing any more: an update failed half-way, or the points are others."""
        self._counts = None


def _count(shard: Shard, conditions: list[Condition]) -> Counts:
    return Counts(shard.count([*conditions, FIRST]), shard.count(conditions))
