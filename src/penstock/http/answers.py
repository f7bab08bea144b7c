"""Response bodies that are not records of another room."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from penstock.http.problem import Problem
from penstock.indexing.records import Status
from penstock.kernel import vectors
from penstock.kernel.context import Criticality
from penstock.policies.alerts import Severity
from penstock.policies.breaker_states import State
from penstock.policies.ladder import Rung
from penstock.policies.levels import Level
from penstock.stores.records import CollectionInfo, Head, Snapshot

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def _one_of(said: Iterable[enum.Enum], between: str = "_") -> Meta:
    """Return what the schema tells of a word that stands for one of these."""
    return Meta(extra_json_schema={"enum": [one.name.lower().replace("_", between) for one in said]})


class Collections(msgspec.Struct, frozen=True):
    """Every collection."""

    collections: list[CollectionInfo]


class SnapshotList(msgspec.Struct, frozen=True):
    """The snapshots that are there, by name."""

    snapshots: list[Snapshot]


class Deleted(msgspec.Struct, frozen=True):
    """How many documents (or collections, or snapshots) are gone."""

    deleted: Count


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
    chunks: Count
    id: str | UnsetType = UNSET
    line: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class IndexAnswer(msgspec.Struct, frozen=True):
    """What became of each document, in their order."""

    collection: str
    documents: list[DocumentOutcome]
    indexed: Count
    unchanged: Count
    failed: Count
    chunks: Count
    took_ms: Seconds


class Heads(msgspec.Struct, frozen=True):
    """A page of documents; ``next`` is the ``after`` of the next page."""

    documents: list[Head]
    next: str | None


class Embeddings(msgspec.Struct, frozen=True):
    """Dense vectors, L2-normalised, in the order of the texts.

    Attributes:
        truncated: Numbers of the texts, from 0, of which the model reads the beginning alone; absent where another
            server runs the model.
    """

    model: str
    dim: Count
    embeddings: list[list[float]]
    truncated: list[int] | UnsetType = UNSET


class SparseItem(msgspec.Struct, frozen=True):
    """One sparse vector."""

    indices: list[Count]
    values: list[float]


class SparseVectors(msgspec.Struct, frozen=True):
    """Sparse vectors in the order of the texts.

    Attributes:
        truncated: As of ``Embeddings``.
    """

    vectors: list[SparseItem]
    truncated: list[int] | UnsetType = UNSET


class RankedText(msgspec.Struct, frozen=True):
    """A text's number in the request and its score."""

    index: Count
    score: float


class Ranking(msgspec.Struct, frozen=True):
    """Texts, best first.

    Attributes:
        truncated: As of ``Embeddings``.
        query_truncated: Whether the model reads the beginning of the query alone; absent where that is not known.
    """

    results: list[RankedText]
    truncated: list[int] | UnsetType = UNSET
    query_truncated: bool | UnsetType = UNSET


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool = True


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the server can do its work, why not, and what does not work though the server does."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []


class TopicStatus(msgspec.Struct, frozen=True):
    """A topic's buffer now, and what became of everything offered to it.

    Attributes:
        name: The topic.
        waiting: Messages in its buffer.
        capacity: Its bound.
        running: Handlers at work.
        blocked: Publishers that wait for room.
        level: ``calm``, ``high`` (D1) or ``critical`` (D2).
        congested: Whether messages have stood in it too long.
        offered: Messages so far.
        answered: Those answered, or handled.
        failed: Those whose handler raised.
        expired: Those whose deadline passed, waiting or running.
        discarded: Those not begun because they could no longer end in time.
        left: Those whose requester went away.
        lost: Events dropped.
        late: Replies that came when nobody waited any more.
        refused: Refusals by reason.
    """

    name: str
    waiting: Count
    capacity: Count
    running: Count
    blocked: Count = 0
    level: Annotated[str, _one_of(Level)] = "calm"
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
    state: Annotated[str, _one_of(State, "-")]
    retry_after_s: Seconds


