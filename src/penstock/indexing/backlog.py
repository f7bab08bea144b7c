"""Backlog of a collection: chunks that wait for their dense vectors, in the order in which they get them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, TypeAlias

from penstock.ranking.signals import is_documentation_path, is_test_path
from penstock.stores.data_model import PendingChunk

#: Chunks that a backlog holds at most; of those beyond it only knows that there are some.
CHUNKS_MAX: Final = 50_000

#: A chunk by its document's id and its number.
ChunkKey: TypeAlias = tuple[str, int]

#: Languages of files that hold data.
_DATA: Final = frozenset({"json", "yaml", "toml", "ini", "xml", "csv"})


class Turn(enum.IntEnum):
    """Turn in which a chunk gets its vectors: what a search has just found, then source, tests, documentation, data."""

    FOUND = 0
    SOURCE = 1
    TEST = 2
    DOCUMENTATION = 3
    DATA = 4


def turn_of(path: str, language: str) -> Turn:
    """Return the turn of a document's chunks."""
    if is_test_path(path):
        return Turn.TEST
    if is_documentation_path(path):
        return Turn.DOCUMENTATION
    return Turn.DATA if language in _DATA else Turn.SOURCE


class Backlog:
    """Chunks of one collection that wait for their dense vectors.

    Attributes:
        listed: Whether every such chunk of the collection is here, as far as is known.

    Bounds: ``CHUNKS_MAX`` chunks.
    """

    def __init__(self, *, listed: bool = False) -> None:
        self.listed = listed
        self._turns: dict[ChunkKey, Turn] = {}
        # Dictionaries keep the order in which chunks came.
        self._waiting: dict[Turn, dict[ChunkKey, None]] = {turn: {} for turn in Turn}

    def __len__(self) -> int:
        return len(self._turns)

    def __repr__(self) -> str:
        return f"<Backlog of {len(self)} chunks{'' if self.listed else ' and perhaps more'}>"

    def add(self, chunks: Iterable[PendingChunk]) -> None:
        """Add chunks; those that are here keep their place."""
        for one in chunks:
            self._put((one.document_id, one.chunk), turn_of(one.path, one.language))

    def prefer(self, keys: Iterable[ChunkKey]) -> None:
        """Let chunks come next."""
        for key in keys:
            if (turn := self._turns.pop(key, None)) is not None:
                del self._waiting[turn][key]
            self._put(key, Turn.FOUND)

    def take(self, count: int) -> list[ChunkKey]:
        """Take so many of the next chunks, or fewer if there are no more."""
        taken: list[ChunkKey] = []
        for waiting in self._waiting.values():
            while waiting and len(taken) < count:
                key = next(iter(waiting))
                del waiting[key], self._turns[key]
                taken.append(key)
        return taken

    def _put(self, key: ChunkKey, turn: Turn) -> None:
        if key in self._turns:
            return
        if len(self._turns) >= CHUNKS_MAX:
            self.listed = False
            return
        self._turns[key] = turn
        self._waiting[turn][key] = None
