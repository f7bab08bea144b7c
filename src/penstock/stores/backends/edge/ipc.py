"""Frames between the front and the store process: a length, then a MessagePack record.

The two ends are the same release of the same program on the same machine, joined by an anonymous
socket pair. Nothing else can connect.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from penstock.kernel.arrays import encode_array, view_array
from penstock.kernel.errors import ErrorRecord, Invalid, PenstockError, from_record, to_record
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.data_model import (
    ArmQuery,
    ArmVector,
    CollectionInfo,
    DocumentInfo,
    Filter,
    IndexBuildStatus,
    Point,
    RetrievalResult,
    RetrievedHit,
)
from penstock.stores.key_value_cache import CacheState

T = TypeVar("T")

LENGTH_HEADER: Final = struct.Struct("<I")

#: Bytes of hits that are decoded before others have the event loop: some 3 ms where they are metadata of many keys.
SLICE_BYTES: Final = 262_144


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
    points: Sequence[Point]


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
    filter: Filter


class Retrieve(msgspec.Struct, frozen=True, tag="retrieve"):
    """Answer a search."""

    collection: str
    query: RetrievalQuery
    filter: Filter


class SearchBatch(msgspec.Struct, frozen=True, tag="search_all"):
    """Run several one-arm queries on one collection."""

    collection: str
    searches: Sequence[ArmQuery]


class FetchTokenVectors(msgspec.Struct, frozen=True, tag="tokens"):
    """Read token vectors."""

    collection: str
    points: Sequence[str]


class FetchPayloads(msgspec.Struct, frozen=True, tag="fetch"):
    """Read payloads."""

    collection: str
    points: Sequence[str]


class ListDocuments(msgspec.Struct, frozen=True, tag="heads"):
    """Read a page of document heads."""

    collection: str
    filter: Filter
    after: str | None
    limit: int


class GetDocuments(msgspec.Struct, frozen=True, tag="find"):
    """Read the heads of given documents."""

    collection: str
    documents: Sequence[str]


class ScrollPoints(msgspec.Struct, frozen=True, tag="read_points"):
    """Read a page of whole points."""

    collection: str
    after: str | None
    limit: int


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


class RawRetrievalResult(msgspec.Struct, frozen=True):
    """A ``RetrievalResult`` whose hits are still bytes: a large answer is decoded in slices."""

    hits: list[msgspec.Raw]
    failures: dict[str, PenstockError]
    stages: dict[str, float]
    truncated: bool

    async def decoded(self) -> RetrievalResult:
        """Return the result with its hits; the event loop is released after each ``SLICE_BYTES``."""
        hits, size = [], 0
        for one in self.hits:
            hits.append(_HIT.decode(one))
            size += len(memoryview(one))
            if size >= SLICE_BYTES:
                size = 0
                await asyncio.sleep(0)
        return RetrievalResult(hits, self.failures, self.stages, self.truncated)


class StoreReply(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of the request of that number; the requester decodes ``body``."""

    number: int
    error: ErrorRecord | None
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


def _to_wire(value: Any) -> Any:
    """Return what MessagePack cannot write as something that it can: errors as their records, arrays as their bytes."""
    return to_record(value) if isinstance(value, PenstockError) else encode_array(value)


def _from_wire(type: Any, value: Any) -> Any:
    """Return the error, the vector or the array that :func:`_to_wire` has written; arrays are views."""
    if isinstance(value, msgspec.msgpack.Ext):
        return view_array(DenseVectors if type is ArmVector else type, value)
    if type is ArmVector:
        return msgspec.convert(value, SparseVector, dec_hook=view_array)
    # Values of metadata may be anything.
    return from_record(msgspec.convert(value, ErrorRecord)) if type is PenstockError else value


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_HIT: Final = msgspec.msgpack.Decoder(RetrievedHit)


def decoder(type: type[T]) -> msgspec.msgpack.Decoder[T]:
    """Return a decoder of the values that :func:`encode` writes."""
    return msgspec.msgpack.Decoder(type, dec_hook=_from_wire)


def encode(value: object) -> bytes:
    """Return a value as MessagePack."""
    return _ENCODER.encode(value)


def encode_frame(record: msgspec.Struct) -> bytes:
    """Return the record as bytes to send.

    Raises:
        Invalid: It holds what cannot be written, such as a number beyond 64 bits: no fault of the other side's.
    """
    try:
        body = _ENCODER.encode(record)
    except (OverflowError, ValueError, TypeError, RecursionError, NotImplementedError) as error:
        raise Invalid(f"the request holds what the store cannot take: {error}") from None
    return LENGTH_HEADER.pack(len(body)) + body
