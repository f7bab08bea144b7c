"""Response bodies of the API, except for records that other packages define."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from penstock.http.problem import ProblemDetails
from penstock.indexing.document_records import DocumentStatus
from penstock.indexing.sources.source_watches import SourceWatch
from penstock.kernel import vectors
from penstock.kernel.access import ApiKey
from penstock.kernel.context import Criticality
from penstock.models.contract import ModelInfo
from penstock.policies.alerts import Severity
from penstock.policies.breaker import BreakerState
from penstock.policies.ladder import Rung
from penstock.policies.levels import Level
from penstock.stores.data_model import CollectionInfo, SnapshotInfo
from penstock.stores.key_store import KeyInfo, utc_rfc3339
from penstock.stores.key_value_cache import CacheState, Count
from penstock.stores.sources import Patterns, SourceRoot, SourceRun

Seconds = Annotated[float, Meta(ge=0)]
Rfc3339 = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def _enum_schema(said: Iterable[enum.Enum], between: str = "_") -> Meta:
    """Return the schema of a string that names one of these members."""
    return Meta(extra_json_schema={"enum": [one.name.lower().replace("_", between) for one in said]})


class CollectionList(msgspec.Struct, frozen=True):
    """All collections."""

    collections: list[CollectionInfo]


class SnapshotList(msgspec.Struct, frozen=True):
    """All snapshots, by name."""

    snapshots: list[SnapshotInfo]


class ListedKey(KeyInfo, frozen=True, kw_only=True):
    """A key of the server, without its secret.

    Attributes:
        place: Where it is kept: `store`, or `file` (`PENSTOCK_KEYS_FILE`) or `environment` (`PENSTOCK_API_KEY`), which
            are changed there only.
        used_at: When this server has last seen it used, RFC 3339 in UTC. Null for not since the server's start.
    """

    place: Annotated[str, Meta(extra_json_schema={"enum": ["store", "file", "environment"]})]
    used_at: Rfc3339 | None

    @classmethod
    def listed(cls, key: ApiKey, place: str, now_s: float, used_at_s: float | None) -> ListedKey:
        """Return what people see of a key of the server.

        Args:
            key: As it is kept.
            place: Where it is kept.
            now_s: Unix time.
            used_at_s: When it was used last, as Unix time.
        """
        used_at = utc_rfc3339(used_at_s) if used_at_s is not None else None
        return cls(**msgspec.structs.asdict(KeyInfo.of(key, now_s)), place=place, used_at=used_at)


class KeyList(msgspec.Struct, frozen=True):
    """Keys of the server.

    Attributes:
        keys: The keys.
        own: Id of the key of this request. Null without one.
        open: Whether the server has no keys, and serves requests without one.
    """

    keys: list[ListedKey]
    own: str | None
    open: bool


class CreatedKey(msgspec.Struct, frozen=True):
    """A new key.

    Attributes:
        key: The key.
        secret: The key as its user sends it. It is told this one time.
    """

    key: ListedKey
    secret: str


class SourceInfo(msgspec.Struct, frozen=True):
    """A source: a named tree in a collection.

    Attributes:
        name: Its name.
        collection: Its collection.
        documents: Number of its documents.
        roots: Its directory on each host that has fed it, the latest first.
        commit: Commit of its git repository at the last completed run; empty for none.
        completed_at: When a run was last completed, RFC 3339 in UTC; empty for never.
        run: Counts of the last completed run.
        include: Patterns of what is indexed although it is left out elsewhere.
        watch: This server's watch over it; null where it does not keep the source up to date itself.
    """

    name: str
    collection: str
    documents: Count
    roots: list[SourceRoot]
    commit: str
    completed_at: str
    run: SourceRun
    include: Patterns
    watch: SourceWatch | None


class SourceList(msgspec.Struct, frozen=True):
    """Sources, by collection and name."""

    sources: list[SourceInfo]


class RenewResponse(msgspec.Struct, frozen=True):
    """Number of chunks whose BM25 vectors were made of the newest version of their text."""

    renewed: Count


class DeleteResponse(msgspec.Struct, frozen=True):
    """Number of documents, collections or snapshots deleted."""

    deleted: Count


class StoredChunk(msgspec.Struct, frozen=True):
    """A chunk of a document that is read.

    Attributes:
        chunk: Its number, from 0.
        start_line: First line, from 1.
        end_line: Last line, inclusive.
        symbol: Qualified enclosing symbol or heading trail, may be empty.
        text: The chunk, as in the source.
    """

    chunk: int
    start_line: int
    end_line: int
    symbol: str
    text: str


class DocumentText(msgspec.Struct, frozen=True):
    """A document with its chunks.

    Attributes:
        id: Its id.
        path: Its path, may be empty.
        language: Lower-case language name, may be empty.
        metadata: Its metadata.
        hash: Content hash; empty while it is being written.
        total: How many chunks it has; 0 while it is being written.
        chunks: Those that were asked for, in their order; 4 MB of them at most.
        next: Number of the chunk that follows, null after the last one.
    """

    id: str
    path: str
    language: str
    metadata: dict[str, Any]
    hash: str
    total: int
    chunks: list[StoredChunk]
    next: int | None


class DocumentOutcome(msgspec.Struct, frozen=True):
    """Outcome of indexing one document.

    Attributes:
        status: ``indexed`` (durable from now on), ``searchable`` (durable and found by words; its vectors follow),
            ``unchanged`` or ``failed``.
        chunks: Number of its chunks, 0 when it failed.
        id: The document's id. Absent when its line could not be read.
        line: The line of NDJSON, from 1. Absent for JSON.
        error: Why it failed. Absent otherwise.
        same_as: Id of the document whose vectors it has taken, as it had asked for. Absent otherwise.
    """

    status: DocumentStatus
    chunks: Count
    id: str | UnsetType = UNSET
    line: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    error: ProblemDetails | UnsetType = UNSET
    same_as: str | UnsetType = UNSET


class IndexResponse(msgspec.Struct, frozen=True):
    """Outcome of each document, in the order of the request."""

    collection: str
    documents: list[DocumentOutcome]
    indexed: Count
    unchanged: Count
    failed: Count
    chunks: Count
    took_ms: Seconds
    searchable: Count = 0


class EmbedResponse(msgspec.Struct, frozen=True):
    """Dense vectors, L2-normalised, in the order of the texts.

    Attributes:
        truncated: Positions of the texts, from 0, of which the model reads only the beginning. Absent where another
            server runs the model.
    """

    model: str
    dim: Count
    embeddings: list[list[float]]
    truncated: list[int] | UnsetType = UNSET


class SparseItem(msgspec.Struct, frozen=True):
    """A sparse vector."""

    indices: list[Count]
    values: list[float]


class SparseResponse(msgspec.Struct, frozen=True):
    """Sparse vectors in the order of the texts.

    Attributes:
        truncated: As in ``EmbedResponse``.
    """

    vectors: list[SparseItem]
    truncated: list[int] | UnsetType = UNSET


class RankedText(msgspec.Struct, frozen=True):
    """A text's number in the request and its score."""

    index: Count
    score: float


