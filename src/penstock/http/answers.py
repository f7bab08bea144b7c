"""Response bodies that are not records of another room."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from penstock.http.problem import Problem
from penstock.indexing.records import Status
from penstock.stores.contract import CollectionInfo, Head


class Collections(msgspec.Struct, frozen=True):
    """Every collection."""

    collections: list[CollectionInfo]


class Deleted(msgspec.Struct, frozen=True):
    """How many documents (or collections) are gone."""

    deleted: int


class DocumentOutcome(msgspec.Struct, frozen=True):
    """What became of one document.

    Attributes:
        status: ``indexed`` (durable from now on), ``unchanged`` or ``failed``.
        chunks: How many points it has; 0 when it failed.
        id: The document's id; absent when its line could not be read.
        line: The line of NDJSON, from 1; absent for JSON.
        error: Why it failed; absent otherwise.
    """

    status: Status
    chunks: int
    id: str | UnsetType = UNSET
    line: int | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class IndexAnswer(msgspec.Struct, frozen=True):
    """What became of each document, in their order."""

    collection: str
    documents: list[DocumentOutcome]
    indexed: int
    unchanged: int
    failed: int
    chunks: int
    took_ms: float


class Heads(msgspec.Struct, frozen=True):
    """A page of documents; ``next`` is the ``after`` of the next page."""

    documents: list[Head]
    next: str | None


class Embeddings(msgspec.Struct, frozen=True):
    """Dense vectors, L2-normalised, in the order of the texts."""

    model: str
    dim: int
    embeddings: list[list[float]]


class SparseItem(msgspec.Struct, frozen=True):
    """One sparse vector."""

    indices: list[int]
    values: list[float]


class SparseVectors(msgspec.Struct, frozen=True):
    """Sparse vectors in the order of the texts."""

    vectors: list[SparseItem]


class RankedText(msgspec.Struct, frozen=True):
    """A text's number in the request and its score."""

    index: int
    score: float


class Ranking(msgspec.Struct, frozen=True):
    """Texts, best first."""

    results: list[RankedText]


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool = True


class Readiness(msgspec.Struct, frozen=True):
    """Whether the server can do its work, and why not."""

    ready: bool
    reasons: list[str]


class TopicStatus(msgspec.Struct, frozen=True):
    """A topic's buffer now."""

    name: str
    waiting: int
    capacity: int
    running: int


class PoolStatus(msgspec.Struct, frozen=True):
    """A pool's permits now."""

    name: str
    active: int
    limit: int


class ServerStatus(msgspec.Struct, frozen=True):
    """The server at a glance."""

    version: str
    uptime_s: float
    ready: bool
    reasons: list[str]
    data_dir: str
    model: str
    dim: int
    in_flight: int
    collections: list[CollectionInfo]
    topics: list[TopicStatus]
    pools: list[PoolStatus]


def to_json(record: Any) -> bytes:
    """Return a record as JSON."""
    return msgspec.json.encode(record)
