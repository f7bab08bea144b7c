"""Records of the documents to index, of their outcomes and of batches of chunks; content hash of a document."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.kernel.errors import PenstockError
from penstock.kernel.records import NullAsDefault, OrNull
from penstock.stores.data_model import ID_CHARACTERS_MAX, ChunkPayload
from penstock.stores.sources import NAME_CHARACTERS_MAX

#: Characters of a document's path at most.
PATH_CHARACTERS_MAX: Final = 4096


class DocumentFields(NullAsDefault, frozen=True):
    """All of a document but its metadata.

    Attributes:
        id: Any Unicode text. A document with the same id is replaced.
        text: The whole text.
        path: Path shown with its hits and matched by `path_prefix`.
        language: Name of its language, in any case. Guessed from the path when empty.
        source: Name of the source that it belongs to. Its id is then the source, a colon and a path.
        replaces: Id of a document that this one takes the place of. That one is deleted once this one is there. If its
            text, path, language and metadata are the same, its vectors are kept.
        same_as: Id of another document of the collection. If its text, path, language and metadata are the same, this
            one takes its vectors. If only the path is the same, and words alone are waited for, chunks of the same text
            take theirs. Otherwise this has no effect.
    """

    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
    text: str
    path: OrNull[Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX)]] = ""
    language: OrNull[Annotated[str, Meta(max_length=64)]] = ""
    source: OrNull[Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]] = ""
    replaces: OrNull[Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)]] = ""
    same_as: OrNull[Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)]] = ""


class Document(DocumentFields, frozen=True, forbid_unknown_fields=True):
    """A document to index.

    Attributes:
        metadata: JSON object to filter by and to return with hits, up to 64 KiB, with integers of at most 64 bits. It
            is stored with each chunk, so its size times their number is at most 1 MiB, or eight times the text if
            that is more.
    """

    metadata: OrNull[dict[str, Any]] = msgspec.field(default_factory=dict)


class DocumentStatus(enum.StrEnum):
    """Status of a document after an attempt to index it.

    A searchable document is found by words. Its vectors follow, and it survives ``kill -9`` until then.
    """

    INDEXED = "indexed"
    SEARCHABLE = "searchable"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Wait(enum.StrEnum):
    """Moment of an index request's answer: its documents are searchable by words, or by words and meaning."""

    WORDS = "words"
    VECTORS = "vectors"


class IndexOutcome(msgspec.Struct, frozen=True):
    """Outcome of indexing one document.

    Attributes:
        id: The document's id.
        status: ``indexed`` means that it survives ``kill -9`` from now on.
        chunks: Number of its chunks.
        error: Why it failed.
        same_as: Id of the document whose vectors it has taken, where it had named that one; empty for none.
    """

    id: str
    status: DocumentStatus
    chunks: int = 0
    error: PenstockError | None = None
    same_as: str = ""


class ChunkBatch(msgspec.Struct, frozen=True):
    """A run of one document's chunks, written in one step, and embedded before unless they are pending."""

    collection: str
    chunks: list[ChunkPayload]


#: Part of every hash; raised when chunking or the composed texts change, so that documents
#: indexed by an older release are indexed again. When composed texts change, hashes must also tell
#: the versions apart: chunks of the same text may take vectors of documents of the same version only.
HASH_VERSION = 1


#: Characters of a text that are hashed at once: at most 8 ms.
SLICE_CHARACTERS: Final = 1 << 20

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def document_hash(text: str, path: str, language: str, metadata: Mapping[str, object]) -> str:
    """Return the BLAKE2b-128 of everything that shapes a document's points, hexadecimal."""
    digest = new_digest()
    for piece in hash_input(text, path, language, metadata):
        digest.update(piece)
    return digest.hexdigest()


def new_digest() -> hashlib.blake2b:
    """Return a digest to feed with :func:`hash_input`."""
    return hashlib.blake2b(digest_size=16)


def hash_input(text: str, path: str, language: str, metadata: Mapping[str, object]) -> Iterator[bytes]:
    """Yield what is hashed of a document, piece by piece: a JSON array in all."""
    yield b'[%d,"' % HASH_VERSION
    for first in range(0, len(text), SLICE_CHARACTERS):
        yield _ENCODER.encode(text[first : first + SLICE_CHARACTERS])[1:-1]
    yield b'",' + _ENCODER.encode([path, language, dict(metadata)])[1:]