class RerankResponse(msgspec.Struct, frozen=True):
    """Texts, best first.

    Attributes:
        truncated: As in ``EmbedResponse``.
        query_truncated: Whether the model reads only the beginning of the query. Absent where that is unknown.
    """

    results: list[RankedText]
    truncated: list[int] | UnsetType = UNSET
    query_truncated: bool | UnsetType = UNSET


class Liveness(msgspec.Struct, frozen=True):
    """Liveness of the process."""

    live: bool = True


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """Readiness of the server, the reasons if it is not ready, and warnings about parts that do not work."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []


class TopicStatus(msgspec.Struct, frozen=True):
    """A topic's buffer now, and the outcomes of the messages offered to it.

    Attributes:
        name: The topic.
        waiting: Messages in its buffer.
        capacity: Its bound.
        running: Handlers at work.
        blocked: Publishers that wait for room.
        level: ``calm``, ``high`` (D1) or ``critical`` (D2).
        congested: Whether messages have waited in it too long.
        offered: Messages offered so far.
        answered: Messages answered, or handled.
        failed: Messages whose handler raised.
        expired: Messages whose deadline passed, waiting or running.
        discarded: Messages not begun because they could no longer end in time.
        left: Messages whose requester went away.
        lost: Events dropped.
        late: Replies that came after their requester had stopped waiting.
        refused: Refusals by reason.
    """

    name: str
    waiting: Count
    capacity: Count
    running: Count
    blocked: Count = 0
    level: Annotated[str, _enum_schema(Level)] = "calm"
    congested: bool = False
    offered: Count = 0
    answered: Count = 0
    failed: Count = 0
    expired: Count = 0
    discarded: Count = 0
    left: Count = 0
    lost: Count = 0
    late: Count = 0
    refused: dict[str, Count] = {}


class PoolStatus(msgspec.Struct, frozen=True):
    """A pool's permits now."""

    name: str
    active: Count
    limit: Count


class BreakerStatus(msgspec.Struct, frozen=True):
    """A circuit breaker now.

    Attributes:
        dependency: What it guards.
        state: ``closed``, ``half-open`` or ``open``.
        retry_after_s: Seconds until it lets a call through, 0 if it does.
    """

    dependency: str
    state: Annotated[str, _enum_schema(BreakerState, "-")]
    retry_after_s: Seconds


