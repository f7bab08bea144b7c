"""Frames between the front and the store process: a length, then a MessagePack record.

The two ends are the same release of the same program on the same machine, joined by an anonymous
socket pair; nothing else can connect.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from penstock.kernel import errors
from penstock.kernel.errors import Invalid, PenstockError
from penstock.ranking.records import FusionName
from penstock.stores.backends.edge.upkeep import Rule
from penstock.stores.cache import CacheState
from penstock.stores.records import (
    ChunkPayload,
    CollectionInfo,
    Condition,
    Found,
    Head,
    Upkeep,
)

HEADER: Final = struct.Struct("<I")


class Dense(msgspec.Struct, frozen=True, tag="dense", array_like=True):
    """A dense vector, ``float32`` little-endian."""

    data: bytes


class Sparse(msgspec.Struct, frozen=True, tag="sparse", array_like=True):
    """A sparse vector: ``uint32`` indices, ``float32`` values."""

    indices: bytes
    values: bytes


class Late(msgspec.Struct, frozen=True, tag="late", array_like=True):
    """Token vectors, ``int8``, row after row."""

    data: bytes
    rows: int


class WirePoint(msgspec.Struct, frozen=True, array_like=True):
    """A point without its id, which follows from its payload."""

    payload: ChunkPayload
    dense: Dense
    sparse: Sparse
    late: Late | None = None


class Create(msgspec.Struct, frozen=True, tag="create"):
    """Create a collection."""

    info: CollectionInfo


class ListCollections(msgspec.Struct, frozen=True, tag="list"):
    """Describe every collection."""


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Describe one collection."""

    collection: str


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Delete a collection."""

    collection: str


class Upsert(msgspec.Struct, frozen=True, tag="upsert"):
    """Write points."""

    collection: str
    points: list[WirePoint]


class Trim(msgspec.Struct, frozen=True, tag="trim"):
    """Delete a document's chunks from a number on."""

    collection: str
    document: str
    chunks: int


class Seal(msgspec.Struct, frozen=True, tag="seal"):
    """Mark a document complete."""

    collection: str
    head: Head


class Delete(msgspec.Struct, frozen=True, tag="delete"):
    """Delete documents by filter."""

    collection: str
    filter: list[Condition]


class Retrieve(msgspec.Struct, frozen=True, tag="retrieve"):
    """Answer a search, see :class:`penstock.ranking.records.Retrieval`."""

    collection: str
    limit: int
    candidates: int
    dense: Dense | None
    sparse: Sparse | None
    tokens: Late | None
    weights: dict[str, float]
    fusion: FusionName
    rerank: bool
    query: str
    explain: bool
    filter: list[Condition]


class Search(msgspec.Struct, frozen=True, array_like=True):
    """What one arm is asked."""

    vector: Dense | Sparse
    limit: int
    filter: list[Condition]
    among: list[str] | None


