"""Frames between the front and the store process: a length, then a MessagePack record.

The two ends are the same release of the same program on the same machine, joined by an anonymous
socket pair. Nothing else can connect.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from penstock.kernel import errors
from penstock.kernel.errors import Invalid, PenstockError
from penstock.ranking.retrieval import FusionName
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.data_model import (
    ChunkPayload,
    CollectionInfo,
    Condition,
    DocumentInfo,
    IndexBuildStatus,
    RetrievedHit,
)
from penstock.stores.key_value_cache import CacheState

LENGTH_HEADER: Final = struct.Struct("<I")


class WireDenseVector(msgspec.Struct, frozen=True, tag="dense", array_like=True):
    """A dense vector, ``float32`` little-endian."""

    data: bytes


class WireSparseVector(msgspec.Struct, frozen=True, tag="sparse", array_like=True):
    """A sparse vector: ``uint32`` indices, ``float32`` values."""

    indices: bytes
    values: bytes


class WireTokenVectors(msgspec.Struct, frozen=True, tag="late", array_like=True):
    """Token vectors, ``int8``, row after row."""

    data: bytes
    rows: int


class WirePoint(msgspec.Struct, frozen=True, array_like=True):
    """A point without its id, which follows from its payload."""

    payload: ChunkPayload
    dense: WireDenseVector
    sparse: WireSparseVector
    token_vectors: WireTokenVectors | None = None


class CreateCollection(msgspec.Struct, frozen=True, tag="create"):
    """Create a collection."""

    info: CollectionInfo


class ListCollections(msgspec.Struct, frozen=True, tag="list"):
    """Describe every collection."""


class DescribeCollection(msgspec.Struct, frozen=True, tag="describe"):
    """Describe one collection."""

    collection: str


class DropCollection(msgspec.Struct, frozen=True, tag="drop"):
    """Delete a collection."""

    collection: str


class UpsertPoints(msgspec.Struct, frozen=True, tag="upsert"):
    """Write points."""

    collection: str
    points: list[WirePoint]


class TrimDocument(msgspec.Struct, frozen=True, tag="trim"):
    """Delete a document's chunks from a number on."""

    collection: str
    document: str
    chunks: int


class SealDocument(msgspec.Struct, frozen=True, tag="seal"):
    """Mark a document complete."""

    collection: str
    head: DocumentInfo


class DeleteDocuments(msgspec.Struct, frozen=True, tag="delete"):
    """Delete documents by filter."""

    collection: str
    filter: list[Condition]


class Retrieve(msgspec.Struct, frozen=True, tag="retrieve"):
    """Answer a search, see :class:`penstock.ranking.retrieval.RetrievalQuery`."""

    collection: str
    limit: int
    candidates: int
    dense: WireDenseVector | None
    sparse: WireSparseVector | None
    tokens: WireTokenVectors | None
    weights: dict[str, float]
    fusion: FusionName
    rerank: bool
    query: str
    explain: bool
    filter: list[Condition]


class WireArmQuery(msgspec.Struct, frozen=True, array_like=True):
    """Query of a single arm."""

    vector: WireDenseVector | WireSparseVector
    limit: int
    filter: list[Condition]
    among: list[str] | None


class SearchBatch(msgspec.Struct, frozen=True, tag="search_all"):
    """Run several one-arm queries on one collection."""

    collection: str
    searches: list[WireArmQuery]


class FetchTokenVectors(msgspec.Struct, frozen=True, tag="tokens"):
    """Read token vectors."""

    collection: str
    points: list[str]


class FetchPayloads(msgspec.Struct, frozen=True, tag="fetch"):
    """Read payloads."""

    collection: str
    points: list[str]


class ListDocuments(msgspec.Struct, frozen=True, tag="heads"):
    """Read a page of document heads."""

    collection: str
    filter: list[Condition]
    after: str | None
    limit: int


class GetDocuments(msgspec.Struct, frozen=True, tag="find"):
    """Read the heads of given documents."""

    collection: str
    documents: list[str]


class ScrollPoints(msgspec.Struct, frozen=True, tag="read_points"):
    """Read a page of whole points."""

    collection: str
    after: str | None
    limit: int


class WirePointPage(msgspec.Struct, frozen=True, array_like=True):
    """A page of whole points, and where the next one starts."""

    points: list[WirePoint]
    next: str | None