class RungStatus(msgspec.Struct, frozen=True):
    """Rung of the degradation ladder for one class of requests.

    Attributes:
        criticality: The class.
        rung: ``full``, ``fewer_candidates``, ``no_rerank``, ``one_arm``, ``cached_only`` or ``refuse``.
        level: The same as a number, 0 to 5.
    """

    criticality: Annotated[str, _enum_schema(Criticality)]
    rung: Annotated[str, _enum_schema(Rung)]
    level: Annotated[int, Meta(ge=int(min(Rung)), le=int(max(Rung)))]


class MemoryStatus(msgspec.Struct, frozen=True):
    """The process's memory against its limit.

    Attributes:
        used_bytes: What counts against the limit.
        limit_bytes: The limit.
        source: Where the limit comes from: ``cgroup``, ``setting`` or ``machine``.
        level: ``calm``, ``high`` (D5) or ``critical`` (D6).
    """

    used_bytes: Count
    limit_bytes: Count
    source: str
    level: Annotated[str, _enum_schema(Level)]


class TrafficStatus(msgspec.Struct, frozen=True):
    """HTTP requests since the start.

    Attributes:
        in_flight: Requests in flight now.
        in_flight_max: The most requests in flight in about the last 15 seconds.
        in_time: Answers sent whole before their deadline that were no fault of the server's: goodput.
        too_late: Answers sent after their deadline.
        client_gone: Requests whose caller hung up first.
        cut_off: Connections ended because the caller did not read.
        refused: Refusals by reason.
        degraded: Searches by what their answer lacked, ``none`` for those that lacked nothing.
    """

    in_flight: Count = 0
    in_flight_max: Count = 0
    in_time: Count = 0
    too_late: Count = 0
    client_gone: Count = 0
    cut_off: Count = 0
    refused: dict[str, Count] = {}
    degraded: dict[str, Count] = {}


class AlertStatus(msgspec.Struct, frozen=True):
    """An alert, active or resolved.

    Attributes:
        name: Its rule.
        severity: ``warning`` or ``critical``.
        subject: The topic, dependency or other thing it is about.
        detail: One sentence for a person.
        active: Whether its condition holds now.
        since: When it was raised, RFC 3339 in UTC.
        until: When it was resolved, RFC 3339 in UTC. Absent while active.
    """

    name: str
    severity: Annotated[str, _enum_schema(Severity)]
    subject: str
    detail: str
    active: bool
    since: Rfc3339
    until: Rfc3339 | UnsetType = UNSET


class AlertList(msgspec.Struct, frozen=True):
    """Alerts: the active ones, then the recently resolved ones, the newest first in each group."""

    alerts: list[AlertStatus]


class ProcessStatus(msgspec.Struct, frozen=True):
    """The server's main process.

    Attributes:
        tasks: asyncio tasks.
        threads: Threads.
        loop_lag_ms_max: The largest lag of the event loop in about the last 15 seconds.
    """

    tasks: Count = 0
    threads: Count = 0
    loop_lag_ms_max: Seconds = 0.0


class ServerStatus(msgspec.Struct, frozen=True):
    """The server at a glance."""

    version: str
    uptime_s: Seconds
    ready: bool
    reasons: list[str]
    data_dir: str
    model: str
    dim: Count
    in_flight: Count
    collections: list[CollectionInfo]
    topics: list[TopicStatus]
    pools: list[PoolStatus]
    breakers: list[BreakerStatus] = []
    ladder: list[RungStatus] = []
    caches: list[CacheState] = []
    memory: MemoryStatus | None = None
    traffic: TrafficStatus = TrafficStatus()
    process: ProcessStatus = ProcessStatus()
    alerts: list[AlertStatus] = []
    models: list[ModelInfo] = []
    warnings: list[str] = []


def embed_response(model: str, embedded: vectors.Embeddings, truncated: list[int] | None) -> EmbedResponse:
    """Return dense vectors as a response. Rows stay arrays until they are encoded."""
    rows = cast("list[list[float]]", list(embedded.dense))
    return EmbedResponse(model, embedded.dense.shape[1], rows, UNSET if truncated is None else truncated)


def sparse_response(encoded: Sequence[vectors.SparseVector], truncated: list[int] | None) -> SparseResponse:
    """Return sparse vectors as a response, as :func:`embed_response` does."""
    items = [SparseItem(cast("list[int]", one.indices), cast("list[float]", one.values)) for one in encoded]
    return SparseResponse(items, UNSET if truncated is None else truncated)
