"""The server's answers as the commands read them; members that are not named here are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class Collection(msgspec.Struct, frozen=True):
    """One collection of ``GET /v1/collections``."""

    name: str
    documents: int = 0
    chunks: int = 0
    dim: int = 0
    model: str = ""
    created_at: str | float = ""
    disk_bytes: int = 0


class Listed(msgspec.Struct, frozen=True):
    """One document of a collection's listing; ``hash`` is empty where it was written incompletely."""

    id: str
    hash: str = ""
    chunks: int = 0
    path: str = ""


class Page(msgspec.Struct, frozen=True):
    """A page of the listing."""

    documents: list[Listed]
    next: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one document."""

    id: str
    status: str
    chunks: int = 0
    error: dict[str, Any] | None = None


class Indexed(msgspec.Struct, frozen=True):
    """The answer to a batch of documents."""

    documents: list[Outcome]


class Hit(msgspec.Struct, frozen=True):
    """One hit."""

    id: str
    score: float
    text: str = ""
    path: str = ""
    start_line: int = 0
    end_line: int = 0
    symbol: str = ""
    language: str = ""
    chunk: int = 0
    explain: dict[str, Any] | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a search."""

    hits: list[Hit]
    took_ms: float = 0.0
    degraded: list[str] = []


class Topic(msgspec.Struct, frozen=True):
    """A topic's buffer now, and its counts."""

    name: str = ""
    waiting: int = 0
    capacity: int = 0
    running: int = 0
    blocked: int = 0
    level: str = "calm"
    congested: bool = False
    offered: int | None = None
    answered: int | None = None
    failed: int | None = None
    expired: int | None = None
    discarded: int | None = None
    late: int | None = None
    refused: dict[str, int] | None = None


class Pool(msgspec.Struct, frozen=True):
    """A pool's permits now."""

    name: str = ""
    active: int = 0
    limit: int = 0


class Breaker(msgspec.Struct, frozen=True):
    """A circuit breaker now."""

    dependency: str = ""
    state: str = ""
    retry_after_s: float = 0.0


class Stand(msgspec.Struct, frozen=True):
    """Where the ladder stands for one class."""

    criticality: str = ""
    rung: str = ""
    level: int = 0


class Cache(msgspec.Struct, frozen=True):
    """A cache now, and its counts."""

    name: str = ""
    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0


class Memory(msgspec.Struct, frozen=True):
    """Memory against its limit."""

    used_bytes: int = 0
    limit_bytes: int = 0
    source: str = ""
    level: str = "calm"


class Traffic(msgspec.Struct, frozen=True):
    """HTTP requests, and their counts."""

    in_flight_max: int = 0
    in_time: int | None = None
    too_late: int | None = None
    client_gone: int | None = None
    cut_off: int | None = None
    refused: dict[str, int] | None = None
    degraded: dict[str, int] | None = None


class Process(msgspec.Struct, frozen=True):
    """The front process."""

    tasks: int = 0
    threads: int = 0
    loop_lag_ms_max: float = 0.0


class Alert(msgspec.Struct, frozen=True):
    """An alert."""

    name: str = ""
    severity: str = ""
    subject: str = ""
    detail: str = ""
    active: bool = False
    since: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """``GET /v1/status`` as far as it is shown; what an older server leaves out has its default."""

    version: str = ""
    uptime_s: float = 0.0
    ready: bool = False
    reasons: list[str] = []
    in_flight: int = 0
    topics: list[Topic] = []
    pools: list[Pool] = []
    breakers: list[Breaker] = []
    ladder: list[Stand] = []
    caches: list[Cache] = []
    memory: Memory | None = None
    traffic: Traffic | None = None
    process: Process | None = None
    alerts: list[Alert] = []