class RungStatus(msgspec.Struct, frozen=True):
    """Where the degradation ladder stands for one class of requests.

    Attributes:
        criticality: The class.
        rung: ``full``, ``fewer_candidates``, ``no_rerank``, ``one_arm``, ``cached_only`` or ``refuse``.
        level: The same as a number, 0 to 5.
    """

    criticality: Annotated[str, _one_of(Criticality)]
    rung: Annotated[str, _one_of(Rung)]
    level: Annotated[int, Meta(ge=int(min(Rung)), le=int(max(Rung)))]


class CacheStatus(msgspec.Struct, frozen=True):
    """A cache now, and since the start."""

    name: str
    entries: Count
    bytes: Count
    hits: Count
    misses: Count
    evictions: Count


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
    level: Annotated[str, _one_of(Level)]


class TrafficStatus(msgspec.Struct, frozen=True):
    """HTTP requests since the start.

    Attributes:
        in_flight: Now.
        in_flight_max: The most of about the last 15 seconds.
        in_time: Answers sent whole before their deadline that were no fault of the server's: goodput.
        too_late: Answers sent after their deadline.
        client_gone: Requests whose caller hung up first.
        cut_off: Connections ended because the caller did not read.
        refused: Refusals by reason.
        degraded: Searches by what their answer had to do without; ``none`` for those that lacked nothing.
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
    """An alert (SPEC §10).

    Attributes:
        name: Its rule.
        severity: ``warning`` or ``critical``.
        subject: The topic, dependency or other thing it is about.
        detail: One sentence for a person.
        active: Whether its condition holds now.
        since: When it was raised, RFC 3339 in UTC.
        until: When it was called off; absent while active.
    """

    name: str
    severity: Annotated[str, _one_of(Severity)]
    subject: str
    detail: str
    active: bool
    since: Moment
    until: Moment | UnsetType = UNSET


class Alerts(msgspec.Struct, frozen=True):
    """Alerts, active ones first, then those called off lately, the newest first."""

    alerts: list[AlertStatus]


class ProcessStatus(msgspec.Struct, frozen=True):
    """The front process.

    Attributes:
        tasks: asyncio tasks.
        threads: Threads.
        loop_lag_ms_max: How late the event loop was at most, of about the last 15 seconds.
    """

    tasks: Count = 0
    threads: Count = 0
    loop_lag_ms_max: Seconds = 0.0


class ModelStatus(msgspec.Struct, frozen=True):
    """A model in use.

    Attributes:
        part: ``dense``, ``sparse`` or ``rerank``.
        kind: ``builtin``, ``bm25``, ``onnx``, ``openai``, ``tei`` or ``cohere``.
        name: Its name; vectors of two names never mix.
        url: Its endpoint; empty for one that the server runs itself.
        note: What is absent with it, or was wrong at the start; empty for nothing.
    """

    part: str
    kind: str
    name: str
    url: str = ""
    note: str = ""


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
    caches: list[CacheStatus] = []
    memory: MemoryStatus | None = None
    traffic: TrafficStatus = TrafficStatus()
    process: ProcessStatus = ProcessStatus()
    alerts: list[AlertStatus] = []
    models: list[ModelStatus] = []
    warnings: list[str] = []


def embeddings(model: str, embedded: vectors.Embeddings, truncated: list[int] | None) -> Embeddings:
    """Return dense vectors as an answer; rows stay arrays until they are written (:mod:`penstock.http.encoding`)."""
    rows = cast("list[list[float]]", list(embedded.dense))
    return Embeddings(model, embedded.dense.shape[1], rows, UNSET if truncated is None else truncated)


def sparse_vectors(encoded: Sequence[vectors.SparseVector], truncated: list[int] | None) -> SparseVectors:
    """Return sparse vectors as an answer; as :func:`embeddings`."""
    items = [SparseItem(cast("list[int]", one.indices), cast("list[float]", one.values)) for one in encoded]
    return SparseVectors(items, UNSET if truncated is None else truncated)
