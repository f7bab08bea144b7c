"""Response types of the API as the commands read them. Unknown members are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class ApiCollection(msgspec.Struct, frozen=True):
    """A collection, as ``GET /v1/collections`` lists it."""

    name: str
    documents: int = 0
    chunks: int = 0
    dim: int = 0
    model: str = ""
    created_at: str | float = ""
    disk_bytes: int = 0


class ApiDocument(msgspec.Struct, frozen=True):
    """A document, as a collection lists it. ``hash`` is empty where it was written incompletely."""

    id: str
    hash: str = ""
    chunks: int = 0
    path: str = ""


class ApiDocumentPage(msgspec.Struct, frozen=True):
    """A page of the listing."""

    documents: list[ApiDocument]
    next: str | None = None


class ApiDocumentOutcome(msgspec.Struct, frozen=True):
    """Outcome of indexing one document."""

    id: str
    status: str
    chunks: int = 0
    error: dict[str, Any] | None = None


class ApiIndexResponse(msgspec.Struct, frozen=True):
    """The answer to a batch of documents."""

    documents: list[ApiDocumentOutcome]


class ApiHit(msgspec.Struct, frozen=True):
    """A hit of a search."""

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


class ApiSearchResponse(msgspec.Struct, frozen=True):
    """The answer to a search."""

    hits: list[ApiHit]
    took_ms: float = 0.0
    degraded: list[str] = []


class ApiTopicStatus(msgspec.Struct, frozen=True):
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


class ApiPoolStatus(msgspec.Struct, frozen=True):
    """A pool's permits now."""

    name: str = ""
    active: int = 0
    limit: int = 0


class ApiBreakerStatus(msgspec.Struct, frozen=True):
    """A circuit breaker now."""

    dependency: str = ""
    state: str = ""
    retry_after_s: float = 0.0


class ApiRungStatus(msgspec.Struct, frozen=True):
    """Rung of the degradation ladder for one class of requests."""

    criticality: str = ""
    rung: str = ""
    level: int = 0


class ApiCacheStatus(msgspec.Struct, frozen=True):
    """A cache now, and its counts."""

    name: str = ""
    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0


class ApiMemoryStatus(msgspec.Struct, frozen=True):
    """Memory against its limit."""

    used_bytes: int = 0
    limit_bytes: int = 0
    source: str = ""
    level: str = "calm"


class ApiTrafficStatus(msgspec.Struct, frozen=True):
    """HTTP requests, and their counts."""

    in_flight_max: int = 0
    in_time: int | None = None
    too_late: int | None = None
    client_gone: int | None = None
    cut_off: int | None = None
    refused: dict[str, int] | None = None
    degraded: dict[str, int] | None = None


class ApiProcessStatus(msgspec.Struct, frozen=True):
    """The server's main process."""

    tasks: int = 0
    threads: int = 0
    loop_lag_ms_max: float = 0.0


class ApiAlert(msgspec.Struct, frozen=True):
    """An alert."""

    name: str = ""
    severity: str = ""
    subject: str = ""
    detail: str = ""
    active: bool = False
    since: str = ""


class ApiServerStatus(msgspec.Struct, frozen=True):
    """``GET /v1/status`` as far as it is shown. Members that an older server leaves out have their default."""

    version: str = ""
    uptime_s: float = 0.0
    ready: bool = False
    reasons: list[str] = []
    in_flight: int = 0
    topics: list[ApiTopicStatus] = []
    pools: list[ApiPoolStatus] = []
    breakers: list[ApiBreakerStatus] = []
    ladder: list[ApiRungStatus] = []
    caches: list[ApiCacheStatus] = []
    memory: ApiMemoryStatus | None = None
    traffic: ApiTrafficStatus | None = None
    process: ApiProcessStatus | None = None
    alerts: list[ApiAlert] = []