class ShrinkCache(msgspec.Struct, frozen=True, tag="shrink"):
    """Shrink the cache of points to a share of its size, because memory is short."""

    share: float


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Reply and do nothing."""


class CloseStore(msgspec.Struct, frozen=True, tag="close"):
    """Flush, close every collection and end."""


class CopyCollection(msgspec.Struct, frozen=True, tag="copy"):
    """Copy a collection to a directory; answered when the copy is whole."""

    collection: str
    target: str


class InstallCollection(msgspec.Struct, frozen=True, tag="adopt"):
    """Install a copied collection from a directory; with ``force`` it replaces an existing one."""

    collection: str
    source: str
    force: bool


class OptimizeCollection(msgspec.Struct, frozen=True, tag="optimize"):
    """Start an index build of a collection; answered before the new generation is made."""

    collection: str


StoreCommand = (
    CreateCollection
    | ListCollections
    | DescribeCollection
    | DropCollection
    | UpsertPoints
    | TrimDocument
    | SealDocument
    | DeleteDocuments
    | Retrieve
    | SearchBatch
    | FetchTokenVectors
    | FetchPayloads
    | ListDocuments
    | GetDocuments
    | ScrollPoints
    | CopyCollection
    | InstallCollection
    | OptimizeCollection
    | ShrinkCache
    | Ping
    | CloseStore
)

#: Number of a reply that answers no request: it carries a :class:`StoreNotice`.
NOTICE_NUMBER: Final = -1


class StoreRequest(msgspec.Struct, frozen=True, array_like=True):
    """A command, its number, and how long its requester will wait (infinite: ``None``)."""

    number: int
    command: StoreCommand
    expires_at_s: float | None = None


class WireError(msgspec.Struct, frozen=True):
    """An error, in the terms of :mod:`penstock.kernel.errors`."""

    family: str
    code: str
    detail: str
    about: dict[str, str | float | bool]


class WireResult(msgspec.Struct, frozen=True, array_like=True):
    """The result of ``Retrieve``; the requester decodes its hits one by one, see :class:`WireRawResult`."""

    hits: list[RetrievedHit]
    failures: dict[str, WireError]
    stages: dict[str, float]
    truncated: bool = False


class WireRawResult(msgspec.Struct, frozen=True, array_like=True):
    """A ``WireResult`` whose hits are still bytes: a large answer is decoded in slices."""

    hits: list[msgspec.Raw]
    failures: dict[str, WireError]
    stages: dict[str, float]
    truncated: bool = False


class StoreReply(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of the request of that number; the requester decodes ``body``."""

    number: int
    error: WireError | None
    body: msgspec.Raw


class StoreNotice(msgspec.Struct, frozen=True):
    """Status that the store process reports without being asked.

    Attributes:
        upkeep: Status of the collections' index builds.
        cache: State of its cache of points.
        damaged: Why collections cannot be opened, by their names.
    """

    upkeep: list[IndexBuildStatus]
    cache: CacheState
    damaged: dict[str, str] = {}


class StoreReady(msgspec.Struct, frozen=True):
    """The store process's first frame (number 0): it has found its collections.

    Attributes:
        collections: How many.
        identity: Device and inode of its directory, which tell it from another directory at the same path.
    """

    collections: int
    identity: tuple[int, int]


class StoreOptions(msgspec.Struct, frozen=True):
    """Start options of a store process.

    Attributes:
        rule: When a collection gets a new generation.
        cache_bytes: Memory for its cache of points.
        activity: Descriptor of the memory in which it records its current task.
        condemned: Quarantined collections, which stay closed, with the reason.
        starved: Whether nothing is to be opened while the disk is full.
        identity: That of the directory, where an earlier process has served it.
    """

    rule: OptimizePolicy
    cache_bytes: int
    activity: int
    condemned: dict[str, str]
    starved: bool
    identity: tuple[int, int] | None


def encode_error(error: PenstockError) -> WireError:
    """Return an error as it travels."""
    return WireError(errors.family_of(error), error.code, error.detail, errors.attributes_of(error))


def decode_error(failure: WireError) -> PenstockError:
    """Return the error that was encoded: the same family, code, detail and facts."""
    return errors.rebuild_error(failure.family, failure.code, failure.detail, failure.about)


def encode_frame(record: msgspec.Struct) -> bytes:
    """Return the record as bytes to send.

    Raises:
        Invalid: It holds what cannot be written, such as a number beyond 64 bits: no fault of the other side's.
    """
    try:
        body = msgspec.msgpack.encode(record)
    except (OverflowError, ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the request holds what the store cannot take: {error}") from None
    return LENGTH_HEADER.pack(len(body)) + body
