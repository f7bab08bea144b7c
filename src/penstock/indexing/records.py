"""Documents on their way in, and what became of each."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from penstock.kernel.errors import PenstockError
from penstock.stores.records import ChunkPayload, Point


class Document(msgspec.Struct, frozen=True):
    """A text to index.

    Attributes:
        id: Any Unicode, not empty; a document of the same id is replaced.
        text: The whole text; may be empty.
        path: Path shown to people and used by filters.
        language: Lower-case language name; guessed from the path when empty.
        metadata: Anything JSON can say.
    """

    id: str
    text: str
    path: str = ""
    language: str = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Status(enum.StrEnum):
    """What became of a document."""

    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    """What became of one document.

    Attributes:
        id: The document's id.
        status: ``indexed`` means that it survives ``kill -9`` from now on.
        chunks: How many points it has.
        error: Why it failed.
    """

    id: str
    status: Status
    chunks: int = 0
    error: PenstockError | None = None


class Segment(msgspec.Struct, frozen=True):
    """A run of one document's chunks, embedded and written in one step.

    Attributes:
        collection: Where to.
        chunks: The chunks' payloads, without vectors.
    """

    collection: str
    chunks: list[ChunkPayload]


Points = list[Point]
