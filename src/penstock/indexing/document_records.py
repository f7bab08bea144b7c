"""Records of the documents to index, of their outcomes and of batches of chunks."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from penstock.kernel.errors import PenstockError
from penstock.stores.data_model import ChunkPayload, Point


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


class DocumentStatus(enum.StrEnum):
    """Status of a document after an attempt to index it."""

    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class IndexOutcome(msgspec.Struct, frozen=True):
    """Outcome of indexing one document.

    Attributes:
        id: The document's id.
        status: ``indexed`` means that it survives ``kill -9`` from now on.
        chunks: Number of its chunks.
        error: Why it failed.
    """

    id: str
    status: DocumentStatus
    chunks: int = 0
    error: PenstockError | None = None


class ChunkBatch(msgspec.Struct, frozen=True):
    """A run of one document's chunks, embedded and written in one step.

    Attributes:
        collection: Name of the collection.
        chunks: The chunks' payloads, without vectors.
    """

    collection: str
    chunks: list[ChunkPayload]


Points = list[Point]