class SearchAll(msgspec.Struct, frozen=True, tag="search_all"):
    """Ask several arms of one collection at once."""

    collection: str
    searches: list[Search]


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Read token vectors."""

    collection: str
    points: list[str]


class Fetch(msgspec.Struct, frozen=True, tag="fetch"):
    """Read payloads."""

    collection: str
    points: list[str]


class Heads(msgspec.Struct, frozen=True, tag="heads"):
    """Read a page of document heads."""

    collection: str
    filter: list[Condition]
    after: str | None
    limit: int


class Find(msgspec.Struct, frozen=True, tag="find"):
    """Read the heads of given documents."""

    collection: str
    documents: list[str]


class ReadPoints(msgspec.Struct, frozen=True, tag="read_points"):
    """Read a page of whole points."""

    collection: str
    after: str | None
    limit: int


class WirePage(msgspec.Struct, frozen=True, array_like=True):
    """A page of whole points, and where the next one starts."""

    points: list[WirePoint]
    next: str | None


class Shrink(msgspec.Struct, frozen=True, tag="shrink"):
    """Keep only a share of what is remembered of points: memory is short."""

    share: float


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Answer, and do nothing."""


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Flush, close every collection and end."""


class Copy(msgspec.Struct, frozen=True, tag="copy"):
    """Copy a collection to a directory; answered when the copy is whole."""

    collection: str
    target: str


class Adopt(msgspec.Struct, frozen=True, tag="adopt"):
    """Take in a copied collection from a directory, in the place of one that is there if forced."""

    collection: str
    source: str
    force: bool


class Optimize(msgspec.Struct, frozen=True, tag="optimize"):
    """Begin a new generation of a collection; answered before it is made."""

    collection: str


Command = (
    Create
    | ListCollections
    | Describe
    | Drop
    | Upsert
    | Trim
    | Seal
    | Delete
    | Retrieve
    | SearchAll
    | Tokens
    | Fetch
    | Heads
    | Find
    | ReadPoints
    | Copy
    | Adopt
    | Optimize
    | Shrink
    | Ping
    | Close
)

#: The number of a reply that answers nothing: the store tells of its own accord how it is, by a :class:`Notice`.
NOTICE: Final = -1


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A command, its number, and how long its requester will wait (infinite: ``None``)."""

    number: int
    command: Command
    expires_at_s: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """An error, in the terms of :mod:`penstock.kernel.errors`."""

    family: str
    code: str
    detail: str
    about: dict[str, str | float | bool]


class Retrieved(msgspec.Struct, frozen=True, array_like=True):
    """The result of ``Retrieve``; hits are decoded one by one by who asked, see :class:`ReadHits`."""

    hits: list[Found]
    failures: dict[str, Failure]
    stages: dict[str, float]
    cut: bool = False


class ReadHits(msgspec.Struct, frozen=True, array_like=True):
    """A ``Retrieved`` whose hits are still bytes: a large answer is decoded in slices."""

    hits: list[msgspec.Raw]
    failures: dict[str, Failure]
    stages: dict[str, float]
    cut: bool = False


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of the request of that number; ``body`` is decoded by who asked."""

    number: int
    failure: Failure | None
    body: msgspec.Raw


class Notice(msgspec.Struct, frozen=True):
    """What the store tells unasked.

    Attributes:
        upkeep: How the upkeep of collections stands.
        cache: What it remembers of points.
        damaged: Why collections cannot be opened, by their names.
    """

    upkeep: list[Upkeep]
    cache: CacheState
    damaged: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True):
    """The store's first frame (number 0): it has found what there is.

    Attributes:
        collections: How many.
        identity: What tells its directory from another one in its place.
    """

    collections: int
    identity: tuple[int, int]


class Orders(msgspec.Struct, frozen=True):
    """What a store process is told when it is started.

    Attributes:
        rule: When a collection gets a new generation.
        cache_bytes: Memory in which it remembers what it has read of points.
        activity: Descriptor of the memory in which it writes down what it does.
        condemned: Collections that stay closed, with the reason.
        starved: Whether nothing is to be opened while the disk is full.
        identity: That of the directory, where an earlier process has served it.
    """

    rule: Rule
    cache_bytes: int
    activity: int
    condemned: dict[str, str]
    starved: bool
    identity: tuple[int, int] | None


def failure_of(error: PenstockError) -> Failure:
    """Return an error as it travels."""
    return Failure(errors.family_of(error), error.code, error.detail, errors.facts_of(error))


def error_of(failure: Failure) -> PenstockError:
    """Return the error that a failure tells of: the same family, code, detail and facts."""
    return errors.received(failure.family, failure.code, failure.detail, failure.about)


def frame(record: msgspec.Struct) -> bytes:
    """Return the record as bytes to send.

    Raises:
        Invalid: It holds what cannot be written, such as a number beyond 64 bits: no fault of the other side's.
    """
    try:
        body = msgspec.msgpack.encode(record)
    except (OverflowError, ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the request holds what the store cannot take: {error}") from None
    return HEADER.pack(len(body)) + body
